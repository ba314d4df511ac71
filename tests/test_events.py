"""Events as a stream: in order, bounded, coalescing, and ended with the puller."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NotFoundError
from asyncpull.events import PENDING_LIMIT, EventHub
from asyncpull.progress import (
    CommitCompleted,
    CommitStarted,
    Dropped,
    Event,
    ExtractCompleted,
    ExtractStarted,
    FetchAdvanced,
    FetchCompleted,
    FetchRetried,
    FetchServed,
    FetchStarted,
    LayerQueued,
    Mounted,
    PullCompleted,
    PullFailed,
    PullStarted,
    Resolved,
    ResolveStarted,
    Silent,
    Unmounted,
    VerifyCompleted,
    VerifyStarted,
)
from tests.support import images
from tests.support.pulls import PATIENCE, Bench, Heard, bench_at, layer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.events import EventStream


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path) as bench:
        yield bench


async def read(stream: EventStream) -> list[Event]:
    return [event async for event in stream]


async def test_all_readers_and_the_reporter_get_all_events_in_order() -> None:
    heard = Heard()
    hub = EventHub(heard)
    told: list[Event] = [PullStarted(1, "x"), PullStarted(2, "y"), PullFailed(1, "x", "because")]
    streams = hub.stream(), hub.stream()
    for event in told:
        hub.report(event)
    hub.close()
    assert [await read(stream) for stream in streams] == [told, told]
    assert heard.events == told


async def test_of_a_layer_the_latest_of_each_kind_waits() -> None:
    hub = EventHub(Silent())
    stream = hub.stream()
    for position in range(100):
        hub.report(FetchAdvanced(1, "x", "a", position))
        hub.report(FetchAdvanced(1, "x", "b", position))
        hub.report(FetchAdvanced(2, "x", "a", position))
    hub.close()
    assert await read(stream) == [
        FetchAdvanced(1, "x", "a", 99),
        FetchAdvanced(1, "x", "b", 99),
        FetchAdvanced(2, "x", "a", 99),
    ]


async def test_what_is_lost_but_advances_is_counted() -> None:
    hub = EventHub(Silent())
    stream = hub.stream()
    for _ in range(3):
        hub.report(FetchRetried(1, "x", "a", "reset", 1.0))
    assert await anext(stream) == Dropped(0, "", 2)
    assert await anext(stream) == FetchRetried(1, "x", "a", "reset", 1.0)


async def test_a_reader_that_stalls_costs_a_bounded_amount_of_memory() -> None:
    hub = EventHub(Silent())
    stream = hub.stream()
    for number in range(PENDING_LIMIT + 1000):
        hub.report(PullStarted(number, "x"))
    hub.close()
    events = await read(stream)
    assert events[0] == Dropped(0, "", 1000)
    assert [event.pull for event in events[1:]] == list(range(1000, PENDING_LIMIT + 1000))


async def test_a_reader_waits_for_the_next_event_and_ends_with_the_hub() -> None:
    hub = EventHub(Silent())
    reading = asyncio.ensure_future(read(hub.stream()))
    await asyncio.sleep(0)
    hub.report(PullStarted(1, "x"))
    await asyncio.sleep(0)
    assert not reading.done()
    hub.close()
    assert await reading == [PullStarted(1, "x")]


async def test_a_stream_made_after_the_end_ends_at_once() -> None:
    hub = EventHub(Silent())
    hub.close()
    assert await read(hub.stream()) == []


async def test_a_reader_that_leaves_is_forgotten() -> None:
    hub = EventHub(Silent())
    stays = hub.stream()

    async def leave_at_once(stream: EventStream) -> None:
        hub.report(PullStarted(1, "x"))
        async for _ in stream:
            break

    await leave_at_once(hub.stream())
    gc.collect()
    assert repr(hub) == "<EventHub with 1 readers>"
    assert await anext(stays) == PullStarted(1, "x")


async def test_a_reader_that_is_cancelled_may_go_on() -> None:
    hub = EventHub(Silent())
    stream = hub.stream()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    hub.report(PullStarted(1, "x"))
    assert await anext(stream) == PullStarted(1, "x")


# ------------------------------------------------------------------------------------------------- the real thing


@pytest.mark.root
async def test_the_events_of_a_pull(tmp_path: Path) -> None:
    async with bench_at(tmp_path) as bench:
        reading = asyncio.ensure_future(read(bench.puller.events()))
        target = images.image([layer("a", 1_000_000)])
        reference = bench.offer(target)
        await bench.puller.pull(reference)
    events = await reading
    assert {(event.pull, event.reference) for event in events} == {(1, reference)}
    kinds = [type(event) for event in events]
    for earlier, later in (
        (PullStarted, ResolveStarted),
        (ResolveStarted, Resolved),
        (Resolved, LayerQueued),
        (LayerQueued, FetchStarted),
        (FetchStarted, FetchCompleted),
        (FetchStarted, ExtractStarted),
        (FetchCompleted, VerifyStarted),
        (VerifyStarted, VerifyCompleted),
        (VerifyCompleted, ExtractCompleted),
        (ExtractCompleted, CommitStarted),
        (CommitStarted, CommitCompleted),
        (CommitCompleted, PullCompleted),
    ):
        assert kinds.index(earlier) < kinds.index(later), (earlier, later)
    (served,) = (event for event in events if isinstance(event, FetchServed))
    assert served.origin.startswith(bench.registry.address)
    advanced = [event.position for event in events if isinstance(event, FetchAdvanced)]
    assert advanced == sorted(advanced)
    assert kinds[-1] is PullCompleted


@pytest.mark.root
async def test_a_failed_pull_tells_so(bench: Bench) -> None:
    stream = bench.puller.events()
    with pytest.raises(NotFoundError):
        await bench.puller.pull(f"{bench.registry.address}/no/such:1")
    kinds = [type(await anext(stream)) for _ in range(3)]
    assert kinds == [PullStarted, ResolveStarted, PullFailed]


@pytest.mark.root
async def test_a_reader_that_stalls_stalls_no_pull(bench: Bench) -> None:
    stream = bench.puller.events()
    references = [bench.offer(images.image([layer(f"l{n}")]), str(n)) for n in range(3)]
    async with asyncio.timeout(PATIENCE):
        for reference in references:
            await bench.puller.pull(reference)
    first = await anext(stream)
    assert isinstance(first, PullStarted | Dropped)


@pytest.mark.root
async def test_mounted(tmp_path: Path) -> None:
    async with bench_at(tmp_path) as bench:
        reference = bench.offer(images.image([layer("a")]))
        stream = bench.puller.events()
        async with bench.puller.mounted(reference) as root:
            assert (root / "a/file").read_bytes() == images.noise(ord("a"), 100_000)
            with pytest.raises(OSError, match="Read-only"):
                (root / "b").write_bytes(b"")
            path = str(root)
        assert await bench.store.mounts() == []
        asked = len(bench.registry.requests)
        with pytest.raises(RuntimeError, match="of the body"):
            async with bench.puller.mounted(reference):  # it is here: nothing is asked for
                raise RuntimeError("of the body")
        assert await bench.store.mounts() == []
        assert len(bench.registry.requests) == asked
    told = [event for event in await read(stream) if isinstance(event, Mounted | Unmounted)]
    assert told == [kind(pull, reference, path) for pull in (1, 2) for kind in (Mounted, Unmounted)]
