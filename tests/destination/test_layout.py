"""Image layouts that are written: by several at once, by some who die, beside other tools, with blobs elsewhere."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncpull.access import Access
from asyncpull.destination.opening import open_destination
from asyncpull.errors import DigestMismatchError, DocumentError, SizeMismatchError, StoreError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.carrying import carry
from tests.support.contents import HeldContent, descriptor

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = ".asyncpull"

_COPY = """
import asyncio, sys
from asyncpull.destination.opening import open_destination
from asyncpull.source.opening import open_source
from asyncpull.spec.location import parse_location
from tests.support.carrying import carry

async def main():
    source, *destinations = map(parse_location, sys.argv[1:])
    for destination in destinations:
        async with open_source(source) as reader, open_destination(destination) as writer:
            await carry(reader, writer)

asyncio.run(main())
"""

_STOPPED = """
import asyncio, sys
from asyncpull.destination.opening import open_destination
from asyncpull.spec.location import parse_location
from tests.support import images
from tests.support.contents import HeldContent, descriptor

async def main():
    async with open_destination(parse_location(sys.argv[1])) as destination:
        whole, half = images.Blob("", b"whole"), images.Blob("", bytes(100_000))
        await destination.put_blob(descriptor(whole), HeldContent(whole.data))
        content = HeldContent(half.data, stops_at=50_000)
        putting = asyncio.create_task(destination.put_blob(descriptor(half), content))
        await content.stopped.wait()
        print("here", flush=True)
        await putting

