"""Many images through one puller: what they share once, errors where they belong, nothing lost when cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AsyncpullError, DigestMismatchError, InvalidReferenceError, NotFoundError
from asyncpull.limits import Limits
from asyncpull.plan import PulledImage, PullPolicy
from asyncpull.prefetch import prefetch
from asyncpull.progress import FetchStarted, LayerQueued
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.store.store import Store
from tests.support import images
from tests.support.command import Command
from tests.support.docker_registry import docker_registry, is_installed
from tests.support.pulls import AMD64, PATIENCE, Bench, Steps, bench_at, layer
from tests.support.registry_faults import flip, hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path) as bench:
        yield bench


def family(count: int, size: int = 100_000) -> list[images.Image]:
    """Images on three bases, each with a layer of its own; every third has one more that some share."""
    bases = [[layer(f"base{number}", size), layer(f"more{number}", size)] for number in range(3)]
    return [
        images.image([*bases[number % 3], *([layer("extra", size)] if number % 2 else []), layer(f"own{number}", 5000)])
        for number in range(count)
    ]


async def test_what_images_share_is_fetched_once(bench: Bench) -> None:
    targets = family(12)
    references = [bench.offer(target, str(number)) for number, target in enumerate(targets)]
    summary = await prefetch(bench.puller, references, at_once=5)
    assert [result.reference for result in summary.results] == references
    assert [image.id for image in summary.images] == [target.id for target in targets]
    blobs = {blob.digest: len(blob.data) for target in targets for blob in target.layers}
    assert {digest: bench.registry.sent(digest) for digest in blobs} == blobs
    assert summary.bytes_fetched == sum(blobs.values())
    assert summary.failed == ()
    assert bench.spools == []


@pytest.mark.skipif(not is_installed(), reason="no docker-registry")
async def test_egress_of_a_real_registry_is_the_union_of_the_blobs(tmp_path: Path) -> None:
    targets = family(30, 200_000)
    with docker_registry(tmp_path / "registry") as registry:
        references = [registry.push("a/b", str(number), target) for number, target in enumerate(targets)]
        before = len(registry.requests())
        async with (
            Store.open(root=tmp_path / "graph", run_root=tmp_path / "run") as store,
            Puller(store, platform=AMD64, access=RegistryAccess(tls_verify=False), limits=Limits(workers=2)) as puller,
        ):
            summary = await prefetch(puller, references)
            assert len(await store.images()) == 30
        requests = registry.requests()[before:]
    union = {blob.digest: len(blob.data) for target in targets for blob in target.layers}
    fetched = [path.rpartition("/")[2] for method, path in map(str.split, requests) if method == "GET"]
    assert sorted(digest for digest in fetched if digest in union) == sorted(union)
    assert summary.bytes_fetched == sum(union.values())
    assert summary.failed == ()


@pytest.mark.skipif(not is_installed(), reason="no docker-registry")
async def test_all_tags_of_a_repository(tmp_path: Path) -> None:
    targets = family(4)
    command = Command(tmp_path)
    with docker_registry(tmp_path / "registry") as registry:
        for number, target in enumerate(targets):
            registry.push("a/b", f"v{number}", target)
        repository = f"{registry.address}/a/b"
        pull = ("--tls-verify=false", "pull", "-q", "--all-tags")
        assert sorted(command(*pull, repository).out.split()) == sorted(target.id for target in targets)
        pulled = command(*pull, "--json", "--pull", "missing", repository).json()
        assert {image["reference"] for image in pulled} == {f"{repository}:v{number}" for number in range(4)}
        ended = command(*pull, repository, f"{registry.address}/no/such")
        assert (ended.code, len(ended.out.split())) == (2, 4)
        assert "no/such" in ended.err
        ended = command(*pull, f"{repository}:v1")
        assert (ended.code, ended.out) == (64, "")


async def test_it_goes_on_when_one_fails(bench: Bench) -> None:
    bad, good = images.image([layer("base"), layer("bad")]), images.image([layer("base"), layer("good")])
    bench.registry.on(bad.layers[1].digest, flip(5000), times=None)
    missing = f"{bench.registry.address}/no/such:1"
    wanted = [bench.offer(bad, "bad"), missing, "not a reference", bench.offer(good, "good")]
    summary = await prefetch(bench.puller, wanted)
    outcomes = [result.outcome for result in summary.results]
    assert [type(outcome) for outcome in outcomes] == [
        DigestMismatchError,
        NotFoundError,
        InvalidReferenceError,
        PulledImage,
    ]
    assert [result.reference for result in summary.failed] == wanted[:3]
    assert [image.id for image in await bench.store.images()] == [good.id]


async def test_the_largest_blobs_go_first(tmp_path: Path) -> None:
    sizes = dict(zip("abcdefgh", range(20_000, 180_000, 20_000), strict=True))
    async with bench_at(tmp_path) as bench:
        gate = asyncio.Event()
        first = images.image([layer("first", 1_000_000)])
        blob = first.layers[0].digest
        bench.registry.on(blob, hold(gate, 1000))
        access, limits = RegistryAccess(tls_verify=False), Limits(workers=2, max_parallel_downloads=1)
        async with Puller(bench.store, platform=AMD64, access=access, limits=limits, reporter=bench.heard) as puller:
            references = [bench.offer(images.image([layer(name, size)]), name) for name, size in sizes.items()]
            running = asyncio.ensure_future(prefetch(puller, [bench.offer(first, "first"), *references]))
            async with asyncio.timeout(PATIENCE):
                await bench.registry.until_asked(blob)
                while len(bench.heard.of(LayerQueued)) < 9:
                    await asyncio.sleep(0.005)
                gate.set()
                await running
    fetched = [event.size for event in bench.heard.events if isinstance(event, FetchStarted)][1:]
    assert fetched == sorted(fetched, reverse=True)


async def test_each_reference_once(bench: Bench) -> None:
    reference = bench.offer(images.image([layer("a")]))
    summary = await prefetch(bench.puller, [reference, reference])
    assert len(summary.results) == 1
    assert len(bench.registry.asked("/manifests/")) == 1


async def test_newer_asks_by_head_only(bench: Bench) -> None:
    references = [bench.offer(target, str(number)) for number, target in enumerate(family(4))]
    await prefetch(bench.puller, references)
    asked = len(bench.registry.requests)
    summary = await prefetch(bench.puller, references, when=PullPolicy.NEWER)
    assert [request.method for request in bench.registry.requests[asked:]] == ["HEAD"] * 4
    assert summary.bytes_fetched == 0
    assert len(summary.images) == 4


async def test_cancelled_at_many_steps(tmp_path: Path) -> None:
    """Whenever it is cancelled, what was committed is whole, and the rest can be prefetched."""
    steps = Steps()
    asyncio.get_running_loop().set_task_factory(steps.task)
    targets = family(3, 20_000)
    ended, limit, cancelled = False, 2, 0
    while not ended:
        # What is on the disk is not looked at: no step depends on it, and a busy disk would make this last minutes.
        async with bench_at(tmp_path / str(limit), options={"sync": "none"}) as bench:
            references = [bench.offer(target, str(number)) for number, target in enumerate(targets)]
            steps.taken = 0
            running = asyncio.create_task(prefetch(bench.puller, references))
            steps.at(limit, running.cancel)
            try:
                await running
                ended = True
            except asyncio.CancelledError:
                cancelled += 1
            stored = {image.id: image for image in await bench.store.images()}
            assert set(stored) <= {target.id for target in targets}
            layers = {layer.id: layer for layer in await bench.store.layers()}
            assert all(image.layer in layers for image in stored.values())
            for temporary in ("overlay/tempdirs", "overlay-layers/tmp"):
                place = bench.root / temporary
                assert not place.exists() or not list(place.iterdir()), temporary
            async with asyncio.timeout(PATIENCE):
                summary = await prefetch(bench.puller, references)
            assert not any(isinstance(result.outcome, AsyncpullError) for result in summary.results)
            assert bench.spools == []
        limit += max(2, limit // 2)
    assert cancelled > 5
