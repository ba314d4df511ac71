"""How long it takes to list a store of many layers: ``python -m bench.listing [LAYERS]``.

Makes the records of such a store in a temporary directory, 20 layers to an image, as pulls write them, and measures, in
one process and the best and the median of some runs: opening the store and listing its layers for the first time;
listing again when another program has changed the records; listing again when nobody has; images with their sizes; one
layer by the beginning of its ID. Prints a table; times are in milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.store.config import StoreConfig
from asyncpull.store.records import IMAGES, LAYERS, Raw, format_records
from asyncpull.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RUNS = 15
_LAYERS_PER_IMAGE = 20
_TIME = "2026-11-23T15:47:53.351182457Z"


def layer_records(count: int) -> list[Raw]:
    """Records of ``count`` layers, in chains."""
    records: list[Raw] = []
    for number in range(count):
        own = hashlib.sha256(str(number).encode()).hexdigest()
        record: Raw = {"id": own, "created": _TIME}
        if number % _LAYERS_PER_IMAGE:
            record["parent"] = records[-1]["id"]
        records.append(
            record
            | {
                "compressed-diff-digest": f"sha256:{own[::-1]}",
                "compressed-size": 1_000_000 + number,
                "diff-digest": f"sha256:{own}",
                "diff-size": 3_000_000 + number,
                "compression": 2,
                "uidset": [0, 1000],
                "gidset": [0, 5, 1000],
            }
        )
    return records


def image_records(layers: list[Raw]) -> list[Raw]:
    """An image on every chain."""
    records: list[Raw] = []
    for top in layers[_LAYERS_PER_IMAGE - 1 :: _LAYERS_PER_IMAGE]:
        config = hashlib.sha256(f"config of {top['id']}".encode()).hexdigest()
        digest = "sha256:" + hashlib.sha256(f"manifest of {top['id']}".encode()).hexdigest()
        name = f"registry.example/team/app:{len(records)}"
        keys = [f"sha256:{config}", f"manifest-{digest}", "manifest"]
        records.append(
            {
                "id": config,
                "digest": digest,
                "names": [name],
                "names-history": [name],
                "layer": top["id"],
                "metadata": "{}",
                "big-data-names": keys,
                "big-data-sizes": dict.fromkeys(keys, 2000),
                "big-data-digests": dict(zip(keys, [f"sha256:{config}", digest, digest], strict=True)),
                "created": _TIME,
            }
        )
    return records


async def _timed(work: Callable[[], Awaitable[object]], before: Callable[[], object] = lambda: None) -> list[float]:
    taken = []
    for _ in range(RUNS):
        before()
        started = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


async def _measure(directory: Path, count: int) -> None:
    config = StoreConfig(directory / "g", directory / "r", rootless=False)
    async with Store.open(config):
        pass
    layers = layer_records(count)
    path = config.graph_root / "overlay-layers/layers.json"
    path.write_bytes(format_records(layers, LAYERS))
    (config.graph_root / "overlay-images/images.json").write_bytes(format_records(image_records(layers), IMAGES))

    async def cold() -> None:
        async with Store.open(config) as opened:
            assert len(await opened.layers()) == count

    rows = {"open and list for the first time": await _timed(cold)}
    async with Store.open(config) as store:
        rows["list again, changed by another program"] = await _timed(store.layers, path.touch)
        rows["list again, unchanged"] = await _timed(store.layers)
        rows["images with sizes, changed"] = await _timed(store.image_sizes, path.touch)
        rows["one layer by the beginning of its ID"] = await _timed(lambda: store.layer(str(layers[-1]["id"])[:12]))
    print(f"{count} layers, {path.stat().st_size / 1e6:.1f} MB of records, {RUNS} runs; milliseconds")
    print(f"{'':42} {'best':>8} {'median':>8}")
    for what, taken in rows.items():
        print(f"{what:42} {min(taken):8.1f} {statistics.median(taken):8.1f}")


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_measure(Path(directory), count))


if __name__ == "__main__":
    main()
