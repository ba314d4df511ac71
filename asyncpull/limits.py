"""Upper bounds for all that one Puller does at once."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from asyncpull.dataclass import dataclass
from asyncpull.fetch.congestion import CongestionLimits
from asyncpull.fetch.fetcher import MEMORY
from asyncpull.fetch.scheduler import SchedulerLimits
from asyncpull.layer.ceilings import USUAL, Ceilings

# Compressed bytes a second that one core extracts.
_EXTRACTED_BY_A_CORE: Final = 64.0 * (1 << 20)


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one Puller, however many pulls it does at once.

    ``max_parallel_downloads`` counts blobs on their way; ``workers`` extracting processes, None is cores + 2.
    ``connections`` is how many are open for blobs, in all, and ``connections_per_registry`` to any one registry.
    ``bandwidth`` is bytes a second over all downloads, None is no limit; ``memory`` is bytes that were received and are
    not written yet. ``ceilings`` are for each layer, what it may become when it is unpacked.
    """

    max_parallel_downloads: int = 6
    workers: int | None = None
    connections: int = 16
    connections_per_registry: int = 16
    bandwidth: float | None = None
    memory: int = MEMORY
    ceilings: Ceilings = USUAL

    @property
    def of_scheduler(self) -> SchedulerLimits:
        """Those that are the scheduler's."""
        usual, most = CongestionLimits(), self.connections_per_registry
        window = replace(usual, first=min(usual.first, most), most=most)
        return SchedulerLimits(
            self.max_parallel_downloads,
            self.connections,
            enough_rate=_EXTRACTED_BY_A_CORE * (os.cpu_count() or 1),
            congestion=window,
        )
