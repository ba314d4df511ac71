"""What becomes of findings: first what can be made anew is, then what is beyond that is removed, and what stands on it.

As ``podman system check --repair``: a damaged layer goes with all layers and images on it, and containers only if that
is forced. What a container needs that stays is not removed, and neither is what is mounted, nor a container that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.dataclass import dataclass
from asyncpull.store.check.data import genuine_item
from asyncpull.store.check.findings import DAMAGE_OF_CONTENT, Damage, Remedy, Subject
from asyncpull.store.check.inventory import Inventory
from asyncpull.store.check.overlay import mend_stack
from asyncpull.store.check.records import needed_layers
from asyncpull.store.files import disk_errors
from asyncpull.store.removal import forget
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.check.findings import Finding
    from asyncpull.store.images import ImageWriter
    from asyncpull.store.layers import LayerWriter
    from asyncpull.store.sections import Everything, Sections

_TAR_SPLIT = ".tar-split.gz"


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to be removed, by ID; layers in an order in which no layer goes before those on it."""

    containers: tuple[str, ...]
    images: tuple[str, ...]
    layers: tuple[str, ...]


async def repair(sections: Sections, findings: Sequence[Finding], *, force: bool) -> None:
    """Do what can be done about ``findings``; ``force`` removes containers too. Whether it helped, a check tells.

    Takes the locks of all records, exclusively, one after another and then all. Raises StoreError.
    """
    sections.require_writable()
    remake = [finding for finding in findings if finding.remedy is Remedy.REMAKE]
    await recount(sections, remake)
    stacking = {each.damage for each in remake if each.subject is Subject.LAYER} - DAMAGE_OF_CONTENT
    if sections.driver.is_layered and stacking:
        async with sections.writing_layers() as layers:
            await sections.work(_mend_layers, sections, layers)
    images_to_mend = {finding.id for finding in remake if finding.subject is Subject.IMAGE}
    if images_to_mend:
        async with sections.writing_images() as images:
            await sections.work(_mend_images, sections, images, images_to_mend)
    await remove(sections, findings, force=force)
    await sections.chore(sections.layers.remove_abandoned)


async def recount(sections: Sections, findings: Sequence[Finding]) -> None:
    """Count to nothing what is counted as mounted and is not.

    Takes storage.lock, layers.lock and mountpoints.lock, exclusively. Raises StoreError.
    """
    if any(finding.damage is Damage.MOUNT_COUNT_STALE for finding in findings):
        async with sections.mounting() as (storage_lock, _, counts_lock):
            await sections.work(_recount, sections, storage_lock, counts_lock, findings)


async def remove(sections: Sections, findings: Sequence[Finding], *, force: bool) -> None:
    """Remove what is damaged beyond repair, what nobody needs, and what nobody accounts for.

    Takes the locks of all records, exclusively; trees are deleted after them. Raises StoreError.
    """
    if not any(finding.remedy in (Remedy.REMOVE, Remedy.FORCE) for finding in findings):
        return
    async with sections.writing_everything() as every:
        await sections.work(_remove_records, sections, every, findings, force)
        await sections.work(_remove_strays, sections, every, findings)


