"""Functions called as root of a new user namespace, in a child process of the tests.

``python -m tests.support.user_namespace COMMAND…`` runs a command so, in a namespace with many IDs.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

FIRST = 100_000
"""Where the IDs of a namespace with many begin outside."""
_CLONE_NEWUSER = 0x10000000


def call_in_user_namespace(function: Callable[[], Result], directory: Path, *, ids: int = 1) -> Result:
    """Call ``function`` with ``directory`` as the current one; return its result, or raise its error.

    With one ID, that is the caller's own; with more, ``FIRST`` and those after it, which takes root to grant, and
    ``directory`` is given to the first. Skips the test where there are no user namespaces.
    """
    ours, theirs = os.pipe()
    theirs_go, ours_go = os.pipe()
    first = FIRST if ids > 1 else os.geteuid()
    first_group = FIRST if ids > 1 else os.getegid()
    if ids > 1:
        os.chown(directory, first, first_group)
    child = os.fork()
    if not child:
        _run(function, directory, theirs, theirs_go)
    os.close(theirs)
    os.close(theirs_go)
    with open(ours, "rb") as answers, open(ours_go, "wb") as go:
        if answers.read(1) == b"y":
            process = Path(f"/proc/{child}")
            if os.geteuid():
                (process / "setgroups").write_text("deny")
            (process / "uid_map").write_text(f"0 {first} {ids}")
            (process / "gid_map").write_text(f"0 {first_group} {ids}")
            go.write(b"y")
            go.flush()
        answer = answers.read()
    os.waitpid(child, 0)
    if not answer:
        pytest.skip("no user namespaces here")
    result: Result | BaseException = pickle.loads(answer)
    if isinstance(result, BaseException):
        raise result
    return result


def _run(function: Callable[[], Result], directory: Path, answers: int, go: int) -> None:
    """Never returns: whatever happens, this process is none of pytest's."""
    try:
        os.chdir(directory)
        if ctypes.CDLL(None).unshare(_CLONE_NEWUSER):
            os._exit(0)
        os.write(answers, b"y")
        os.read(go, 1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        answer: object
        try:
            answer = function()
        except BaseException as error:  # carried home
            answer = error
        os.write(answers, pickle.dumps(answer))
    finally:
        os._exit(0)


if __name__ == "__main__":
    command = sys.argv[1:]
    sys.exit(call_in_user_namespace(lambda: subprocess.run(command, check=False).returncode, Path.cwd(), ids=65536))
