"""What a worker may do, and how it is kept from everything else.

A worker parses bytes that nobody has verified yet. Should one of them ever take it over, it can lie about its own layer
and damage what is being staged in this store, and that shall be all. So the nursery gives up, once, what its workers
never need; every worker inherits that and adds what only a process that forks nothing can do without:

===================  ===================================================================================================
files                Landlock: written only in the staging areas, read there and among the layers, executed nowhere
network              a network namespace with nothing in it; no sockets, by the filter of system calls
other processes      no exec, fork, ptrace or signal by the filter; Landlock's scopes
privileges           no_new_privs; capabilities for making any kind of file, and no others
resources            no core files, descriptors and data up to a limit
secrets              of the environment only what Python and the C library read
===================  ===================================================================================================

None of this can be undone, and there is no half of it: what the kernel, or whoever confines us, does not permit is left
out, and told. It is a second line; the first is that extraction gets nothing wrong.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.extract import landlock
from asyncpull.extract.seccomp import filter_of, thread_filter_of
from asyncpull.kernel import (
    end_with_parent,
    filter_system_calls,
    forgo_privileges,
    keep_capabilities,
    leave_network_namespace,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# capabilities(7), by their numbers: what it takes to make files of any owner, mode and kind, wherever they are.
_CAPABILITIES: Final = {
    "chown": 0,
    "dac_override": 1,
    "dac_read_search": 2,
    "fowner": 3,
    "fsetid": 4,
    "mknod": 27,
    "setfcap": 31,
}
_ADMIN: Final = {"sys_admin": 21}  # for trusted.*, which is there outside of user namespaces only
_ALL_IDS: Final = ["0", "0", "4294967295"]

_DESCRIPTORS: Final = 1024
_DATA: Final = 4 << 30
# No core is that small; and a program that the kernel would pipe it to is started with a limit of 0, but not of 1.
_CORE: Final = 1

_VARIABLES: Final = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_TUNABLES", "PATH")


@dataclass(frozen=True, slots=True)
class Reach:
    """The directories that the workers of a pool may touch: the staging areas of a store, and where layers are."""

    writable: tuple[str, ...]
    readable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Confinement:
    """How workers are confined here. ``landlock`` is the version of its interface (ABI), 0 for none.

    ``capabilities`` are those that they have. ``missing`` says what could not be had, and why.
    """

    landlock: int
    seccomp: bool
    network_namespace: bool
    no_new_privs: bool
    capabilities: tuple[str, ...]
    missing: tuple[str, ...]


def confine(reach: Reach) -> Confinement:
    """Confine this process, which has one thread, and all that it will fork, for good."""
    kept = _needed_capabilities()
    steps: dict[str, Callable[[], int | None]] = {
        "resource limits": _limit_resources,
        "network namespace": leave_network_namespace,
        "no_new_privs": forgo_privileges,
        "Landlock": lambda: landlock.restrict(reach.writable, reach.readable),
        "capabilities": lambda: keep_capabilities(sum(1 << number for number in kept.values())),
        "seccomp": _filter_system_calls,  # the last, since it forbids some of these
    }
    done: dict[str, int] = {}
    missing = []
    for what, step in steps.items():
        try:
            done[what] = step() or 0
        except OSError as error:
            missing.append(f"{what}: {error.strerror}")
    capabilities = done.get("capabilities", 0)
    return Confinement(
        landlock=done.get("Landlock", 0),
        seccomp="seccomp" in done,
        network_namespace="network namespace" in done,
        no_new_privs="no_new_privs" in done,
        capabilities=tuple(name for name, number in kept.items() if capabilities >> number & 1),
        missing=tuple(missing),
    )


def confine_worker(nursery: int, confinement: Confinement) -> None:
    """Confine this process, which the process ``nursery`` has just forked, further: no more forks, and no survival.

    Raises OSError.
    """
    end_with_parent()
    if os.getppid() != nursery:
        raise ProcessLookupError(errno.ESRCH, "the nursery is gone")
    threads = thread_filter_of(_machine())
    if confinement.seccomp and threads is not None:
        filter_system_calls(threads)


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of an environment what a worker needs: there may be passwords in the rest."""
    return {name: value for name, value in environment.items() if name.startswith(_VARIABLES)}


def _filter_system_calls() -> None:
    machine = _machine()
    program = filter_of(machine)
    if program is None:
        raise OSError(errno.EOPNOTSUPP, f"no filter of system calls for {machine}")
    filter_system_calls(program)
    thread_filter_of(machine)  # made once here, not once in every worker


def _machine() -> str:
    """By its calls: a 32-bit program on a 64-bit kernel makes others."""
    return os.uname().machine if sys.maxsize > 1 << 32 else "32 bits"


def _limit_resources() -> None:
    """Never raise one, but for cores, where one byte is stricter than none."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    core = _CORE if hard == resource.RLIM_INFINITY else min(hard, _CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    for kind, wanted in ((resource.RLIMIT_NOFILE, _DESCRIPTORS), (resource.RLIMIT_DATA, _DATA)):
        soft, _ = resource.getrlimit(kind)
        limit = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
        resource.setrlimit(kind, (limit, limit))


def _needed_capabilities() -> dict[str, int]:
    with suppress(OSError):
        if Path("/proc/self/uid_map").read_text().split() != _ALL_IDS:
            return _CAPABILITIES
    return _CAPABILITIES | _ADMIN
