"""Flat directories that are written: what was there stays whole until the new image is, and other things stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.destination.opening import open_destination
from asyncpull.errors import DigestMismatchError, DocumentError, NotFoundError, StoreWriteError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.source import SourceDocument
from tests.support import images, tars
from tests.support.contents import HeldContent, descriptor

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.spec.destination import Destination

VERSION = b"Directory Transport Version: 1.1\n"


def image(name: str, architecture: str = "amd64") -> images.Image:
    base = tars.tar([tars.file("base", b"base")])
    return images.image([base, tars.tar([tars.file(name, name.encode())])], comment=name, architecture=architecture)


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def document(blob: images.Blob, algorithm: str = "sha256") -> SourceDocument:
    return SourceDocument(blob.data, blob.media_type, Digest.of(blob.data, algorithm))


async def put(destination: Destination, target: images.Image) -> None:
    for blob in target.blobs:
        if not await destination.has_blob(descriptor(blob)):
            await destination.put_blob(descriptor(blob), HeldContent(blob.data))


async def copy(target: images.Image, directory: Path) -> None:
    async with open_destination(parse_location(f"dir:{directory}")) as destination:
        await put(destination, target)
        await destination.commit(document(target.manifest))


def expected(target: images.Image) -> dict[str, bytes]:
    return {
        "version": VERSION,
        "manifest.json": target.manifest.data,
        **{blob.digest[7:]: blob.data for blob in target.blobs},
    }


async def test_a_directory_has_the_files_of_one_image(tmp_path: Path) -> None:
    for name in ("old", "new", "new"):
        await copy(image(name), tmp_path / "d")
        assert files(tmp_path / "d") == expected(image(name))


async def test_an_index_is_replaced_by_an_image(tmp_path: Path) -> None:
    index = images.index([image("a"), image("b", "arm64")])
    images.write_directory(tmp_path / "d", index)
    (tmp_path / "d" / "signature-1").write_bytes(b"of the index")
    (tmp_path / "d" / f"{index.images[0].manifest.digest[7:]}.signature-1").write_bytes(b"of a manifest")
    await copy(image("a"), tmp_path / "d")
    assert files(tmp_path / "d") == expected(image("a"))


async def test_until_the_commit_the_old_image_is_as_it_was(tmp_path: Path) -> None:
    await copy(image("old"), tmp_path / "d")
    before = files(tmp_path / "d")
    async with open_destination(parse_location(f"dir:{tmp_path}/d")) as destination:
        await put(destination, image("new"))
        await destination.put_manifest(document(image("new").manifest))
        visible = {name: raw for name, raw in files(tmp_path / "d").items() if not name.startswith(".")}
        assert visible == before
    visible = {name: raw for name, raw in files(tmp_path / "d").items() if not name.startswith(".")}
    assert visible == before
    async with open_destination(parse_location(f"dir:{tmp_path}/d")) as destination:
        for blob in image("new").blobs:
            assert await destination.has_blob(descriptor(blob))  # nothing has to be sent again
        await destination.commit(document(image("new").manifest))
    assert files(tmp_path / "d") == expected(image("new"))


async def test_a_directory_in_which_nothing_came_is_gone(tmp_path: Path) -> None:
    async with open_destination(parse_location(f"dir:{tmp_path}/a/d")):
        assert (tmp_path / "a" / "d" / "version").read_bytes() == VERSION  # so that skopeo may write here after a kill
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    async with open_destination(parse_location(f"dir:{tmp_path}/empty")):
        pass
    assert list((tmp_path / "empty").iterdir()) == []


async def test_other_things_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_bytes(b"years")
    with pytest.raises(StoreWriteError, match="other things than an image"):
        await copy(image("a"), tmp_path / "d")
    assert files(tmp_path) == {"d/thesis.txt": b"years"}
    images.write_directory(tmp_path / "e", image("old"))
    (tmp_path / "e" / "notes.txt").write_bytes(b"mine")
    (tmp_path / "e" / "folder").mkdir()
    await copy(image("new"), tmp_path / "e")
    assert files(tmp_path / "e") == expected(image("new")) | {"notes.txt": b"mine"}
    assert (tmp_path / "e" / "folder").is_dir()


@pytest.mark.parametrize("version", [b"", b"Directory Transport Version: 1.3\n"])
async def test_another_version_is_refused(tmp_path: Path, version: bytes) -> None:
    images.write_directory(tmp_path / "d", image("old"))
    (tmp_path / "d" / "version").write_bytes(version)
    before = files(tmp_path)
    with pytest.raises(StoreWriteError, match="version"):
        await copy(image("new"), tmp_path / "d")
    assert files(tmp_path) == before
    with pytest.raises(DocumentError, match="version"):
        async with open_source(parse_location(f"dir:{tmp_path}/d")) as source:
            await source.manifest()


async def test_other_digests_need_a_newer_version(tmp_path: Path) -> None:
    target = image("a")
    wanted = descriptor(target.layers[0], "sha512")
    async with open_destination(parse_location(f"dir:{tmp_path}/d")) as destination:
        await destination.put_blob(wanted, HeldContent(target.layers[0].data, digest=wanted.digest))
        await destination.put_manifest(document(target.manifest, "sha512"))
        await destination.commit(document(target.manifest))
    long = Digest.of(target.manifest.data, "sha512")
    assert files(tmp_path / "d") == {
        "version": b"Directory Transport Version: 1.2\n",
        "manifest.json": target.manifest.data,
        f"sha512-{wanted.digest.encoded}": target.layers[0].data,
        f"sha512-{long.encoded}.manifest.json": target.manifest.data,
    }
    async with open_source(parse_location(f"dir:{tmp_path}/d")) as source:
        assert (await source.manifest(long)).digest == long
        assert await source.blob_bytes(wanted, 10_000) == target.layers[0].data
    await copy(target, tmp_path / "d")
    assert files(tmp_path / "d") == expected(target)


async def test_what_is_not_what_it_should_be_is_not_given(tmp_path: Path) -> None:
    index = images.index([image("a"), image("b", "arm64")])
    images.write_directory(tmp_path / "d", index)
    first, second = (Digest.parse(each.manifest.digest) for each in index.images)
    (tmp_path / "d" / f"{first.encoded}.manifest.json").write_bytes(b"{}")
    (tmp_path / "d" / f"{second.encoded}.manifest.json").unlink()
    async with open_source(parse_location(f"dir:{tmp_path}/d")) as source:
        with pytest.raises(DigestMismatchError, match=first.encoded):
            await source.manifest(first)
        with pytest.raises(NotFoundError, match=second.encoded):
            await source.manifest(second)
        assert (await source.manifest(Digest.parse(index.manifest.digest))).raw == index.manifest.data
        (tmp_path / "d" / "manifest.json").unlink()
        (tmp_path / "d" / "manifest.json").symlink_to("/dev/zero")
        with pytest.raises(DocumentError, match="not a regular file"):
            await source.manifest()
