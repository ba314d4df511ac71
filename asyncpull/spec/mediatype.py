"""Media types of image-spec and of Docker's image format, and what each of them is."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCI_EMPTY = "application/vnd.oci.empty.v1+json"

_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

NONE, GZIP, ZSTD = "none", "gzip", "zstd"

# How an index says that an instance has layers of zstd. Clients that know zstd prefer it; the others take the first
# instance that fits, so it has to come after those of gzip.
ZSTD_ANNOTATION = "io.github.containers.compression.zstd"

# Per kind of layer and flavour: the media type by compression. The last row has spellings that nobody should write.
_LAYER_TYPES: dict[tuple[str, str], dict[str, str]] = {
    ("layer", "oci"): {NONE: OCI_LAYER, GZIP: OCI_LAYER_GZIP, ZSTD: OCI_LAYER_ZSTD},
    ("layer", "docker"): {NONE: DOCKER_LAYER, GZIP: DOCKER_LAYER_GZIP, ZSTD: DOCKER_LAYER_ZSTD},
    ("foreign", "oci"): {NONE: _OCI_FOREIGN, GZIP: _OCI_FOREIGN + "+gzip", ZSTD: _OCI_FOREIGN + "+zstd"},
    ("foreign", "docker"): {NONE: _DOCKER_FOREIGN, GZIP: _DOCKER_FOREIGN + ".gzip", ZSTD: _DOCKER_FOREIGN + ".zstd"},
}
_MISSPELT = {
    _OCI_FOREIGN + ".gzip": _OCI_FOREIGN + "+gzip",
    _OCI_FOREIGN + ".zstd": _OCI_FOREIGN + "+zstd",
    _DOCKER_FOREIGN + "+gzip": _DOCKER_FOREIGN + ".gzip",
    _DOCKER_FOREIGN + "+zstd": _DOCKER_FOREIGN + ".zstd",
}
_LAYERS = {
    media_type: (kind, compression)
    for (kind, _), types in _LAYER_TYPES.items()
    for compression, media_type in types.items()
}
_LAYERS |= {wrong: _LAYERS[right] for wrong, right in _MISSPELT.items()}

# What every manifest request sends as Accept, most wanted first.
ACCEPTED_MANIFESTS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, DOCKER_SCHEMA1)


def is_index(media_type: str) -> bool:
    """Whether this names a document that lists manifests."""
    return media_type in (OCI_INDEX, DOCKER_LIST)


def is_manifest(media_type: str) -> bool:
    """Whether this names a document that lists the layers of one image."""
    return media_type in (OCI_MANIFEST, DOCKER_MANIFEST)


def is_schema1(media_type: str) -> bool:
    """Whether this names a manifest of Docker's schema 1, signed or not."""
    return media_type in (DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED)


def is_docker(media_type: str) -> bool:
    """Whether this is one of Docker's media types, and not one of OCI's."""
    return media_type.startswith("application/vnd.docker.")


def is_config(media_type: str) -> bool:
    """Whether this names an image config, and not that of some other artifact."""
    return media_type in (OCI_CONFIG, DOCKER_CONFIG)


def is_layer(media_type: str) -> bool:
    """Whether this names a changeset that can be applied to a root file system."""
    return media_type in _LAYERS


def is_plain_layer(media_type: str) -> bool:
    """Whether this names a layer that says it is not compressed."""
    return compression_of(media_type) == NONE


def is_foreign_layer(media_type: str) -> bool:
    """Whether this names a layer that is not to be distributed, but to be had from the URLs in its descriptor."""
    return _LAYERS.get(media_type, ("", ""))[0] == "foreign"


def compression_of(media_type: str) -> str | None:
    """``none``, ``gzip`` or ``zstd``, as a layer says of itself; None for what is no layer."""
    return _LAYERS[media_type][1] if media_type in _LAYERS else None


def layer_type(like: str, *, docker: bool, compression: str | None = None) -> str | None:
    """The media type of the same kind of layer in Docker's or OCI's words, with that ``compression`` or its own.

    None if ``like`` is no layer. What has no such type officially (zstd in Docker's) has one all the same.
    """
    if like not in _LAYERS:
        return None
    kind, own = _LAYERS[like]
    return _LAYER_TYPES[kind, "docker" if docker else "oci"][compression or own]


def is_encrypted(media_type: str) -> bool:
    """Whether a layer was encrypted with ocicrypt, which needs a key we do not hold."""
    return media_type.endswith("+encrypted")
