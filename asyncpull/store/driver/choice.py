"""Which driver a store is opened with, and why; as containers/storage decides it.

1. The one that is asked for: on the command line, in ``STORAGE_DRIVER``, in ``storage.conf``.
2. The one whose store the graph root holds already; not vfs, which is used only when it is asked for by name.
3. The first that works here, of ``driver_priority`` if there is one, else of overlay, btrfs, vfs.

"Works" is found out by looking: nothing is made or mounted. An overlay file system takes no other overlay, aufs or
ecryptfs for its upper layer; the kernel must have it, or a module of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.errors import ConfigurationError
from asyncpull.log import Log
from asyncpull.store.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DRIVERS = ("overlay", "btrfs", "vfs")
"""All that there are, the best first."""

# Whose stores are looked for: those of drivers that we have not are refused, so that nobody takes them for empty ones.
_FOUND_BY_DIRECTORY = ("overlay", "btrfs", "zfs", "aufs")
_NOT_BELOW_OVERLAY = {0x794C7630: "overlay", 0x61756673: "aufs", 0xF15F: "ecryptfs"}

_log = Log(__name__)


def choose_driver(
    graph_root: Path,
    wanted: Iterable[tuple[str | None, str]],
    priority: Sequence[str] = (),
    *,
    has_mount_program: bool = False,
) -> tuple[str, str]:
    """The name of the driver, and why it is this one.

    ``wanted`` are names with who asks for them, the first that is not empty counts. With a mount program overlay works
    on any file system. Raises ConfigurationError for a driver that there is not, and where several have been here;
    StoreError if the disk fails.
    """
    for name, reason in wanted:
        if name:
            driver = _canonical(name)
            if driver not in DRIVERS:
                raise unknown_driver(name, reason)
            break
    else:
        with disk_errors(graph_root):
            driver, reason = _found(graph_root) or _best(graph_root, priority, has_mount_program)
    _log.debug("chose a storage driver", driver=driver, reason=reason, graph_root=str(graph_root))
    return driver, reason


def _found(graph_root: Path) -> tuple[str, str] | None:
    present = [name for name in _FOUND_BY_DIRECTORY if (graph_root / name).is_dir()]
    if len(present) > 1:
        raise ConfigurationError(
            f"{graph_root} holds stores of several drivers: {', '.join(present)}",
            "say which one with --storage-driver, or remove the others",
        )
    if not present:
        return None
    if present[0] not in DRIVERS:
        raise unknown_driver(present[0], f"the store in {graph_root}")
    return present[0], "present in the graph root"


def _best(graph_root: Path, priority: Sequence[str], has_mount_program: bool) -> tuple[str, str]:
    where = next(path for path in (graph_root, *graph_root.parents) if path.exists())
    try:
        magic = kernel.file_system_magic(where)
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}", "choose another store with --root") from error
    obstacles = {
        "overlay": "" if has_mount_program else _obstacle_to_overlay(magic),
        "btrfs": "" if magic == kernel.BTRFS_MAGIC else "the graph root is not on btrfs",
        "vfs": "",
    }
    names = [_canonical(name) for name in priority] or list(DRIVERS)
    tried: list[str] = []
    for name in names:
        obstacle = obstacles.get(name, "asyncpull has it not")
        if not obstacle:
            reason = "first of driver_priority that works here" if priority else "the best that works here"
            return name, "; ".join([reason, *tried])
        tried.append(f"not {name}: {obstacle}")
    raise ConfigurationError(f"no driver of driver_priority works here: {'; '.join(tried)}", "add vfs to it")


def _obstacle_to_overlay(magic: int) -> str:
    if magic in _NOT_BELOW_OVERLAY:
        return f"the graph root is on {_NOT_BELOW_OVERLAY[magic]}"
    try:
        if "\toverlay\n" in Path("/proc/filesystems").read_text():
            return ""
        modules = Path("/lib/modules") / os.uname().release
        if any("/overlay.ko" in (modules / name).read_text() for name in ("modules.builtin", "modules.dep")):
            return ""
    except OSError as error:
        _log.debug("cannot tell which file systems the kernel has", reason=str(error))
    return "the kernel has no overlay file system"


def _canonical(name: str) -> str:
    return "overlay" if name == "overlay2" else name


def unknown_driver(name: str, reason: str) -> ConfigurationError:
    """What to raise for ``name``, which ``reason`` asks for and nobody can open."""
    return ConfigurationError(
        f"{reason}: the driver {name!r} cannot be used", f"choose one of {', '.join(DRIVERS)}, or another store"
    )
