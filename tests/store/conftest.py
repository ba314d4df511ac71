"""Stores for the tests, each in a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.store.store import Store
from tests.store.made import config_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.store.config import StoreConfig


@pytest.fixture
def config(place: Path) -> StoreConfig:
    return config_at(place)


@pytest.fixture
async def store(config: StoreConfig) -> AsyncIterator[Store]:
    async with Store.open(config) as opened:
        yield opened
