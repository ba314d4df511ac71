"""Pulls from mirrors that break, stall or lie: who is asked for what in the end, and that the image is right."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DigestMismatchError
from asyncpull.fetch.fetcher import Fetcher
from asyncpull.http import HttpTimeouts
from asyncpull.limits import Limits
from asyncpull.progress import FetchServed
from asyncpull.pull import Puller
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.stall import StallLimits
from asyncpull.store.store import Store
from tests.support.images import image, noise
from tests.support.pulls import AMD64, Heard, layer
from tests.support.registry_faults import cut, flip, stall, status, surplus
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.registry_faults import Fault

MIB = 1 << 20
DATA = noise(8, 3 * MIB)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))
# No pause at all would be forgiven by a test that waits for one: any would make it run into its time limit.
NO_PAUSE = RetryPolicy(attempts=5, first_seconds=3600.0, longest_seconds=3600.0)


def configured(directory: Path, home: RegistrySimulator, *mirrors: RegistrySimulator) -> RegistryAccess:
    """``home`` with mirrors, in this order."""
    lines = ["[[registry]]", f'location = "{home.address}"']
    for mirror in mirrors:
        lines += ["[[registry.mirror]]", f'location = "{mirror.address}"']
    (directory / "registries.conf").write_text("\n".join(lines) + "\n")
    return RegistryAccess(tls_verify=False, registries_conf=directory / "registries.conf")


@asynccontextmanager
async def three() -> AsyncIterator[tuple[RegistrySimulator, RegistrySimulator, RegistrySimulator]]:
    """Two mirrors and the registry itself."""
    async with RegistrySimulator() as one, RegistrySimulator() as two, RegistrySimulator() as home:
        for each in (one, two, home):
            each.add_blob(DATA)
        yield one, two, home


@asynccontextmanager
async def fetching(
    root: Path, access: RegistryAccess, home: RegistrySimulator, stalling: StallLimits | None = None
) -> AsyncIterator[tuple[Fetcher, RegistrySource]]:
    async with (
        RegistryClient(
            access, timeouts=HttpTimeouts(5, 5, 60), retry=NO_PAUSE, environ={"HOME": "/nonexistent"}
        ) as client,
        Fetcher(root / "spool", retry=NO_PAUSE, stall=stalling) as fetcher,
    ):
        yield fetcher, RegistrySource(client, parse_reference(f"{home.address}/a/b:t"))


@pytest.mark.parametrize(
    "fault", [cut(MIB), cut(MIB, reset=True), stall(MIB), status(503), status(404), cut(0), surplus()]
)
async def test_what_a_mirror_does_not_give_another_endpoint_does_at_once(tmp_path: Path, fault: Fault) -> None:
    served: list[str] = []
    async with three() as (one, two, home):
        one.on("/blobs/", fault, times=None)
        access = configured(tmp_path, home, one, two)
        async with (
            asyncio.timeout(60),
            fetching(tmp_path, access, home, StallLimits(seconds=0.3)) as (fetcher, source),
            fetcher.open(BLOB, source, on_origin=served.append) as blob,
        ):
            await blob.completed()
            origins = dict(blob.origins)
            records = await fetcher.records(BLOB.digest)
            assert not any(map(blob.differs, records))
        assert len(one.asked("/blobs/")) == 1  # it is left alone then
        assert home.asked("/blobs/") == []
        assert set(origins) <= set(served)
        assert served[-1] == f"{two.address}/a/b"
        assert sum(origins.values()) == len(DATA)
        assert two.sent("/blobs/") <= len(DATA) - origins.get(f"{one.address}/a/b", 0)
        assert {record.origin for record in records} == set(origins)


async def test_when_all_of_several_connections_break_it_is_one_failure(tmp_path: Path) -> None:
    """The mirror gives 1 MiB on each of eight connections and no more; more than the five tries there are."""
    data = noise(9, 40 * MIB)
    descriptor = Descriptor("", Digest.of(data), len(data))
    async with three() as (one, two, home):
        for each in (one, two, home):
            each.add_blob(data)
        one.on("/blobs/", stall(MIB), times=None)
        access = configured(tmp_path, home, one, two)
        async with (
            asyncio.timeout(60),
            fetching(tmp_path, access, home, StallLimits(seconds=1.0, bytes=MIB)) as (fetcher, source),
            fetcher.open(descriptor, source) as blob,
        ):
            await blob.completed()
        assert two.sent("/blobs/") + one.sent("/blobs/") <= len(data) + len(one.asked("/blobs/")) * MIB
        assert home.asked("/blobs/") == []


# Liars


async def pulled(
    tmp_path: Path, home: RegistrySimulator, mirrors: list[RegistrySimulator], heard: Heard, reference: str
) -> None:
    access = configured(tmp_path, home, *mirrors)
    retry = RetryPolicy(attempts=2, first_seconds=0.0)
    async with (
        Store.open(root=tmp_path / "graph", run_root=tmp_path / "run") as store,
        Puller(store, platform=AMD64, access=access, reporter=heard, retry=retry, limits=Limits(workers=2)) as puller,
    ):
        await puller.pull(reference)
        assert len(await store.layers()) == 1
        assert [path.name for path in store.spool_root.iterdir()] == []


@pytest.mark.root
async def test_one_who_lies_is_named_and_the_blob_fetched_from_one_endpoint_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target, heard = image([layer("a", 2 * MIB)], compression="none"), Heard()
    blob = target.layers[0]
    async with RegistrySimulator() as one, RegistrySimulator() as two, RegistrySimulator() as home:
        for each in (one, two, home):
            reference = each.add_image("a/b", "1", target)
        one.on(blob.digest, cut(MIB))  # so that both mirrors send some of it
        two.on(blob.digest, flip(2 * MIB - 5), times=None)

        await pulled(tmp_path, home, [one, two], heard, reference)

        size = len(blob.data)
        assert (one.sent(blob.digest), two.sent(blob.digest), home.sent(blob.digest)) == (MIB, size - MIB, size)
        served = [getattr(event, "origin", "") for event in heard.of(FetchServed)]
        assert served == [f"{each.address}/a/b" for each in (one, two, home)]
    named = [vars(record)["endpoint"] for record in caplog.records if "sent wrong bytes" in record.getMessage()]
    assert named == [f"{two.address}/a/b"]


@pytest.mark.root
async def test_where_the_registry_lies_too_a_mirror_saves_the_pull(tmp_path: Path) -> None:
    target, heard = image([layer("a", MIB)], compression="none"), Heard()
    blob = target.layers[0]
    async with RegistrySimulator() as one, RegistrySimulator() as two, RegistrySimulator() as home:
        for each in (one, two, home):
            reference = each.add_image("a/b", "1", target)
        one.on(blob.digest, flip(5), times=None)
        home.on(blob.digest, flip(7), times=None)

        await pulled(tmp_path, home, [one, two], heard, reference)

        assert [len(each.asked(blob.digest)) for each in (one, home, two)] == [1, 1, 1]


@pytest.mark.root
async def test_where_everybody_lies_each_is_asked_once(tmp_path: Path) -> None:
    target, heard = image([layer("a", MIB)], compression="none"), Heard()
    blob = target.layers[0]
    async with RegistrySimulator() as one, RegistrySimulator() as two, RegistrySimulator() as home:
        for each in (one, two, home):
            reference = each.add_image("a/b", "1", target)
            each.on(blob.digest, flip(5), times=None)
        with pytest.raises(DigestMismatchError):
            await pulled(tmp_path, home, [one, two], heard, reference)
        assert [len(each.asked(blob.digest)) for each in (one, two, home)] == [1, 1, 1]
    assert [path.name for path in (tmp_path / "graph/asyncpull/spool").iterdir()] == []
