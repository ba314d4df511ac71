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

_NON_DISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)

_LAYERS = frozenset(
    {OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD}
    | {plain + suffix for plain in _NON_DISTRIBUTABLE for suffix in ("", "+gzip", ".gzip", "+zstd", ".zstd")}
)

# What every manifest request sends as Accept, most wanted first.
ACCEPTED_MANIFESTS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)


def is_index(media_type: str) -> bool:
    """Whether this names a document that lists manifests."""
    return media_type in (OCI_INDEX, DOCKER_LIST)


def is_manifest(media_type: str) -> bool:
    """Whether this names a document that lists the layers of one image."""
    return media_type in (OCI_MANIFEST, DOCKER_MANIFEST)


def is_config(media_type: str) -> bool:
    """Whether this names an image config, and not that of some other artifact."""
    return media_type in (OCI_CONFIG, DOCKER_CONFIG)


def is_layer(media_type: str) -> bool:
    """Whether this names a changeset that can be applied to a root file system."""
    return media_type in _LAYERS


def is_plain_layer(media_type: str) -> bool:
    """Whether this names a layer that says it is not compressed."""
    return media_type in (OCI_LAYER, DOCKER_LAYER, *_NON_DISTRIBUTABLE)


def is_encrypted(media_type: str) -> bool:
    """Whether a layer was encrypted with ocicrypt, which needs a key we do not hold."""
    return media_type.endswith("+encrypted")
