"""Stores for the tests, each in a directory of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.store import Store
from tests.store.made import config_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncpull.store.config import StoreConfig


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name, removed afterwards with everything that is still mounted in it."""
    directory = Path(tempfile.mkdtemp(prefix="s-"))
    try:
        yield directory
    finally:
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split(" ")[4]
            if point.startswith(f"{directory}/"):
                subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        shutil.rmtree(directory)


@pytest.fixture
def config(place: Path) -> StoreConfig:
    return config_at(place)


@pytest.fixture
async def store(config: StoreConfig) -> AsyncIterator[Store]:
    async with Store.open(config) as opened:
        yield opened
