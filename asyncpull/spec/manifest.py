"""The three documents: index, manifest, config (image-spec; Docker's v2 list and schema 2).

A document keeps the raw bytes it was read from: they are what the digest covers and what is stored and sent on. The
parsed values are a view of them. Unknown keys are left alone, wrong types are refused with the path of the key.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, InvalidDigestError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields
from asyncpull.spec.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB, MIB = 1 << 10, 1 << 20

# Limits in bytes that every reader of these documents sets; containers/image has the same for the first two.
MANIFEST_LIMIT = 4 * MIB
CONFIG_LIMIT = 4 * MIB
TOKEN_LIMIT = 1 * MIB

# The size of a blob in a descriptor made for one of which nobody has said how large it is; a source then does not mind.
UNKNOWN_SIZE = -1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says of another piece of content (image-spec, descriptor.md). ``size`` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @property
    def is_zstd(self) -> bool:
        """Whether an index says that this instance has layers of zstd."""
        return self.annotations.get(mediatype.ZSTD_ANNOTATION) == "true"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: its config and its layers, the base layer first; or an artifact of the same form.

    ``subject`` is what an artifact says that it is about.
    """

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_image(self) -> bool:
        """Whether its config is that of an image; else its layers may be anything at all."""
        return mediatype.is_config(self.config.media_type)


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests of one image for several platforms, or of anything else; it may list further indexes."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    manifests: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image config (image-spec, config.md), as far as storing the image needs it.

    ``diff_ids`` are the digests of the uncompressed layers, the base layer first; ``created`` is RFC 3339 text.
    """

    raw: bytes = field(repr=False)
    digest: Digest
    diff_ids: tuple[Digest, ...]
    created: str | None
    platform: Platform

    @classmethod
    def from_bytes(cls, raw: bytes, digest: Digest | None = None) -> ImageConfig:
        """Parse a config; ``digest`` is its verified digest, computed if not given. Raises DocumentError."""
        document = Fields.from_bytes(raw, "image config")
        rootfs = Fields.of(document.get("rootfs", dict, {}), "image config.rootfs")
        return cls(
            raw=raw,
            digest=digest or Digest.of(raw),
            diff_ids=tuple(parse_digest(text, where) for text, where in rootfs.array("diff_ids")),
            created=document.get("created", str, None),
            platform=_platform(document),
        )


def parse_document(
    raw: bytes, media_type: str | None = None, digest: Digest | None = None, *, with_artifacts: bool = False
) -> Manifest | Index:
    """Parse a manifest or an index.

    ``media_type`` is what the source said; parameters after ``;`` are dropped. A ``mediaType`` inside the document has
    to agree with it, if both say something that is known, and what both leave open is told from the keys. ``digest``
    is the verified digest, computed if not given. An artifact, or an image with layers that cannot be extracted, is
    refused unless it ``with_artifacts``, as a copy takes it. Raises DocumentError.
    """
    document = Fields.from_bytes(raw, "manifest")
    kind = _kind(document, media_type)
    digest = digest or Digest.of(raw)
    artifact_type, subject, annotations = document.get("artifactType", str, ""), _subject(document), _notes(document)
    if mediatype.is_index(kind):
        manifests = tuple(_descriptor(*entry) for entry in document.array("manifests"))
        return Index(raw, kind, digest, manifests, artifact_type, subject, annotations)
    config = _descriptor(document.get("config", dict), "manifest.config")
    if not with_artifacts and not mediatype.is_config(config.media_type):
        raise DocumentError(
            f"manifest {digest}: its config has the media type {config.media_type!r}, which is no image config",
            "this is an artifact, not an image that can be stored and run",
        )
    read_layer = _descriptor if with_artifacts else _layer
    layers = tuple(read_layer(*entry) for entry in document.array("layers"))
    return Manifest(raw, kind, digest, config, layers, artifact_type, subject, annotations)


def parse_digest(value: object, where: str) -> Digest:
    """The digest that the value at ``where`` is. Raises DocumentError, which names the place."""
    if not isinstance(value, str):
        raise DocumentError(f"{where} is not a string")
    try:
        return Digest.parse(value)
    except InvalidDigestError as error:
        raise InvalidDigestError(f"{where}: {error}") from error


def is_schema1(raw: bytes, media_type: str | None = None) -> bool:
    """Whether a document is a manifest of Docker's schema 1, which ``asyncpull.spec.schema1`` reads."""
    inside, outside, version = _claims(Fields.from_bytes(raw, "manifest"), media_type)
    if any(mediatype.is_index(each) or mediatype.is_manifest(each) for each in (inside, outside)):
        return False
    return version == 1 or mediatype.is_schema1(inside or outside)


