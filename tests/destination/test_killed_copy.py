"""A copy that is killed in the middle of a blob: nobody sees any of it, and the next one asks for the rest alone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from asyncpull.access import Access
from asyncpull.copy import Copier
from asyncpull.errors import NotFoundError
from asyncpull.journal import read_records
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from tests.support import images, tars
from tests.support.contents import descriptor
from tests.support.registry_faults import stall
from tests.support.registry_simulator import RegistrySimulator

ACCESS = Access(RegistryAccess(tls_verify=False))
LAYERS = [
    tars.tar([tars.file(name, images.noise(size, size))]) for name, size in (("small", 50_000), ("large", 900_000))
]
TARGET = images.image(LAYERS, compression=("none", "none"))
OLD = images.image(LAYERS[:1], comment="old")

_COPY = """
import asyncio, sys
from asyncpull.copy import Copier
from tests.destination.test_killed_copy import ACCESS

async def main():
    async with Copier(source=ACCESS) as copier:
        await copier.copy(*sys.argv[1:])

sys.path.insert(0, ".")
asyncio.run(main())
"""


def recorded(place: Path) -> int:
    """How many bytes the journals below ``place`` record."""
    return sum(len(record.range) for path in place.rglob("journal") for record in read_records(path.parent))


async def holds(location: str) -> images.Image | None:
    """Which of the two images is there, every blob of it."""
    async with open_source(parse_location(location)) as source:
        found = await source.digest()
        target = TARGET if str(found) == TARGET.manifest.digest else OLD
        assert (await source.manifest()).raw == target.manifest.data
        for blob in target.blobs:
            assert Digest.of(await source.blob_bytes(descriptor(blob), 1 << 20)) == descriptor(blob).digest
        return target


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "overwriting"])
@pytest.mark.parametrize("form", ["oci:{}/layout:name", "oci-archive:{}/archive", "dir:{}/directory"])
async def test_a_killed_copy_is_gone_on_with(form: str, is_new: bool, tmp_path: Path) -> None:
    location, large = form.format(tmp_path), TARGET.layers[1]
    async with RegistrySimulator() as registry, Copier(source=ACCESS) as copier:
        if not is_new:
            await copier.copy(f"docker://{registry.add_image('a/b', 'old', OLD)}", location)
        reference = f"docker://{registry.add_image('a/b', '1', TARGET)}"
        registry.on(f"/blobs/{large.digest}", stall(600_000), times=None)
        command = (sys.executable, "-c", _COPY, reference, location)
        copying = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2])
        while recorded(tmp_path) < 500_000:
            assert copying.returncode is None
            await asyncio.sleep(0.01)
        copying.kill()
        await copying.wait()
        if is_new:
            with pytest.raises(NotFoundError):
                await holds(location)
        else:
            assert await holds(location) is OLD
        registry.heal()
        sent = registry.sent("/blobs/")
        await copier.copy(reference, location)
        assert registry.sent("/blobs/") - sent < 500_000
    assert await holds(location) is TARGET
    assert [str(path) for path in tmp_path.rglob(".*asyncpull*")] == []
