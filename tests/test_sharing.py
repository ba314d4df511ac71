"""Pulls that want the same layers: every layer is staged once, whoever fails or leaves, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NotFoundError
from asyncpull.progress import CommitCompleted, ExtractCompleted, ExtractStarted, LayerQueued, LayerReused
from asyncpull.sharing import Sharing
from asyncpull.spec.digest import Digest
from tests.support import images
from tests.support.pulls import PATIENCE, Bench, bench_at, layer
from tests.support.registry_faults import hold, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.sharing import Share
    from tests.support.registry_faults import Fault, Reply


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path) as bench:
        yield bench


# ---------------------------------------------------------------------------------------------------- the rules


def test_the_earliest_pull_that_wants_a_layer_holds_it() -> None:
    sharing = Sharing()
    with sharing.joined(1, ["a"], []) as first, sharing.joined(2, ["a", "b"], []) as second:
        assert (first.holder("a"), second.holder("a"), second.holder("b")) == (None, first, None)
        with sharing.joined(3, ["b", "a"], []) as third:
            assert (third.holder("a"), third.holder("b")) == (first, second)


async def test_a_layer_passes_to_the_next_when_its_holder_fails() -> None:
    sharing = Sharing()
    with ExitStack() as running:
        with sharing.joined(1, ["a"], []) as first:
            second = running.enter_context(sharing.joined(2, ["a"], []))
            third = running.enter_context(sharing.joined(3, ["a"], []))
        assert not await first.ended()
        assert (second.holder("a"), third.holder("a")) == (None, second)


async def test_who_waits_is_told_whether_it_was_committed() -> None:
    sharing = Sharing()
    with sharing.joined(1, ["a"], []) as first:
        waiting = asyncio.ensure_future(first.ended())
        await asyncio.sleep(0)
        assert not waiting.done()
        first.is_committed = True
    assert await waiting


def test_a_blob_is_kept_while_another_pull_wants_it() -> None:
    sharing, blob, other = Sharing(), Digest.of(b"1"), Digest.of(b"2")
    with sharing.joined(1, [], [blob, other]) as first:
        with sharing.joined(2, [], [blob]) as second:
            assert not first.is_last_to_want(blob)
            assert first.is_last_to_want(other)
            assert not second.is_last_to_want(blob)
        assert first.is_last_to_want(blob)


class Stage:
    """Pulls without anything to pull: what they do to each other, and in what order, is all there is."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sharing = Sharing()
        self.store: set[str] = set()
        self.staging: Counter[str] = Counter()
        self.committed_by: Counter[str] = Counter()

    async def pull(self, number: int, layers: list[str]) -> None:
        with self.sharing.joined(number, layers, []) as share:
            await self.pause()
            missing = [name for name in layers if name not in self.store]
            staged = [name for name in await asyncio.gather(*(self.layer(share, name) for name in missing)) if name]
            await self.pause()
            if self.random.random() < 0.3:
                raise NotFoundError("no luck")
            assert set(layers) <= self.store | set(staged)
            self.store.update(staged)
            self.committed_by.update(staged)
            share.is_committed = True

    async def layer(self, share: Share, name: str) -> str:
        while (earlier := share.holder(name)) is not None:
            assert earlier.pull < share.pull
            if await earlier.ended():
                return ""
        if name in self.store:
            return ""
        self.staging[name] += 1
        assert self.staging[name] == 1, f"{name} is staged twice at a time"
        try:
            await self.pause()
        finally:
            self.staging[name] -= 1
        return name

    async def pause(self) -> None:
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(60))
async def test_many_pulls_in_any_order_with_failures_and_cancellations(seed: int) -> None:
    stage = Stage(seed)
    names = [f"layer{number}" for number in range(12)]
    pulls = []
    for number in range(25):
        layers = stage.random.sample(names, stage.random.randrange(1, 8))
        pulls.append(asyncio.ensure_future(stage.pull(number, layers)))
        await stage.pause()
        if stage.random.random() < 0.4:
            stage.random.choice(pulls).cancel()
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*pulls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), NotFoundError, asyncio.CancelledError}
    assert all(times == 1 for times in stage.committed_by.values())
    assert repr(stage.sharing) == "<Sharing []>"


# ------------------------------------------------------------------------------------------------- the real thing


def extracted(bench: Bench) -> Counter[str]:
    return Counter(event.digest for event in bench.heard.events if isinstance(event, ExtractCompleted))


