"""The few system calls that Python does not offer: mounts, namespaces, privileges, syncing, locks, btrfs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import re
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# The new mount interface has the same numbers on every architecture: it came after they were unified.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_IDMAP = 0x100000
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6

_CLONE_VM = 0x100
_CLONE_NEWNS = 0x20000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_FILTER_INSTRUCTION = 8
_CAPABILITY_HEADER = struct.pack("Ii", 0x20080522, 0)  # version 3, of this thread
_WAIT_ALL = 0x40000000
_LONGEST_LIFE = 10
_STACK = 64 << 10
# What a mount says whose FUSE program has died; the second one to a question that it died over.
DISCONNECTED = frozenset({errno.ENOTCONN, errno.ECONNABORTED})

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD_MAX = 32 << 20  # glibc refuses more

_OCTAL = re.compile(rb"\\([0-7]{3})")

BTRFS_MAGIC = 0x9123683E
# Requests of btrfs, each with a block of 4096 bytes; a subvolume's own directory has this inode.
_SUBVOL_CREATE, _SNAP_DESTROY, _SNAP_CREATE_V2 = 0x5000940E, 0x5000940F, 0x50009417
_SUBVOLUME_INODE = 256
_BLOCK = 4096

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX_SIZE = 256


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def keep_freed_memory(count: int) -> None:
    """Have this process, and those forked from it, use memory again that it has freed, up to ``count`` bytes.

    By itself glibc maps large blocks anew each time, and the kernel clears every page of them. Other C libraries are
    left as they are.
    """
    try:
        mallopt = _libc().mallopt
    except AttributeError:
        return
    mallopt(_M_MMAP_THRESHOLD, min(count, _MMAP_THRESHOLD_MAX))
    mallopt(_M_TRIM_THRESHOLD, count)


def _check(result: int, path: str | bytes | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def system_call(number: int, *arguments: int | bytes | None) -> int:
    """The system call of this number, for what the C library does not know yet. Raises OSError."""
    return _check(_syscall(number, *arguments))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    # A variadic function: whole registers, or the upper half of a number would be left to chance.
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *wide))


def mount(source: str, target: str | Path, kind: str, flags: int, data: str = "") -> None:
    """mount(2). ``data`` must be shorter than a page. Raises OSError."""
    where = os.fspath(target)
    _check(
        _libc().mount(
            os.fsencode(source), os.fsencode(where), os.fsencode(kind), ctypes.c_ulong(flags), os.fsencode(data)
        ),
        where,
    )


def unmount(target: Path, flags: int = 0) -> None:
    """umount2(2), which never follows a link at the end of ``target``. Raises OSError."""
    _check(_libc().umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), os.fspath(target))


def sync_file_system(path: Path) -> None:
    """syncfs(2): everything written to the file system of ``path`` is on the disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc().syncfs(fd), os.fspath(path))
    finally:
        os.close(fd)


