"""``docker-archive:`` as a source: the layouts that are out there, and archives that lie."""

from __future__ import annotations

import gzip
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DocumentError, InvalidDigestError, NotFoundError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, Manifest, parse_document
from tests.support import docker_archives, tars
from tests.support.images import Image, compress, image, sha256
from tests.support.tars import Entry, file

if TYPE_CHECKING:
    from pathlib import Path

BASE = tars.tar([tars.directory("etc"), file("etc/a", b"A" * 3_000_000)])
TOP = tars.tar([file("b", b"B")])


def plain(*layers: bytes, comment: str = "") -> Image:
    return image(layers or (BASE, TOP), compression="none", flavour="docker", comment=comment)


async def contents(location: str) -> tuple[bytes, list[bytes]]:
    """The config and the layers of an image, each as its descriptor says."""
    async with open_source(parse_location(location)) as source:
        document = await source.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert isinstance(manifest, Manifest)
        layers = []
        for layer in manifest.layers:
            async with source.open_blob(layer) as response:
                layers.append(b"".join([chunk async for chunk in response.chunks]))
            assert Digest.of(layers[-1]) == layer.digest
        return await source.blob_bytes(manifest.config, CONFIG_LIMIT), layers


def written(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "images.tar"
    path.write_bytes(data)
    return f"docker-archive:{path}"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_the_whole_archive_may_be_compressed(tmp_path: Path, compression: str) -> None:
    target = plain()
    data = compress(docker_archives.archive({"one:v1": target}), compression)  # type: ignore[arg-type]
    assert await contents(written(tmp_path, data)) == (target.config.data, [BASE, TOP])


async def test_the_manifest_is_the_one_that_skopeo_makes(tmp_path: Path) -> None:
    """Golden: the digest that skopeo 1.22 gives the image of ``tests/destination/test_dockerarchive.py``.

    But for the media type of the layers, which says there that they are compressed.
    """
    base = tars.tar([tars.directory("etc"), file("etc/a", b"A")])
    target = image([base, tars.tar([file("b<&>", b"B")])], compression="none", flavour="docker", comment="<x & y>")
    async with open_source(parse_location(written(tmp_path, docker_archives.archive({"": target})))) as source:
        digest = await source.digest()
        raw = (await source.manifest(digest)).raw
    assert (
        sha256(raw.replace(b'rootfs.diff.tar"', b'rootfs.diff.tar.gzip"'))
        == "sha256:1456cf7872c74e7aa3ec457f3bc82bc1b18615074b75dadf5d5b581bca1fcc55"
    )


async def test_compressed_layers_are_given_uncompressed(tmp_path: Path) -> None:
    target = image([BASE, TOP, b""], compression=["gzip", "zstd", "none"], flavour="oci")
    location = written(tmp_path, docker_archives.archive({"": target}))
    assert await contents(location) == (target.config.data, [BASE, TOP, b""])


async def test_layers_that_are_links_to_others(tmp_path: Path) -> None:
    target = plain(BASE, TOP, BASE)
    location = written(tmp_path, tars.tar(docker_archives.saved_with_links(target)))
    assert await contents(location) == (target.config.data, [BASE, TOP, BASE])


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_the_layout_of_new_dockers(tmp_path: Path, compression: str) -> None:
    target = image([BASE, TOP], compression=compression)  # type: ignore[arg-type]
    location = written(tmp_path, tars.tar(docker_archives.saved_as_layout(target)))
    assert await contents(location) == (target.config.data, [BASE, TOP])


async def test_an_image_without_layers(tmp_path: Path) -> None:
    target = image([], flavour="docker")
    assert await contents(written(tmp_path, docker_archives.archive({"": target}))) == (target.config.data, [])


async def test_one_of_several_images(tmp_path: Path) -> None:
    one, two = plain(BASE, comment="one"), plain(BASE, TOP, comment="two")
    location = written(tmp_path, docker_archives.archive({"one:v1": one, "quay.io/x/two:v2": two}))
    assert await contents(f"{location}:one:v1") == (one.config.data, [BASE])
    assert await contents(f"{location}:quay.io/x/two:v2") == (two.config.data, [BASE, TOP])
    assert await contents(f"{location}:@1") == (two.config.data, [BASE, TOP])
    with pytest.raises(UsageError, match=r"images\.tar: holds 2 images"):
        await contents(location)
    with pytest.raises(NotFoundError, match="no image in it is tagged docker"):
        await contents(f"{location}:two:v2")
    with pytest.raises(NotFoundError, match="no image @2"):
        await contents(f"{location}:@2")


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_an_archive_from_a_pipe(tmp_path: Path, is_compressed: bool) -> None:
    target = plain()
    data = docker_archives.archive({"one:v1": target})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(data) if is_compressed else data,))
    writer.start()
    found = await contents(f"docker-archive:{pipe}:one:v1")
    writer.join()
    assert found == (target.config.data, [BASE, TOP])