def plan_removal(inventory: Inventory, findings: Iterable[Finding], mounted: Iterable[str], *, force: bool) -> Removal:
    """Decide what goes because of ``findings``, given which layers are ``mounted``; pure."""
    doomed: dict[Subject, set[str]] = {subject: set() for subject in Subject}
    unneeded: set[str] = set()
    for finding in findings:
        if finding.damage is Damage.LAYER_UNREFERENCED:
            unneeded.add(finding.id)
        elif finding.remedy is Remedy.REMOVE or (force and finding.remedy is Remedy.FORCE):
            doomed[finding.subject].add(finding.id)

    # What is damaged, and all that stands on it.
    layers = {
        each for each in inventory.layers if any(below.id in doomed[Subject.LAYER] for below in inventory.chain(each))
    }
    images = {
        image.id
        for image in inventory.images.values()
        if image.id in doomed[Subject.IMAGE] or not layers.isdisjoint((image.layer, *image.mapped_layers))
    }
    containers = {
        container.id
        for container in inventory.containers.values()
        if container.id in doomed[Subject.CONTAINER] or container.image in images or container.layer in layers
    }

    # What stays all the same, and what that needs.
    mounted = set(mounted)
    containers -= {
        each
        for each in containers
        if not force or each in inventory.running or inventory.containers[each].layer in mounted
    }
    staying = [container for container in inventory.containers.values() if container.id not in containers]
    images -= {container.image for container in staying}
    remaining = [image for image in inventory.images.values() if image.id not in images]
    candidates = layers | unneeded
    candidates |= needed_layers(
        inventory,
        [inventory.images[each] for each in images],
        [inventory.containers[each] for each in containers],
    )
    kept = needed_layers(inventory, remaining, staying)
    others = mounted | (inventory.layers.keys() - candidates)
    kept |= {below.id for each in others for below in inventory.chain(each)}
    gone = [each for each in inventory.layers if each in candidates and each not in kept]
    gone.sort(key=lambda each: sum(1 for _ in inventory.chain(each)), reverse=True)
    return Removal(tuple(sorted(containers)), tuple(sorted(images)), tuple(gone))


def _remove_records(sections: Sections, every: Everything, findings: Sequence[Finding], force: bool) -> None:
    containers = every.containers.rows.by_id
    inventory = Inventory(
        every.layers.rows.by_id,
        every.images.rows.by_id,
        containers,
        (),
        running=frozenset(each for each in containers if sections.containers.running_process(each)),
    )
    mounted = [record.layer for record in sections.mounts.list() if kernel.is_mount_point(record.path)]
    removal = plan_removal(inventory, findings, mounted, force=force)
    forget(every, containers=removal.containers, images=removal.images, layers=removal.layers)


def _remove_strays(sections: Sections, every: Everything, findings: Sequence[Finding]) -> None:
    """Whatever has got a record since it was found stays."""
    for finding in findings:
        name = finding.path
        match finding.damage:
            case Damage.STRAY_TREE | Damage.STRAY_LAYER_DATA:
                layer_id = name.removesuffix(_TAR_SPLIT)
                if layer_id not in every.layers.rows.by_id:
                    every.layers.remove_stray(layer_id)
            case Damage.STRAY_IMAGE_DATA if name not in every.images.rows.by_id:
                _remove_directory(sections.images.directory / name)
            case Damage.STRAY_CONTAINER_DATA if name not in every.containers.rows.by_id:
                _remove_directory(sections.containers.directory / name)
            case Damage.STRAY_SHORT_NAME:
                for home in sections.driver.homes.own:
                    link = home / "l" / name
                    with disk_errors(link):
                        if link.is_symlink() and not link.exists():
                            link.unlink()


def _remove_directory(path: Path) -> None:
    with disk_errors(path):
        remove_tree(path)


def _recount(
    sections: Sections, storage_lock: LockedFile | None, counts_lock: LockedFile, findings: Iterable[Finding]
) -> None:
    """Count to nothing what is not mounted."""
    stale = {finding.id for finding in findings if finding.damage is Damage.MOUNT_COUNT_STALE}
    for record in sections.mounts.list():
        if record.layer in stale and not kernel.is_mount_point(record.path):
            sections.mounts.unmount(storage_lock, counts_lock, record.layer, force=True)


def _mend_layers(sections: Sections, layers: LayerWriter) -> None:
    homes = sections.driver.homes
    with disk_errors(homes.main):
        short_names = frozenset(path.name for home in homes.own for path in (home / "l").iterdir())
    mend_stack(sections.driver, Inventory(layers.rows.by_id, {}, {}, (), short_names=short_names, lent=layers.lent))


def _mend_images(sections: Sections, images: ImageWriter, image_ids: Iterable[str]) -> None:
    """Write items again whose bytes another item of the image has, and record their sizes."""
    for image_id in image_ids:
        image = images.rows.by_id.get(image_id)
        if image is None:
            continue
        keys = dict.fromkeys((*image.big_data_names, "manifest"))
        items = [(key, genuine_item(sections.images.directory, image, key)) for key in keys]
        images.put_items(image_id, [(key, data) for key, data in items if data is not None])
