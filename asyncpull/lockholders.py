"""Who holds a lock on a file, as far as the kernel tells it, for people who wait.

Two places in /proc say it. ``/proc/locks`` lists all locks of the machine, with the process that took each; for an open
file description lock it has -1, because such a lock belongs to whoever has the description. ``/proc/PID/fdinfo/FD``
lists the locks held through one descriptor, of both kinds, for processes that we may look at. A file is named there by
device and inode; the device is that of the file system, which on btrfs is not the one that ``stat`` gives.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_NOBODY_IN_PARTICULAR = -1
_COMMAND_LENGTH = 200

_LOCK = re.compile(
    r"^(?:lock:\s*)?\d+:\s+(?:POSIX|OFDLCK)\s+\S+\s+\S+\s+(?P<pid>-?\d{1,10})\s+"
    r"(?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+):(?P<inode>\d{1,20})\s",
    re.MULTILINE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A process that has a lock, and its command line, "" where we may not see it.

    Several processes hold one lock together if they share an open file description.
    """

    pid: int
    command: str

    def __str__(self) -> str:
        command = f" ({self.command})" if self.command else ""
        return f"process {self.pid}{command}"


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A file as the kernel names it where it tells about locks."""

    major: int
    minor: int
    inode: int


def identity_of(fd: int) -> FileIdentity:
    """How the kernel names the file that is open as ``fd``. Raises OSError."""
    status = os.fstat(fd)
    device = os.major(status.st_dev), os.minor(status.st_dev)
    mount = re.search(r"^mnt_id:\s*(\d+)", (_PROC / "self/fdinfo" / str(fd)).read_text(), re.MULTILINE)
    if mount is not None:
        device = _device_of_mount(mount[1]) or device
    return FileIdentity(*device, status.st_ino)


def parse_locks(text: str, file: FileIdentity) -> list[int]:
    """The processes that hold record locks on ``file``, in the words of /proc/locks or of an fdinfo; -1 is unknown.

    Locks that somebody only waits for, which have an arrow, are not among them.
    """
    return [
        int(lock["pid"])
        for lock in _LOCK.finditer(text)
        if FileIdentity(int(lock["major"], 16), int(lock["minor"], 16), int(lock["inode"])) == file
    ]


def holders_of(file: FileIdentity) -> tuple[LockHolder, ...]:
    """The processes that hold a lock on ``file`` now, as far as can be seen; reads all of /proc, in milliseconds.

    Never raises: what cannot be read is not known.
    """
    with suppress(OSError):
        listed = parse_locks((_PROC / "locks").read_text(), file)
        pids = {pid for pid in listed if pid > 0}
        if _NOBODY_IN_PARTICULAR in listed:
            pids |= {pid for pid in _processes() if _has_lock(pid, file)}
        return tuple(LockHolder(pid, _command_of(pid)) for pid in sorted(pids))
    return ()


def _has_lock(pid: int, file: FileIdentity) -> bool:
    with suppress(OSError):
        for entry in os.scandir(_PROC / str(pid) / "fdinfo"):
            with suppress(OSError):  # closed meanwhile
                if parse_locks(Path(entry.path).read_text(), file):
                    return True
    return False


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


def _command_of(pid: int) -> str:
    with suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return " ".join(words.split())[:_COMMAND_LENGTH]
    return ""


def _device_of_mount(mount_id: str) -> tuple[int, int] | None:
    for line in (_PROC / "self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split(" ", 3)
        if words[0] == mount_id:
            major, _, minor = words[2].partition(":")
            return int(major), int(minor)
    return None