def listing(**changes: object) -> Entry:
    """A list of one image, of which something else is said than is there."""
    target = plain()
    item = {"Config": f"{target.id}.json", "RepoTags": [], "Layers": [_member(blob.data) for blob in target.layers]}
    return file("manifest.json", json.dumps([item | changes]).encode())


def _member(data: bytes) -> str:
    return sha256(data).removeprefix("sha256:") + ".tar"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (listing(Config="../../etc/passwd"), "has no file '../../etc/passwd'"),
        (listing(Config="/etc/passwd"), "has no file '/etc/passwd'"),
        (listing(Config="nothing.json"), "has no file 'nothing.json'"),
        (listing(Config=_member(TOP)), "image config is not JSON"),
        (listing(Layers=[_member(BASE)]), "1 layers are listed in manifest.json, 2 in the config"),
        (listing(Layers=[_member(BASE), "../top.tar"]), "has no file '../top.tar'"),
        (listing(Layers=[_member(BASE), "."]), "has no file '.'"),
        (file("manifest.json", b"[" * 10), "manifest.json is not JSON"),
        (file("manifest.json", b" " * (1 << 20) + b"[]"), "the limit is 1048576"),
        (file("other.json"), "is not what docker save writes"),
    ],
)
async def test_lists_that_lie_are_refused(tmp_path: Path, entry: Entry, reason: str) -> None:
    members = docker_archives.saved({"": plain()})[:-1]
    with pytest.raises(DocumentError, match=reason):
        await contents(written(tmp_path, tars.tar([*members, entry])))


@pytest.mark.parametrize("digest", ["sha256:../../x", "md5:0", "sha256:" + "A" * 64])
async def test_a_diff_id_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    target = image([TOP], compression="none", diff_ids=[digest])
    with pytest.raises(InvalidDigestError, match=r"rootfs\.diff_ids\[0\]"):
        await contents(written(tmp_path, docker_archives.archive({"": target})))


async def test_the_other_kinds_of_archive_are_told_apart(tmp_path: Path) -> None:
    layout = written(tmp_path, tars.tar([file("oci-layout", b"{}"), file("index.json", b"{}")]))
    with pytest.raises(DocumentError) as caught:
        await contents(layout)
    assert caught.value.hint == f"it holds an image layout: say oci-archive:{tmp_path}/images.tar"
    with pytest.raises(DocumentError) as caught:
        await contents(written(tmp_path, tars.tar([file("repositories", b"{}")])))
    assert "before 1.10" in (caught.value.hint or "")


async def test_a_damaged_compressed_layer(tmp_path: Path) -> None:
    target = image([TOP], compression="gzip", flavour="docker")
    entries = docker_archives.saved({"": target})
    damaged = entries[0].with_(data=entries[0].data[:-9])
    with pytest.raises(DocumentError, match=r"\.tar: the compressed data ends too early"):
        await contents(written(tmp_path, tars.tar([damaged, *entries[1:]])))


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    target = image([BASE, TOP], compression="gzip")
    location = written(tmp_path, gzip.compress(docker_archives.archive({"": target})))
    before = len(os.listdir("/proc/self/fd"))
    await contents(location)
    with pytest.raises(NotFoundError):
        await contents(f"{location}:@1")
    assert len(os.listdir("/proc/self/fd")) == before