def is_mount_point(path: Path) -> bool:
    """Whether ``path``, as it is found now, is the root of a mount.

    Asked of the path, not of the list of mounts: a mount that another one covers is still listed there.
    """
    try:
        is_root = _is_mount_root(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in DISCONNECTED:
            raise
        return True  # of a FUSE program that has died
    return path.is_mount() if is_root is None else is_root


def is_mount_root(fd: int) -> bool:
    """Whether the open directory ``fd`` is the root of a mount; False too where the kernel cannot tell (before 5.8)."""
    return _is_mount_root(fd, b"", _AT_EMPTY_PATH) or False


def _is_mount_root(fd: int, path: bytes, flags: int) -> bool | None:
    """What statx(2) says, None if it does not."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    try:
        statx = _libc().statx
    except AttributeError:  # a C library without it
        return None
    _check(statx(fd, path, flags, 0, buffer), path)
    attributes: int
    known: int
    (attributes,) = struct.unpack_from("Q", buffer, 8)
    (known,) = struct.unpack_from("Q", buffer, 56)
    return bool(attributes & _STATX_ATTR_MOUNT_ROOT) if known & _STATX_ATTR_MOUNT_ROOT else None


def has_selinux() -> bool:
    """Whether this kernel knows SELinux labels."""
    return Path("/sys/fs/selinux/enforce").exists()


def mounts_below(path: Path) -> list[str]:
    """The mount points below ``path`` that the kernel lists for this mount namespace, ``path`` itself not counted."""
    prefix = os.fsencode(path).rstrip(b"/") + b"/"
    return [os.fsdecode(point) for point in _mount_points("self") if point.startswith(prefix)]


def mounted_anywhere(paths: Iterable[Path]) -> set[Path]:
    """Those of ``paths`` that are mount points for some process, in whatever mount namespace that we may look into.

    What is seen through another root directory ends like the path.
    """
    wanted = {path: os.fsencode(path) for path in paths}
    if not wanted:
        return set()
    points: set[bytes] = set()
    namespaces = set()
    for process in os.listdir("/proc"):
        if not process.isdecimal():
            continue
        try:
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in namespaces:
                points.update(_mount_points(process))
                namespaces.add(namespace)
        except OSError:  # ended, or not ours to look at
            continue
    return {path for path, text in wanted.items() if any(point.endswith(text) for point in points)}


def _mount_points(process: str) -> Iterator[bytes]:
    for line in Path(f"/proc/{process}/mountinfo").read_bytes().splitlines():
        yield _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ", 5)[4])  # \040 stands for a blank


def mount_mapped(source: Path, target: Path, user_namespace: int) -> None:
    """Bind ``source`` to ``target`` so that the owners of its files are those that ``user_namespace`` gives them.

    ``user_namespace`` is a descriptor: a file of user 0 is seen as one of the user that 0 is in that namespace, and so
    on. Raises OSError: EINVAL for a file system that cannot do it, EPERM in a user namespace, ENOSYS before Linux 5.12.
    """
    where = os.fspath(source)
    tree = _check(_syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(where), _OPEN_TREE_CLONE | os.O_CLOEXEC), where)
    try:
        attributes = struct.pack("4Q", _MOUNT_ATTR_IDMAP, 0, MS_PRIVATE, user_namespace)
        _check(_syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes)), where)
        _move_mount(tree, target)
    finally:
        os.close(tree)


def leave_mount_namespace() -> None:
    """Give this process, which has no threads, mounts of its own, which end with it. Raises OSError."""
    _check(_libc().unshare(_CLONE_NEWNS))
    mount("", "/", "none", MS_REC | MS_PRIVATE)


def leave_network_namespace() -> None:
    """Give this process, which has no threads, a network namespace of its own, without any network. Raises OSError."""
    _check(_libc().unshare(_CLONE_NEWNET))


def end_with_parent() -> None:
    """Have this process killed when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forgo_privileges() -> None:
    """Let no program that this thread executes give it more privileges (no_new_privs). Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def filter_system_calls(program: bytes) -> None:
    """Have this thread's system calls judged by a program of classic BPF, on top of earlier ones. Raises OSError."""
    instructions = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("H0PP", len(program) // _FILTER_INSTRUCTION, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described)


def keep_capabilities(kept: int) -> int:
    """Drop for good what capabilities this thread has beyond the set ``kept``; what is left of them. Raises OSError."""
    sets = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; then the upper halves of each
    _check(_libc().capget(_CAPABILITY_HEADER, sets))
    low, _, _, high, _, _ = struct.unpack("6I", sets)
    left = (high << 32 | low) & kept
    low, high = left & 0xFFFF_FFFF, left >> 32
    _check(_libc().capset(_CAPABILITY_HEADER, struct.pack("6I", low, low, 0, high, high, 0)))
    return int(left)


def _prctl(option: int, value: int, more: bytes | None = None) -> None:
    _check(
        _libc().prctl(option, ctypes.c_ulong(value), more or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )


def new_user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a user namespace with these mappings, in the form of /proc/PID/uid_map. Raises OSError.

    A namespace begins with a process in it. That one does nothing but sleep in a function of the C library, on a stack
    of its own: a process with threads cannot fork otherwise without danger. It is killed before this returns; should
    we be killed first, then it ends by itself in some seconds, and until then has our files open.
    """
    stack = mmap.mmap(-1, _STACK)
    base = ctypes.c_char.from_buffer(stack)
    top = ctypes.addressof(base) + _STACK
    sleep = ctypes.cast(_libc().sleep, ctypes.c_void_p)
    # Our handlers are not for it; what Ctrl-C sends it would tell us a second time.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        flags = _CLONE_NEWUSER | _CLONE_VM
        child = _check(_libc().clone(sleep, ctypes.c_void_p(top), flags, ctypes.c_void_p(_LONGEST_LIFE)))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        process = Path("/proc", str(child))
        (process / "uid_map").write_text(uid_map)
        (process / "gid_map").write_text(gid_map)
        return os.open(process / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, _WAIT_ALL)
        del base
        stack.close()


def _move_mount(tree: int, target: Path) -> None:
    where = os.fspath(target)
    _check(_syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(where), _MOVE_MOUNT_F_EMPTY_PATH), where)


class NewMount:
    """A file system being configured through fsopen(2), for options that exceed the page of mount(2). Close it."""

    def __init__(self, kind: str) -> None:
        """Raises OSError; ENOSYS before Linux 5.2."""
        self._fd = _check(_syscall(_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC))

    def set(self, key: str, value: str | None = None) -> None:
        """Set an option, or a flag if there is no value. Raises OSError with what the kernel says about it."""
        command = _SET_FLAG if value is None else _SET_STRING
        text = None if value is None else os.fsencode(value)
        self._told(_syscall(_FSCONFIG, self._fd, command, key.encode(), text, 0))

    def detached(self, attributes: int = 0) -> int:
        """Create the file system and mount it nowhere: a descriptor of its root, and its end when that is closed.

        Raises OSError.
        """
        self._told(_syscall(_FSCONFIG, self._fd, _CMD_CREATE, None, None, 0))
        return self._told(_syscall(_FSMOUNT, self._fd, _FSMOUNT_CLOEXEC, attributes))

    def attach(self, target: Path, attributes: int) -> None:
        """Create the file system and mount it on ``target`` with the given mount attributes. Raises OSError."""
        mounted = self.detached(attributes)
        try:
            _move_mount(mounted, target)
        finally:
            os.close(mounted)

    def close(self) -> None:
        """Let go of the file system; what was attached stays."""
        os.close(self._fd)

    def _told(self, result: int) -> int:
        if result >= 0:
            return result
        number = ctypes.get_errno()
        raise OSError(number, self._complaint() or os.strerror(number))

    def _complaint(self) -> str:
        lines = []
        while True:
            try:
                lines.append(os.read(self._fd, 4096).decode(errors="replace").strip())
            except OSError:
                return "; ".join(line.removeprefix("e ") for line in lines)


def file_system_magic(path: Path) -> int:
    """The number of the type of the file system at ``path``, as statfs(2) has it. Raises OSError."""
    status = ctypes.create_string_buffer(_BLOCK)
    _check(_libc().statfs(os.fsencode(path), status), str(path))
    return ctypes.c_ulong.from_buffer(status).value & 0xFFFF_FFFF


def create_subvolume(directory: int, name: str) -> None:
    """Make an empty subvolume in an open directory of btrfs. Raises OSError."""
    _subvolume_request(directory, _SUBVOL_CREATE, struct.pack("=q4088s", 0, os.fsencode(name)))


def snapshot_subvolume(source: int, directory: int, name: str) -> None:
    """Make a writable snapshot, in an open directory, of an open subvolume. Raises OSError."""
    _subvolume_request(directory, _SNAP_CREATE_V2, struct.pack("=qQQ32x4040s", source, 0, 0, os.fsencode(name)))


def delete_subvolume(directory: int, name: str) -> None:
    """Remove a subvolume in an open directory, with all in it but other subvolumes. Raises OSError, ENOTEMPTY there."""
    _subvolume_request(directory, _SNAP_DESTROY, struct.pack("=q4088s", 0, os.fsencode(name)))


def lock_bytes(fd: int, kind: int, start: int = 0, length: int = 0, *, wait: bool = False) -> bool:
    """Lock bytes of a file for whoever has this open file description; no ``length`` means to the end, however far.

    ``kind`` is one of ``fcntl.F_RDLCK``, ``F_WRLCK``, ``F_UNLCK``. False if somebody else has them and ``wait`` is
    not meant. Raises OSError.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _range(kind, start, length))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
        if wait:
            raise
        return False
    return True


def has_locked_bytes(fd: int, start: int = 0, length: int = 0) -> bool:
    """Whether somebody has any lock on these bytes, but not through this open file description. Raises OSError."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _range(fcntl.F_WRLCK, start, length))
    (kind,) = struct.unpack_from("h", answer)
    return bool(kind != fcntl.F_UNLCK)


def _range(kind: int, start: int, length: int) -> bytes:
    """A ``struct flock``: kind, whence, start, length, and no process ID."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def _subvolume_request(directory: int, request: int, arguments: bytes) -> None:
    fcntl.ioctl(directory, request, bytearray(arguments))  # of what cannot be written to it takes 1024 bytes only


def is_subvolume(fd: int) -> bool:
    """Whether an open directory is a subvolume of btrfs."""
    if os.fstat(fd).st_ino != _SUBVOLUME_INODE:
        return False
    status = ctypes.create_string_buffer(_BLOCK)
    _check(_libc().fstatfs(fd, status))
    return ctypes.c_ulong.from_buffer(status).value & 0xFFFF_FFFF == BTRFS_MAGIC