def _claims(document: Fields, said: str | None) -> tuple[str, str, int]:
    """What the document says that it is, what its source says, and its version."""
    outside = (said or "").split(";")[0].strip().lower()
    return document.get("mediaType", str, ""), outside, document.get("schemaVersion", int, 0)


def _kind(document: Fields, said: str | None) -> str:
    inside, outside, version = _claims(document, said)
    known = [each for each in (inside, outside) if mediatype.is_index(each) or mediatype.is_manifest(each)]
    if len(set(known)) > 1:
        raise DocumentError(f"document of media type {inside} was sent as {outside}", "one of them is wrong")
    if known:
        return _unambiguous(document, known[0])
    if version == 1:
        raise DocumentError("manifest is of Docker's schema 1", "asyncpull pull and asyncpull copy convert it")
    if inside or version != 2:
        raise DocumentError(f"manifest has the media type {inside or outside!r}, which is not an image")
    return _unambiguous(document, mediatype.OCI_INDEX if "manifests" in document.values else mediatype.OCI_MANIFEST)


def _unambiguous(document: Fields, media_type: str) -> str:
    """Refuse a document that could be read as an index and as a manifest (CVE-2021-41190)."""
    foreign = {"layers", "config"} if mediatype.is_index(media_type) else {"manifests"}
    both = sorted((foreign | {"fsLayers", "history"}) & document.values.keys())
    if both:
        raise DocumentError(f"document of media type {media_type} has the foreign key {both[0]!r}")
    return media_type


def _subject(document: Fields) -> Descriptor | None:
    subject = document.get("subject", dict, None)
    return None if subject is None else _descriptor(subject, f"{document.where}.subject")


def _notes(document: Fields) -> Mapping[str, str]:
    annotations = document.get("annotations", dict, {})
    return {key: text for key, text in annotations.items() if isinstance(text, str)}


def _layer(value: object, where: str) -> Descriptor:
    layer = _descriptor(value, where)
    if mediatype.is_encrypted(layer.media_type):
        raise DocumentError(f"{where} is encrypted ({layer.media_type})")
    if not mediatype.is_layer(layer.media_type):
        raise DocumentError(f"{where} has the media type {layer.media_type!r}, which is no layer")
    return layer


def _descriptor(value: object, where: str) -> Descriptor:
    entry = Fields.of(value, where)
    size = entry.get("size", int)
    if size < 0:
        raise DocumentError(f"{where}.size is negative")
    platform = entry.get("platform", dict, None)
    return Descriptor(
        media_type=entry.get("mediaType", str, ""),
        digest=parse_digest(entry.get("digest", str), f"{where}.digest"),
        size=size,
        platform=None if platform is None else _platform(Fields(platform, f"{where}.platform")),
        annotations=_notes(entry),
        urls=entry.texts("urls"),
        artifact_type=entry.get("artifactType", str, ""),
    )


def _platform(entry: Fields) -> Platform:
    return Platform(
        os=entry.get("os", str, ""),
        architecture=entry.get("architecture", str, ""),
        variant=entry.get("variant", str, ""),
        os_version=entry.get("os.version", str, ""),
        os_features=entry.texts("os.features"),
    )
