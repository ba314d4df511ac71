"""A full check while others pull and remove, and one that is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.store import Store
from tests.support import images, tars
from tests.support.pulls import Bench, bench_at, layer

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.store.check.findings import Finding

pytestmark = pytest.mark.root


async def test_pulls_and_removals_are_no_damage(place: Path) -> None:
    async with bench_at(place) as bench, Store.open(bench.store.config) as other:
        base = layer("base", 3_000_000)
        await bench.puller.pull(bench.offer(images.image([base]), "base"))

        async def come_and_go() -> None:
            for number in range(6):
                wanted = images.image([base, layer(f"top{number}")])
                image = await bench.puller.pull(bench.offer(wanted, f"top{number}"))
                await bench.store.remove_image(image.id)

        busy = asyncio.ensure_future(come_and_go())
        found: list[Finding] = []
        while not busy.done():
            found += (await other.check()).findings
        await busy

        assert found == []
        assert (await other.check(max_age_seconds=0)).findings == ()


async def test_what_is_mounted_is_not_mended(place: Path) -> None:
    async with bench_at(place) as bench:
        image = await bench.puller.pull(bench.offer(images.image([layer("base"), layer("top")])))
        path = next(bench.root.glob("overlay/*/diff/base/file"))
        async with bench.store.mounted(image.id):
            path.chmod(0o600)
            (finding,) = (await bench.store.check(repair=True)).findings
            assert not finding.is_repaired
            assert path.stat().st_mode & 0o777 == 0o600
        assert (await bench.store.check(repair=True)).is_clean
        assert path.stat().st_mode & 0o777 == 0o644
        assert (await bench.store.check()).findings == ()


async def test_a_cancelled_check_ends_soon_and_holds_nothing(place: Path) -> None:
    async with bench_at(place) as bench:
        many = tars.tar([tars.file(f"file{number}", b"x") for number in range(4_000)])
        image = await bench.puller.pull(bench.offer(images.image([many])))
        for _ in range(2):
            await _cancel_in_the_middle(bench)
        await bench.store.remove_image(image.id)
        assert (await bench.store.check(max_age_seconds=0)).findings == ()


async def _cancel_in_the_middle(bench: Bench) -> None:
    task = asyncio.ensure_future(bench.store.check())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
