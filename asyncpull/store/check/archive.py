"""A layer's tar stream, rebuilt and read: its digest, its length, its members, and files that are not what they were.

A file that is missing or has changed does not end the reading: zeros stand in for it, so that all of them are found,
and the members after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.errors import IntegrityError, InvalidDigestError, LayerError, StoreError
from asyncpull.layer.changeset import clean_name
from asyncpull.layer.split import Contents, Segment, SplitWriter, read_split
from asyncpull.layer.stream import TarStream
from asyncpull.spec.digest import Digest
from asyncpull.store.check.findings import Damage
from asyncpull.tarstream import LayerFiles, split_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asyncpull.layer.header import Member
    from asyncpull.store.views import LayerRecord

_PIECE: Final = 1 << 20
_ZEROS: Final = bytes(_PIECE)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with a layer: ``path`` is that of a member, b"" for the archive as a whole."""

    damage: Damage
    path: bytes
    message: str


@dataclass(frozen=True, slots=True)
class Archive:
    """What is known of a layer's archive. ``members`` is None where they cannot be relied upon."""

    members: tuple[Member, ...] | None
    flaws: tuple[Flaw, ...]


def read_archive(
    layer: LayerRecord, tar_split: Path, roots: Sequence[Path], keep_going: Callable[[], object]
) -> Archive:
    """Read all of a layer through its tar-split; ``keep_going`` is called now and then, to raise if that is enough.

    Holds no lock, and raises nothing of its own: what cannot be read is a flaw.
    """
    try:
        digest = Digest.parse(layer.diff_digest)
    except InvalidDigestError as error:
        return Archive(None, (Flaw(Damage.DIFF_DIGEST_WRONG, b"", error.message),))
    reader = _Reader(digest, keep_going)
    try:
        with LayerFiles(roots) as files:
            reader.read(read_split(split_pieces(tar_split)), files)
    except (IntegrityError, LayerError, StoreError, OSError) as error:
        message = f"its archive cannot be rebuilt: {error}"
        return Archive(None, (*reader.flaws, Flaw(Damage.TAR_SPLIT_UNREADABLE, b"", message)))
    if reader.flaws:
        return Archive(tuple(reader.members), tuple(reader.flaws))
    flaws = []
    if reader.hash.hexdigest() != digest.encoded:
        message = f"the rebuilt tar has the digest {digest.algorithm}:{reader.hash.hexdigest()}"
        flaws.append(Flaw(Damage.DIFF_DIGEST_WRONG, b"", message))
    if layer.diff_size not in (reader.size, -1):
        message = f"the rebuilt tar has {reader.size} bytes, and {layer.diff_size} are recorded"
        flaws.append(Flaw(Damage.DIFF_SIZE_WRONG, b"", message))
    is_genuine = not any(flaw.damage is Damage.DIFF_DIGEST_WRONG for flaw in flaws)
    return Archive(tuple(reader.members) if is_genuine else None, tuple(flaws))


class _Checksum(SplitWriter):
    """Takes the place of a tar-split, only to learn the CRC of each member's contents."""

    def __init__(self) -> None:
        self.crc = 0

    def add_member(self, raw: bytes, name: bytes, size: int, crc: int) -> None:
        self.crc = crc

    def add_raw(self, raw: bytes) -> None:
        pass


class _Reader:
    """Feeds a tar stream piece by piece to a hash and to the reader of members."""

    def __init__(self, digest: Digest, keep_going: Callable[[], object]) -> None:
        self.hash = digest.hasher()
        self.size = 0
        self.members: list[Member] = []
        self.flaws: list[Flaw] = []
        self._keep_going = keep_going
        self._checksum = _Checksum()
        self._stream = TarStream(self._checksum)

    def read(self, entries: Iterator[Segment | Contents], files: LayerFiles) -> None:
        """Read to the end. Raises IntegrityError, LayerError, StoreError, OSError."""
        for entry in entries:
            if isinstance(entry, Segment):
                self._feed(entry.raw)
            elif entry.size:
                self._contents(entry, files)
        self._stream.close()

    def _feed(self, data: bytes) -> None:
        self._keep_going()
        self.hash.update(data)
        self.size += len(data)
        for member, _ in self._stream.feed(data):
            if member is not None:
                self.members.append(member)

    def _contents(self, entry: Contents, files: LayerFiles) -> None:
        left, wrong, damage = entry.size, "", Damage.CONTENT_MODIFIED
        try:
            with files.open(entry.name) as file:
                while left and (piece := file.read(min(left, _PIECE))):
                    left -= len(piece)
                    self._feed(piece)
                if left or file.read(1):
                    wrong = "its size is not that of the archive"
        except StoreError:
            wrong, damage = "it is missing", Damage.CONTENT_MISSING
        except OSError as error:
            wrong = f"it cannot be read: {error.strerror}"
        while left:
            piece = _ZEROS[: min(left, _PIECE)]
            left -= len(piece)
            self._feed(piece)
        if not wrong and self._checksum.crc != entry.crc:
            wrong = "its contents are not those of the archive"
        if wrong:
            self.flaws.append(Flaw(damage, clean_name(entry.name) or entry.name, wrong))
