"""Layers that try to be slow: twice as many members take twice as many steps, not four times.

A step is a line of our code or of a loop in it, counted by the interpreter, so that no clock is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.tree.marks import Marks
from tests.support.tars import Entry, directory, fifo, file, opaque, symlink, tar, whiteout

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    Trace = Callable[[FrameType, str, Any], Any]

pytestmark = pytest.mark.root

Attack = Callable[[int], list[Entry]]


def steps_of(work: Callable[[], object]) -> int:
    """How many lines were executed."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Trace:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def links_to_the_same_directory(count: int) -> list[Entry]:
    return [directory("d"), *(symlink(f"l{number}", "d") for number in range(count))]


def nested_directories(depth: int) -> list[str]:
    """From the top down; with names so long that those of files in the last one always need a record."""
    return ["/".join(["long-name"] * each) for each in range(1, depth + 1)]


def empty_files(count: int) -> list[Entry]:
    return [file(f"f{number}") for number in range(count)]


def opaque_markers(count: int) -> list[Entry]:
    return [each for number in range(count) for each in (directory(f"d{number}"), opaque(f"d{number}"))]


def opaque_markers_of_one_directory(count: int) -> list[Entry]:
    files = [file(f"d/f{number}") for number in range(count)]
    return [*links_to_the_same_directory(count), *files, *(opaque(f"l{number}") for number in range(count))]


def opaque_markers_on_the_way_to_many_files(count: int) -> list[Entry]:
    *above, deepest = nested_directories(count // 4)
    return [*(file(f"{deepest}/f{number}") for number in range(count)), *map(opaque, [deepest, *reversed(above)])]


def whiteouts_of_one_name(count: int) -> list[Entry]:
    return [*links_to_the_same_directory(count), *(whiteout(f"l{number}/x") for number in range(count))]


def whiteouts_of_directories_that_hold_each_other(count: int) -> list[Entry]:
    *above, deepest = nested_directories(count // 4)
    return [*(file(f"{deepest}/f{number}") for number in range(count)), *map(whiteout, [*above, deepest])]


def links_replaced_beside_many_directories(count: int) -> list[Entry]:
    implied = [file(f"i{number}/f") for number in range(count)]
    links = [symlink(f"d/x{number}", "nowhere") for number in range(count)]
    others = [fifo(f"l/x{number}") for number in range(count)]
    return [directory("d"), symlink("l", "d"), *implied, *links, *others]


def directories_replaced_beside_whiteouts(count: int) -> list[Entry]:
    gone = [whiteout(f"g{number}/x") for number in range(count)]
    made = [file(f"d/x{number}/f") for number in range(count)]
    return [directory("d"), symlink("l", "d"), *gone, *made, *(file(f"l/x{number}") for number in range(count))]


ATTACKS = (
    empty_files,
    opaque_markers,
    opaque_markers_of_one_directory,
    opaque_markers_on_the_way_to_many_files,
    whiteouts_of_one_name,
    whiteouts_of_directories_that_hold_each_other,
    links_replaced_beside_many_directories,
    directories_replaced_beside_whiteouts,
)


@pytest.mark.parametrize("marks", Marks, ids=lambda marks: marks.value)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_twice_as_many_members_take_twice_as_many_steps(attack: Attack, marks: Marks, tmp_path: Path) -> None:
    def apply(count: int) -> int:
        root = tmp_path / str(count)
        root.mkdir()
        archive = tar(attack(count))
        return steps_of(lambda: apply_layer([archive], root, len, ApplyOptions(marks)))

    apply(20)  # what is remembered from the first time on
    once, twice = apply(100), apply(200)
    assert twice < 2.5 * once
