"""``tarball:``: root file systems in tar files, as skopeo makes images of them."""

from __future__ import annotations

import bz2
import lzma
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DocumentError, NotFoundError, SourceError, UsageError
from asyncpull.source.opening import open_source
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig, Manifest, parse_document
from asyncpull.spec.platform import Platform, host_platform
from tests.support import tars
from tests.support.images import compress, noise, sha256
from tests.support.peers import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BASE = tars.tar([tars.directory("etc"), tars.file("etc/a", noise(1, 1_500_000))])
TOP = tars.tar([tars.file("b", b"B")])


def written(path: Path, data: bytes, time_ns: int = 1_700_000_000_500_000_000) -> Path:
    path.write_bytes(data)
    os.utime(path, ns=(0, time_ns))
    return path


async def contents(location: str) -> tuple[Manifest, ImageConfig, list[bytes]]:
    async with open_source(parse_location(location)) as source:
        document = await source.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert isinstance(manifest, Manifest)
        layers = []
        for layer in manifest.layers:
            async with source.open_blob(layer) as response:
                layers.append(b"".join([chunk async for chunk in response.chunks]))
            assert sha256(layers[-1]) == str(layer.digest)
        return manifest, ImageConfig.from_bytes(await source.blob_bytes(manifest.config, CONFIG_LIMIT)), layers


async def test_files_become_layers(tmp_path: Path) -> None:
    old = written(tmp_path / "old.tar", BASE, 1_600_000_000_000_000_000)
    new = written(tmp_path / "new.tar.gz", compress(TOP, "gzip"))
    manifest, config, layers = await contents(f"tarball:{old}:{new}")
    assert layers == [BASE, compress(TOP, "gzip")]
    assert [layer.media_type.rpartition(".")[2] for layer in manifest.layers] == ["tar", "tar+gzip"]
    assert [str(diff_id) for diff_id in config.diff_ids] == [sha256(BASE), sha256(TOP)]
    assert config.created == "2023-11-14T22:13:20.5Z"
    assert config.platform == Platform(host_platform().os, host_platform().architecture)


@pytest.mark.skipif(host_platform().architecture != "amd64", reason="the golden image is one of amd64")
async def test_the_image_is_that_of_skopeo(tmp_path: Path) -> None:
    """Golden: the manifest that skopeo 1.22 makes of the same files, which have the same times."""
    a = written(tmp_path / "a.tar", tars.tar([tars.file("a", b"A")]), 1_600_000_000_123_000_000)
    b = written(tmp_path / "b.tar", TOP)
    manifest, config, _ = await contents(f"tarball:{a}:{b}")
    assert str(config.digest) == "sha256:e5a5ad040445274621acb2ed35abeb8a8a49fa84e6bd67e064dc46e4df594214"
    assert str(manifest.digest) == "sha256:6718797fce173944c4c512360a9388a92aa675116ae9ddfd0e3bbfaaee5ac924"


@pytest.mark.parametrize("compression", [bz2.compress, lzma.compress], ids=["bzip2", "xz"])
async def test_what_has_no_media_type_is_uncompressed(tmp_path: Path, compression: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path / "a.tar", compression(BASE))
    manifest, config, layers = await contents(f"tarball:{path}")
    assert layers == [BASE]
    assert manifest.layers[0].media_type == "application/vnd.oci.image.layer.v1.tar"
    assert [str(diff_id) for diff_id in config.diff_ids] == [sha256(BASE)]


async def test_a_file_twice_and_an_empty_one(tmp_path: Path) -> None:
    path, empty = written(tmp_path / "a.tar", TOP), written(tmp_path / "empty.tar", b"")
    _, config, layers = await contents(f"tarball:{path}:{empty}:{path}")
    assert layers == [TOP, b"", TOP]
    assert [str(diff_id) for diff_id in config.diff_ids] == [sha256(TOP), sha256(b""), sha256(TOP)]


async def test_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(compress(BASE, "zstd"),))
    writer.start()
    _, config, layers = await contents(f"tarball:{pipe}")
    writer.join()
    assert layers == [compress(BASE, "zstd")]
    assert [str(diff_id) for diff_id in config.diff_ids] == [sha256(BASE)]


def test_stdin(tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from asyncpull.source.opening import open_source\n"
        "from asyncpull.spec.location import parse_location\n"
        "async def main():\n"
        "    async with open_source(parse_location('tarball:-')) as source:\n"
        "        print((await source.manifest()).raw.decode())\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=BASE, capture_output=True, check=True, cwd=REPOSITORY)
    assert sha256(BASE) in done.stdout.decode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no tar at all" * 100, "is not a tar file"),
        (compress(b"no tar at all" * 100, "gzip"), "is not a tar file"),
        (compress(TOP, "gzip")[:-4], "ends too early"),
        (bz2.compress(TOP)[:-4], "ends too early"),
    ],
)
async def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason) as caught:
        await contents(f"tarball:{written(tmp_path / 'a.tar', data)}")
    assert str(tmp_path / "a.tar") in str(caught.value)


async def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"missing\.tar"):
        await contents(f"tarball:{tmp_path}/missing.tar")
    with pytest.raises(SourceError, match="is a directory"):
        await contents(f"tarball:{tmp_path}")


async def test_images_of_singularity_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="squashfs") as caught:
        await contents(f"sif:{tmp_path}/x.sif")
    assert caught.value.hint == f"make a layout of it, by skopeo copy sif:{tmp_path}/x.sif oci:DIRECTORY, and name that"
