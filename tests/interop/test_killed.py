"""A pull killed at any moment leaves a store that podman uses as if nothing had been (format, 13.4, point 8)."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image, noise
from tests.support.samples import base_layer, odd_layer
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.stores import SharedStore

    StoreMaker = Callable[[str], SharedStore]

pytestmark = pytest.mark.root

KILLS = 8
WORKERS_END_SECONDS = 90
MARK = "ASYNCPULL_TEST_MARK"


def _many_files(number: int) -> bytes:
    names = [f"part-{number}/{name}" for name in range(300)]
    return tar([directory(f"part-{number}"), *(file(name, noise(number, 8_000)) for name in names)])


@pytest.fixture
def wanted(registry: Registry) -> tuple[Image, str]:
    made = image([base_layer(), odd_layer(), *(_many_files(number) for number in range(3))])
    return made, registry.push("killed/parts", "1", made)


def _processes_marked(mark: str) -> list[int]:
    """Return the processes that were started with ``mark`` in their environment, or by one that was."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def _kill_after(process: subprocess.Popen[str], moment: float) -> None:
    """Kill the process, not its workers, after ``moment`` seconds, unless it has ended by then."""
    time.sleep(moment)
    process.kill()
    process.communicate()


def _wait_for_the_end_of(mark: str) -> None:
    """Workers notice by themselves that nobody is left to work for."""
    deadline = time.monotonic() + WORKERS_END_SECONDS
    while left := _processes_marked(mark):
        if time.monotonic() > deadline:
            for process_id in left:
                os.kill(process_id, signal.SIGKILL)
            raise AssertionError(f"workers outlived the pull: {left}")
        time.sleep(0.02)


def _seconds_of_a_pull(store: SharedStore, reference: str) -> float:
    started = time.monotonic()
    store.pull(reference)
    return time.monotonic() - started


def test_killed_at_random_moments(
    new_store: StoreMaker, wanted: tuple[Image, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill a pull in each eighth of the time that it takes, at a moment drawn by chance (the same ones every time)."""
    expected, reference = wanted
    chance = random.Random(20_26)
    whole = _seconds_of_a_pull(new_store("whole"), reference)
    for number in range(KILLS):
        store = new_store(f"k{number}")
        mark = f"{os.getpid()}-{number}"
        monkeypatch.setenv(MARK, mark)
        process = store.start_asyncpull("pull", reference)
        monkeypatch.delenv(MARK)
        _kill_after(process, whole * (number + chance.random()) / KILLS)
        _wait_for_the_end_of(mark)

        listed = store.podman("images", "-q", "--no-trunc")

        assert listed in ("", f"sha256:{expected.id}")
        if store.can_check:  # older ones leave the temporary directories of others alone
            assert store.podman("system", "check") == ""
            assert store.abandoned() == []  # a half-written file of records stays until our next pull
        assert store.pull(reference) == expected.id
        assert [record["names"] for record in store.image_records()] == [[reference]]
        store.check("-m", "0s")
        assert store.spooled() == []
