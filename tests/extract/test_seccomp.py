"""The filter of system calls as data: its numbers against the kernel's headers, its verdicts by a small machine."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from asyncpull.extract.seccomp import FORBIDDEN, MACHINES, NUMBERS, filter_of, thread_filter_of

ALLOWED, REFUSED, UNKNOWN = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),  # which that architecture takes as it is
}
# read, write, openat, openat2, mmap, futex, sendmsg, recvmsg, fchownat, linkat, setxattr, exit_group, prctl
NEEDED = {
    "x86_64": (0, 1, 257, 437, 9, 202, 46, 47, 260, 265, 188, 231, 157),
    "aarch64": (63, 64, 56, 437, 222, 98, 211, 212, 54, 37, 5, 94, 167),
}
TIOCSTI, TIOCGWINSZ, FICLONE = 0x5412, 0x5413, 0x40049409
THREAD, PROCESS = 0x3D0F00, 0x1200011  # flags of pthread_create and of fork

both = pytest.mark.parametrize("machine", list(MACHINES))


def verdict(program: bytes, call: int, *arguments: int, convention: int) -> int:
    """What a program of classic BPF returns; it knows the instructions that filters here are made of."""
    data = struct.pack("=IIQ6Q", call, convention, 0, *arguments, *[0] * (6 - len(arguments)))
    loaded = position = 0
    while True:
        operation, if_true, if_false, operand = struct.unpack_from("=HBBI", program, 8 * position)
        position += 1
        if operation == 0x06:
            return int(operand)
        if operation == 0x20:
            (loaded,) = struct.unpack_from("=I", data, operand)
            continue
        is_true = {0x15: loaded == operand, 0x35: loaded >= operand, 0x45: bool(loaded & operand)}[operation]
        position += if_true if is_true else if_false


def judge(machine: str, call: str | int, *arguments: int) -> int:
    """The verdict of both filters together: the kernel takes the sternest."""
    column, convention = MACHINES[machine]
    number = call if isinstance(call, int) else NUMBERS[call][column]
    assert number is not None
    verdicts = []
    for program in (filter_of(machine), thread_filter_of(machine)):
        assert program is not None
        verdicts.append(verdict(program, number, *arguments, convention=convention))
    return min(verdicts)


@both
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"the kernel's headers are not installed: {header}")
    known = {
        name: int(number)
        for name, number in re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    }
    column, _ = MACHINES[machine]
    for name, numbers in NUMBERS.items():
        assert numbers[column] == known.get(name), name


@both
def test_what_is_forbidden_is_refused_and_what_is_needed_is_not(machine: str) -> None:
    column, _ = MACHINES[machine]
    for name in FORBIDDEN:
        if NUMBERS[name][column] is not None:
            assert judge(machine, name) == REFUSED, name
    for number in NEEDED[machine]:
        assert judge(machine, number) == ALLOWED, number


@both
def test_threads_but_no_processes(machine: str) -> None:
    assert judge(machine, "clone", THREAD) == ALLOWED
    assert judge(machine, "clone", PROCESS) == REFUSED
    assert judge(machine, "clone3") == UNKNOWN


@both
def test_nothing_is_typed_into_terminals(machine: str) -> None:
    assert judge(machine, "ioctl", 5, TIOCSTI) == REFUSED
    assert judge(machine, "ioctl", 5, TIOCGWINSZ) == judge(machine, "ioctl", 5, FICLONE) == ALLOWED
    assert judge(machine, "ioctl", 5, TIOCSTI | 1 << 32) == REFUSED  # the kernel looks at 32 bits, too


@both
def test_other_conventions_are_refused(machine: str) -> None:
    program = filter_of(machine)
    assert program is not None
    for convention in (0x40000003, 0x40000028, 0):
        assert verdict(program, 4, convention=convention) == REFUSED
    assert judge(machine, 0x40000000 | 1) == REFUSED


def test_an_unknown_machine_has_no_filter() -> None:
    assert filter_of("riscv64") is None
    assert thread_filter_of("riscv64") is None
