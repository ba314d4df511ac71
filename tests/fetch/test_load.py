"""How much a thread has to do, by what the kernel counts."""

from __future__ import annotations

import time

import pytest

from asyncpull.fetch.load import Load, busy_seconds

if not busy_seconds():
    pytest.skip("this kernel does not count what threads wait for", allow_module_level=True)


def test_work_counts_and_sleep_does_not() -> None:
    before, until = busy_seconds(), time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    worked, began = busy_seconds(), time.monotonic()
    time.sleep(0.2)
    assert worked - before >= 0.02
    assert busy_seconds() - worked < time.monotonic() - began - 0.1  # whoever waits for a core longer was busy longer


def test_full_while_there_is_no_end_of_work() -> None:
    load = Load()
    assert not load.is_full()
    until = time.monotonic() + 10
    while not load.is_full():
        assert time.monotonic() < until
    assert load.is_full()  # too soon for another answer
    while load.is_full():
        assert time.monotonic() < until
        time.sleep(0.1)
