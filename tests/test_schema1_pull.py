"""Pulling what old registries have: an image of schema 1 gets into the store as one of schema 2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DigestMismatchError, DocumentError, MalformedLayerError, NotFoundError
from asyncpull.plan import PullPolicy
from asyncpull.spec.digest import Digest
from asyncpull.spec.mediatype import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED
from tests.support import images
from tests.support.pulls import Bench, bench_at, layer
from tests.support.registry_faults import flip, without_ranges
from tests.support.schema1 import EMPTY, as_schema1, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.root

# One layer is small enough to be held in memory while the image is converted.
IMAGE = images.image([layer("a", 600_000), layer("b")], flavour="docker")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_at(tmp_path) as bench:
        yield bench


def offer(bench: Bench, raw: bytes, image: images.Image = IMAGE) -> str:
    for blob in (*image.layers, images.Blob("", EMPTY)):
        bench.registry.add_blob(blob.data)
    bench.registry.add_manifest("a/b", "1", raw, DOCKER_SCHEMA1_SIGNED if b"signatures" in raw else DOCKER_SCHEMA1)
    return f"{bench.registry.address}/a/b:1"


@pytest.mark.parametrize("raw", [as_schema1(IMAGE), signed(as_schema1(IMAGE))])
async def test_pull(bench: Bench, raw: bytes) -> None:
    pulled = await bench.puller.pull(offer(bench, raw))
    assert [str(layer.diff_id) for layer in pulled.layers] == list(IMAGE.diff_ids)
    assert [str(layer.digest) for layer in pulled.layers] == [blob.digest for blob in IMAGE.layers]
    record = await bench.store.image(f"{bench.registry.address}/a/b:1")
    manifest = json.loads(await bench.store.big_data(record, "manifest"))
    assert manifest["config"]["digest"] == f"sha256:{record.id}"
    config = json.loads(await bench.store.big_data(record, f"sha256:{record.id}"))
    assert config["rootfs"]["diff_ids"] == list(IMAGE.diff_ids)
    assert config["config"] == json.loads(IMAGE.config.data)["config"]
    assert [entry.get("empty_layer", False) for entry in config["history"]] == [False, False, True]
    # The original is kept, and the image is known by the digest that the registry gives it.
    assert await bench.store.big_data(record, f"manifest-{pulled.digest}") == raw
    assert bench.store.diff_path(pulled.layers[1].id).joinpath("b/file").read_bytes() == images.noise(ord("b"), 100_000)
    assert bench.spools == []
    assert (await bench.store.check()).findings == ()


async def test_digest_is_that_of_the_payload(bench: Bench) -> None:
    raw = as_schema1(IMAGE)
    pulled = await bench.puller.pull(offer(bench, signed(raw)))
    assert pulled.digest in (Digest.of(raw), Digest.of(signed(raw)))
    record = await bench.store.image(f"{bench.registry.address}/a/b:1")
    assert str(pulled.digest) in record.digests


async def test_layers_are_fetched_once_and_not_again(bench: Bench) -> None:
    reference = offer(bench, signed(as_schema1(IMAGE)))
    await bench.puller.pull(reference)
    asked = [request.path for request in bench.registry.asked("/blobs/") if request.headers.get("range") != "bytes=0-0"]
    assert sorted(path.rpartition("/")[2] for path in asked) == sorted(blob.digest for blob in IMAGE.layers)
    bench.registry.requests.clear()
    again = await bench.puller.pull(reference)
    assert bench.registry.asked("/blobs/") == []
    assert again.bytes_fetched == 0
    newer = await bench.puller.pull(reference, when=PullPolicy.NEWER)
    missing = await bench.puller.pull(reference, when=PullPolicy.MISSING)
    assert {newer.id, missing.id} == {again.id}
    assert bench.registry.asked("/blobs/") == []


async def test_a_registry_without_ranges(bench: Bench) -> None:
    reference = offer(bench, as_schema1(IMAGE))
    bench.registry.on("/blobs/", without_ranges, times=None)
    assert len((await bench.puller.pull(reference)).layers) == 2


async def test_wrong_bytes(bench: Bench) -> None:
    reference = offer(bench, as_schema1(IMAGE))
    bench.registry.on(f"/blobs/{IMAGE.layers[0].digest}", flip(2000), times=None)
    async with bench.untouched(DigestMismatchError):
        await bench.puller.pull(reference)


async def test_no_such_blob(bench: Bench) -> None:
    bench.registry.add_manifest("a/b", "1", as_schema1(IMAGE), DOCKER_SCHEMA1)
    async with bench.untouched(NotFoundError):
        await bench.puller.pull(f"{bench.registry.address}/a/b:1")


async def test_a_layer_that_is_none(bench: Bench) -> None:
    damaged = images.Blob(IMAGE.layers[0].media_type, IMAGE.layers[0].data[:-30])
    image = images.Image(IMAGE.manifest, IMAGE.config, (damaged,), IMAGE.diff_ids[:1], IMAGE.platform)
    reference = offer(bench, as_schema1(image), image)
    async with bench.untouched(MalformedLayerError, spools=1):
        await bench.puller.pull(reference)


async def test_confused_documents(bench: Bench) -> None:
    raw = json.dumps({**json.loads(as_schema1(IMAGE)), "layers": []}).encode()
    async with bench.untouched(DocumentError):
        await bench.puller.pull(offer(bench, raw))
