"""A filter of system calls (seccomp(2)): a list of those that no extraction needs and that reach beyond files.

Why a list of what is forbidden, not of what is allowed: which calls the C library makes changes with every release of
it, and a worker must run with those to come. The kernel's own checks, capabilities and Landlock come first; this closes
what they leave open. Above all sockets: neither a network namespace nor Landlock keeps root from connecting to a
daemon's socket in the file system, and an ordinary user has no namespace.

Why our own: a filter is a dozen lines of classic BPF, and numbers that never change. The bindings of libseccomp for
Python need that library on the machine, and those that are there were not kept up for years.

The filter is pure data (``filter_of``). It fails closed: calls by another convention than the machine's own (32-bit,
x32) are all refused.
"""

from __future__ import annotations

import errno
import functools
import struct
from typing import Final

__all__ = ["FORBIDDEN", "MACHINES", "NUMBERS", "filter_of", "thread_filter_of"]

# Name: numbers on x86_64 and on aarch64; those that came after Linux 5.0 have one number everywhere.
NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    # other parties: sockets; io_uring has operations of its own for them
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "io_uring_setup": (425, 425),
    # other programs
    "execve": (59, 221),
    "execveat": (322, 281),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    # other namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # files by number, and what concerns a whole file system
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    # judged by their arguments, or by the filter for workers only
    "ioctl": (16, 29),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
}
_JUDGED: Final = ("ioctl", "clone", "clone3", "fork", "vfork")
FORBIDDEN: Final = tuple(name for name in NUMBERS if name not in _JUDGED)

# As platform.machine() has it: the column above, and the kernel's number for the convention of calls.
MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32: Final = 0x4000_0000

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_CLONE_THREAD: Final = 0x10000

# Classic BPF on struct seccomp_data: the number of the call, the convention, where it came from, six arguments.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL, _CONVENTION = 0, 4
_ARGUMENTS: Final = (16, 24)  # their lower halves: both machines are little-endian
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EPERM
_UNKNOWN: Final = 0x0005_0000 | errno.ENOSYS

_Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if its condition is true, and if not, operand."""


def filter_of(machine: str) -> bytes | None:
    """The filter for workers and for what forks them; None for a machine whose calls are not listed here.

    ``FORBIDDEN`` calls are EPERM, and so is typing into a terminal in the user's place. ``clone3``, whose flags a
    filter cannot see, is ENOSYS: libraries then use ``clone``.
    """
    if machine not in MACHINES:
        return None
    column, _ = MACHINES[machine]
    program = [*_prologue(machine)]
    for name in FORBIDDEN:
        program += _on(NUMBERS[name][column], [(_RETURN, 0, 0, _REFUSE)])
    program += _on(NUMBERS["clone3"][column], [(_RETURN, 0, 0, _UNKNOWN)])
    typing = [
        (_LOAD, 0, 0, _ARGUMENTS[1]),
        (_IF_EQUAL, 1, 0, _TIOCSTI),
        (_IF_EQUAL, 0, 1, _TIOCLINUX),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program += _on(NUMBERS["ioctl"][column], typing)
    return _packed([*program, (_RETURN, 0, 0, _ALLOW)])


@functools.cache
def thread_filter_of(machine: str) -> bytes | None:
    """The filter that a worker has besides: it may start threads, and no process, which could outlive it."""
    if machine not in MACHINES:
        return None
    column, _ = MACHINES[machine]
    program = [*_prologue(machine)]
    for name in ("fork", "vfork"):
        program += _on(NUMBERS[name][column], [(_RETURN, 0, 0, _REFUSE)])
    threads = [
        (_LOAD, 0, 0, _ARGUMENTS[0]),
        (_IF_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program += _on(NUMBERS["clone"][column], threads)
    return _packed([*program, (_RETURN, 0, 0, _ALLOW)])


def _prologue(machine: str) -> list[_Instruction]:
    """Refuse whatever is not called as this machine's own programs do; leave the number of the call loaded."""
    _, convention = MACHINES[machine]
    return [
        (_LOAD, 0, 0, _CONVENTION),
        (_IF_EQUAL, 1, 0, convention),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _CALL),
        (_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _on(number: int | None, then: list[_Instruction]) -> list[_Instruction]:
    """For this call do ``then``, which must return."""
    return [] if number is None else [(_IF_EQUAL, 0, len(then), number), *then]


def _packed(program: list[_Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
