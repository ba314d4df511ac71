"""Pulls from end to end: a registry that speaks real HTTP, real workers, a real store; and all the ways they fail.

After every failure the store is what it was (``untouched``), and nothing temporary is left but what a resume needs.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    AsyncpullError,
    DiffIDMismatchError,
    DigestMismatchError,
    DocumentError,
    DocumentTooLargeError,
    InvalidReferenceError,
    MalformedLayerError,
    NoMatchingPlatformError,
    NotFoundError,
    NotInStoreError,
    SizeMismatchError,
    TooManyLayersError,
    UnavailableError,
    UnsupportedMemberError,
)
from asyncpull.lockfile import LockMode, locked
from asyncpull.plan import PullPolicy
from asyncpull.progress import FetchRetried, LockAwaited, PullCompleted, PullStarted, Resolved
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.spec.digest import Digest
from asyncpull.spool import recorded_bytes
from tests.support import images, tars
from tests.support.pulls import AMD64, HURRY, PATIENCE, Bench, Steps, bench_at, children, layer, open_fds
from tests.support.registry_faults import cut, flip, hold, status, surplus, truncated, without_ranges
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.registry_faults import Fault

pytestmark = pytest.mark.root


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path) as bench:
        yield bench


# --------------------------------------------------------------------------------------------------- what works


@pytest.mark.parametrize("flavour", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_pull(bench: Bench, flavour: images.Flavour, compression: images.Compression) -> None:
    if (flavour, compression) == ("docker", "zstd"):
        pytest.skip("Docker's schema 2 has no media type for zstd that this builder writes")
    target = images.image([layer("a"), layer("b")], flavour=flavour, compression=compression)
    pulled = await bench.puller.pull(bench.offer(target))
    assert pulled.id == target.id
    assert str(pulled.digest) == target.manifest.digest
    assert [str(layer.digest) for layer in pulled.layers] == [blob.digest for blob in target.layers]
    assert pulled.bytes_fetched == sum(len(blob.data) for blob in target.layers)
    assert pulled.bytes_resumed == 0
    record = await bench.store.image(f"{bench.registry.address}/a/b:1")
    assert record.id == target.id
    assert await bench.store.big_data(record, "manifest") == target.manifest.data
    assert await bench.store.big_data(record, target.config.digest) == target.config.data
    content = bench.store.diff_path(pulled.layers[1].id) / "b/file"
    assert content.read_bytes() == images.noise(ord("b"), 100_000)
    assert bench.spools == []
    assert [type(bench.heard.events[0]), type(bench.heard.events[-1])] == [PullStarted, PullCompleted]


async def test_an_image_without_layers(bench: Bench) -> None:
    pulled = await bench.puller.pull(bench.offer(images.image([])))
    assert pulled.layers == ()
    assert (await bench.store.image(pulled.id)).layer is None


async def test_a_pull_tells_which_lock_it_waits_for(bench: Bench) -> None:
    reference = bench.offer(images.image([layer("one")]))
    async with locked(bench.root / "overlay-images/images.lock", LockMode.EXCLUSIVE):
        pull = asyncio.create_task(bench.puller.pull(reference))
        while not (told := bench.heard.of(LockAwaited)):
            await asyncio.sleep(0.01)
        assert not pull.done()
    await pull
    event = told[0]
    assert isinstance(event, LockAwaited)
    assert (event.path, event.reference) == (str(bench.root / "overlay-images/images.lock"), reference)
    assert f"process {os.getpid()} " in event.holders


async def test_a_second_pull_fetches_nothing(bench: Bench) -> None:
    reference = bench.offer(images.image([layer("a"), layer("b")]))
    await bench.puller.pull(reference)
    sent = bench.sent()
    again = await bench.puller.pull(reference)
    assert all(layer.reused for layer in again.layers)
    assert again.bytes_fetched == 0
    assert bench.sent() - sent <= 2000  # the config


async def test_a_layer_under_another_parent_is_copied(bench: Bench) -> None:
    shared = tars.tar([tars.file("etc/shared", b"content", 0o640), tars.hard_link("etc/again", "etc/shared")])
    other = tars.tar([tars.directory("etc", 0o711)])
    first = await bench.puller.pull(bench.offer(images.image([shared]), "1"))
    second = await bench.puller.pull(bench.offer(images.image([other, shared]), "2"))
    assert [layer.reused for layer in second.layers] == [False, True]
    copied, original = (bench.store.diff_path(pulled.layers[-1].id) for pulled in (second, first))
    assert (copied / "etc/shared").read_bytes() == b"content"
    assert (copied / "etc/shared").stat().st_ino == (copied / "etc/again").stat().st_ino
    assert (copied / "etc").stat().st_mode & 0o7777 == 0o711  # implied: it is what it is in the layer below
    assert (original / "etc").stat().st_mode & 0o7777 == 0o755
    one, two = [await bench.store.layer(pulled.layers[-1].id) for pulled in (first, second)]
    assert (one.diff_digest, one.diff_size, one.compressed_digest) == (
        two.diff_digest,
        two.diff_size,
        two.compressed_digest,
    )


async def test_a_layer_that_cannot_be_copied_is_fetched(bench: Bench) -> None:
    """Without its tar-split, as other programs may leave it, a layer can be used but not be made again elsewhere."""
    shared = layer("shared")
    first = await bench.puller.pull(bench.offer(images.image([shared]), "1"))
    bench.store.tar_split_path(first.layers[0].id).unlink()
    second = await bench.puller.pull(bench.offer(images.image([layer("other"), shared]), "2"))
    assert second.bytes_fetched == sum(layer.size for layer in second.layers)
    assert [layer.reused for layer in second.layers] == [False, False]
    assert bench.store.tar_split_path(second.layers[1].id).exists()


async def test_implied_directories_are_those_of_the_layer_below(bench: Bench) -> None:
    base = tars.tar([tars.directory("var", 0o750), tars.directory("var/lib", 0o1777)])
    top = tars.tar([tars.file("var/lib/app/state", b"x")])
    pulled = await bench.puller.pull(bench.offer(images.image([base, top])))
    diff = bench.store.diff_path(pulled.layers[1].id)
    modes = [(diff / path).stat().st_mode & 0o7777 for path in ("var", "var/lib", "var/lib/app")]
    assert modes == [0o750, 0o1777, 0o755]


async def test_the_same_layer_twice_is_fetched_once(bench: Bench) -> None:
    target = images.image([layer("a"), layer("b"), layer("a")])
    pulled = await bench.puller.pull(bench.offer(target))
    assert len({layer.id for layer in pulled.layers}) == 3
    assert len(bench.registry.asked(target.layers[0].digest)) == 1
    assert pulled.bytes_fetched == len(target.layers[0].data) + len(target.layers[1].data)


async def test_an_index(bench: Bench) -> None:
    amd, arm = images.image([layer("a")]), images.image([layer("b")], architecture="arm64")
    index = images.index([arm, amd])
    pulled = await bench.puller.pull(bench.offer(index))
    assert pulled.id == amd.id
    assert str(pulled.digest) == index.manifest.digest
    record = await bench.store.image(pulled.id)
    assert record.digest == index.manifest.digest
    assert record.big_data_names == (
        amd.config.digest,
        f"manifest-{index.manifest.digest}",
        f"manifest-{amd.manifest.digest}",
        "manifest",
    )
    by_digest = await bench.puller.pull(f"{bench.registry.address}/a/b@{index.manifest.digest}")
    assert by_digest.id == amd.id


async def test_many_at_once_through_one_puller(bench: Bench) -> None:
    """Pulls that share layers, and the same image several times."""
    base = layer("base", 2_000_000)
    references = [bench.offer(images.image([base, layer(f"l{n}")]), str(n)) for n in range(4)]
    pulled = await asyncio.gather(*(bench.puller.pull(reference) for reference in references * 2))
    assert len({image.id for image in pulled}) == 4
    assert len(await bench.store.layers()) == 5
    assert bench.spools == []
    digest = str(pulled[0].layers[0].digest)
    assert bench.registry.sent(digest) == pulled[0].layers[0].size


async def test_policies(bench: Bench) -> None:
    reference = bench.offer(images.image([layer("a")]))
    with pytest.raises(NotInStoreError):
        await bench.puller.pull(reference, when=PullPolicy.NEVER)
    first = await bench.puller.pull(reference, when=PullPolicy.MISSING)
    asked = len(bench.registry.requests)
    assert (await bench.puller.pull(reference, when=PullPolicy.MISSING)).digest == first.digest
    assert (await bench.puller.pull(reference, when=PullPolicy.NEVER)).id == first.id
    assert len(bench.registry.requests) == asked
    assert (await bench.puller.pull(reference, when=PullPolicy.NEWER)).id == first.id
    assert all(request.method == "HEAD" for request in bench.registry.requests[asked:])
    bench.offer(images.image([layer("b")]))
    newer = await bench.puller.pull(reference, when=PullPolicy.NEWER)
    assert newer.id != first.id
    assert (await bench.store.image(reference)).id == newer.id


async def test_a_short_name_is_the_first_that_there_is(bench: Bench, tmp_path: Path) -> None:
    target = images.image([layer("a")])
    reference = bench.registry.add_image("name", "1", target)
    configured = tmp_path / "registries.conf"
    access = RegistryAccess(tls_verify=False, registries_conf=configured)
    async with RegistrySimulator() as empty, Puller(bench.store, platform=AMD64, access=access, retry=HURRY) as puller:
        places = ["127.0.0.1:9", empty.address, bench.registry.address]
        configured.write_text(f"unqualified-search-registries = {places}\nshort-name-mode = 'permissive'\n")
        pulled = await puller.pull("name:1")
        asked = len(bench.registry.requests)
        assert (await puller.pull("name:1", when=PullPolicy.MISSING)).id == target.id
        with pytest.raises(NotInStoreError):
            await puller.pull("other:1", when=PullPolicy.NEVER)
        assert len(bench.registry.requests) == asked
        assert (await puller.plan("name:1")).plan.image.id == target.id
        with pytest.raises(NotFoundError):
            await puller.pull("other:1")
    assert (pulled.id, pulled.reference) == (target.id, "name:1")
    assert (await bench.store.image(target.id)).names == (reference,)


async def test_blobs_are_kept_on_demand(bench: Bench) -> None:
    target = images.image([layer("a"), layer("b")])
    access = RegistryAccess(tls_verify=False)
    async with Puller(bench.store, platform=AMD64, access=access, keep_blobs=True) as puller:
        await puller.pull(bench.offer(target))
    assert bench.spools == sorted(blob.digest.replace(":", "-") for blob in target.layers)
    kept = [(bench.store.spool_root / name / "blob").read_bytes() for name in bench.spools]
    assert {images.sha256(data) for data in kept} == {blob.digest for blob in target.layers}


async def test_newer_makes_do_with_what_is_there_when_the_registry_does_not_answer(bench: Bench) -> None:
    reference = bench.offer(images.image([layer("a")]))
    first = await bench.puller.pull(reference)
    bench.registry.on("/manifests/", status(503), times=None, method="*")
    assert (await bench.puller.pull(reference, when=PullPolicy.NEWER)).id == first.id


async def test_a_name_moves_to_the_new_image(bench: Bench) -> None:
    reference = bench.offer(images.image([layer("a")]))
    old = await bench.puller.pull(reference)
    bench.offer(images.image([layer("b")]))
    new = await bench.puller.pull(reference)
    assert (await bench.store.image(old.id)).names == ()
    assert (await bench.store.image(new.id)).names == (f"{bench.registry.address}/a/b:1",)


# ---------------------------------------------------------------------------------------- what goes on or resumes


async def test_a_broken_connection_is_resumed_within_the_pull(bench: Bench) -> None:
    target = images.image([layer("a", 400_000)])
    bench.registry.on("/blobs/" + target.layers[0].digest, in_turn(cut(100_000), cut(150_000, reset=True)), times=2)
    pulled = await bench.puller.pull(bench.offer(target))
    assert pulled.bytes_fetched == len(target.layers[0].data)
    assert bench.registry.sent(target.layers[0].digest) <= len(target.layers[0].data) + 200_000
    assert bench.heard.of(FetchRetried)


async def test_a_failed_pull_leaves_what_it_received_to_the_next(bench: Bench) -> None:
    target = images.image([layer("a", 400_000)])
    blob = target.layers[0]
    bench.registry.on("/blobs/" + blob.digest, in_turn(cut(300_000), status(404)), times=2)
    async with bench.untouched(NotFoundError, spools=1):
        await bench.puller.pull(bench.offer(target))
    pulled = await bench.puller.pull(bench.offer(target))
    assert pulled.bytes_resumed == 300_000
    assert pulled.bytes_fetched == len(blob.data) - 300_000
    assert bench.spools == []


async def test_a_spool_that_was_damaged_is_a_hole(bench: Bench) -> None:
    target = images.image([layer("a", 2_000_000)])
    blob = target.layers[0]
    bench.registry.on("/blobs/" + blob.digest, in_turn(cut(1_600_000), status(404)), times=2)
    async with bench.untouched(NotFoundError, spools=1):
        await bench.puller.pull(bench.offer(target))
    (spool,) = bench.store.spool_root.iterdir()
    damage(spool / "blob", 1_500_000)
    pulled = await bench.puller.pull(bench.offer(target))
    assert 0 < pulled.bytes_resumed < 1_600_000
    assert pulled.bytes_resumed + pulled.bytes_fetched == len(blob.data)


async def test_a_wrong_digest_after_a_resume_is_fetched_afresh(bench: Bench) -> None:
    """The journal vouches for what was received, not for what the registry should have sent."""
    target = images.image([layer("a", 400_000)])
    blob = target.layers[0]
    bench.registry.on("/blobs/" + blob.digest, flip(1000))
    bench.registry.on("/blobs/" + blob.digest, in_turn(cut(300_000), status(404)), times=2)
    async with bench.untouched(NotFoundError, spools=1):
        await bench.puller.pull(bench.offer(target))
    pulled = await bench.puller.pull(bench.offer(target))
    assert pulled.bytes_fetched == len(blob.data)
    assert bench.spools == []


async def test_a_registry_without_ranges(bench: Bench) -> None:
    target = images.image([layer("a", 400_000)])
    bench.registry.on("/blobs/" + target.layers[0].digest, in_turn(cut(100_000), without_ranges), times=2)
    assert (await bench.puller.pull(bench.offer(target))).id == target.id


# ----------------------------------------------------------------------------------------------- what is refused


async def test_a_wrong_byte(bench: Bench) -> None:
    target = images.image([layer("a"), layer("b")])
    bench.registry.on("/blobs/" + target.layers[1].digest, flip(50_000), times=None)
    async with bench.untouched(DigestMismatchError, spools=1) as caught:
        await bench.puller.pull(bench.offer(target))
    assert target.layers[1].digest in str(caught[0])
    assert not any(target.layers[1].digest.replace(":", "-") in name for name in bench.spools)


async def test_a_short_body(bench: Bench) -> None:
    target = images.image([layer("a")])
    bench.registry.on("/blobs/" + target.layers[0].digest, truncated(60_000), times=None)
    async with bench.untouched(AsyncpullError, spools=len(bench.spools)):
        await bench.puller.pull(bench.offer(target))


async def test_surplus_bytes(bench: Bench) -> None:
    target = images.image([layer("a")])
    bench.registry.on("/blobs/" + target.layers[0].digest, surplus(), times=None)
    async with bench.untouched(SizeMismatchError):
        await bench.puller.pull(bench.offer(target))


async def test_a_wrong_diff_id(bench: Bench) -> None:
    target = images.image([layer("a")], diff_ids=[images.sha256(b"another")])
    async with bench.untouched(DiffIDMismatchError):
        await bench.puller.pull(bench.offer(target))


async def test_a_config_that_lists_other_layers(bench: Bench) -> None:
    target = images.image([layer("a")], diff_ids=[])
    async with bench.untouched(DocumentError):
        await bench.puller.pull(bench.offer(target))
    assert not bench.registry.asked(target.layers[0].digest)


async def test_a_manifest_over_the_limit(bench: Bench) -> None:
    target = images.image([layer("a")])
    document = json.loads(target.manifest.data) | {"padding": "x" * (4 << 20)}
    big = replace(target, manifest=replace(target.manifest, data=json.dumps(document).encode()))
    async with bench.untouched(DocumentTooLargeError):
        await bench.puller.pull(bench.offer(big))


async def test_a_manifest_that_is_not_what_the_reference_says(bench: Bench) -> None:
    target, other = images.image([layer("a")]), images.image([layer("b")])
    bench.offer(other)
    digest = target.manifest.digest
    bench.registry.add_manifest("a/b", digest, other.manifest.data, other.manifest.media_type)
    async with bench.untouched(DigestMismatchError):
        await bench.puller.pull(f"{bench.registry.address}/a/b@{digest}")


async def test_an_index_without_our_platform(bench: Bench) -> None:
    index = images.index([images.image([layer("a")], architecture="s390x")])
    async with bench.untouched(NoMatchingPlatformError) as caught:
        await bench.puller.pull(bench.offer(index))
    assert "linux/s390x" in str(caught[0])


async def test_too_many_layers_are_refused_before_anything_is_fetched(bench: Bench) -> None:
    many = images.image([tars.tar([tars.file(f"f{n}")]) for n in range(510)])
    async with bench.untouched(TooManyLayersError):
        await bench.puller.pull(bench.offer(many))
    assert not any(bench.registry.asked(blob.digest) for blob in many.layers)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (tars.tar([tars.file("../../etc/x", b"x")]), UnsupportedMemberError),
        (tars.tar([tars.hard_link("a", "not/there")]), AsyncpullError),
        (b"not a tar" * 200, MalformedLayerError),
    ],
)
async def test_a_hostile_layer(bench: Bench, stream: bytes, error: type[AsyncpullError]) -> None:
    good = layer("a")
    async with bench.untouched(error, spools=1):
        await bench.puller.pull(bench.offer(images.image([good, stream])))
    assert not Path("/etc/x").exists()


async def test_no_such_image(bench: Bench) -> None:
    async with bench.untouched(NotFoundError):
        await bench.puller.pull(f"{bench.registry.address}/no/such:1")


async def test_nobody_listens(bench: Bench) -> None:
    async with bench.untouched(UnavailableError):
        await bench.puller.pull("127.0.0.1:9/a/b:1")


async def test_a_reference_that_is_none(bench: Bench) -> None:
    with pytest.raises(InvalidReferenceError):
        await bench.puller.pull("quay.io/A")


async def test_what_was_there_before_survives_a_failure(bench: Bench) -> None:
    good = await bench.puller.pull(bench.offer(images.image([layer("a"), layer("b")]), "good"))
    bad = images.image([layer("a"), layer("c")], diff_ids=[images.sha256(layer("a")), images.sha256(b"")])
    async with bench.untouched(DiffIDMismatchError):
        await bench.puller.pull(bench.offer(bad, "bad"))
    assert (await bench.puller.pull(f"{bench.registry.address}/a/b:good", when=PullPolicy.NEVER)).id == good.id


# -------------------------------------------------------------------------------------------------- cancellation


async def test_cancelled_at_every_step(tmp_path: Path) -> None:
    """Cancel when the pull's tasks have taken n steps between awaits, with ever larger n until it ends by itself.

    Each time on a fresh store, and nothing is left of it: no task, descriptor, process or lock. Every n is tried if
    the environment has ASYNCPULL_EVERY_AWAIT, which takes minutes; else all at the beginning, then one in a while.
    """
    steps = Steps()
    asyncio.get_running_loop().set_task_factory(steps.task)
    fds, tasks, processes = open_fds(), len(asyncio.all_tasks()), children()
    target = images.image([layer("a", 300_000), tars.tar([tars.file("etc/deep/file", b"x")])])
    ended, limit, cancelled = False, 0, 0
    while not ended:
        async with bench_at(tmp_path / str(limit)) as bench:
            steps.taken = 0
            pull = asyncio.create_task(bench.puller.pull(bench.offer(target)))
            steps.at(limit, pull.cancel)
            try:
                await pull
                ended = True
            except asyncio.CancelledError:
                cancelled += 1
                # A commit that has begun runs to its end; before it there is nothing.
                assert [image.id for image in await bench.store.images()] in ([], [target.id])
                for temporary in ("overlay/tempdirs", "overlay-layers/tmp"):
                    place = bench.root / temporary
                    assert not place.exists() or not list(place.iterdir()), temporary
            async with asyncio.timeout(PATIENCE):  # no lock is left either
                await bench.puller.pull(bench.offer(target))
        assert len(asyncio.all_tasks()) == tasks
        assert children() == processes
        limit += 1 if "ASYNCPULL_EVERY_AWAIT" in os.environ else max(1, limit // 6)
    assert cancelled > 15
    async with asyncio.timeout(PATIENCE):  # the sockets of both ends close in the next rounds of the loop
        while open_fds() != fds:
            await asyncio.sleep(0.01)


async def test_cancelled_while_a_registry_holds_back(bench: Bench) -> None:
    gate = asyncio.Event()
    target = images.image([layer("a", 400_000)])
    bench.registry.on("/blobs/" + target.layers[0].digest, hold(gate, 200_000))
    pull = asyncio.create_task(bench.puller.pull(bench.offer(target)))
    await bench.registry.until_asked(target.layers[0].digest)
    while not bench.spools:
        await asyncio.sleep(0.005)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert await bench.store.layers() == []
    again = await bench.puller.pull(bench.offer(target))
    assert again.bytes_resumed + again.bytes_fetched == len(target.layers[0].data)


async def test_one_of_two_that_share_a_download_is_cancelled(bench: Bench) -> None:
    gate = asyncio.Event()
    shared = layer("shared", 400_000)
    first, second = (images.image([shared], comment=name) for name in "12")
    bench.registry.on("/blobs/" + first.layers[0].digest, hold(gate, 100_000))
    pulls = [asyncio.create_task(bench.puller.pull(bench.offer(first, "1")))]
    digest, size = Digest.parse(first.layers[0].digest), len(first.layers[0].data)
    while recorded_bytes(bench.store.spool_root, digest, size) < 100_000:
        await asyncio.sleep(0.005)
    pulls.append(asyncio.create_task(bench.puller.pull(bench.offer(second, "2"))))
    while len(bench.heard.of(Resolved)) < 2:
        await asyncio.sleep(0.005)
    pulls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulls[0]
    gate.set()
    pulled = await pulls[1]  # it takes the layer over, and goes on where the other one was
    assert (pulled.id, pulled.bytes_resumed) == (second.id, 100_000)
    assert bench.registry.sent(first.layers[0].digest) == len(first.layers[0].data)


def in_turn(*faults: Fault) -> Fault:
    """One fault per request, in this order."""
    left = iter(faults)
    return lambda reply: next(left)(reply)


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
