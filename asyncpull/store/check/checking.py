"""A check from beginning to end: what is looked at, in which order, where it runs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreWriteError
from asyncpull.lockfile import is_locked, try_lock
from asyncpull.store.check import DAY_SECONDS
from asyncpull.store.check.contents import Compared
from asyncpull.store.check.data import check_container_data, check_image_data, check_layer_data
from asyncpull.store.check.findings import DAMAGE_OF_CONTENT, CheckReport, Damage, Finding, Remedy, Subject
from asyncpull.store.check.full import check_contents, mend_contents
from asyncpull.store.check.inventory import take_inventory
from asyncpull.store.check.lent import check_lent
from asyncpull.store.check.overlay import check_stack, read_lent_names, read_short_names, read_stack
from asyncpull.store.check.records import check_records, check_strays
from asyncpull.store.check.repair import recount, remove, repair
from asyncpull.store.files import TEMPORARY, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.store.check.inventory import Inventory
    from asyncpull.store.mounts import MountRecord
    from asyncpull.store.sections import Sections

# What a crash may leave, and everybody ignores.
_HARMLESS = frozenset(
    (
        Damage.STRAY_SHORT_NAME,
        Damage.STRAY_LAYER_DATA,
        Damage.STRAY_IMAGE_DATA,
        Damage.STRAY_CONTAINER_DATA,
    )
)
_OF_NO_USE = frozenset((Damage.LAYER_UNREFERENCED, Damage.LAYER_INCOMPLETE))
_ORDER = (Subject.LAYER, Subject.IMAGE, Subject.CONTAINER, Subject.STORE)


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """``is_full``: read every byte, and compare trees as far as ``compared`` says.

    ``max_age_seconds``: how old a layer that nobody needs may be.
    """

    is_full: bool = True
    max_age_seconds: float = DAY_SECONDS
    compared: Compared = field(default_factory=Compared)


async def check(sections: Sections, options: CheckOptions) -> CheckReport:
    """Look at everything, change nothing. Raises StoreError where a file system fails."""
    before = await inventory_of(sections)
    quick = await sections.chore(glance, sections, before, options)
    contents = []
    if options.is_full and not before.unreadable:
        contents = await check_contents(sections, before, options.compared)
    after = before
    if quick or contents:
        # What somebody made or removed while we looked is no damage: it looks otherwise the second time.
        after = await inventory_of(sections)
        again = set(await sections.chore(glance, sections, after, options))
        quick = [finding for finding in quick if finding in again]
        contents = [finding for finding in contents if _is_same_layer(finding.id, before, after)]
    return _report(_once(quick, contents), after, options)


async def check_and_repair(sections: Sections, options: CheckOptions, *, force: bool) -> CheckReport:
    """Check, repair, and look again whether that helped; ``force`` removes containers too. Raises StoreError."""
    report = await check(sections, options)
    if not report.findings:
        return report
    mendable = {
        finding.id
        for finding in report.findings
        if finding.damage in DAMAGE_OF_CONTENT and finding.remedy is Remedy.REMAKE
    }
    if mendable:
        await mend_contents(sections, await inventory_of(sections), options.compared, mendable)
    await repair(sections, report.findings, force=force)
    after = await inventory_of(sections)
    left = set(await sections.chore(glance, sections, after, options))
    left.update(await check_contents(sections, after, options.compared, mendable))
    judged = [replace(finding, is_repaired=_is_gone(finding, after, left, mendable)) for finding in report.findings]
    return _report(judged, after, options)


async def collect_garbage(
    sections: Sections, private: Path, options: CheckOptions, *, dry_run: bool
) -> tuple[Finding, ...]:
    """Remove what nobody accounts for and what nobody needs; what that was. Raises StoreError."""
    inventory = await inventory_of(sections)
    found = await sections.chore(_find_garbage, sections, private, inventory, options)
    if dry_run or inventory.unreadable or not found:
        return tuple(found)
    sections.require_writable()
    await recount(sections, found)
    await remove(sections, found, force=False)
    await sections.chore(_remove_leftovers, sections, private)
    inventory = await inventory_of(sections)
    left = set(await sections.chore(_find_garbage, sections, private, inventory, options))
    return tuple(replace(finding, is_repaired=finding not in left) for finding in found)


async def inventory_of(sections: Sections) -> Inventory:
    """Read records and directories, all locks of records held, shared. Raises StoreError.

    layers.lock is taken exclusively for a moment if there are incomplete layers, which are then removed.
    """
    async with sections.reading_everything() as locks:
        inventory = await sections.work(take_inventory, sections, locks)
    if any(layer.is_incomplete for layer in inventory.layers.values()):
        # What its maker could not finish goes as soon as anybody looks: no damage, unless nobody may write.
        with suppress(StoreWriteError):
            async with sections.writing_layers():
                pass
            async with sections.reading_everything() as locks:
                return await sections.work(take_inventory, sections, locks)
    return inventory


def glance(sections: Sections, inventory: Inventory, options: CheckOptions) -> list[Finding]:
    """All that can be told without reading the content of layers; no lock is needed. Raises StoreError."""
    if inventory.unreadable:
        return list(inventory.unreadable)
    found = check_records(inventory, datetime.now(UTC), options.max_age_seconds)
    found += check_strays(inventory)
    found += _check_trees(sections, inventory)
    found = [finding for finding in found if finding.damage not in _HARMLESS]
    found += _check_data(sections, inventory)
    found += check_lent(sections.driver, inventory)
    found += _check_mounts(inventory)
    found += _abandoned(sections)
    return found


def _abandoned(sections: Sections) -> list[Finding]:
    """What programs that died left in the places for temporary things; none where nothing can be written."""
    try:
        paths = sections.layers.find_abandoned()
    except StoreWriteError:
        return []
    return [_left_behind(path) for path in paths]


def _find_garbage(sections: Sections, private: Path, inventory: Inventory, options: CheckOptions) -> list[Finding]:
    """What ``collect_garbage`` removes: more than a check complains of, as half-written files harm nobody."""
    if inventory.unreadable:
        return list(inventory.unreadable)
    records = check_records(inventory, datetime.now(UTC), options.max_age_seconds)
    found = [finding for finding in records if finding.damage in _OF_NO_USE]
    found += check_strays(inventory)
    found += [each for each in _check_trees(sections, inventory) if each.damage is Damage.STRAY_SHORT_NAME]
    found += _find_stale_counts(inventory)
    found += _abandoned(sections)
    for path in _half_written(sections):
        found.append(_left_behind(path))
    with disk_errors(private):
        for path in sorted((private / "locks").glob("*")):
            if not is_locked(path):
                found.append(_left_behind(path))
    return found


def _remove_leftovers(sections: Sections, private: Path) -> None:
    """Delete what needs no lock of records; half-written files are swept by whoever takes those exclusively."""
    sections.layers.remove_abandoned()
    with disk_errors(private):
        for path in (private / "locks").glob("*"):
            lock = try_lock(path)
            if lock is not None:
                lock.close(unlink=True)


def _half_written(sections: Sections) -> list[Path]:
    """Half-written files; whoever holds the lock under which they are written is at it this very moment."""
    tables = (sections.layers.table, sections.images.table, sections.containers.table)
    directories = [directory for table in tables for directory in table.directories]
    with disk_errors(sections.layers.directory):
        return [path for directory in directories for path in sorted(directory.glob(f"{TEMPORARY}*"))]


def _left_behind(path: Path) -> Finding:
    message = "was left by a program that died"
    return Finding(Damage.ABANDONED, Subject.STORE, "", str(path), message, Remedy.REMOVE)


def _check_trees(sections: Sections, inventory: Inventory) -> Iterator[Finding]:
    driver = sections.driver
    if driver.is_layered:
        stack = read_stack(driver, inventory.layers)
        short_names = read_short_names(driver, inventory.short_names)
        yield from check_stack(inventory, stack, short_names, read_lent_names(driver, inventory))
    else:
        for layer_id in inventory.layers.keys() - inventory.trees:
            where = str(driver.diff_path(layer_id))
            yield Finding(Damage.TREE_MISSING, Subject.LAYER, layer_id, where, "its tree is missing", Remedy.REMOVE)
    for layer in inventory.layers.values():
        path = sections.layers.tar_split_path(layer.id)
        if layer.diff_digest and not layer.toc_digest and not layer.is_incomplete and not path.is_file():
            message = "its tar-split is missing, without which it cannot be exported"
            yield Finding(Damage.TAR_SPLIT_MISSING, Subject.LAYER, layer.id, str(path), message, Remedy.REMOVE)


def _check_data(sections: Sections, inventory: Inventory) -> Iterator[Finding]:
    for layer in inventory.layers.values():
        yield from check_layer_data(sections.layers.directory, layer)
    for image in inventory.images.values():
        yield from check_image_data(sections.images.directory, image, inventory)
    for container in inventory.containers.values():
        yield from check_container_data(sections.containers.directory, container)


def _check_mounts(inventory: Inventory) -> Iterator[Finding]:
    """Counts of layers that are not recorded. Other counts without a mount are harmless: the next mount begins anew."""
    for mounted in inventory.mounts:
        if mounted.layer not in inventory.layers and not kernel.is_mount_point(mounted.path):
            yield _stale(mounted, "is counted as mounted, and is no layer")


def _find_stale_counts(inventory: Inventory) -> Iterator[Finding]:
    """Counts of what is mounted for no process at all: a mount namespace that died leaves them."""
    stale = [mounted for mounted in inventory.mounts if not kernel.is_mount_point(mounted.path)]
    elsewhere = kernel.mounted_anywhere(mounted.path for mounted in stale)
    for mounted in stale:
        if mounted.path not in elsewhere:
            yield _stale(mounted, f"is counted as mounted {mounted.count} times, and is not")


def _stale(mounted: MountRecord, message: str) -> Finding:
    where = str(mounted.path)
    return Finding(Damage.MOUNT_COUNT_STALE, Subject.LAYER, mounted.layer, where, message, Remedy.REMAKE)


def _once(quick: list[Finding], contents: list[Finding]) -> list[Finding]:
    """All findings, without those of content that only say again that something is missing."""
    gone = {each.id for each in quick if each.damage in (Damage.TREE_MISSING, Damage.TAR_SPLIT_MISSING)}
    return quick + [finding for finding in contents if finding.id not in gone]


def _is_same_layer(layer_id: str, before: Inventory, after: Inventory) -> bool:
    old, new = before.layer(layer_id), after.layer(layer_id)
    return old is not None and new is not None and old.created == new.created


def _is_gone(finding: Finding, after: Inventory, left: set[Finding], mendable: set[str]) -> bool:
    if finding.damage in DAMAGE_OF_CONTENT and finding.id not in mendable:
        return after.record(finding.subject, finding.id) is None  # nobody has read that layer again
    return finding not in left


def _report(findings: list[Finding], inventory: Inventory, options: CheckOptions) -> CheckReport:
    findings.sort(key=lambda finding: _ORDER.index(finding.subject))
    counts = len(inventory.layers), len(inventory.images), len(inventory.containers)
    return CheckReport(tuple(findings), options.is_full, *counts)
