"""Carry out a MountPlan: mount(2) where the options fit into a page, else what takes more.

mount(2) copies one page of options, which 40 layers below a usual graph root exceed. Then, in this order:

1. fsopen(2) and one ``lowerdir+`` per layer (Linux 6.8), in this process, whose working directory never changes;
2. mount(2) in a child that opens every layer and names it by its number in ``/proc/self/fd``, as podman does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.errors import MountError
from asyncpull.log import Log
from asyncpull.store.fuse import perform_by_program
from asyncpull.store.idmapped import with_mapped_lowers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.store.driver import MountPlan

_log = Log(__name__)

# Options that mount(2) takes as flags, with the attribute that fsmount(2) has for it where there is one.
_FLAGS = {
    "ro": (kernel.MS_RDONLY, 0x1),
    "nosuid": (kernel.MS_NOSUID, 0x2),
    "nodev": (kernel.MS_NODEV, 0x4),
    "noexec": (kernel.MS_NOEXEC, 0x8),
    "noatime": (kernel.MS_NOATIME, 0x10),
    "strictatime": (kernel.MS_STRICTATIME, 0x20),
    "nodiratime": (kernel.MS_NODIRATIME, 0x80),
    "relatime": (kernel.MS_RELATIME, 0),
    "sync": (kernel.MS_SYNCHRONOUS, 0),
    "dirsync": (kernel.MS_DIRSYNC, 0),
    "rw": (0, 0),
    "suid": (0, 0),
    "dev": (0, 0),
    "exec": (0, 0),
    "defaults": (0, 0),
}

# fsconfig(2) takes no longer strings.
_LONGEST_VALUE = 255

_CHILD_SECONDS = 60

_HINTS = {
    errno.EPERM: "run as root, or in `asyncpull unshare`",
    errno.EACCES: "run as root, or in `asyncpull unshare`",
    errno.ENODEV: "this kernel has no overlay file system: try `modprobe overlay`",
    errno.EINVAL: "see the kernel's log; a graph root on an overlay file system cannot be mounted from",
}


def perform(plan: MountPlan) -> None:
    """Mount. Raises MountError."""
    if plan.program:
        perform_by_program(plan)
        return
    try:
        with with_mapped_lowers(plan) as mapped:
            _perform(mapped)
    except OSError as error:
        raise mount_error(error, plan.target) from error


def _perform(plan: MountPlan) -> None:
    flags, words = _split_options(plan)
    data = _mount_data(plan, [_escaped(os.fspath(lower)) for lower in plan.lowers], words)
    if len(os.fsencode(data)) < mmap.PAGESIZE:
        kernel.mount("overlay", plan.target, "overlay", flags, data)
    else:
        _perform_large(plan, flags, words)


def perform_by_fsopen(plan: MountPlan) -> None:
    """Mount through the new interface. Raises OSError, also where the kernel has it not."""
    _, words = _split_options(plan)
    mount = kernel.NewMount("overlay")
    try:
        for lower in plan.lowers:
            with _short_name(lower) as name:
                mount.set("lowerdir+", name)
        if plan.upper is not None and plan.work is not None:
            for key, path in (("upperdir", plan.upper), ("workdir", plan.work)):
                with _short_name(path) as name:
                    mount.set(key, _escaped(name))
        else:
            mount.set("ro")
        for word in words:
            key, equals, value = word.partition("=")
            mount.set(key, value if equals else None)
        if plan.context:
            mount.set("context", plan.context)
        mount.set("source", "overlay")
        mount.attach(plan.target, sum(_FLAGS[option][1] for option in set(plan.options) & _FLAGS.keys()))
    finally:
        mount.close()


def perform_in_child(plan: MountPlan) -> None:
    """Mount in a child process that may change its directory. Raises OSError."""
    flags, words = _split_options(plan)
    request = {
        "paths": [os.fspath(path) for path in (*plan.lowers, *filter(None, (plan.upper, plan.work)))],
        "lowers": len(plan.lowers),
        "target": os.fspath(plan.target),
        "flags": flags,
        "words": [*words, *_context(plan)],
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "asyncpull.store.mounting"],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=_CHILD_SECONDS,
        check=False,
    )
    if child.returncode != 0:
        number, _, reason = child.stdout.decode(errors="replace").partition(" ")
        if number.isdecimal():
            raise OSError(int(number), reason)
        raise OSError(errno.EIO, f"the mounting child ended with {child.returncode}: {child.stderr[-500:]!r}")


def mount_error(error: OSError, target: Path) -> MountError:
    """What ``error`` means to whoever wanted ``target`` mounted."""
    reason = error.strerror or str(error)
    return MountError(f"cannot mount {target}: {reason}", _HINTS.get(error.errno or 0))


def _perform_large(plan: MountPlan, flags: int, words: list[str]) -> None:
    try:
        perform_by_fsopen(plan)
    except OSError as error:
        _log.debug("fsopen does not do, mounting in a child", reason=str(error))
        perform_in_child(plan)


def _split_options(plan: MountPlan) -> tuple[int, list[str]]:
    """The flags of mount(2), and the options that remain for the file system."""
    flags = 0
    words = []
    for option in plan.options:
        if option in _FLAGS:
            flags |= _FLAGS[option][0]
        else:
            words.append(option)
    return flags, words


def _mount_data(plan: MountPlan, lowers: list[str], words: list[str]) -> str:
    parts = [f"lowerdir={':'.join(lowers)}"]
    if plan.upper is not None and plan.work is not None:
        parts += [f"upperdir={_escaped(os.fspath(plan.upper))}", f"workdir={_escaped(os.fspath(plan.work))}"]
    return ",".join([*parts, *words, *_context(plan)])


def _context(plan: MountPlan) -> list[str]:
    return [f'context="{plan.context}"'] if plan.context else []


def _escaped(path: str) -> str:
    """Overlay splits at colons and commas that no backslash precedes."""
    for character in "\\:,":
        path = path.replace(character, f"\\{character}")
    return path


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """A name of ``path`` that fsconfig takes: itself, or that of a descriptor."""
    text = os.fspath(path)
    if len(os.fsencode(_escaped(text))) <= _LONGEST_VALUE:
        yield text
        return
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _child() -> int:
    """The child: descriptors have short names, relative to the directory where the kernel lists them."""
    request = json.loads(sys.stdin.buffer.read())
    try:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        names = [str(os.open(path, os.O_PATH)) for path in request["paths"]]
        os.chdir("/proc/self/fd")
        lowers, rest = names[: request["lowers"]], names[request["lowers"] :]
        parts = [f"lowerdir={':'.join(lowers)}"]
        parts += [f"{key}={name}" for key, name in zip(("upperdir", "workdir"), rest, strict=False)]
        kernel.mount("overlay", request["target"], "overlay", request["flags"], ",".join([*parts, *request["words"]]))
    except OSError as error:
        sys.stdout.write(f"{error.errno} {error.strerror}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_child())
