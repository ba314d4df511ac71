"""Workers that are there before a pull: for which images one starts, and who lets them go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.workers import prepare_for, workers_of
from tests.support import images
from tests.support.pulls import AMD64, Bench, bench_at, children, layer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path) as bench:
        yield bench


async def test_a_worker_starts_for_what_is_missing(bench: Bench) -> None:
    there = bench.offer(images.image([layer("a")]))
    await bench.puller.pull(there)
    before = children()
    async with workers_of(bench.store) as workers:
        await prepare_for([there], bench.store, workers)
        assert children() == before
        await prepare_for([there, f"{there}-not", "???"], bench.store, workers)
        assert len(children() - before) == 1
    assert children() == before


async def test_a_puller_leaves_the_workers_that_it_was_given(bench: Bench) -> None:
    before, access = children(), RegistryAccess(tls_verify=False)
    async with workers_of(bench.store, 1) as workers:
        for tag in "ab":
            target = images.image([layer(tag), layer(f"more {tag}")])
            async with Puller(bench.store, platform=AMD64, access=access, workers=workers) as puller:
                assert (await puller.pull(bench.offer(target, tag))).id == target.id
            (nursery,) = children() - before
            if tag == "a":
                first = nursery
        assert nursery == first
    assert children() == before


async def test_a_puller_that_was_given_none_leaves_none(bench: Bench) -> None:
    before = children()
    async with Puller(bench.store, platform=AMD64, access=RegistryAccess(tls_verify=False)) as puller:
        await puller.pull(bench.offer(images.image([layer("a")])))
        assert len(children() - before) == 1
    assert children() == before
