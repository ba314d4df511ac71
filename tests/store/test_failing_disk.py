"""A disk that fails: each system call on the files of a store fails once, and the command says so in its own words.

strace makes one call after another fail with EIO. Nobody thinks of every call, and a damaged file system chooses any.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.store import Store
from tests.store.archived import put_archives
from tests.support.command import PROJECT, Command, Ended
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.root

OLD, NEW = "localhost/old:1", "localhost/new:1"
_CALLED = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", re.MULTILINE)
_CALLS = "%file,read,pread64,write,pwrite64,fstat,getdents64,fchmod,fsync,fdatasync,syncfs"
_CLEAR = re.compile("Input/output error|is not readable")
_MOST = 30  # calls of one kind on one path


@pytest.fixture
async def command(tmp_path: Path) -> Command:
    """A command on a store that has an image."""
    command = Command(tmp_path)
    async with Store.open(root=command.root, run_root=command.run_root) as store:
        await put_archives(store, [tar([file("f", b"contents")])], OLD)
    return command


def paths_of(command: Command) -> list[Path]:
    """The directories of a store and its lock files and records, but nothing inside of layers and images."""
    directories = [command.root, command.run_root, *(path for path in command.root.glob("*") if path.is_dir())]
    below = [path for name in ("overlay", "asyncpull") for path in (command.root / name).iterdir()]
    files = [path for path in command.root.glob("overlay-*/*.*") if path.suffix in (".json", ".lock")]
    return [*directories, *(path for path in below if path.is_dir() and len(path.name) < 64), *files]


def traced(command: Command, path: Path, arguments: Sequence[str], *options: str) -> tuple[str, Ended]:
    """The calls on ``path`` that a command makes, and how it ends; the store is what it always was before."""
    command("untag", OLD, NEW)
    trace = command.directory / "trace"
    strace = ("strace", "-f", "-qq", "-o", str(trace), "-P", str(path), "-e", f"trace={_CALLS}", *options)
    ended = subprocess.run(
        [*strace, *command.arguments, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=PROJECT,
    )
    return trace.read_text(), Ended(ended.returncode, ended.stdout, ended.stderr)


def failures(command: Command, path: Path, *arguments: str) -> Iterator[tuple[str, Ended]]:
    """What failed and how the command ended, for each call on ``path`` that it makes."""
    calls, _ = traced(command, path, arguments)
    for call in sorted(set(_CALLED.findall(calls))):
        for number in range(1, _MOST):
            trace, ended = traced(command, path, arguments, "-e", f"inject={call}:error=EIO:when={number}")
            yield f"{call} {number} on {path}", ended
            if "(INJECTED)" not in trace:
                break
        else:
            raise AssertionError(f"{path}: more than {_MOST} of {call}")


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
@pytest.mark.parametrize(
    ("arguments", "place", "calls"), [(("tag", OLD, NEW), "", 40), (("gc",), "asyncpull", 10)], ids=["tag", "gc"]
)
def test_whatever_fails_is_an_error_of_the_store(
    command: Command, arguments: tuple[str, ...], place: str, calls: int
) -> None:
    before = command("images", "--json").json()
    wrong: list[tuple[str, str]] = []
    count = 0
    for path in filter(lambda path: path.is_relative_to(command.root / place), paths_of(command)):
        for what, ended in failures(command, path, *arguments):
            count += 1
            if ended.code:
                now = command("images", "--json").json()
                if now != before:
                    wrong.append((what, "the store is not what it was"))
                elif "internal error" in ended.err or not _CLEAR.search(ended.err):
                    wrong.append((what, ended.err))
    assert "\n".join(map(": ".join, wrong)) == ""
    assert count > calls


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
def test_a_check_says_what_it_cannot_read(command: Command) -> None:
    (tree,) = (path for path in (command.root / "overlay").iterdir() if len(path.name) == 64)
    count = 0
    for what, ended in failures(command, tree, "check"):
        count += 1
        if ended.code:
            assert "internal error" not in ended.err, what
            assert _CLEAR.search(ended.err + ended.out), what
    assert count > 2
    assert command("check").code == 0


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
@pytest.mark.parametrize(
    ("place", "call"), [("overlay/tempdirs", "mkdir:error=EIO:when=2"), ("overlay-layers", "fsync:error=EIO:when=2")]
)
def test_what_was_removed_stays_removed_and_that_is_said(command: Command, place: str, call: str) -> None:
    trace, ended = traced(command, command.root / place, ("rmi", OLD), "-e", f"inject={call}")
    assert "(INJECTED)" in trace
    assert ended.code == 1
    assert "Input/output error" in ended.err
    assert "removed all the same" in ended.err
    assert command("images", "--json").json() == []
    assert command("gc").code == 0
    assert command("check").code == 0
    assert command("layers", "--json").json() == []
