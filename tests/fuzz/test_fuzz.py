"""Every parser of foreign input against its seeds, what was found once, anything else, and for a moment a fuzzer."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpull.errors import DocumentError
from asyncpull.spec.digest import Digest
from tests.fuzz.table import FINDINGS, TARGETS, findings_of
from tests.fuzz.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDS_ATHERIS = pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python")
ROOT = Path(__file__).parents[2]


@cache
def seeds_of(target: Target) -> tuple[bytes, ...]:
    """The seeds, of which some hold keys that are made anew each time."""
    return tuple(target.seeds())


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_seeds_are_taken_or_refused(target: Target) -> None:
    seeds = seeds_of(target)
    assert any(map(target.execute, seeds)) or target.name == "cosign-key"
    for seed in seeds[:: max(1, len(seeds) // 50)]:
        assert target.measure(seed) == ""


@pytest.mark.parametrize("path", sorted(FINDINGS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_none_any_more(path: Path) -> None:
    assert TARGETS[path.parent.name].measure(path.read_bytes()) == ""


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
@settings(max_examples=25, derandomize=True)  # what is not found by all runs is left to scripts/fuzz
@given(st.data())
def test_anything_is_taken_or_refused(target: Target, data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(seeds_of(target)[:20]) | st.binary(max_size=200))
    pieces = st.binary(max_size=9) | st.sampled_from(target.words or (b"",))
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(start, min(start + 20, len(changed))))
        times = data.draw(st.sampled_from((0, 1, 2, target.length // 8)))
        changed = changed[:start] + (data.draw(pieces) or changed[start:end]) * times + changed[end:]
    assert target.measure(changed[: target.length]) == ""


def _fails(error: type[Exception]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        if data[:1] == b"x":
            raise error("found")

    return run


def test_only_documented_errors_are_let_through() -> None:
    target = Target("one", _fails(DocumentError), (DocumentError,), tuple)
    assert target.execute(b"a")
    assert not target.execute(b"x")
    with pytest.raises(IndexError):
        Target("one", _fails(IndexError), (DocumentError,), tuple).execute(b"x")


def test_memory_and_steps_are_measured() -> None:
    kept: list[bytes] = []

    def run(data: bytes) -> None:
        kept[:] = [bytes(len(data) ** 2)]
        for _ in range(len(data)):
            Digest.of(b"")

    assert Target("one", run, (), tuple, memory=(10_000, 2000), steps=(50, 10)).measure(bytes(1000)) == ""
    assert "bytes for" in Target("one", run, (), tuple, memory=(10_000, 100)).measure(bytes(1000))
    assert "lines for" in Target("one", run, (), tuple, steps=(0, 1)).measure(bytes(1000))


@NEEDS_ATHERIS
def test_a_fuzzer_finds_nothing_in_a_moment(tmp_path: Path) -> None:
    fuzzer = _fuzz("-m", "tests.fuzz", "--runs", "50", "--place", str(tmp_path))
    assert fuzzer.returncode == 0, fuzzer.stdout
    last = fuzzer.stdout.splitlines()[-1]
    assert last.endswith(f" executions of {len(TARGETS)} targets, 0 findings")
    assert int(last.split()[0]) > 10 * len(TARGETS)


_BROKEN = """
import os, sys
from pathlib import Path
from tests.fuzz.__main__ import fuzz
from tests.fuzz.target import Target

def run(data):
    if data[:1] == b"x":
        if data[1:2] == b"y":
            raise IndexError("found")

print(*fuzz(Target("broken", run, (), lambda: [b"a"], (b"xy",)), ["-runs=1000000"], Path(sys.argv[1])))
"""


@NEEDS_ATHERIS
def test_a_fuzzer_finds_what_is_broken(tmp_path: Path) -> None:
    fuzzer = _fuzz("-c", _BROKEN, str(tmp_path))
    assert fuzzer.returncode == 0, fuzzer.stderr
    [reproducer] = (tmp_path / "found" / "broken").iterdir()
    assert reproducer.read_bytes().startswith(b"xy")
    assert str(reproducer) in fuzzer.stdout
    assert "IndexError: found" in (tmp_path / "broken.log").read_text(errors="replace")


def _fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )


def test_every_finding_belongs_to_a_target() -> None:
    assert {path.name for path in FINDINGS.glob("*")} <= TARGETS.keys()
    assert all(findings_of(TARGETS[path.name]) for path in FINDINGS.glob("*"))
