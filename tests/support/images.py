"""Images made of tar bytes: layers, configs, manifests, indexes, OCI layout directories; the same bytes on every run.

Nothing of asyncpull is used here, so that a mistake of ours cannot hide itself in the test data.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Compression = Literal["gzip", "zstd", "none"]
Flavour = Literal["oci", "docker"]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

_LAYER_TYPES: dict[tuple[Flavour, Compression], str] = {
    ("oci", "none"): "application/vnd.oci.image.layer.v1.tar",
    ("oci", "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    ("oci", "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    ("docker", "none"): "application/vnd.docker.image.rootfs.diff.tar",
    ("docker", "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ("docker", "zstd"): "application/vnd.docker.image.rootfs.diff.tar.zstd",
}


def sha256(data: bytes) -> str:
    """Return the digest of ``data`` as documents write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def noise(seed: int, size: int) -> bytes:
    """Return ``size`` bytes that no compressor makes smaller, the same ones for the same seed."""
    return random.Random(seed).randbytes(size)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes in a registry, with the type that a descriptor gives them."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        return sha256(self.data)

    def descriptor(self, **extra: object) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **extra}


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    diff_ids: tuple[str, ...]
    platform: Mapping[str, str]

    @property
    def id(self) -> str:
        """The image ID in containers/storage and in Docker: the digest of the config, bare."""
        return self.config.digest.removeprefix("sha256:")

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An index (or Docker's manifest list) of images."""

    manifest: Blob
    images: tuple[Image, ...]


def compress(tar: bytes, compression: Compression) -> bytes:
    """Compress a layer as a registry would serve it."""
    match compression:
        case "none":
            return tar
        case "gzip":
            return gzip.compress(tar, compresslevel=1, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor(level=1).compress(tar)


def image(
    layers: Sequence[bytes],
    *,
    compression: Compression | Sequence[Compression] = "gzip",
    flavour: Flavour = "oci",
    os: str = "linux",
    architecture: str = "amd64",
    variant: str = "",
    created: str = "2023-11-14T22:13:20.5Z",
    command: Sequence[str] = ("/bin/sh",),
    diff_ids: Sequence[str] | None = None,
    comment: str = "",
) -> Image:
    """Build an image of uncompressed layer tars, bottom layer first.

    ``compression`` is one for all layers or one per layer; ``diff_ids`` overrides the true ones, for images that lie;
    ``comment`` makes configs (and so image IDs) differ between images with the same layers.
    """
    kinds = [compression] * len(layers) if isinstance(compression, str) else list(compression)
    blobs = tuple(
        Blob(_LAYER_TYPES[flavour, kind], compress(tar, kind)) for tar, kind in zip(layers, kinds, strict=True)
    )
    true_ids = tuple(sha256(tar) for tar in layers)
    platform = {"architecture": architecture, "os": os} | ({"variant": variant} if variant else {})
    config = Blob(
        OCI_CONFIG if flavour == "oci" else DOCKER_CONFIG,
        _json(
            {
                "created": created,
                **platform,
                "config": {"Cmd": list(command), "Env": ["PATH=/bin"], "Labels": {"comment": comment}},
                "rootfs": {"type": "layers", "diff_ids": list(diff_ids if diff_ids is not None else true_ids)},
                "history": [{"created": created, "created_by": f"layer {number}"} for number in range(len(layers))],
            }
        ),
    )
    manifest_type = OCI_MANIFEST if flavour == "oci" else DOCKER_MANIFEST
    manifest = Blob(
        manifest_type,
        _json(
            {
                "schemaVersion": 2,
                "mediaType": manifest_type,
                "config": config.descriptor(),
                "layers": [blob.descriptor() for blob in blobs],
            }
        ),
    )
    return Image(manifest, config, blobs, true_ids, platform)


def raw_image(layers: Sequence[tuple[bytes, bytes]], *, comment: str = "") -> Image:
    """Build an image whose blobs are these bytes, each with the tar that it is said to be."""
    made = image([tar for _, tar in layers], comment=comment)
    blobs = tuple(Blob(_LAYER_TYPES["oci", "gzip"], blob) for blob, _ in layers)
    document = json.loads(made.manifest.data) | {"layers": [blob.descriptor() for blob in blobs]}
    return replace(made, manifest=Blob(OCI_MANIFEST, _json(document)), layers=blobs)


def index(images: Sequence[Image], *, flavour: Flavour = "oci") -> Index:
    """Build an index of images, in the order given."""
    media_type = OCI_INDEX if flavour == "oci" else DOCKER_LIST
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [each.manifest.descriptor(platform=dict(each.platform)) for each in images],
    }
    return Index(Blob(media_type, _json(document)), tuple(images))


def write_layout(directory: Path, tags: Mapping[str, Image | Index]) -> None:
    """Write an OCI image layout, which podman and skopeo read as ``oci:DIRECTORY:TAG``."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    descriptors = []
    for tag, target in tags.items():
        images = target.images if isinstance(target, Index) else (target,)
        for blob in (target.manifest, *(blob for each in images for blob in (each.manifest, *each.blobs))):
            (blobs / blob.digest.removeprefix("sha256:")).write_bytes(blob.data)
        descriptors.append(target.manifest.descriptor(annotations={"org.opencontainers.image.ref.name": tag}))
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": descriptors}))


def write_directory(directory: Path, target: Image | Index) -> None:
    """Write what podman and skopeo read as ``dir:DIRECTORY``."""
    directory.mkdir(parents=True)
    (directory / "version").write_bytes(b"Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(target.manifest.data)
    for each in target.images if isinstance(target, Index) else (target,):
        for blob in each.blobs:
            (directory / blob.digest.removeprefix("sha256:")).write_bytes(blob.data)
        if isinstance(target, Index):
            name = each.manifest.digest.removeprefix("sha256:")
            (directory / f"{name}.manifest.json").write_bytes(each.manifest.data)


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
