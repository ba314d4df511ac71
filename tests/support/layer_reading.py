"""Reading a layer to its end, however it is sliced, with everything that came of it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncpull.layer.changeset import Action, Changeset
from asyncpull.layer.split import SplitWriter
from asyncpull.layer.stream import Member, TarStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Reading:
    """What a layer was found to be."""

    members: tuple[Member, ...]
    contents: tuple[bytes, ...]
    actions: tuple[Action, ...]
    split: bytes

    @property
    def split_lines(self) -> list[bytes]:
        """The lines of the tar-split, decompressed."""
        return gzip.decompress(self.split).splitlines()


def slices(data: bytes, size: int) -> Iterator[bytes]:
    """``data`` in pieces of ``size`` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """``data`` cut at ``places``, which may be anywhere and in any order."""
    start = 0
    for place in sorted(place % (len(data) + 1) for place in places):
        yield data[start:place]
        start = place
    yield data[start:]


def read_layer(pieces: Iterable[bytes], *, with_actions: bool = True) -> Reading:
    """Read the tar stream that comes in ``pieces``. Raises LayerError."""
    split: list[bytes] = []
    writer = SplitWriter(split.append)
    stream = TarStream(writer)
    changeset = Changeset()
    members: list[Member] = []
    contents: list[bytearray] = []
    actions: list[Action] = []
    for piece in pieces:
        for member, some in stream.feed(piece):
            if member is not None:
                members.append(member)
                contents.append(bytearray())
                if with_actions:
                    actions.append(changeset.action(member))
            contents[-1] += some
    stream.close()
    writer.close()
    return Reading(tuple(members), tuple(map(bytes, contents)), tuple(actions), b"".join(split))
