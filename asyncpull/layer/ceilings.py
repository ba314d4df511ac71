"""What one layer may become at most: against archives that are small on the way and have no end when they are unpacked.

A blob of ten megabytes may be ten gigabytes of zeros, or a hundred million files without a byte in them. Nobody can
tell that from honest content but by its measure, so every measure has a ceiling, far above what images have:

- ``size``: bytes of the tar stream.
- ``ratio``: bytes of the tar stream for each byte of the blob so far, looked at beyond ``ratio_from`` bytes only: files
  full of zeros are usual, as databases and disk images that were allocated and not yet filled.
- ``members``: each is remembered by its name, so they cost some 200 bytes of memory, and an inode.
- ``seconds``: processor time of the worker. A slow disk or network does not count.

Within the ceilings, the disk is watched (``space``), and what is unpacked beyond it is removed.
"""

from __future__ import annotations

from typing import Final

from asyncpull.dataclass import dataclass
from asyncpull.errors import CeilingError

__all__ = ["BOUNDLESS", "USUAL", "Ceilings"]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Upper bounds for one layer; None is no bound. Each method raises CeilingError for what is above one."""

    size: int | None = 1 << 40
    ratio: float | None = 500.0
    ratio_from: int = 4 << 30
    members: int | None = 10_000_000
    seconds: float | None = 3600.0

    def check_inflated(self, blob: int, tar: int) -> None:
        """Judge a blob of which ``blob`` bytes became ``tar`` bytes."""
        if self.size is not None and tar > self.size:
            raise CeilingError("size", f"becomes more than {self.size:,} bytes when uncompressed")
        if self.ratio is not None and tar > self.ratio_from and tar > blob * self.ratio:
            raise CeilingError("ratio", f"becomes more than {self.ratio:g} times as large as its blob")

    def check_members(self, count: int) -> None:
        """Judge an archive with ``count`` members."""
        if self.members is not None and count > self.members:
            raise CeilingError("members", f"has more than {self.members:,} members")

    def check_seconds(self, seconds: float) -> None:
        """Judge a layer that took so much processor time."""
        if self.seconds is not None and seconds > self.seconds:
            raise CeilingError("seconds", f"takes more than {self.seconds:g} seconds of processor time")


USUAL: Final = Ceilings()

BOUNDLESS: Final = Ceilings(size=None, ratio=None, members=None, seconds=None)
"""For what was let in before."""
