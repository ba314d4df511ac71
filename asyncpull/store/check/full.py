"""Reading every layer, several at once: the archive through its tar-split, then the tree against the archive.

Where each tree holds only what its layer changes, layers are independent. Where trees are complete, what is expected of
one comes from the archives of all layers below it too, so they are read first and remembered.

Not compared are the trees of layers with ID mappings: they are copies, whose archive can still be rebuilt.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from asyncpull import kernel
from asyncpull.errors import LayerError
from asyncpull.log import Log
from asyncpull.store.check.archive import Archive, Flaw, read_archive
from asyncpull.store.check.contents import Compared, compare_tree
from asyncpull.store.check.expected import expected_tree
from asyncpull.store.check.findings import Damage, Finding, Remedy, Subject
from asyncpull.store.check.mend import mend_tree
from asyncpull.store.files import disk_errors
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from concurrent.futures import Executor

    from asyncpull.layer.header import Member
    from asyncpull.store.check.inventory import Inventory
    from asyncpull.store.sections import Sections
    from asyncpull.store.views import LayerRecord

T = TypeVar("T")
_log = Log(__name__)
Members = tuple["Member", ...]


async def check_contents(
    sections: Sections, inventory: Inventory, compared: Compared, only: Collection[str] | None = None
) -> list[Finding]:
    """Read every layer that has a digest, lent ones too, or ``only`` these. A cancellation ends it soon.

    No lock is held.

    Raises StoreError where a file system fails.
    """
    own_and_lent = {**inventory.lent, **inventory.layers}.values()
    layers = [layer for layer in own_and_lent if layer.diff_digest and not layer.toc_digest]
    layers = [layer for layer in layers if only is None or layer.id in only]
    layers.sort(key=lambda layer: layer.diff_size, reverse=True)
    stop = Event()
    reader = _LayerReader(sections, inventory, compared, stop)
    threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="check")
    with disk_errors(sections.layers.directory), threads:
        if sections.driver.is_layered:
            found = await _in_threads(threads, stop, [partial(reader.inspect, layer) for layer in layers])
        else:
            found = await _in_threads(threads, stop, [partial(reader.remember, layer) for layer in layers])
            found += await _in_threads(threads, stop, [partial(reader.compare_whole, layer) for layer in layers])
    return [finding for findings in found for finding in findings]


async def mend_contents(sections: Sections, inventory: Inventory, compared: Compared, layer_ids: Iterable[str]) -> None:
    """Make the trees of these layers again what their archives say, as far as that can be; no lock is held.

    Layers that are mounted, or below a mounted one, are left as they are. Raises StoreError where a file system fails.
    """
    mounted = {each.layer for each in inventory.mounts if kernel.is_mount_point(each.path)}
    busy = {below.id for each in mounted for below in inventory.chain(each)}
    stop = Event()
    reader = _LayerReader(sections, inventory, compared, stop)
    wanted = [inventory.layers[each] for each in layer_ids if each in inventory.layers]
    for layer in wanted:
        if layer.id in busy:
            _log.warning("a layer is not mended while it is mounted", layer=layer.id)
    layers = [layer for layer in wanted if layer.id not in busy]
    threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mend")
    with disk_errors(sections.layers.directory), threads:
        await _in_threads(threads, stop, [partial(reader.mend, layer) for layer in layers])


async def _in_threads(threads: Executor, stop: Event, jobs: Iterable[Callable[[], T]]) -> list[T]:
    """Run all jobs to their end, which ``stop`` brings nearer. Raises the first failure."""
    loop = asyncio.get_running_loop()
    futures = [loop.run_in_executor(threads, job) for job in jobs]
    outcomes = asyncio.gather(*futures, return_exceptions=True)
    try:
        await finish(outcomes, stop.set)
    except asyncio.CancelledError:
        outcomes.exception()
        raise
    return [future.result() for future in futures]


class _StoppedError(Exception):
    """Nobody wants to know any more."""


class _LayerReader:
    """Reads layers, each in the thread that calls."""

    def __init__(self, sections: Sections, inventory: Inventory, compared: Compared, stop: Event) -> None:
        self._sections, self._inventory, self._compared, self._stop = sections, inventory, compared, stop
        self._members: dict[str, Members] = {}

    def inspect(self, layer: LayerRecord) -> list[Finding]:
        """Read the archive of a layer, and compare its tree with it."""
        archive = self._read(layer)
        flaws = list(archive.flaws)
        if archive.members is not None:
            flaws += self._compare(layer, [archive.members])
        # With all bytes there, everything else can be made from the headers of the archive.
        is_sound = not archive.flaws and all(flaw.path for flaw in flaws)
        return self._findings(layer, flaws, Remedy.REMAKE if is_sound else Remedy.REMOVE)

    def mend(self, layer: LayerRecord) -> None:
        """Make the tree of a layer what its archive says, if nothing is wrong with that."""
        archive = self._read(layer)
        if archive.members is None or archive.flaws:
            return
        driver, compared = self._sections.driver, self._compared
        diff = driver.diff_path(layer.id)
        try:
            expected = expected_tree([archive.members], driver.marks, has_devices=compared.devices)
            flaws = compare_tree(diff, expected, driver.marks, compared, self._keep_going)
            mend_tree(diff, expected, flaws, driver.marks, compared)
        except (LayerError, OSError) as error:
            _log.warning("a layer cannot be mended", layer=layer.id, reason=str(error))

    def remember(self, layer: LayerRecord) -> list[Finding]:
        """Read the archive of a layer, and keep its members for ``compare_whole``."""
        archive = self._read(layer)
        if archive.members is not None:
            self._members[layer.id] = archive.members
        return self._findings(layer, archive.flaws)

    def compare_whole(self, layer: LayerRecord) -> list[Finding]:
        """Compare a complete tree with the archives of all its layers, if all of them are known."""
        chain = [self._members.get(each.id) for each in self._inventory.chain(layer.id)]
        known = [members for members in chain if members is not None]
        return self._findings(layer, self._compare(layer, known[::-1]) if len(known) == len(chain) else [])

    def _read(self, layer: LayerRecord) -> Archive:
        tar_split = self._sections.tar_split_path(layer.id)
        return read_archive(layer, tar_split, self._sections.layers.roots(layer), self._keep_going)

    def _compare(self, layer: LayerRecord, archives: Sequence[Members]) -> list[Flaw]:
        if layer.is_id_mapped:
            return []
        driver, compared = self._sections.driver, self._compared
        try:
            expected = expected_tree(archives, driver.marks, has_devices=compared.devices)
            return compare_tree(driver.diff_path(layer.id), expected, driver.marks, compared, self._keep_going)
        except LayerError as error:
            return [Flaw(Damage.TAR_SPLIT_UNREADABLE, b"", f"its archive is not one of a layer: {error}")]
        except OSError as error:
            return [Flaw(Damage.CONTENT_MISSING, b"", f"its tree cannot be read: {error}")]

    def _findings(self, layer: LayerRecord, flaws: Iterable[Flaw], remedy: Remedy = Remedy.REMOVE) -> list[Finding]:
        """One finding per path and kind of damage. What is lent is for its owner to repair."""
        remedy = Remedy.NONE if layer.read_only else remedy
        diff = self._sections.driver.diff_path(layer.id)
        messages: dict[tuple[Damage, bytes], list[str]] = {}
        for flaw in flaws:
            messages.setdefault((flaw.damage, flaw.path), []).append(flaw.message)
        missing = {path for damage, path in messages if damage is Damage.CONTENT_MISSING}
        return [
            Finding(
                damage,
                Subject.LAYER,
                layer.id,
                os.fsencode(diff / os.fsdecode(path)).decode(errors="backslashreplace") if path else "",
                "; ".join(dict.fromkeys(words)),
                remedy,
            )
            for (damage, path), words in messages.items()
            if damage is not Damage.CONTENT_MODIFIED or path not in missing
        ]

    def _keep_going(self) -> None:
        if self._stop.is_set():
            raise _StoppedError
