"""The user namespace that work on the trees of a rootless store needs.

An ordinary user may not create files of other owners. Inside a user namespace of its own the process is root over
the IDs that are mapped there, and so the command, when it needs that, executes itself once more inside one, as podman
does:

1. Start a helper that waits; it stays outside.
2. ``unshare(CLONE_NEWUSER | CLONE_NEWNS)``.
3. The helper maps IDs: ours to 0, and from 1 on those that ``/etc/subuid`` and ``/etc/subgid`` grant us, by the setuid
   programs newuidmap and newgidmap. Without these or without a grant, our own ID is mapped to 0 and nothing else.
4. ``execve``: same process, same PID, so signals and the exit code need no passing on.

The environment tells the second start, and every containers/storage program started by it, where it is; the names
are podman's. Nothing here may run after a thread was started: the kernel refuses step 2.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from asyncpull.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONFIGURED: Final = "_CONTAINERS_USERNS_CONFIGURED"
ROOTLESS_UID: Final = "_CONTAINERS_ROOTLESS_UID"
ROOTLESS_GID: Final = "_CONTAINERS_ROOTLESS_GID"

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000

_WHY_NOT = {
    errno.EPERM: "this user may not create user namespaces",
    errno.ENOSPC: "the limit of user namespaces is reached",
    errno.EUSERS: "user namespaces are nested too deep",
    errno.EINVAL: "the kernel has no user namespaces, or this process has threads",
    errno.ENOSYS: "the kernel has no user namespaces",
}
# (file below /proc/sys, the value that forbids, what would allow)
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
)


def is_inside() -> bool:
    """Whether this process has what trees need: it is root, here or in a user namespace."""
    return os.geteuid() == 0


def enter() -> None:
    """Go on inside; where that needs a namespace first, execute this command again there and do not return.

    Raises MountError where namespaces are not allowed.
    """
    if not is_inside():
        _enter([sys.executable, *sys.orig_argv[1:]])


def enter_and_execute(command: Sequence[str]) -> NoReturn:
    """Become ``command``, inside. Raises MountError; OSError where the command cannot be started."""
    if not is_inside():
        _enter(command)
    os.execvp(command[0], list(command))


def require_lasting(what: str) -> None:
    """Raise MountError if the mount ``what`` asks for would vanish with this process."""
    if not is_inside():
        raise MountError(
            f"{what}: an ordinary user's mounts exist in a namespace only, and end with it",
            "run it inside `asyncpull unshare`",
        ) from PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _enter(command: Sequence[str]) -> NoReturn:
    environment = {
        **os.environ,
        CONFIGURED: "done",
        ROOTLESS_UID: str(os.geteuid()),
        ROOTLESS_GID: str(os.getegid()),
    }
    _unshare_and_map(os.geteuid(), os.getegid())
    os.execvpe(command[0], list(command), environment)


def _unshare_and_map(uid: int, gid: int) -> None:
    from shutil import which  # here, for it brings three compressions along

    names = _names_of(uid)
    grants = [granted_ranges(_read(Path(file)), names) for file in ("/etc/subuid", "/etc/subgid")]
    helper = None
    if all(grants) and which("newuidmap") and which("newgidmap"):
        helper = _start_helper(uid, gid, *grants)
    try:
        _unshare()
        if helper is None:
            _map_single(uid, gid)
        else:
            _, complaint = helper.communicate(b"go\n")
            if helper.returncode != 0:
                raise MountError(
                    f"IDs cannot be mapped: {complaint.decode(errors='replace').strip()}",
                    "newuidmap and newgidmap must be setuid root, and /etc/subuid and /etc/subgid must be right",
                ) from PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    finally:
        if helper is not None and helper.poll() is None:
            helper.communicate()  # the end of its input ends it


def _start_helper(
    uid: int, gid: int, uids: Sequence[tuple[int, int]], gids: Sequence[tuple[int, int]]
) -> subprocess.Popen[bytes]:
    process = str(os.getpid())
    script = " && ".join(
        ["read -r _"]
        + [
            shlex.join([program, process, *map(str, mapping(own, granted))])
            for program, own, granted in (("newuidmap", uid, uids), ("newgidmap", gid, gids))
        ]
    )
    return subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        why = _WHY_NOT.get(number, os.strerror(number))
        cause = OSError(number, os.strerror(number))
        raise MountError(f"a user namespace is missing: {why}", _what_would_allow()) from cause


def _map_single(uid: int, gid: int) -> None:
    own = Path("/proc/self")
    try:
        (own / "setgroups").write_text("deny")  # the kernel's condition for mapping a group without privileges
        (own / "uid_map").write_text(f"0 {uid} 1")
        (own / "gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise MountError(f"IDs cannot be mapped: {error}", _what_would_allow()) from error


def mapping(own: int, granted: Iterable[tuple[int, int]]) -> list[int]:
    """The numbers newuidmap wants: our own ID as 0, the granted ranges from 1 on."""
    numbers, inside = [0, own, 1], 1
    for start, count in granted:
        numbers += [inside, start, count]
        inside += count
    return numbers


def granted_ranges(text: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """The (start, count) that ``text``, in the form of subuid(5), grants to a user of these ``names``."""
    ranges = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        is_range = all(number.isdecimal() and len(number) <= 10 for number in (start, count))
        if owner in names and is_range and int(count) > 0:
            ranges.append((int(start), int(count)))
    return ranges


def _names_of(uid: int) -> list[str]:
    try:
        return [pwd.getpwuid(uid).pw_name, str(uid)]
    except KeyError:
        return [str(uid)]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _what_would_allow() -> str:
    for file, forbids, remedy in _SWITCHES:
        if _read(Path("/proc/sys", file)).strip() == forbids:
            return f"an administrator can allow it by {remedy}; or run this as root"
    return "run this as root, or where user namespaces are allowed (containers often forbid them)"
