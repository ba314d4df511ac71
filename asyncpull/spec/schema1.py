"""Docker's manifests of schema 1, signed or not: read, and turned into what is used today.

::

    raw          the payload with ``signatures`` put into its outermost object (a "pretty" JSON web signature)
    payload      raw[:formatLength] + formatTail, both told by the protected header of every signature
    digest       that of the payload: the same content signed twice is the same manifest
    fsLayers     blobs, the top layer first; no sizes and no media types, in practice gzip
    history      one text of JSON per layer; the first is the config of the image, ``throwaway`` ones change no file

The keys of the signatures were made for one push and thrown away, so nobody has ever verified them; whether they are
well-formed is checked, as by containers/image. Only the payload is parsed: what comes after it is signed by nobody.

There are neither diff IDs nor sizes in it. Who has read the blobs knows both, and ``convert_schema1`` makes of them the
manifest and the config that docker and podman make, to the byte, so the image gets the same ID (but for images made
by Docker before 1.8.3, whose configs those reformat).
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import field
from typing import TYPE_CHECKING, cast

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest, verify_bytes
from asyncpull.spec.fields import Fields, to_bytes
from asyncpull.spec.manifest import is_schema1, parse_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_FRACTION = re.compile(r"\.(\d*?)0*(?=Z|[+-])")
_NEVER = "0001-01-01T00:00:00Z"
# What a config of schema 1 says that one of schema 2 does not.
_OF_SCHEMA1 = ("id", "parent", "parent_id", "layer_id", "throwaway", "Size", "rootfs", "history")
# What the encoder of Go writes differently in strings.
_ESCAPED = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}


@dataclass(frozen=True, slots=True)
class Schema1Layer:
    """A layer: its blob, and what its history says; one that ``is_throwaway`` changes nothing and is left out."""

    digest: Digest
    is_throwaway: bool
    compatibility: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Schema1Manifest:
    """A manifest of schema 1; ``layers`` from the base up."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    layers: tuple[Schema1Layer, ...]

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """The blobs of the layers that are left, from the base up; one may be there several times."""
        return tuple(layer.digest for layer in self.layers if not layer.is_throwaway)


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What schema 1 does not say of a blob: its size in bytes, and the digest of the tar stream in it."""

    size: int
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class ConvertedSchema1:
    """The same image as a manifest of schema 2 and its config."""

    manifest: bytes
    config: bytes


def document_digest(raw: bytes, algorithm: str = "sha256") -> Digest:
    """The digest by which a manifest is known: for a signed one of schema 1, that of its payload.

    Raises DocumentError for signatures that are not well-formed.
    """
    return Digest.of(_payload(raw), algorithm)


def verify_document(subject: str, raw: bytes, expected: Digest) -> None:
    """Raise DigestMismatchError unless ``raw`` is a manifest or index with the digest ``expected``."""
    signed = raw
    if Digest.of(raw, expected.algorithm) != expected:
        with suppress(DocumentError):  # not even JSON: it is the digest that counts
            signed = _payload(raw)
    verify_bytes(subject, signed, expected)


def parse_schema1(raw: bytes, media_type: str | None = None) -> Schema1Manifest:
    """Parse a manifest of schema 1. Raises DocumentError."""
    payload = _payload(raw)
    document = Fields.from_bytes(payload, "manifest")
    if not is_schema1(raw, media_type) or document.get("schemaVersion", int, 0) != 1:
        raise DocumentError("manifest is not of Docker's schema 1")
    foreign = sorted({"config", "layers", "manifests"} & document.values.keys())
    if foreign:
        raise DocumentError(f"manifest of schema 1 has the foreign key {foreign[0]!r}")
    blobs, histories = document.array("fsLayers"), document.array("history")
    if not blobs or len(blobs) != len(histories):
        raise DocumentError(f"manifest of schema 1 has {len(blobs)} layers and {len(histories)} entries of history")
    layers = [_layer(*blob, *history) for blob, history in zip(blobs, histories, strict=True)]
    is_signed = payload is not raw
    return Schema1Manifest(
        raw=raw,
        media_type=mediatype.DOCKER_SCHEMA1_SIGNED if is_signed else mediatype.DOCKER_SCHEMA1,
        digest=Digest.of(payload),
        layers=tuple(reversed(_without_repetitions(layers))),
    )


def convert_schema1(manifest: Schema1Manifest, facts: Mapping[Digest, LayerFacts]) -> ConvertedSchema1:
    """Make of it a manifest of schema 2, with the ``facts`` of all of its ``blobs``. Raises DocumentError."""
    config = _config(manifest, [facts[blob].diff_id for blob in manifest.blobs])
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST,
        "config": _descriptor(mediatype.DOCKER_CONFIG, len(config), Digest.of(config)),
        "layers": [_descriptor(mediatype.DOCKER_LAYER_GZIP, facts[blob].size, blob) for blob in manifest.blobs],
    }
    return ConvertedSchema1(orjson.dumps(document), config)


def _descriptor(media_type: str, size: int, digest: Digest) -> dict[str, object]:
    return {"mediaType": media_type, "size": size, "digest": str(digest)}


def _payload(raw: bytes) -> bytes:
    """What is signed; ``raw`` itself if there are no signatures."""
    document = Fields.from_bytes(raw, "manifest")
    if document.get("schemaVersion", int, 0) != 1 or "signatures" not in document.values:
        return raw
    signatures = document.array("signatures")
    if not signatures:
        raise DocumentError("manifest.signatures is empty")
    formats = {_format(Fields.of(*signature)) for signature in signatures}
    if len(formats) > 1:
        raise DocumentError("the signatures of the manifest are about different contents")
    length, tail = formats.pop()
    if not 0 < length <= len(raw):
        raise DocumentError(f"manifest.signatures are about {length} bytes of {len(raw)}")
    return raw[:length] + tail


def _format(signature: Fields) -> tuple[int, bytes]:
    """Where the payload ends, and what comes after it there instead of the signatures."""
    header = Fields.of(signature.get("header", dict), f"{signature.where}.header")
    header.get("alg", str)
    if header.get("jwk", dict, None) is None and not header.array("x5c"):
        raise DocumentError(f"{header.where} has no key")
    _decoded(signature.get("signature", str), signature.where)
    protected = Fields.from_bytes(_decoded(signature.get("protected", str), signature.where), f"{signature.where}")
    return protected.get("formatLength", int), _decoded(protected.get("formatTail", str), signature.where)


def _decoded(text: str, where: str) -> bytes:
    """Base64 as in web signatures: for URLs, without padding."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{where}: {error}") from error


