"""Which of the pulls that run at once brings in a layer that several of them want.

A download is shared already (``fetch``), but a layer is only in the store when the image it came with is committed,
so it is a whole pull that the others wait for. The rules, for the pulls of one Puller:

1. A pull joins once, with all the layers of its image, in one step without an await; the moment it joins is its place
   in the order of arrival. It leaves when it has ended, in whatever way.
2. A layer is held by the earliest of the pulls that want it and have not left. A new pull is the latest of all, so a
   layer never passes to another pull while its holder runs.
3. Only the holder of a layer stages it. The others wait until the holder has left: if its image was committed the
   layer is in the store and is reused; if not, whoever is the earliest now holds it.
4. The store is looked at after joining, not before: what an earlier pull has committed is there then, and what it has
   not is still held by it.

Why nobody waits for ever: a pull waits only for earlier pulls, so who waits for whom has no circle, and the earliest of
all waits for nobody. A pull that waits goes on with its other layers meanwhile. Nothing else that is waited for turns
this order round: the lock of the image is taken before joining, and the lock of a spool is held by a download, which
waits for no layer.

Why every layer is staged once: by 3 only the holder stages, by 2 there is one, and by 4 it begins only if no pull
before it has committed the layer. If somebody removes the layer before it is reused, the commit says so and the pull
plans again, with the place it has.

Between processes there is no such order; there a layer is looked for once more before it is fetched, and the loser of
a race only throws away what it has staged.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from asyncpull.spec.digest import Digest


class Sharing:
    """The pulls of one Puller that have joined, in the order of arrival."""

    def __init__(self) -> None:
        self._shares: list[Share] = []
        self._places = itertools.count(1)

    @contextmanager
    def joined(self, pull: int, layers: Collection[str], blobs: Collection[Digest]) -> Iterator[Share]:
        """The share of pull number ``pull`` in the layers with these IDs and these blobs, while the body runs."""
        share = Share(self, pull, next(self._places), frozenset(layers), frozenset(blobs))
        self._shares.append(share)
        try:
            yield share
        finally:
            self._shares.remove(share)
            share.leave()

    def before(self, share: Share, layer: str) -> Share | None:
        """The earliest pull that wants ``layer``, if that is not the one of ``share``."""
        earliest = next(other for other in self._shares if other is share or layer in other.layers)
        return None if earliest is share else earliest

    def is_wanted_elsewhere(self, share: Share, blob: Digest) -> bool:
        """Whether a pull other than that of ``share`` may still need ``blob``."""
        return any(blob in other.blobs for other in self._shares if other is not share)

    def __repr__(self) -> str:
        return f"<Sharing {[share.pull for share in self._shares]}>"


class Share:
    """What the pull with the number ``pull`` wants, and its place in the order of arrival; from ``Sharing.joined``.

    ``is_committed`` is set by the pull when its image is in the store.
    """

    def __init__(
        self, sharing: Sharing, pull: int, place: int, layers: frozenset[str], blobs: frozenset[Digest]
    ) -> None:
        self.pull, self.place, self.layers, self.blobs = pull, place, layers, blobs
        self.is_committed = False
        self._sharing = sharing
        self._left = asyncio.Event()

    def holder(self, layer: str) -> Share | None:
        """The earlier pull that holds ``layer``; None if it is held by this one."""
        return self._sharing.before(self, layer)

    async def ended(self) -> bool:
        """Wait until this pull has left; true if its layers are in the store."""
        await self._left.wait()
        return self.is_committed

    def leave(self) -> None:
        """The pull has ended: let all who wait for it go on."""
        self._left.set()

    def is_last_to_want(self, blob: Digest) -> bool:
        """Whether no other pull may still need ``blob``."""
        return not self._sharing.is_wanted_elsewhere(self, blob)

    def __repr__(self) -> str:
        return f"<Share of pull {self.pull}: {len(self.layers)} layers>"
