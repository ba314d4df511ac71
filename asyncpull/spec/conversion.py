"""Manifests and indexes changed: into the other format, with other layers, with other instances.

Only what has to change does. Documents are edited as the JSON that they are, so keys that nobody here knows survive;
what comes out unchanged is the very document that came in. The config of an image needs no conversion: Docker's and
OCI's have the same keys, and what only one of them knows the other leaves alone, so its digest stays, which is the ID
of the image in most stores.

What is lost on the way to Docker's formats: annotations, ``subject``, ``artifactType`` and embedded ``data``. What
they cannot hold at all is refused: artifacts, layers of zstd, encrypted ones, instances without a platform.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import orjson

from asyncpull.errors import DocumentError
from asyncpull.spec import mediatype
from asyncpull.spec.fields import to_bytes
from asyncpull.spec.manifest import Manifest, parse_document
from asyncpull.spec.mediatype import ZSTD_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor, Index
    from asyncpull.spec.platform import Platform

Json = dict[str, object]

_ONLY_OCI = ("annotations", "subject", "artifactType")
_ONLY_OCI_DESCRIPTOR = ("annotations", "artifactType", "data")
# Annotations that describe the compressed bytes (eStargz, zstd:chunked), and so are wrong of any other bytes.
_OF_THE_BYTES = ("containerd.io/snapshot/stargz/", "io.containers.estargz.", "io.github.containers.zstd-chunked.")


def replaced_layer(before: Descriptor, digest: Digest, size: int, compression: str) -> Descriptor:
    """What a manifest says of a layer that was compressed anew, ``compression`` being ``none``, ``gzip`` or ``zstd``.

    Raises DocumentError if ``before`` is no layer.
    """
    docker = mediatype.is_docker(before.media_type)
    media_type = mediatype.layer_type(before.media_type, docker=docker, compression=compression)
    if media_type is None:
        raise DocumentError(f"{before.digest} has the media type {before.media_type!r}, which cannot be recompressed")
    kept = {key: text for key, text in before.annotations.items() if not key.startswith(_OF_THE_BYTES)}
    return replace(before, media_type=media_type, digest=digest, size=size, annotations=kept)


def convert_manifest(
    manifest: Manifest,
    media_type: str | None = None,
    layers: Sequence[Descriptor] | None = None,
    *,
    config: Descriptor | None = None,
) -> Manifest:
    """The manifest as one of ``media_type`` with these ``layers``, each in the place of the one it replaces.

    Layers may be named in Docker's words or OCI's. The manifest itself if there is nothing to change. Raises
    DocumentError for what the format cannot hold, or for another number of layers.
    """
    target = media_type or manifest.media_type
    if not mediatype.is_manifest(target):
        raise DocumentError(f"{target} is no format of manifests")
    wanted = tuple(manifest.layers if layers is None else layers)
    if len(wanted) != len(manifest.layers):
        raise DocumentError(f"manifest {manifest.digest} has {len(manifest.layers)} layers, not {len(wanted)}")
    is_converted, becomes_docker = target != manifest.media_type, mediatype.is_docker(target)
    if is_converted:
        if becomes_docker and not manifest.is_image:
            raise DocumentError(f"{manifest.digest} is an artifact, which Docker's format cannot hold")
        wanted = tuple(_converted_layer(layer, becomes_docker) for layer in wanted)
        config = _converted_config(config or manifest.config, becomes_docker)
    elif wanted == manifest.layers and config in (None, manifest.config):
        return manifest
    loses = is_converted and becomes_docker
    document: Json = orjson.loads(manifest.raw)
    if is_converted:
        document["mediaType"] = target
    if loses:
        _drop(document, _ONLY_OCI)
    if config is not None:
        document["config"] = _edited(cast("Json", document["config"]), manifest.config, config, loses)
    entries = cast("list[Json]", document.get("layers") or [])
    document["layers"] = [
        _edited(entry, before, after, loses)
        for entry, before, after in zip(entries, manifest.layers, wanted, strict=True)
    ]
    return cast("Manifest", parse_document(to_bytes(document, "manifest"), target, with_artifacts=True))


def convert_index(
    index: Index,
    media_type: str | None = None,
    *,
    replaced: Mapping[Digest, Descriptor] | None = None,
    dropped: Collection[Digest] = (),
    added: Sequence[Descriptor] = (),
) -> Index:
    """The index as one of ``media_type``, with instances ``replaced`` (by their digest), ``dropped`` and ``added``.

    A replacement says digest, size, media type and annotations; the platform stays as it is written. With instances
    added, those of zstd come last. The index itself if there is nothing to change. Raises DocumentError.
    """
    target = media_type or index.media_type
    if not mediatype.is_index(target):
        raise DocumentError(f"{target} is no format of indexes")
    replaced = replaced or {}
    is_converted, is_list = target != index.media_type, mediatype.is_docker(target)
    if is_list and any(each.platform is None for each in (*index.manifests, *added) if each.digest not in dropped):
        raise DocumentError(f"index {index.digest} has an instance without a platform, which Docker's list cannot hold")
    if is_list and any(each.is_zstd for each in added):
        raise DocumentError("Docker's list cannot say which instances are of zstd", "convert it to an OCI index")
    loses = is_list and is_converted
    document: Json = orjson.loads(index.raw)
    entries: list[Json] = []
    for entry, before in zip(cast("list[Json]", document.get("manifests") or []), index.manifests, strict=True):
        if before.digest not in dropped:
            after = replaced.get(before.digest, before)
            if is_list:
                after = replace(after, annotations=before.annotations)
            entries.append(_edited(entry, before, after, loses))
    if index.manifests and not entries and not added:
        raise DocumentError(f"nothing is left of index {index.digest}")
    entries += [_entry(descriptor) for descriptor in added]
    if added:
        entries.sort(key=_is_zstd)
    if not is_converted and entries == document.get("manifests"):
        return index
    if is_converted:
        document["mediaType"] = target
    if loses:
        _drop(document, _ONLY_OCI)
    document["manifests"] = entries
    return cast("Index", parse_document(to_bytes(document, "index"), target, with_artifacts=True))


def compression_of_instance(descriptor: Descriptor) -> str:
    """``gzip`` or ``zstd``, as an index says of an instance; what says nothing is of gzip."""
    return mediatype.ZSTD if descriptor.is_zstd else mediatype.GZIP


def missing_variants(index: Index, compressions: Sequence[str]) -> tuple[tuple[Descriptor, str], ...]:
    """Per platform the compressions that no instance has yet, each with the instance to make it from.

    Only images are counted, not what else is listed beside them (attestations have the platform unknown/unknown).
    """
    missing: list[tuple[Descriptor, str]] = []
    there: dict[Platform | None, set[str]] = {}
    images = [each for each in index.manifests if mediatype.is_manifest(each.media_type) and _is_runnable(each)]
    for each in images:
        there.setdefault(each.platform, set()).add(compression_of_instance(each))
    for each in images:
        for compression in compressions:
            if compression not in there[each.platform]:
                there[each.platform].add(compression)
                missing.append((each, compression))
    return tuple(missing)


def instance_of(origin: Descriptor, document: Manifest | Index) -> Descriptor:
    """What an index says of ``document``, which was made from its instance ``origin``; whether it is of zstd, too."""
    annotations = dict(origin.annotations)
    if isinstance(document, Manifest):
        annotations.pop(ZSTD_ANNOTATION, None)
        if any(mediatype.compression_of(layer.media_type) == mediatype.ZSTD for layer in document.layers):
            annotations[ZSTD_ANNOTATION] = "true"
    return replace(
        origin,
        media_type=document.media_type,
        digest=document.digest,
        size=len(document.raw),
        annotations=annotations,
    )


def _is_runnable(descriptor: Descriptor) -> bool:
    return not descriptor.artifact_type and (descriptor.platform is None or descriptor.platform.os != "unknown")


def _converted_layer(layer: Descriptor, becomes_docker: bool) -> Descriptor:
    media_type = mediatype.layer_type(layer.media_type, docker=becomes_docker)
    if media_type is None and not becomes_docker:
        return layer
    if mediatype.is_encrypted(layer.media_type):
        raise DocumentError(f"layer {layer.digest} is encrypted, which Docker's format cannot hold")
    if media_type is None:
        raise DocumentError(f"layer {layer.digest} has the media type {layer.media_type!r}, which has no counterpart")
    if becomes_docker and mediatype.compression_of(media_type) == mediatype.ZSTD:
        raise DocumentError(
            f"layer {layer.digest} is of zstd, which Docker's format cannot hold", "compress the layers by gzip"
        )
    return replace(layer, media_type=media_type)


def _converted_config(config: Descriptor, becomes_docker: bool) -> Descriptor:
    if not mediatype.is_config(config.media_type):
        return config
    return replace(config, media_type=mediatype.DOCKER_CONFIG if becomes_docker else mediatype.OCI_CONFIG)


def _edited(entry: Json, before: Descriptor, after: Descriptor, loses: bool) -> Json:
    """The JSON of a descriptor with what is different in ``after``; and without what is lost on the way to Docker's."""
    edited = dict(entry)
    if after.media_type != before.media_type:
        edited["mediaType"] = after.media_type
    if (after.digest, after.size) != (before.digest, before.size):
        edited |= {"digest": str(after.digest), "size": after.size}
        edited.pop("data", None)
    if dict(after.annotations) != dict(before.annotations):
        edited["annotations"] = dict(after.annotations)
        if not after.annotations:
            del edited["annotations"]
    if after.urls != before.urls:
        edited["urls"] = list(after.urls)
        if not after.urls:
            del edited["urls"]
    if loses:
        _drop(edited, _ONLY_OCI_DESCRIPTOR)
    return edited


def _entry(descriptor: Descriptor) -> Json:
    """A descriptor as JSON."""
    entry: Json = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.urls:
        entry["urls"] = list(descriptor.urls)
    if descriptor.annotations:
        entry["annotations"] = dict(descriptor.annotations)
    if descriptor.platform is not None:
        entry["platform"] = _platform(descriptor.platform)
    if descriptor.artifact_type:
        entry["artifactType"] = descriptor.artifact_type
    return entry


def _platform(platform: Platform) -> Json:
    entry: Json = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        entry["os.version"] = platform.os_version
    if platform.os_features:
        entry["os.features"] = list(platform.os_features)
    if platform.variant:
        entry["variant"] = platform.variant
    return entry


def _is_zstd(entry: Json) -> bool:
    annotations = entry.get("annotations")
    return isinstance(annotations, dict) and annotations.get(ZSTD_ANNOTATION) == "true"


def _drop(entry: Json, keys: Sequence[str]) -> None:
    for key in keys:
        entry.pop(key, None)
