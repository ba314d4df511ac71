"""Which endpoints are asked, in which order, after what they did wrong: by a clock that is a number."""

from __future__ import annotations

import pytest

from asyncpull.errors import (
    AsyncpullError,
    AuthenticationError,
    DigestMismatchError,
    DocumentError,
    DocumentTooLargeError,
    NotFoundError,
    SizeMismatchError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.registry.endpoint import Endpoint
from asyncpull.registry.health import FIRST_SECONDS, LONGEST_SECONDS, Condition, Health, Trouble, trouble_of
from asyncpull.spec.digest import Digest

BLOB, OTHER = Digest.of(b"blob"), Digest.of(b"other")


def endpoint(host: str, repository: str = "a/b", *, is_mirror: bool = True) -> Endpoint:
    return Endpoint(host, repository, f"{host}/{repository}", is_mirror=is_mirror)


ONE, TWO, HOME = endpoint("one"), endpoint("two"), endpoint("home", is_mirror=False)
ALL = (ONE, TWO, HOME)


def order(health: Health, now: float, digest: Digest | None = BLOB) -> list[str]:
    return [each.host for each in health.order(ALL, digest, now)]


def test_nothing_known_is_nothing_wrong() -> None:
    assert order(Health(), 0.0) == ["one", "two", "home"]


@pytest.mark.parametrize("trouble", [t for t in Trouble if t not in (Trouble.MISSING, Trouble.REFUSED)])
def test_who_failed_is_left_alone_whatever_is_wanted(trouble: Trouble) -> None:
    health = Health()
    health.failed(ONE, trouble, BLOB, 100.0)
    end = 100.0 + FIRST_SECONDS[trouble]
    for digest in (BLOB, OTHER, None):
        assert order(health, end - 0.001, digest) == ["two", "home", "one"]
        assert order(health, end, digest) == ["one", "two", "home"]
    assert not health.usable(endpoint("one", "another/repository"), None, end - 0.001)


def test_a_missing_blob_is_held_against_nothing_else() -> None:
    health = Health()
    health.failed(ONE, Trouble.MISSING, BLOB, 0.0)
    assert order(health, 1.0) == ["two", "home", "one"]
    assert order(health, 1.0, OTHER) == order(health, 1.0, None) == ["one", "two", "home"]
    assert health.usable(endpoint("one", "another/repository"), BLOB, 1.0)
    assert order(health, FIRST_SECONDS[Trouble.MISSING]) == ["one", "two", "home"]


def test_a_missing_tag_is_held_against_nobody() -> None:
    health = Health()
    health.failed(ONE, Trouble.MISSING, None, 0.0)
    assert order(health, 0.0) == order(health, 0.0, None) == ["one", "two", "home"]


def test_a_refusal_is_held_against_the_repository() -> None:
    health = Health()
    health.failed(ONE, Trouble.REFUSED, BLOB, 0.0)
    assert order(health, 1.0, OTHER) == ["two", "home", "one"]
    assert health.usable(endpoint("one", "another/repository"), BLOB, 1.0)


def test_all_in_trouble_are_asked_in_their_order() -> None:
    health = Health()
    for each in reversed(ALL):
        health.failed(each, Trouble.CORRUPT, BLOB, 0.0)
    assert order(health, 1.0) == ["one", "two", "home"]


def test_what_fails_together_counts_once() -> None:
    health = Health()
    assert health.failed(ONE, Trouble.STALLED, BLOB, 10.0)
    for _ in range(5):
        assert not health.failed(ONE, Trouble.STALLED, BLOB, 10.0)
    assert health.usable(ONE, BLOB, 10.0 + FIRST_SECONDS[Trouble.STALLED])


def test_the_cool_down_doubles_up_to_a_limit() -> None:
    condition, now, cool_downs = Condition(), 0.0, []
    for _ in range(10):
        condition = condition.after_begin(now).after_failure(Trouble.UNAVAILABLE, now + 0.5)
        assert not condition.usable(condition.until - 0.001)
        cool_downs.append(condition.until - now - 0.5)
        now = condition.until
    assert cool_downs == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0] + [LONGEST_SECONDS] * 3


def test_one_request_tries_it_again_and_its_success_clears_it() -> None:
    health = Health()
    health.failed(ONE, Trouble.UNAVAILABLE, BLOB, 0.0)
    assert health.usable(ONE, BLOB, 5.0)
    health.begin(ONE, BLOB, 5.0)
    assert not health.usable(ONE, BLOB, 9.9)
    health.succeeded(ONE, BLOB)
    assert health.usable(ONE, BLOB, 5.1)
    # Cleared: the next failure is the first again.
    health.failed(ONE, Trouble.UNAVAILABLE, BLOB, 6.0)
    assert health.usable(ONE, BLOB, 11.0)


def test_of_a_request_that_is_never_heard_of_another_one_tries_it() -> None:
    health = Health()
    health.failed(ONE, Trouble.UNAVAILABLE, BLOB, 0.0)
    health.begin(ONE, BLOB, 5.0)
    assert health.usable(ONE, BLOB, 10.0)


def test_a_success_of_who_is_left_alone_clears_nothing() -> None:
    health = Health()
    health.failed(ONE, Trouble.CORRUPT, BLOB, 0.0)
    health.begin(ONE, BLOB, 1.0)  # asked after all others had failed too
    health.succeeded(ONE, BLOB)
    assert not health.usable(ONE, BLOB, 2.0)


@pytest.mark.parametrize(("asked_for", "until"), [(0.0, 10.0), (60.0, 60.0), (1e9, 3600.0)])
def test_who_says_for_how_long_is_left_alone_that_long(asked_for: float, until: float) -> None:
    health = Health()
    health.failed(ONE, Trouble.BUSY, BLOB, 0.0, retry_after=asked_for)
    assert not health.usable(ONE, BLOB, until - 0.1)
    assert health.usable(ONE, BLOB, until)


def test_memory_is_bounded() -> None:
    health = Health()
    health.failed(ONE, Trouble.STALLED, None, 0.0)
    for number in range(5000):
        health.failed(TWO, Trouble.MISSING, Digest.of(b"%d" % number), 0.0)
    assert not health.usable(ONE, None, 0.0)
    assert health.usable(TWO, Digest.of(b"0"), 0.0)
    assert not health.usable(TWO, Digest.of(b"4999"), 0.0)
    assert not health.usable(TWO, Digest.of(b"2000"), 0.0)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (NotFoundError("x"), Trouble.MISSING),
        (AuthenticationError("x"), Trouble.REFUSED),
        (DigestMismatchError("x", "a", "b"), Trouble.CORRUPT),
        (SizeMismatchError("x", 1, 2), Trouble.CORRUPT),
        (DocumentTooLargeError("x"), Trouble.CORRUPT),
        (DocumentError("x"), Trouble.UNAVAILABLE),
        (TemporaryError("x"), Trouble.BUSY),
        (UnavailableError("x", temporary=True), Trouble.UNAVAILABLE),
        (UnavailableError("x"), Trouble.UNAVAILABLE),
    ],
)
def test_errors_are_troubles(error: AsyncpullError, trouble: Trouble) -> None:
    assert trouble_of(error) is trouble
