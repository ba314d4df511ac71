"""The blob info cache shared with skopeo: each finds in the file what the other has written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncpull.copying.blobinfo import FILE, BlobInfoCache
from asyncpull.layer.codec import Compression
from asyncpull.spec.digest import Digest
from tests.support.images import image, write_directory
from tests.support.pulls import layer
from tests.support.stores import workplace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer


def skopeo_copy(peer: Peer, place: Path, source: str, destination: str, *options: str) -> None:
    """Copy with the cache below ``place``: root's would be the machine's."""
    peer.run(
        *("env", "_CONTAINERS_ROOTLESS_UID=1000", f"XDG_DATA_HOME={place}/data", f"HOME={place}"),
        *("skopeo", "copy", "--dest-tls-verify=false", *options, source, destination),
    )


def test_each_reads_what_the_other_wrote(newest: Peer, registry: Registry) -> None:
    with workplace(newest) as place:
        cache = place / "data" / "containers" / "cache" / FILE
        first, second = image([layer("first")], compression="none"), image([layer("second")])
        write_directory(place / "first", first)
        write_directory(place / "second", second)
        diff_id = Digest.parse(first.diff_ids[0])
        other = Digest.parse(second.layers[0].digest)
        skopeo_copy(
            newest,
            place,
            f"dir:{place}/first",
            f"docker://{registry.address}/info/one:1",
            *("--dest-compress-format", "zstd", "--dest-force-compress-format"),
        )

        async def look() -> None:
            async with BlobInfoCache(cache) as ours:
                made, _ = await ours.candidates(diff_id, registry.address)
                assert await ours.diff_id(made.digest) == await ours.diff_id(diff_id) == diff_id
                assert made.compression is Compression.ZSTD
                assert made.repository == f"{registry.address}/info/one"
                assert await ours.locations(made.digest, registry.address) == (f"{registry.address}/info/one",)
                # What a repository that skopeo has never seen has, it takes from there.
                ours.record_contents(other, Digest.parse(second.diff_ids[0]), Compression.GZIP)
                ours.record_location(other, f"{registry.address}/info/other")

        asyncio.run(look())
        registry.push("info/other", "1", second)
        before = len(registry.requests())
        skopeo_copy(newest, place, f"dir:{place}/second", f"docker://{registry.address}/info/three:1")
        assert any(f"mount={other}".replace(":", "%3A") in request for request in registry.requests()[before:])
