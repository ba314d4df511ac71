"""An image made from another by one layer more: its config and its manifest, as bytes.

Whatever the config of the base says and nobody here changes stays as it is, unknown keys included. The layers of the
manifest are not compressed: that is how a store has them, and who sends them elsewhere compresses them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import to_bytes
from asyncpull.spec.instruction import apply_instructions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpull.spec.instruction import Instruction
    from asyncpull.spec.platform import Platform

Flavour = Literal["oci", "docker"]

_MANIFESTS: dict[Flavour, tuple[str, str, str]] = {
    "oci": (mediatype.OCI_MANIFEST, mediatype.OCI_CONFIG, mediatype.OCI_LAYER),
    "docker": (mediatype.DOCKER_MANIFEST, mediatype.DOCKER_CONFIG, mediatype.DOCKER_LAYER),
}
# What a builder notes of the container that it made an image from: true of the base, not of what is made from it.
_OF_THE_BUILDER = ("container", "container_config", "docker_version", "id", "parent")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an image comes from: ``created`` is RFC 3339 text, the rest any text, "" where there is none."""

    created: str
    created_by: str = ""
    author: str = ""
    message: str = ""


def flavour_of(manifest_type: str) -> Flavour:
    """The format of images whose manifest has this media type."""
    return "docker" if manifest_type == mediatype.DOCKER_MANIFEST else "oci"


def derive_config(
    base: bytes | None,
    platform: Platform,
    diff_ids: Sequence[Digest],
    provenance: Provenance,
    instructions: Sequence[Instruction] = (),
) -> bytes:
    """The config of an image with the layers ``diff_ids``, of which the last is new.

    ``base`` is the config of the image below; None for one of nothing, which is for ``platform`` then.
    Raises DocumentError for a base that is no config.
    """
    document = _parsed(base) if base is not None else _empty(platform)
    for key in _OF_THE_BUILDER:
        document.pop(key, None)
    document["created"] = provenance.created
    if provenance.author:
        document["author"] = provenance.author
    settings = dict(_object(document, "config"))
    apply_instructions(settings, instructions)
    document["config"] = settings
    document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    document["history"] = [*_history(document, len(diff_ids) - 1), _entry(provenance)]
    return to_bytes(document, "image config")


def derive_manifest(
    flavour: Flavour,
    config: bytes,
    layers: Sequence[tuple[Digest, int]],
    annotations: Mapping[str, str],
) -> bytes:
    """The manifest of an image with these layers (diff ID, bytes), the base first; Docker's has no annotations."""
    manifest_type, config_type, layer_type = _MANIFESTS[flavour]
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [{"mediaType": layer_type, "digest": str(digest), "size": size} for digest, size in layers],
    }
    if annotations and flavour == "oci":
        document["annotations"] = dict(annotations)
    return orjson.dumps(document)


def _parsed(base: bytes) -> dict[str, object]:
    try:
        document = orjson.loads(base)
    except orjson.JSONDecodeError as error:
        raise DocumentError(f"image config is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DocumentError("image config is not an object")
    return document


def _empty(platform: Platform) -> dict[str, object]:
    variant = {"variant": platform.variant} if platform.variant else {}
    return {"architecture": platform.architecture, "os": platform.os, **variant}


def _object(document: Mapping[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DocumentError(f"image config.{key} is not an object")
    return value


def _history(document: Mapping[str, object], layers: int) -> list[object]:
    """The history of the base; each of its layers has an entry, or others could not tell which entry is whose."""
    value = document.get("history")
    if value is not None and not isinstance(value, list):
        raise DocumentError("image config.history is not an array")
    entries = cast("list[object]", value or [])
    of_layers = sum(1 for entry in entries if isinstance(entry, dict) and not entry.get("empty_layer"))
    return [*entries, *({"comment": "not recorded"} for _ in range(of_layers, layers))]


def _entry(provenance: Provenance) -> dict[str, str]:
    entry = {
        "created": provenance.created,
        "created_by": provenance.created_by,
        "author": provenance.author,
        "comment": provenance.message,
    }
    return {key: value for key, value in entry.items() if value}
