"""Taking an image out of an image layout, with the blobs that no other image there has."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.destination.layout import read_index, read_limited
from asyncpull.destination.workshop import NAME, Workshop, in_thread, open_workshop
from asyncpull.errors import NotFoundError
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields
from asyncpull.spec.layout import BLOBS, INDEX, blob_path
from asyncpull.spec.manifest import MANIFEST_LIMIT
from asyncpull.store.files import sync_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpull.spec.location import LayoutLocation

_OF_A_MANIFEST = ("config", "layers", "blobs")
_DOCUMENTS = ("manifests", "subject")


async def delete_from_layout(location: LayoutLocation, *, keeps_blobs: bool = False) -> Digest:
    """Let the layout not list the image any more that ``location`` names; gives its digest.

    Waits for the copies that write to the layout, and they for this: a blob that one of them found there stays. All
    blobs stay where ``keeps_blobs``, as they must where layouts share them. What is not listed any more is removed
    afterwards: a crash leaves blobs that are too many, and no image without its blobs.

    Raises NotFoundError, UsageError where the location does not say which, DocumentError for a layout that cannot be
    read (nothing is removed then), StoreWriteError, StoreError.
    """
    root = Path(location.path)
    if not (root / INDEX).exists():
        raise NotFoundError(f"{root} is no image layout: it has no {INDEX}")
    async with open_workshop(root / NAME, alone=True) as workshop:
        return await in_thread(root, lambda: _delete(location, root, workshop, keeps_blobs=keeps_blobs))


def _delete(location: LayoutLocation, root: Path, workshop: Workshop, *, keeps_blobs: bool) -> Digest:
    index = read_index(root)
    entry = index.choose(location.name, location.number)
    others = [each.digest for each in index.entries if each is not entry]
    blobs = root / BLOBS
    needless: set[Digest] = set()
    if not keeps_blobs:
        needless = _reachable(blobs, [entry.digest], ("manifests",)) - _reachable(blobs, others, _DOCUMENTS)
    workshop.write(root / INDEX, index.without(entry))
    sync_file(root)
    for digest in sorted(needless):
        (blobs / blob_path(digest)).unlink(missing_ok=True)
    return entry.digest


def _reachable(blobs: Path, roots: Iterable[Digest], documents: tuple[str, ...]) -> set[Digest]:
    """All that these documents need, and they themselves; ``documents`` are the keys of documents that they refer to.

    What is not there needs nothing: an index may be here with a part of its manifests. Raises DocumentError, OSError.
    """
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        path = blobs / blob_path(digest)
        with suppress(FileNotFoundError):
            document = Fields.from_bytes(read_limited(path, MANIFEST_LIMIT), str(path))
            found.update(_digests(document, _OF_A_MANIFEST))
            waiting += _digests(document, documents)
    return found


def _digests(document: Fields, keys: tuple[str, ...]) -> list[Digest]:
    """The digests of the descriptors under ``keys``, each one or several. Raises DocumentError."""
    found: list[Digest] = []
    for key in keys:
        value, where = document.values.get(key), f"{document.where}.{key}"
        entries = value if isinstance(value, list) else [] if value is None else [value]
        found.extend(Digest.parse(Fields.of(each, where).get("digest", str)) for each in entries)
    return found
