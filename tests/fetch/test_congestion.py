"""A window of connections, and what moves it."""

from __future__ import annotations

import pytest

from asyncpull.fetch.congestion import CongestionLimits, Window

LIMITS = CongestionLimits(
    first=4, most=10, growth=1.1, loss=0.8, trial_seconds=1.0, settle_seconds=5.0, moment_seconds=1.0
)


def sizes(samples: list[tuple[int, float]], window: Window) -> list[int]:
    """What becomes of it, when every second so many connections are seen with so much goodput."""
    found = []
    for now, (used, rate) in enumerate(samples):
        window = window.after_sample(used, rate, float(now), LIMITS)
        found.append(window.connections)
    return found


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(4, 40.0), (6, 60.0), (9, 90.0), (10, 100.0), (10, 100.0)], [6, 9, 10, 10, 10]),
        ([(3, 40.0), (3, 90.0)], [4, 4]),  # not all of it is used
        ([(4, 40.0), (5, 60.0), (6, 60.0)], [6, 6, 9]),  # judged only when it is used
        # No gain: it stays, and is tried again after a while.
        ([(4, 40.0), *[(6, 41.0)] * 5, (6, 41.0), (9, 80.0)], [6, 6, 6, 6, 6, 6, 9, 10]),
        ([(4, 40.0), (6, 30.0), (4, 40.0)], [6, 4, 4]),  # a loss: it is taken back
    ],
)
def test_it_grows_while_goodput_does(samples: list[tuple[int, float]], expected: list[int]) -> None:
    assert sizes(samples, Window(4)) == expected


def test_failures_halve_it_once_per_moment_and_hold_it() -> None:
    window = Window(10)
    for now in (0.0, 0.1, 0.9):
        window = window.after_failure(now, None, LIMITS)
    assert window.connections == 5
    window = window.after_failure(1.5, None, LIMITS)
    assert window.connections == 2
    assert window.after_sample(2, 1.0, 6.4, LIMITS) == window
    assert window.after_sample(2, 1.0, 6.5, LIMITS).connections == 3
    for now in (10.0, 20.0, 30.0):
        window = window.after_failure(now, None, LIMITS)
    assert window.connections == 1
    assert window.after_sample(1, 1.0, 99.0, LIMITS).connections == 2


def test_the_time_that_a_registry_names_is_obeyed() -> None:
    window = Window(8).after_failure(0.0, 60.0, LIMITS).after_failure(0.5, 1.0, LIMITS)
    assert window.after_sample(4, 100.0, 59.9, LIMITS).connections == 4
    assert window.after_sample(4, 100.0, 60.0, LIMITS).connections == 6
