"""Images that are taken out of layouts: what others there have stays, and what nobody has goes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.destination.layoutdeletion import delete_from_layout
from asyncpull.destination.opening import open_destination
from asyncpull.errors import DocumentError, NotFoundError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import LayoutLocation, parse_location
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.contents import descriptor

if TYPE_CHECKING:
    from pathlib import Path


def image(name: str, architecture: str = "amd64") -> images.Image:
    base = tars.tar([tars.file("base", b"base")])
    return images.image([base, tars.tar([tars.file(name, name.encode())])], comment=name, architecture=architecture)


A, B, ARM = image("a"), image("b"), image("a", "arm64")
MANY = images.index([A, ARM])


def at(layout: Path, choice: str = "") -> LayoutLocation:
    location = parse_location(f"oci:{layout}{choice}")
    assert isinstance(location, LayoutLocation)
    return location


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def blobs_of(*targets: images.Image | images.Index) -> set[str]:
    every = {
        blob.digest
        for target in targets
        for each in (target.images if isinstance(target, images.Index) else (target,))
        for blob in (target.manifest, each.manifest, *each.blobs)
    }
    return {f"blobs/sha256/{digest[7:]}" for digest in every}


@pytest.mark.parametrize(
    ("there", "choice", "left"),
    [
        ({"a": A, "b": B}, ":a", {"b": B}),
        ({"a": A, "b": B}, ":@1", {"a": A}),
        ({"a": A}, "", {}),
        ({"a": A, "m": MANY}, ":a", {"m": MANY}),
        ({"a": A, "m": MANY, "b": B}, ":m", {"a": A, "b": B}),
        ({"a": A, "again": A}, ":a", {"again": A}),
    ],
)
async def test_an_image_goes_with_what_only_it_has(
    tmp_path: Path,
    there: dict[str, images.Image | images.Index],
    choice: str,
    left: dict[str, images.Image | images.Index],
) -> None:
    images.write_layout(tmp_path / "layout", there)
    gone = await delete_from_layout(at(tmp_path / "layout", choice))
    assert str(gone) in {target.manifest.digest for target in there.values()}
    images.write_layout(tmp_path / "expected", left)
    now, expected = files(tmp_path / "layout"), files(tmp_path / "expected")
    assert now.keys() == expected.keys() == {"index.json", "oci-layout", *blobs_of(*left.values())}
    assert json.loads(now["index.json"])["manifests"] == json.loads(expected["index.json"])["manifests"]
    for name, target in left.items():
        async with open_source(at(tmp_path / "layout", f":{name}")) as source:
            assert (await source.manifest()).raw == target.manifest.data


async def test_blobs_of_an_artifact_s_subject_stay(tmp_path: Path) -> None:
    subject = A.manifest.descriptor()
    artifact = images.Blob(
        images.OCI_MANIFEST,
        json.dumps({"schemaVersion": 2, "config": A.config.descriptor(), "subject": subject}).encode(),
    )
    about_a = images.Image(artifact, A.config, (), (), {})
    images.write_layout(tmp_path / "layout", {"a": A, "about": about_a})
    before = files(tmp_path / "layout")
    await delete_from_layout(at(tmp_path / "layout", ":a"))
    assert files(tmp_path / "layout").keys() == before.keys()
    await delete_from_layout(at(tmp_path / "layout", ":about"))
    assert files(tmp_path / "layout").keys() == before.keys() - blobs_of(about_a)


async def test_shared_blobs_stay(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"a": A})
    await delete_from_layout(at(tmp_path / "layout", ":a"), keeps_blobs=True)
    assert blobs_of(A) < files(tmp_path / "layout").keys()


async def test_an_incomplete_index_is_deleted_too(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"m": MANY, "b": B})
    for blob in (ARM.manifest, ARM.config):
        (tmp_path / "layout" / "blobs" / "sha256" / blob.digest[7:]).unlink()
    await delete_from_layout(at(tmp_path / "layout", ":m"))
    assert blobs_of(B) <= files(tmp_path / "layout").keys()
    assert not blobs_of(A) & files(tmp_path / "layout").keys() - blobs_of(B)


async def test_what_cannot_be_deleted_is_left_alone(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"a": A, "b": B})
    (tmp_path / "layout" / "blobs" / "sha256" / B.manifest.digest[7:]).write_bytes(b"{")
    before = files(tmp_path)
    for choice, error in ((":a", DocumentError), (":c", NotFoundError), (":@2", NotFoundError), ("", UsageError)):
        with pytest.raises(error):
            await delete_from_layout(at(tmp_path / "layout", choice))
    with pytest.raises(NotFoundError):
        await delete_from_layout(at(tmp_path / "elsewhere"))
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["layout"]


async def test_a_copy_that_relies_on_a_blob_keeps_it(tmp_path: Path) -> None:
    images.write_layout(tmp_path / "layout", {"a": A})
    async with open_destination(at(tmp_path / "layout", ":again")) as destination:
        assert [await destination.has_blob(descriptor(blob)) for blob in A.blobs] == [True, True, True]
        deleting = asyncio.create_task(delete_from_layout(at(tmp_path / "layout", ":a")))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not deleting.done()
        raw = A.manifest.data
        await destination.commit(SourceDocument(raw, A.manifest.media_type, Digest.of(raw)))
    await deleting
    async with open_source(at(tmp_path / "layout", ":again")) as source:
        for blob in A.blobs:
            assert await source.blob_bytes(descriptor(blob), 10_000) == blob.data
