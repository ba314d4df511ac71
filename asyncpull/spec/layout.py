"""Image layouts (image-spec, image-layout.md), whether in a directory or in an archive: what their files say.

::

    oci-layout                       which version of the format this is
    index.json                       the images that are here, each with its names
    blobs/<algorithm>/<encoded>      everything that has a digest

An entry of ``index.json`` has its name in ``org.opencontainers.image.ref.name``. Where none has the name that is looked
for, ``io.containerd.image.name`` counts too: containerd and docker write the whole reference there, and only the tag
into the other one. Several entries may have one name; the first that is a manifest or an index is meant, as with
containers/image. An entry without a name is found by its number, or by being the only one.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, NotFoundError, UsageError
from asyncpull.spec import mediatype
from asyncpull.spec.fields import Fields, to_bytes
from asyncpull.spec.manifest import KIB, MANIFEST_LIMIT, Index, parse_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor

MARKER: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs"

MARKER_LIMIT: Final = 4 * KIB
INDEX_LIMIT: Final = MANIFEST_LIMIT

VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""What is in ``oci-layout``."""

TORN_SECONDS: Final = (0.05, 0.2)
"""How long to wait before an ``index.json`` is read again that cannot be: containers/image writes it where it lies."""

REF_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"

_EMPTY: Final = orjson.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []})


def blob_path(digest: Digest) -> str:
    """Where a blob is, below ``blobs``."""
    return f"{digest.algorithm}/{digest.encoded}"


def check_version(raw: bytes, where: str) -> None:
    """Refuse an ``oci-layout`` of another format than this one. Raises DocumentError."""
    version = Fields.from_bytes(raw, where).get("imageLayoutVersion", str)
    if version.partition(".")[0] != "1":
        raise DocumentError(f"{where}: the layout has version {version!r}, which is not known", "this reads version 1")


@dataclass(frozen=True, slots=True)
class LayoutIndex:
    """The images of a layout, in the order of ``index.json``, which messages call ``where``."""

    where: str
    entries: tuple[Descriptor, ...]
    raw: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, raw: bytes, where: str) -> LayoutIndex:
        """Parse an ``index.json``. Raises DocumentError."""
        try:
            index = parse_document(raw, mediatype.OCI_INDEX)
        except DocumentError as error:
            raise type(error)(f"{where}: {error}", error.hint) from error
        if not isinstance(index, Index):
            raise DocumentError(f"{where} is a manifest, not an index")
        return cls(where, index.manifests, raw)

    @classmethod
    def empty(cls, where: str) -> LayoutIndex:
        """That of a layout without images."""
        return cls(where, (), _EMPTY)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the images that have one, each once."""
        found = (each.annotations.get(REF_NAME) or each.annotations.get(IMAGE_NAME) for each in self.entries)
        return tuple(dict.fromkeys(name for name in found if name))

    def choose(self, name: str | None, number: int | None) -> Descriptor:
        """The entry with that name or number; the only one, where neither is given.

        Raises NotFoundError, UsageError where it takes a choice, and DocumentError for what is neither a manifest nor
        an index.
        """
        if number is not None:
            if number >= len(self.entries):
                raise NotFoundError(f"{self.where} has no entry {number}", f"it has {len(self.entries)}, from 0 on")
            return self.entries[number]
        if name is not None:
            return self._named(name)
        if not self.entries:
            raise NotFoundError(f"{self.where} lists no image")
        if len(self.entries) > 1:
            raise UsageError(
                f"{self.where} lists {len(self.entries)} images", f"choose one by :NAME or :@N; {self._there()}"
            )
        return self.entries[0]

    def _named(self, name: str) -> Descriptor:
        named = [entry for entry in self.entries if entry.annotations.get(REF_NAME) == name] or [
            entry for entry in self.entries if entry.annotations.get(IMAGE_NAME) == name
        ]
        if not named:
            raise NotFoundError(f"{self.where} has no image {name!r}", self._there())
        for entry in named:
            if mediatype.is_index(entry.media_type) or mediatype.is_manifest(entry.media_type):
                return entry
        raise DocumentError(f"{self.where}: {name!r} has the media type {named[0].media_type!r}, which is not an image")

    def _there(self) -> str:
        """What may be chosen, in words."""
        names = [
            entry.annotations.get(REF_NAME) or entry.annotations.get(IMAGE_NAME) or f"@{number}"
            for number, entry in enumerate(self.entries)
        ]
        return f"it has {', '.join(names[:20])}{' …' * (len(names) > 20)}" if names else "it has none at all"

    def with_image(self, name: str | None, media_type: str, digest: Digest, size: int) -> bytes:
        """An ``index.json`` in which ``name`` stands for that document, and for nothing else.

        What stood for the name before is dropped, or loses that name if it has another one. Without a name the new
        entry replaces a nameless one of the same digest, or the only entry if that is nameless. It is where the first
        was that it replaces, else the last. Nothing else changes, keys that nobody knows included.
        """
        document: dict[str, Any] = orjson.loads(self.raw)
        entries: list[dict[str, Any]] = document.get("manifests") or []
        new: dict[str, Any] = {"mediaType": media_type, "digest": str(digest), "size": size}
        if name is not None:
            new["annotations"] = {REF_NAME: name}
        replaces = self._replaced(name, digest)
        kept: list[dict[str, Any]] = []
        place: int | None = None
        for entry, parsed in zip(entries, self.entries, strict=True):
            if replaces(parsed):
                place = len(kept) if place is None else place
            elif name is not None and parsed.annotations.get(REF_NAME) == name:
                kept.append({**entry, "annotations": {k: v for k, v in entry["annotations"].items() if k != REF_NAME}})
            else:
                kept.append(entry)
        kept.insert(len(kept) if place is None else place, new)
        return to_bytes({**document, "manifests": kept}, self.where)

    def without(self, entry: Descriptor) -> bytes:
        """An ``index.json`` that does not list ``entry``, which must be one of these; nothing else changes."""
        number = next(number for number, each in enumerate(self.entries) if each is entry)
        document: dict[str, Any] = orjson.loads(self.raw)
        entries: list[dict[str, Any]] = document["manifests"]
        return to_bytes({**document, "manifests": entries[:number] + entries[number + 1 :]}, self.where)

    def _replaced(self, name: str | None, digest: Digest) -> Callable[[Descriptor], bool]:
        """Which entries a new one with that name and digest replaces."""
        is_only = len(self.entries) == 1

        def names_of(entry: Descriptor) -> set[str]:
            return {entry.annotations[key] for key in (REF_NAME, IMAGE_NAME) if entry.annotations.get(key)}

        def is_replaced(entry: Descriptor) -> bool:
            names = names_of(entry)
            if not names:
                return entry.digest == digest or (name is None and is_only)
            # An entry that docker wrote has a tag and, beside it, its whole name, by which it is still wanted.
            return name in names and entry.annotations.get(IMAGE_NAME) in (None, "", name)

        return is_replaced
