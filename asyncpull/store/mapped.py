"""What a container with other IDs stands on: the top layer of its image, or a copy of it with the container's owners.

The copy is a layer like its template, with the same parent, diff and tar-split, and with mappings; the image lists it,
so that the next container with these mappings has it too. In a layered driver it lies upon its template: the changed
files are in ``diff1``, below an empty ``diff``, as containers/storage leaves them (its UpdateLayerIDMap).
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import MountError, NotInStoreError
from asyncpull.kernel import sync_file_system
from asyncpull.store.chowning import chown_mounted, chown_tree
from asyncpull.store.driver import MountOptions, MountPlan
from asyncpull.store.files import disk_errors, make_directory
from asyncpull.store.idmap import IDMappings, format_raw
from asyncpull.store.layers import Addition, new_record
from asyncpull.tree.marks import Marks
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpull.store.layers import Layers
    from asyncpull.store.records import Raw
    from asyncpull.store.sections import Everything, Sections
    from asyncpull.store.staging import StagedLayer, Staging
    from asyncpull.store.views import ImageRecord, LayerRecord

# What a copy has of its template's record.
_SHARED = (
    *("metadata", "compressed-diff-digest", "compressed-size", "diff-digest", "toc-digest", "diff-size"),
    *("compression", "uidset", "gidset"),
)


@dataclass(frozen=True, slots=True)
class Top:
    """A layer to stand on, as it is or, with ``needs_copy``, in a copy with other owners."""

    layer: LayerRecord
    needs_copy: bool


@dataclass(frozen=True, slots=True)
class MappedCopy:
    """A copy of ``template`` that nobody sees yet; it holds for the template only as it is recorded here."""

    template: LayerRecord
    mappings: IDMappings
    staged: StagedLayer
    has_tar_split: bool


async def top_for(
    sections: Sections, staging: Staging, image: ImageRecord, mappings: IDMappings, *, in_userns: bool
) -> str | None:
    """The ID of the layer that a container with ``mappings`` is to stand on, which is made if it takes a copy.

    The copy is made without a lock, then added under the locks of all records. Raises NotInStoreError, MountError,
    StoreError.
    """
    if image.layer is None:
        return None
    maps_owners = await sections.chore(sections.mounts.maps, mappings)
    rows = await sections.read(sections.layers.table)
    top = choose_top(image, rows.by_id, mappings, maps_owners=maps_owners)
    if not top.needs_copy:
        return top.layer.id
    if image.read_only:
        raise MountError(
            f"image {image.id[:12]} is in an additional image store, so no copy with other owners can be made of it",
            "pull the image into this store first, or give it a name here",
        )
    copy = await sections.chore(stage_copy, sections.layers, staging, top.layer, mappings, in_userns=in_userns)
    async with sections.writing_everything() as every:
        return (await sections.work(add_copy, every, image.id, copy)).id


def choose_top(
    image: ImageRecord, layers: Mapping[str, LayerRecord], mappings: IDMappings, *, maps_owners: bool
) -> Top:
    """What a container with ``mappings`` stands on, of an image that has layers.

    ``maps_owners``: a mount can show other owners, so the layer as it was pulled will do. Raises NotInStoreError.
    """
    found = [layers[layer] for layer in (image.layer, *image.mapped_layers) if layer is not None and layer in layers]
    for layer in found:
        if layer.mappings == mappings or (maps_owners and not layer.is_id_mapped):
            return Top(layer, needs_copy=False)
    if not found:
        raise NotInStoreError(f"layer {image.layer}, the top of image {image.id[:12]}, is not in the store")
    return Top(found[0], needs_copy=True)


def stage_copy(
    layers: Layers, staging: Staging, template: LayerRecord, mappings: IDMappings, *, in_userns: bool
) -> MappedCopy:
    """Make a copy of ``template`` with other owners. Slow; needs no lock. Raises MountError, StoreError."""
    driver = layers.driver
    if driver.marks is Marks.AUFS:
        raise MountError("a mount program maps IDs without gaps only", "map one range of users, and one of groups")
    staged = staging.new_layer(template.id)
    with disk_errors(staged.directory):
        if driver.is_layered:
            below = driver.plan_mount(template.id, MountOptions())
            plan = MountPlan(
                target=staged.directory / "merged",
                lowers=below.lowers,
                upper=staged.diff,
                work=staged.directory / "work",
                options=tuple(option for option in below.options if option != "ro"),
            )
            chown_mounted(plan, template.mappings, mappings)
            _rotate(staged, mappings, driver.diff_path(template.id).lstat().st_mode)
        else:
            staged.copy_base(in_userns=in_userns)
            chown_tree(staged.diff, template.mappings, mappings)
            os.chown(staged.diff, *mappings.root)
        tar_split = layers.tar_split_path(template.id)
        has_tar_split = tar_split.exists()
        if has_tar_split:
            shutil.copyfile(tar_split, staged.tar_split)
            staged.tar_split.chmod(0o600)
        if layers.is_synced:
            sync_file_system(staged.directory)
    return MappedCopy(template, mappings, staged, has_tar_split)


def add_copy(every: Everything, image_id: str, copy: MappedCopy) -> LayerRecord:
    """Make a copy part of the store, and of its image; or take the one that somebody else has made meanwhile.

    Needs all locks, exclusively. Raises NotInStoreError if the template was removed or made anew meanwhile, StoreError.
    """
    image, layers = every.images.rows.by_id.get(image_id), every.layers.rows.by_id
    if image is None or layers.get(copy.template.id) != copy.template:
        raise NotInStoreError(f"image {image_id} was removed while its layer was copied", hint="try again")
    top = choose_top(image, layers, copy.mappings, maps_owners=False)
    if not top.needs_copy:
        return top.layer
    addition = Addition(
        _record(every.layers.rows.raw(copy.template.id), copy),
        copy.staged,
        copy.has_tar_split,
        stands_on=copy.template.id,
        root_owner=copy.mappings.root,
    )
    with every.layers.added([addition]):
        every.images.set_mapped_layers(image.id, (*image.mapped_layers, addition.id))
    return every.layers.rows.by_id[addition.id]


def _record(template: Raw, copy: MappedCopy) -> Raw:
    shared = {key: template[key] for key in _SHARED if template.get(key)}
    owners = {"uidmap": format_raw(copy.mappings.uids), "gidmap": format_raw(copy.mappings.gids)}
    return new_record(os.urandom(32).hex(), copy.template.parent) | shared | owners


def _rotate(staged: StagedLayer, mappings: IDMappings, mode: int) -> None:
    """Put an empty directory above what was copied up, and a new working directory beside it."""
    staged.diff.chmod(stat.S_IMODE(mode))
    staged.diff.rename(staged.directory / "diff1")
    make_directory(staged.diff, stat.S_IMODE(mode))
    os.chown(staged.diff, *mappings.root)
    remove_tree(staged.directory / "work")
    make_directory(staged.directory / "work", 0o700)
