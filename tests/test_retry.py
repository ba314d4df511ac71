"""When a failure is worth another try, and after how long."""

from __future__ import annotations

import pytest

from asyncpull.errors import NotFoundError, SourceError, TemporaryError, UnavailableError
from asyncpull.retry import RetryBudget, RetryPolicy, retrying

POLICY = RetryPolicy(attempts=5, first_seconds=1.0, longest_seconds=5.0, patience_seconds=60.0, progress_bytes=100)
LOST = UnavailableError("lost", temporary=True)


@pytest.mark.parametrize(("drawn", "pauses"), [(0.0, [0.5, 1.0, 2.0, 2.5]), (0.5, [0.75, 1.5, 3.0, 3.75])])
def test_the_pause_doubles_up_to_a_limit_and_is_drawn_from_its_upper_half(drawn: float, pauses: list[float]) -> None:
    budget = RetryBudget(POLICY, lambda: drawn)
    assert [budget.pause_after(LOST) for _ in range(5)] == [*pauses, None]


def test_progress_refills_the_budget_and_too_little_of_it_does_not() -> None:
    budget = RetryBudget(POLICY, lambda: 0.0)
    for _ in range(10):
        budget.progressed(60)
        budget.progressed(40)
        assert budget.pause_after(LOST) == 0.5
    for _ in range(3):
        budget.progressed(99)
        assert budget.pause_after(LOST) is not None
    budget.progressed(99)
    assert budget.pause_after(LOST) is None


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (UnavailableError("certificate"), None),
        (NotFoundError("gone"), None),
        (TemporaryError("busy"), 0.5),
        (TemporaryError("busy", retry_after=0.0), 0.5),
        (TemporaryError("busy", retry_after=7.0), 7.0),
        (TemporaryError("busy", retry_after=60.0), 60.0),
        (TemporaryError("busy", retry_after=61.0), None),
    ],
)
def test_only_the_temporary_is_tried_again_and_a_named_time_is_obeyed(error: SourceError, pause: float | None) -> None:
    assert RetryBudget(POLICY, lambda: 0.0).pause_after(error) == pause


def test_a_pause_may_always_be_the_same() -> None:
    budget = RetryBudget(RetryPolicy(attempts=4, fixed_seconds=2.5))
    assert [budget.pause_after(TemporaryError("busy")) for _ in range(2)] == [2.5, 2.5]
    assert budget.pause_after(TemporaryError("busy", retry_after=4.0)) == 4.0
    assert budget.pause_after(TemporaryError("busy")) is None


@pytest.mark.parametrize(("failures", "succeeds"), [(0, True), (4, True), (5, False)])
async def test_retrying_ends_with_a_result_or_the_last_error(failures: int, succeeds: bool) -> None:
    outcomes = [UnavailableError(str(number), temporary=True) for number in range(failures)]

    async def attempt() -> str:
        if outcomes:
            raise outcomes.pop(0)
        return "here"

    policy = RetryPolicy(attempts=5, first_seconds=0.0)
    if succeeds:
        assert await retrying(policy, attempt) == "here"
    else:
        with pytest.raises(UnavailableError, match=r"^4$"):
            await retrying(policy, attempt)