def _layer(blob: object, blob_where: str, history: object, history_where: str) -> Schema1Layer:
    text = Fields.of(history, history_where).get("v1Compatibility", str)
    compatibility = Fields.from_bytes(text.encode("utf-8", "surrogatepass"), f"{history_where}.v1Compatibility")
    if not _IDENTIFIER.fullmatch(compatibility.get("id", str)):
        raise DocumentError(f"{compatibility.where}.id is not 64 hex digits")
    compatibility.get("parent", str, "")
    return Schema1Layer(
        digest=parse_digest(Fields.of(blob, blob_where).get("blobSum", str), f"{blob_where}.blobSum"),
        is_throwaway=compatibility.get("throwaway", bool, False),
        compatibility=compatibility.values,
    )


def _without_repetitions(layers: list[Schema1Layer]) -> list[Schema1Layer]:
    """The layers, the top one first, each once, with every one the parent of that before it. Raises DocumentError."""
    kept: list[Schema1Layer] = []
    for layer in reversed(layers):
        identifier, parent = layer.compatibility["id"], layer.compatibility.get("parent") or ""
        below = kept[-1].compatibility["id"] if kept else ""
        if kept and identifier == below:
            continue
        if parent != below:
            raise DocumentError(f"manifest of schema 1: layer {identifier} is on {parent or 'nothing'}, not on {below}")
        if any(identifier == other.compatibility["id"] for other in kept):
            raise DocumentError(f"manifest of schema 1 has layer {identifier} several times")
        kept.append(layer)
    return kept[::-1]


def _config(manifest: Schema1Manifest, diff_ids: list[Digest]) -> bytes:
    top = dict(manifest.layers[-1].compatibility)
    for key in _OF_SCHEMA1:
        top.pop(key, None)
    top["rootfs"] = {"type": "layers", **({"diff_ids": [str(each) for each in diff_ids]} if diff_ids else {})}
    top["history"] = [_history(layer) for layer in manifest.layers]
    raw = to_bytes({key: top[key] for key in sorted(top)}, "v1Compatibility")
    for character, escaped in _ESCAPED.items():
        raw = raw.replace(character, escaped)
    return raw


def _history(layer: Schema1Layer) -> dict[str, object]:
    said = Fields(layer.compatibility, "v1Compatibility")
    container = Fields.of(said.get("container_config", dict, {}), "v1Compatibility.container_config")
    entry = {
        "created": _FRACTION.sub(_shortened, said.get("created", str, _NEVER)),
        "author": said.get("author", str, ""),
        "created_by": " ".join(container.texts("Cmd")),
        "comment": said.get("comment", str, ""),
        "empty_layer": layer.is_throwaway,
    }
    return {key: value for key, value in entry.items() if value}


def _shortened(fraction: re.Match[str]) -> str:
    """A fraction of a second without the zeros at its end."""
    digits = cast("str", fraction.group(1))
    return f".{digits}" if digits else ""