@pytest.mark.root
async def test_each_layer_is_fetched_and_extracted_once(bench: Bench) -> None:
    """Images that are built on each other, pulled in random order, some of them twice."""
    layers = [layer(f"layer{number}", 200_000) for number in range(5)]
    targets = [images.image(layers[: length + 1], comment=str(length)) for length in range(5)]
    targets += [images.image([*layers[:2], layer("own")]), images.image([layers[0], layers[1], layers[4]])]
    references = [bench.offer(target, str(number)) for number, target in enumerate(targets)] * 2
    random.Random(4).shuffle(references)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(bench.puller.pull(reference) for reference in references))
    blobs = {blob.digest: len(blob.data) for target in targets for blob in target.layers}
    assert {digest: bench.registry.sent(digest) for digest in blobs} == blobs
    assert len(await bench.store.layers()) == 7
    counts = extracted(bench)
    lonely = targets[-1].layers[2].digest  # on other parents it is another layer
    assert {digest: count for digest, count in counts.items() if digest != lonely} == dict.fromkeys(
        set(blobs) - {lonely}, 1
    )
    assert counts[lonely] <= 2
    assert bench.spools == []


@pytest.mark.root
async def test_a_waiting_pull_stages_its_own_layers_and_reuses_the_shared_one(bench: Bench) -> None:
    gate = asyncio.Event()
    shared, own = layer("shared", 300_000), layer("own")
    first, second = images.image([shared], comment="1"), images.image([shared, own], comment="2")
    bench.registry.on(first.layers[0].digest, hold(gate, 100_000))
    one = asyncio.create_task(bench.puller.pull(bench.offer(first, "1")))
    await bench.registry.until_asked(first.layers[0].digest)
    two = asyncio.create_task(bench.puller.pull(bench.offer(second, "2")))
    async with asyncio.timeout(PATIENCE):
        while second.layers[1].digest not in extracted(bench):
            await asyncio.sleep(0.01)
    assert [event.behind for event in queued(bench, 2) if event.digest == first.layers[0].digest] == [1]
    gate.set()
    pulled = [await one, await two]
    assert [layer.reused for layer in pulled[1].layers] == [True, False]
    assert [event for event in bench.heard.of(LayerReused) if event.pull == 2]
    assert set(extracted(bench).values()) == {1}


def queued(bench: Bench, pull: int) -> list[LayerQueued]:
    return [event for event in bench.heard.events if isinstance(event, LayerQueued) and event.pull == pull]


@pytest.mark.root
@pytest.mark.parametrize("end", ["fails", "is cancelled"])
async def test_the_next_takes_over_what_the_first_did_not_bring_in(bench: Bench, end: str) -> None:
    gate = asyncio.Event()
    shared, bad = layer("shared", 300_000), layer("bad")
    first = images.image([shared, bad])
    rest = [images.image([shared, layer(name)]) for name in "xyz"]
    digest = first.layers[0].digest
    bench.registry.on(first.layers[1].digest, status(404), times=None)
    bench.registry.on(first.layers[1].digest, held_head(gate))
    one = asyncio.create_task(bench.puller.pull(bench.offer(first, "first")))
    async with asyncio.timeout(PATIENCE):
        while digest not in extracted(bench):
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(bench.puller.pull(bench.offer(image, str(n)))) for n, image in enumerate(rest)]
        while len({event.pull for event in bench.heard.of(LayerQueued)}) < 4:
            await asyncio.sleep(0.01)
        if end == "fails":
            gate.set()
        else:
            one.cancel()
        outcome = (await asyncio.gather(one, return_exceptions=True))[0]
        assert isinstance(outcome, NotFoundError if end == "fails" else asyncio.CancelledError)
        pulled = await asyncio.gather(*others)
    assert [image.id for image in pulled] == [image.id for image in rest]
    assert sum(not image.layers[0].reused for image in pulled) == 1  # one has taken over, the others reuse
    assert bench.registry.sent(digest) == len(first.layers[0].data)  # and its spool was there
    assert len(await bench.store.images()) == 3


def held_head(gate: asyncio.Event) -> Fault:
    """Answer, but only when the gate opens."""

    def change(reply: Reply) -> None:
        reply.stop_in_head, reply.gate = True, gate

    return change


@pytest.mark.root
async def test_random_cancellations_lose_nothing(bench: Bench) -> None:
    choose = random.Random(11)
    layers = [layer(f"layer{number}", 100_000) for number in range(4)]
    targets = [images.image([*layers[: 1 + number % 4], layer(f"own{number}")]) for number in range(8)]
    references = [bench.offer(target, str(number)) for number, target in enumerate(targets)]
    pulls = [asyncio.create_task(bench.puller.pull(reference)) for reference in references]
    for victim in choose.sample(pulls, 5):
        begun = len(bench.heard.events)
        async with asyncio.timeout(PATIENCE):
            while len(bench.heard.events) < begun + choose.randrange(1, 12) and not all(p.done() for p in pulls):
                await asyncio.sleep(0.001)
        victim.cancel()
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*pulls, return_exceptions=True)
        done = [outcome.id for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert set(done) <= {image.id for image in await bench.store.images()}
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} <= {asyncio.CancelledError}
        again = await asyncio.gather(*(bench.puller.pull(reference) for reference in references))
    assert [image.id for image in again] == [target.id for target in targets]
    assert len(await bench.store.layers()) == 12
    assert bench.heard.of(CommitCompleted)
    assert bench.heard.of(ExtractStarted)
    assert bench.spools == []
