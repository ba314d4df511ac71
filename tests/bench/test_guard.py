"""The guard fails for what a change costs, and for nothing that a busy machine does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bench.guard import BASE, judge
from bench.measure import Usage
from bench.results import Result

if TYPE_CHECKING:
    from collections.abc import Sequence


def _result(
    peer: str, user: Sequence[float], *, wall: float = 1.0, written: int = 1_000_000, calls: int = 9_000
) -> Result:
    return Result(
        "guard", "loopback", peer, [Usage(wall, each, 0.1, written) for each in user], calls=[calls, calls + 500]
    )


STEADY = [1.0] * 7


def test_the_same_is_fine() -> None:
    verdicts = judge(_result(BASE, STEADY), _result("asyncpull", STEADY), 1_000)

    assert not any(verdict.is_worse for verdict in verdicts)
    assert str(verdicts[0]) == "system calls per file: 9.00 -> 9.00, x1.000 (up to x1.03): fine"


@pytest.mark.parametrize(
    ("new", "worse"),
    [
        (_result("asyncpull", STEADY, calls=9_400), "system calls per file"),
        (_result("asyncpull", STEADY, written=1_050_000), "MB written"),
        (_result("asyncpull", [1.2] * 7), "seconds of user CPU, per pair"),
    ],
)
def test_each_figure_is_judged_by_itself(new: Result, worse: str) -> None:
    verdicts = judge(_result(BASE, STEADY), new, 1_000)

    assert [verdict.what for verdict in verdicts if verdict.is_worse] == [worse]
    assert "WORSE" in str(next(verdict for verdict in verdicts if verdict.is_worse))


def test_a_run_in_four_that_took_longer_is_no_regression() -> None:
    noisy = [1.0, 1.6, 1.0, 1.0, 1.5, 1.0, 1.0]

    assert not any(verdict.is_worse for verdict in judge(_result(BASE, STEADY), _result("asyncpull", noisy), 1_000))


def test_pairs_share_what_the_machine_does() -> None:
    slow_half = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]

    assert not any(verdict.is_worse for verdict in judge(_result(BASE, slow_half), _result("x", slow_half), 1_000))


def test_the_wall_is_not_judged() -> None:
    verdicts = judge(_result(BASE, STEADY), _result("asyncpull", STEADY, wall=9.0), 1_000)

    assert not any(verdict.is_worse for verdict in verdicts)


def test_few_pairs_are_not_enough() -> None:
    with pytest.raises(ValueError, match="6 pairs"):
        judge(_result(BASE, STEADY[:6]), _result("asyncpull", STEADY[:6]), 1_000)


def test_calls_have_to_be_counted() -> None:
    silent = _result("asyncpull", STEADY)
    silent.calls = []

    with pytest.raises(ValueError, match="neither perf nor strace"):
        judge(_result(BASE, STEADY), silent, 1_000)


@pytest.mark.skipif("ASYNCPULL_BENCH_GUARD" not in os.environ, reason="takes minutes: ASYNCPULL_BENCH_GUARD=1")
def test_a_revision_is_not_worse_than_itself() -> None:
    from bench.compare import main

    main(["--guard", "HEAD"])
