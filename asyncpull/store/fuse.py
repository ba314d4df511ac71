"""Mounts made by a FUSE program, such as fuse-overlayfs, that takes the options of overlay.

The program returns when the mount is there; a process of it stays behind and serves the mount until that is taken down.
If that process dies, the mount stays and answers nothing: such a one is taken down before anything else is done.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.store.driver import MountPlan
    from asyncpull.store.idmap import IDMaps

_LONGEST_START = 60
_INSTALL = "install it, or see mount_program in storage.conf"


def perform_by_program(plan: MountPlan) -> None:
    """Mount. Raises MountError."""
    # Paths relative to the driver's directory: 500 layers fit into one argument, and need no escapes.
    home = plan.target.parent.parent
    try:
        done = subprocess.run(
            [plan.program, "-o", ",".join(_options(plan, home)), os.fspath(plan.target)],
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LONGEST_START,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"cannot mount {plan.target}: {plan.program}: {error}", _INSTALL) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise MountError(f"cannot mount {plan.target}: {plan.program}: {said[-500:]}", "see whether /dev/fuse is there")


def flush(target: Path) -> None:
    """Have what was written through a program in the layer's files. Slow; what fails is left to the unmount."""
    with contextlib.suppress(OSError):
        kernel.sync_file_system(target)


def clear_dead(target: Path) -> bool:
    """Take down a mount whose program has died; True if it was one."""
    try:
        os.statvfs(target)  # never answered from a cache
    except OSError as error:
        if error.errno not in kernel.DISCONNECTED:
            return False
    else:
        return False
    with contextlib.suppress(OSError):  # then mounting fails, and says why
        kernel.unmount(target, kernel.MNT_DETACH)
    return True


def _options(plan: MountPlan, home: Path) -> Iterator[str]:
    yield f"lowerdir={':'.join(_name(lower, home) for lower in plan.lowers)}"
    if plan.upper is not None and plan.work is not None:
        yield f"upperdir={_name(plan.upper, home)}"
        yield f"workdir={_name(plan.work, home)}"
    yield from plan.options
    yield from _mapping("uid", plan.mappings.uids)
    yield from _mapping("gid", plan.mappings.gids)
    if plan.context:
        yield f'context="{plan.context}"'


def _name(path: Path, home: Path) -> str:
    text = os.fspath(path.relative_to(home) if path.is_relative_to(home) else path)
    for character in "\\:,":
        text = text.replace(character, f"\\{character}")
    return text


def _mapping(kind: str, maps: IDMaps) -> Iterator[str]:
    """As the Go library words it: one single ID takes all."""
    if len(maps) == 1 and maps[0].size == 1:
        yield f"squash_to_{kind}={maps[0].host_id}"
    elif maps:
        yield f"{kind}mapping=" + ":".join(map(str, maps))
