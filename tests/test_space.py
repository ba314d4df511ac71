"""Room on the disk: refused with numbers when it is certain, and never when it is not."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import NoSpaceError
from asyncpull.estimate import Growth, estimate_pull
from asyncpull.plan import LayerAction, LayerStep, PullPlan, ResolvedImage
from asyncpull.progress import ExtractAdvanced, FetchAdvanced, FetchCompleted, FetchStarted, Silent
from asyncpull.space import SPOOL_INODES, Amount, Reservation, Room, Space, Taken, certain_needs
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor, ImageConfig, Manifest
from asyncpull.spec.platform import Platform
from asyncpull.spec.reference import parse_reference
from tests.support import images, tars
from tests.support.pulls import PATIENCE, bench_at, layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.estimate import PullEstimate

MB = 1_000_000


def room(free: int, inodes: int = 1000, total: int = 100 * MB, total_inodes: int = 10_000) -> Room:
    return Room("/x", 1, Amount(total, total_inodes), Amount(free, inodes))


@pytest.mark.parametrize(
    ("there", "need", "fits"),
    [
        (room(10), Amount(10, 0), True),
        (room(10), Amount(11, 0), False),
        (room(10, 5), Amount(1, 6), False),
        (room(10, 0, total_inodes=0), Amount(1, 6), True),  # btrfs has no such number
    ],
)
def test_what_fits(there: Room, need: Amount, fits: bool) -> None:
    assert there.has(need) is fits


@pytest.mark.parametrize(
    ("there", "need", "is_strained"),
    [
        (room(50 * MB), Amount(500 * MB), False),  # there is a lot of room yet
        (room(6 * MB), Amount(13 * MB), True),
        (room(6 * MB), Amount(11 * MB), False),  # perhaps it fits
        (room(MB, 600), Amount(0, 1300), True),
        (room(MB, 700), Amount(0, 1300), False),
        (room(MB, 0, total_inodes=0), Amount(0, 1300), False),
        (room(1000 * MB, total=100_000 * MB), Amount(9000 * MB), False),  # nearly full has an upper bound
    ],
)
def test_strain(there: Room, need: Amount, is_strained: bool) -> None:
    assert there.is_strained_by(need) is is_strained


def test_what_layers_took_says_what_the_rest_will_take() -> None:
    taken = Taken()
    assert taken.expected(1000, Amount(5000, 5)) == Amount()  # nothing was seen yet
    taken.look(room(1000, 100), room(600, 90), received=100, extracted=100)
    taken.look(room(600, 90), room(900, 95), received=100, extracted=100)  # somebody has given room back
    assert taken.expected(1000, Amount(10_000, 1000)) == Amount(3000, 100)
    assert taken.expected(1000, Amount(2000, 50)) == Amount(2000, 50)


def estimate(*blobs: tuple[str, int], here: int = 0) -> PullEstimate:
    config = ImageConfig(b"{}", Digest.of(b"{}"), (), None, Platform("linux", "amd64"))
    manifest = Manifest(b"", mediatype.OCI_MANIFEST, Digest.of(b"m"), Descriptor("c", config.digest, 2), ())
    steps = tuple(
        LayerStep(
            0,
            Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(name.encode()), size),
            Digest.of(b"t"),
            name,
            None,
            LayerAction.FETCH,
        )
        for name, size in blobs
    )
    plan = PullPlan(ResolvedImage(parse_reference("q.io/a"), None, manifest, config), steps)
    return estimate_pull(plan, Growth(2, ""), dict.fromkeys((step.blob.digest for step in steps), here), {})


async def test_what_is_certain() -> None:
    one = Reservation(1, estimate(("a", 1000), ("b", 500)), Silent())
    two = Reservation(2, estimate(("a", 1000)), Silent())
    assert certain_needs([one, two])[0] == Amount(1500, 2 * SPOOL_INODES)  # what both want is received once
    a = str(Digest.of(b"a"))
    two.report(FetchStarted(2, "x", a, 1000, 0))
    two.report(FetchAdvanced(2, "x", a, 400))
    assert certain_needs([one, two])[0] == Amount(1100, SPOOL_INODES)
    one.report(FetchCompleted(1, "x", a, 1000))
    assert certain_needs([one, two])[0] == Amount(500, SPOOL_INODES)
    one.report(ExtractAdvanced(1, "x", a, 500))
    assert one.blobs[a].unpacked_rest.bytes == 1000
    resumed = Reservation(3, estimate(("a", 1000), here=900), Silent())
    assert certain_needs([resumed])[0] == Amount(100, 0)


# --------------------------------------------------------------------------------------------------- real disks


@contextmanager
def small_disk(place: Path, *options: str) -> Iterator[Path]:
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", *options, str(place)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def tmpfs(place: Path, options: str) -> AbstractContextManager[Path]:
    return small_disk(place, "-t", "tmpfs", "-o", options, "tmpfs")


def numbers(error: Exception) -> dict[str, list[int]]:
    """What the message says is needed and free."""
    found = re.search(r"([\d,]+) bytes and ([\d,]+) inodes are needed, ([\d,]+) bytes and ([\d,]+) inodes", str(error))
    assert found, str(error)
    values = [int(text.replace(",", "")) for text in found.groups()]
    return {"needed": values[:2], "free": values[2:]}


@pytest.mark.root
async def test_what_cannot_fit_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=4m"):
        async with bench_at(tmp_path / "small") as bench:
            target = images.image([layer("a", 5 * MB)])
            async with bench.untouched(NoSpaceError) as caught:
                await bench.puller.pull(bench.offer(target))
            assert not bench.registry.asked(target.layers[0].digest)
            told = numbers(caught[0])
            assert told["needed"][0] == len(target.layers[0].data)
            assert told["free"][0] < told["needed"][0]
            assert str(bench.root) in str(caught[0])
            fits = images.image([layer("b", MB)])
            assert (await bench.puller.pull(bench.offer(fits, "2"))).id == fits.id


@pytest.mark.root
@pytest.mark.parametrize("size", ["size=11m", "size=14m"])
async def test_a_disk_that_fills_up_while_layers_are_unpacked(tmp_path: Path, size: str) -> None:
    """The blobs fit, what they hold does not, or only beside nothing else."""
    with tmpfs(tmp_path / "small", size):
        async with bench_at(tmp_path / "small") as bench:
            good = await bench.puller.pull(bench.offer(images.image([layer("good")]), "good"))
            target = images.image([layer(name, 4 * MB) for name in "ab"])
            async with bench.untouched(NoSpaceError, spools=2) as caught:
                await bench.puller.pull(bench.offer(target))
            assert numbers(caught[0])["free"][0] < 8 * MB
            received = sum(path.stat().st_blocks * 512 for path in bench.store.spool_root.glob("*/blob"))
            assert received <= 2 * 4.01 * MB  # spools, and nothing that was unpacked
            assert [image.id for image in await bench.store.images()] == [good.id]


@pytest.mark.root
async def test_few_inodes(tmp_path: Path) -> None:
    if not shutil.which("mkfs.ext4"):
        pytest.skip("no mkfs.ext4")
    disk = tmp_path / "disk"
    subprocess.run(["truncate", "-s", "32M", str(disk)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-N", "256", str(disk)], check=True, capture_output=True)
    many = images.image([tars.tar([tars.file(f"f{number}", b"x") for number in range(2000)])])
    with small_disk(tmp_path / "small", "-o", "loop", str(disk)):
        async with bench_at(tmp_path / "small") as bench:
            async with bench.untouched(NoSpaceError, spools=1) as caught:
                await bench.puller.pull(bench.offer(many))
            told = numbers(caught[0])
            assert told["free"][0] > 20 * MB
            assert told["free"][1] < 256
            assert told["needed"][1] > 150  # at least what was used up


@pytest.mark.root
async def test_who_has_no_room_waits_for_the_earlier_and_is_refused_alone(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=4m") as place:
        space = Space(place, place)

        async def reserve(number: int, name: str, size: int) -> None:
            async with space.reserved(number, estimate((name, size)), Silent()):
                pass

        async with asyncio.timeout(PATIENCE):
            async with space.reserved(1, estimate(("a", 3 * MB)), Silent()):
                await reserve(2, "a", 3 * MB)  # the same blob: it is received once
                third = asyncio.create_task(reserve(3, "b", 3 * MB))
                await asyncio.sleep(0.1)
                assert not third.done()
            await third
            async with space.reserved(5, estimate(("c", 2 * MB)), Silent()):
                await reserve(4, "b", 3 * MB)  # no later one is waited for
            with pytest.raises(NoSpaceError, match="at least 5,000,000 bytes"):
                await reserve(6, "b", 5 * MB)


@pytest.mark.root
async def test_a_pull_that_will_not_fit_is_ended_before_the_disk_is_full(tmp_path: Path) -> None:
    """The last one to come is; what layers took so far says that the rest has no room."""
    with tmpfs(tmp_path / "small", "size=40m") as place:
        space, price, digest = Space(place, place), estimate(("a", 10 * MB)), str(Digest.of(b"a"))

        async def unpack() -> None:
            async with space.reserved(2, price, Silent()) as last, asyncio.timeout(PATIENCE):
                last.report(FetchCompleted(2, "x", digest, 10 * MB))
                refused = asyncio.create_task(last.refused())
                with (place / "unpacked").open("wb", buffering=0) as file:
                    for step in range(40):
                        file.write(bytes(MB))
                        last.report(ExtractAdvanced(2, "x", digest, 100_000 * step))
                        await asyncio.sleep(0.03)  # there is a look in between
                await refused

        async with space.reserved(1, price, Silent()) as first:
            with pytest.raises(NoSpaceError, match=r"before long; for .* about [\d,]+ bytes .* are needed") as caught:
                await unpack()
            assert numbers(caught.value)["free"][0] > 0
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(first.refused(), 0.05)
