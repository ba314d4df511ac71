"""What was measured is compared pair by pair, written down, and read again as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.results import Spread, load, save, together, wall_ratios
from tests.bench.documents import CASE, MB, MiB, document, ours, theirs

if TYPE_CHECKING:
    from pathlib import Path


def test_medians_and_spreads() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([]) is None
    assert theirs().wall == Spread(6.0, 4.0, 9.0)
    assert theirs().cpu == Spread(5.0, 5.0, 5.0)
    assert (theirs().peak, theirs().egress, theirs().first_byte) == (50 * MiB, 60 * MB, 0.5)


def test_a_round_is_compared_with_itself() -> None:
    assert wall_ratios(theirs(), ours()) == [3.0, 4.0, 1.0]


def test_a_run_that_failed_has_no_pair() -> None:
    failed = theirs()
    failed.times[1] = None

    assert wall_ratios(failed, ours()) == [3.0, 1.0]
    assert failed.wall == Spread(7.5, 6.0, 9.0)


def test_what_never_worked_has_no_figures() -> None:
    failed = theirs()
    failed.times = [None] * 3

    assert (failed.wall, failed.user, failed.written) == (None, None, None)
    assert wall_ratios(failed, ours()) == []


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = save(document(), tmp_path / "results")

    assert path.name == "2026-11-29T100000.json"
    assert load(path) == document()
    assert json.loads(path.read_text())["scenarios"][0]["digests"] == ["sha256:" + "a" * 64]


def test_a_document_of_an_older_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"date": "2026-11-23T20:58:40+00:00"}')

    with pytest.raises(SystemExit, match="older program"):
        load(path)


def test_of_two_sessions_the_later_one_counts() -> None:
    earlier, later = document(), document()
    later.date, later.revision = "2026-11-30T10:00:00+00:00", "2222"
    later.results = [replace(ours(), scenario="small"), replace(ours(), scenario="other")]
    later.scenarios.append(replace(later.scenarios[0], name="other"))

    both = together([later, earlier])

    assert both.cases == [CASE, ("other", "8M")]
    assert [result.peer for result in both.of(CASE)] == ["asyncpull"]
    assert (both.date, both.revision) == (later.date, "1111, 2222")


def test_sessions_of_different_machines_are_not_mixed() -> None:
    other = document()
    other.machine = replace(other.machine, cores=64)

    with pytest.raises(SystemExit, match="different machines"):
        together([document(), other])