asyncio.run(main())
"""


def image(name: str) -> images.Image:
    return images.image([tars.tar([tars.file(name, name.encode())])], comment=name)


def program(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def entries(layout: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return found


def listed(layout: Path) -> dict[str, str]:
    """Names and the digests they stand for."""
    return {
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""): entry["digest"]
        for entry in entries(layout)
    }


async def copy(source: str, destination: str, access: Access | None = None) -> Digest:
    async with (
        open_source(parse_location(source)) as reader,
        open_destination(parse_location(destination), access) as writer,
    ):
        return await carry(reader, writer)


async def test_a_layout_has_the_files_that_its_specification_names_and_no_others(tmp_path: Path) -> None:
    target = image("a")
    images.write_layout(tmp_path / "src", {"a": target})
    await copy(f"oci:{tmp_path}/src:a", f"oci:{tmp_path}/dst:b")
    blobs = {f"blobs/sha256/{blob.digest[7:]}" for blob in (target.manifest, *target.blobs)}
    assert files(tmp_path / "dst").keys() == {"index.json", "oci-layout", *blobs}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "dst").rglob("*") if path.is_file()} == {0o644}
    assert listed(tmp_path / "dst") == {"b": target.manifest.digest}


async def test_images_are_added_and_replaced_one_by_one(tmp_path: Path) -> None:
    old, new, other = image("old"), image("new"), image("other")
    images.write_layout(tmp_path / "src", {"old": old, "new": new, "other": other})
    for name, under in (("old", "x"), ("other", "y"), ("new", "x")):
        await copy(f"oci:{tmp_path}/src:{name}", f"oci:{tmp_path}/dst:{under}")
    assert listed(tmp_path / "dst") == {"x": new.manifest.digest, "y": other.manifest.digest}
    async with open_source(parse_location(f"oci:{tmp_path}/dst:@0")) as source:
        assert str(await source.digest()) == new.manifest.digest


async def test_many_processes_and_tasks_add_images_at_once(tmp_path: Path) -> None:
    targets = {f"i{number}": image(f"i{number}") for number in range(12)}
    images.write_layout(tmp_path / "src", targets)
    programs = [
        program(_COPY, f"oci:{tmp_path}/src:{name}", *(f"oci:{tmp_path}/dst:{name}{again}" for again in "abc"))
        for name in list(targets)[:3]
    ]
    await asyncio.gather(*(copy(f"oci:{tmp_path}/src:{name}", f"oci:{tmp_path}/dst:{name}a") for name in targets))
    assert [await asyncio.to_thread(each.wait) for each in programs] == [0, 0, 0]
    assert listed(tmp_path / "dst") == {
        f"{name}{again}": targets[name].manifest.digest
        for name in targets
        for again in ("abc" if name in list(targets)[:3] else "a")
    }
    assert not (tmp_path / "dst" / HIDDEN).exists()
    for each in programs:
        with each:
            pass


async def test_a_killed_copy_leaves_what_was_there_and_the_next_one_goes_on(tmp_path: Path) -> None:
    target = image("a")
    images.write_layout(tmp_path / "src", {"a": target})
    await copy(f"oci:{tmp_path}/src:a", f"oci:{tmp_path}/dst:a")
    before = files(tmp_path / "dst")
    with program(_STOPPED, f"oci:{tmp_path}/dst:a") as stopped:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "here\n"
        stopped.send_signal(signal.SIGKILL)
    whole = images.Blob("", b"whole")
    added = files(tmp_path / "dst").items() - before.items()
    assert {name for name, _ in added if not name.startswith(HIDDEN)} == {f"blobs/sha256/{whole.digest[7:]}"}
    assert listed(tmp_path / "dst") == {"a": target.manifest.digest}
    async with open_destination(parse_location(f"oci:{tmp_path}/dst:b")) as destination:
        assert await destination.has_blob(descriptor(whole))
        assert not await destination.has_blob(descriptor(images.Blob("", bytes(100_000))))
    assert files(tmp_path / "dst").keys() == before.keys() | {f"blobs/sha256/{whole.digest[7:]}"}


async def test_blobs_may_be_elsewhere(tmp_path: Path) -> None:
    target = image("a")
    images.write_layout(tmp_path / "src", {"a": target})
    access = Access(shared_blobs=tmp_path / "shared")
    for name in "xy":
        await copy(f"oci:{tmp_path}/src:a", f"oci:{tmp_path}/{name}:a", access)
        assert files(tmp_path / name).keys() == {"index.json", "oci-layout"}
    names = {f"sha256/{blob.digest[7:]}" for blob in (target.manifest, *target.blobs)}
    assert files(tmp_path / "shared").keys() == names
    assert not (tmp_path / "shared" / HIDDEN).exists()
    async with open_source(parse_location(f"oci:{tmp_path}/x:a"), access) as source:
        assert (await source.manifest()).raw == target.manifest.data
        assert await source.blob_bytes(descriptor(target.layers[0]), 10_000) == target.layers[0].data


async def test_a_number_is_no_name_to_write_under(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="@0"):
        async with open_destination(parse_location(f"oci:{tmp_path}/dst:@0")):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"2.0"}'),
        ("oci-layout", b" " * 5000),
        ("index.json", b"{"),
        ("index.json", b'{"schemaVersion":2,"config":{},"layers":[]}'),
        ("index.json", b" " * (4 << 20) + b" {}"),
    ],
)
async def test_a_layout_that_is_none_is_left_alone(tmp_path: Path, name: str, raw: bytes) -> None:
    images.write_layout(tmp_path / "dst", {"a": image("a")})
    (tmp_path / "dst" / name).write_bytes(raw)
    before = files(tmp_path / "dst")
    with pytest.raises(DocumentError, match=name):
        async with open_destination(parse_location(f"oci:{tmp_path}/dst:a")):
            pass
    assert files(tmp_path / "dst") == before
    with pytest.raises(DocumentError, match=name):
        async with open_source(parse_location(f"oci:{tmp_path}/dst:a")) as source:
            await source.manifest()


async def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "dst", {"a": image("a")})
    before = files(tmp_path / "dst")
    async with open_destination(parse_location(f"oci:{tmp_path}/dst:a")) as destination:
        (tmp_path / "dst" / "index.json").unlink()
        (tmp_path / "dst" / "index.json").mkdir()
        raw = image("new").manifest
        with pytest.raises(StoreError, match=r"index\.json"):
            await destination.commit(SourceDocument(raw.data, raw.media_type, Digest.parse(raw.digest)))
    (tmp_path / "dst" / "index.json").rmdir()
    del before["index.json"]
    assert files(tmp_path / "dst") == before | {f"blobs/sha256/{raw.digest[7:]}": raw.data}


def change(layout: Path, **fields: object) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0].update(fields)
    (layout / "index.json").write_text(json.dumps(index))


async def test_what_is_not_what_it_should_be_is_not_given(tmp_path: Path) -> None:
    target = image("a")
    layout = tmp_path / "layout"
    images.write_layout(layout, {"a": target})
    async with open_source(parse_location(f"oci:{layout}:a")) as source:
        change(layout, size=len(target.manifest.data) + 1)
        with pytest.raises(SizeMismatchError):
            await source.manifest()
        blobs: Sequence[images.Blob] = (target.manifest, target.config)
        for blob in blobs:
            path = layout / "blobs" / "sha256" / blob.digest[7:]
            path.write_bytes(bytes([blob.data[0] ^ 1]) + blob.data[1:])
        with pytest.raises(DigestMismatchError, match=target.manifest.digest[7:]):
            await source.manifest()
        with pytest.raises(DigestMismatchError, match=target.config.digest[7:]):
            await source.blob_bytes(descriptor(target.config), 10_000)
        (layout / "blobs" / "sha256" / target.config.digest[7:]).unlink()
        (layout / "blobs" / "sha256" / target.config.digest[7:]).symlink_to("/dev/zero")
        with pytest.raises(DocumentError, match="not a regular file"):
            await source.blob_bytes(descriptor(target.config), 10_000)
        change(layout, digest="sha256:../../x")
        with pytest.raises(DocumentError, match=r"index\.json"):
            await source.manifest()


async def test_an_index_in_an_index_is_found(tmp_path: Path) -> None:
    inner = images.index([image("a"), image("b")])
    raw = json.dumps(
        {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [inner.manifest.descriptor()]}
    ).encode()
    outer = images.Index(images.Blob(images.OCI_INDEX, raw), (*inner.images,))
    images.write_layout(tmp_path / "src", {"a": outer, "i": inner})
    await copy(f"oci:{tmp_path}/src:a", f"oci:{tmp_path}/dst")
    async with open_source(parse_location(f"oci:{tmp_path}/dst")) as source:
        assert (await source.manifest()).raw == outer.manifest.data
        for blob in (inner.manifest, *(each.manifest for each in inner.images)):
            assert (await source.manifest(Digest.parse(blob.digest))).raw == blob.data


async def test_a_blob_is_replaced_that_has_another_size(tmp_path: Path) -> None:
    blob = images.Blob("", b"right")
    path = tmp_path / "dst" / "blobs" / "sha256" / blob.digest[7:]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wrong size")
    async with open_destination(parse_location(f"oci:{tmp_path}/dst")) as destination:
        assert not await destination.has_blob(descriptor(blob))
        await destination.put_blob(descriptor(blob), HeldContent(blob.data))
        assert await destination.has_blob(descriptor(blob))
    assert path.read_bytes() == b"right"


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
async def test_a_file_that_another_tool_is_just_writing_is_waited_for(tmp_path: Path, name: str) -> None:
    images.write_layout(tmp_path / "dst", {"a": image("a")})
    images.write_layout(tmp_path / "src", {"b": image("b")})
    path = tmp_path / "dst" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    asyncio.get_running_loop().call_later(0.01, path.write_bytes, whole)
    async with open_source(parse_location(f"oci:{tmp_path}/dst:a")) as source:
        assert (await source.manifest()).raw == image("a").manifest.data
    path.write_bytes(whole[:10])
    asyncio.get_running_loop().call_later(0.01, path.write_bytes, whole)
    await copy(f"oci:{tmp_path}/src:b", f"oci:{tmp_path}/dst:b")
    assert listed(tmp_path / "dst").keys() == {"a", "b"}
