"""Layers seen with other owners: the lower directories of a mount, through mounts that map IDs (format, section 8.2).

The kernel maps the IDs of a mount, not of a directory, so each lower layer gets a mount of its own for the moment in
which overlay is mounted, ``mapped/N`` beside the mount point; overlay keeps what it needs of them. The writable layer
is none of them: what is written there has the owners that it has outside of the container.

Whether the kernel does this is tried once and remembered in the run root, where podman remembers it, so that both make
containers in the same way.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.errors import StoreError
from asyncpull.log import Log
from asyncpull.store.files import make_directory
from asyncpull.store.idmap import NO_MAPPINGS, IDMap, IDMappings, is_contiguous
from asyncpull.store.tempdirs import TempDir
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.store.driver import Driver, MountPlan
    from asyncpull.store.idmap import IDMaps

_log = Log(__name__)

_DISABLED = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"
_FEATURE = "idmapped-lower-dir"
_ROOT_ONLY = IDMappings((IDMap(0, 0, 1),), (IDMap(0, 0, 1),))


@contextlib.contextmanager
def user_namespace(mappings: IDMappings) -> Iterator[int]:
    """A descriptor of a user namespace with these mappings. Raises OSError."""
    fd = kernel.new_user_namespace(_lines(mappings.uids), _lines(mappings.gids))
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def with_mapped_lowers(plan: MountPlan) -> Iterator[MountPlan]:
    """The plan with its lower layers mapped, for the time of mounting it. Raises OSError."""
    if not plan.mappings:
        yield plan
        return
    if plan.upper is not None:
        # Overlay shows the owner of the uppermost root directory, which is the container's.
        os.chown(plan.upper, *plan.mappings.root)
    own = plan.target.parent
    homes = dict.fromkeys(lower.parent for lower in plan.lowers if lower.parent != own)
    mapped = own / "mapped"
    unmap(mapped)
    make_directory(mapped, 0o700)
    try:
        with user_namespace(plan.mappings) as namespace:
            places = {home: mapped / str(number) for number, home in enumerate(homes)}
            for home, place in places.items():
                make_directory(place, 0o700)
                kernel.mount_mapped(home, place, namespace)
        lowers = tuple(places.get(lower.parent, lower.parent) / lower.name for lower in plan.lowers)
        yield replace(plan, lowers=lowers, mappings=NO_MAPPINGS)
    finally:
        unmap(mapped)


def unmap(directory: Path) -> None:
    """Unmount what is mounted in ``directory`` of mapped layers, also what a dead program left, and remove it."""
    try:
        places = list(directory.iterdir())
    except FileNotFoundError:
        return
    for place in places:
        with contextlib.suppress(OSError):  # not mounted
            kernel.unmount(place, kernel.MNT_DETACH)
        with contextlib.suppress(OSError):  # not empty: whatever that is, it is not ours to remove
            place.rmdir()
    with contextlib.suppress(OSError):
        directory.rmdir()


def maps_owners(driver: Driver, run_root: Path, mappings: IDMappings) -> bool:
    """Whether mounts of ``driver`` can show the files of layers with other owners, so that they need not be copied."""
    if not driver.is_layered or os.environ.get(_DISABLED) == "yes":
        return False
    if driver.marks is Marks.AUFS:  # a mount program maps IDs itself
        return is_contiguous(mappings.uids) and is_contiguous(mappings.gids)
    return is_supported(driver.homes.staging_root(for_images=False), run_root / driver.name)


def is_supported(staging_root: Path, run_home: Path) -> bool:
    """Whether overlay takes mapped lower layers on the file system of ``staging_root``.

    ``run_home`` is the driver's directory in the run root, where the answer is kept until the next boot.
    """
    for answer in (True, False):
        if (run_home / f"{_FEATURE}-{str(answer).lower()}").exists():
            return answer
    answer = _try(staging_root)
    with contextlib.suppress(OSError):  # then it is tried again next time
        make_directory(run_home, 0o700)
        (run_home / f"{_FEATURE}-{str(answer).lower()}").touch(0o600)
    return answer


def _try(staging_root: Path) -> bool:
    try:
        room = TempDir.create(staging_root)
    except StoreError as error:
        _log.debug("mapped lower layers cannot be tried", reason=str(error))
        return False
    lower, mapped, upper, work = (room.addition() for _ in range(4))
    try:
        for directory in (lower, mapped, upper, work):
            directory.mkdir(0o700)
        with user_namespace(_ROOT_ONLY) as namespace:
            kernel.mount_mapped(lower, mapped, namespace)
        overlay = kernel.NewMount("overlay")
        try:
            for key, path in (("lowerdir", mapped), ("upperdir", upper), ("workdir", work)):
                overlay.set(key, os.fspath(path))
            os.close(overlay.detached())
        finally:
            overlay.close()
    except OSError as error:
        _log.debug("the kernel does not map lower layers here", reason=str(error))
        return False
    else:
        return True
    finally:
        with contextlib.suppress(OSError):
            kernel.unmount(mapped, kernel.MNT_DETACH)
        room.remove()


def _lines(maps: IDMaps) -> str:
    return "\n".join(f"{one.container_id} {one.host_id} {one.size}" for one in maps)
