"""Archives of images that were made to hurt: refused by every transport that reads them, with nothing written."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import tarfile
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpull.cli.exit_codes import REFUSED_CONTENT, exit_code_of
from asyncpull.copy import Copier
from asyncpull.errors import AsyncpullError, DocumentError
from asyncpull.memberindex import index_members, open_members
from tests.support import docker_archives, tars
from tests.support.images import Image, image, write_layout
from tests.support.tars import Entry, character_device, directory, fifo, file, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LAYER = tars.tar([file("a", b"A" * 5000)])


def target() -> Image:
    return image([LAYER], compression="none", flavour="docker")


def docker_members(_: Path) -> list[Entry]:
    return docker_archives.saved({"one:v1": target()})


def layout_members(place: Path) -> list[Entry]:
    write_layout(place / "layout", {"v1": target()})
    files = [path for path in sorted((place / "layout").rglob("*")) if path.is_file()]
    return [file(str(path.relative_to(place / "layout")), path.read_bytes()) for path in files]


TRANSPORTS = {"docker-archive": docker_members, "oci-archive": layout_members}


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def copied(transport: str, place: Path, data: bytes) -> AsyncpullError | None:
    """Copy the image of an archive; the error, after which there is nothing of a copy but what the next could use."""
    (place / "archive").write_bytes(data)
    before = sorted(place.rglob("*"))
    try:
        async with Copier() as copier:
            await copier.copy(f"{transport}:{place}/archive", f"dir:{place}/copy")
    except AsyncpullError as error:
        assert sorted(path for path in place.rglob("*") if not is_kept(path, place / "copy")) == before
        return error
    return None


def is_kept(path: Path, copy: Path) -> bool:
    """Whether a path is there for the next copy: a blob that was verified before another was refused, or leads to it.

    Which of the blobs of an image come first is nobody's promise.
    """
    kept = copy / ".asyncpull" / "kept"
    if path.parent == kept:
        return hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    return any(kept.glob("*")) and (path in {copy, kept.parent, kept, copy / "version"})


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
async def test_what_is_not_hostile_is_copied(
    transport: str, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    members = TRANSPORTS[transport](tmp_path)
    assert await copied(transport, tmp_path, compress(tars.tar([directory("./"), *members]))) is None
    assert (tmp_path / "copy" / "manifest.json").exists()


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "hostile",
    [
        [file("/etc/cron.d/x", b"x")],
        [file("../../x", b"x")],
        [file("blobs/../../x", b"x")],
        [symlink("blobs/sha256/" + "0" * 64, "/etc/passwd")],
        [symlink("x", "../../../etc/passwd")],
        [hard_link("x", "/etc/passwd")],
        [hard_link("x", "../x")],
        [symlink("x", "/"), file("x/etc/passwd", b"x")],
        [file("twice", b"first"), file("twice", b"second")],
        [file("twice", b"first"), file("./twice", b"second")],
        [character_device("x", 1, 3)],
        [fifo("x")],
        [file("x", b"x").with_(pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})],
        [file("x", b"x").with_(kind=tarfile.GNUTYPE_SPARSE)],
    ],
)
async def test_a_hostile_member_anywhere(
    transport: str, tmp_path: Path, hostile: list[Entry], compress: Callable[[bytes], bytes]
) -> None:
    members = TRANSPORTS[transport](tmp_path)
    for entries in ([*hostile, *members], [*members, *hostile]):
        error = await copied(transport, tmp_path, compress(tars.tar(entries)))
        assert isinstance(error, DocumentError)
        assert exit_code_of(error) == REFUSED_CONTENT
        assert f"{tmp_path}/archive" in str(error)


@pytest.mark.parametrize("replaced", range(3))
async def test_a_second_member_that_another_reader_would_take(transport: str, tmp_path: Path, replaced: int) -> None:
    members = TRANSPORTS[transport](tmp_path)
    double = members[replaced].with_(data=b"something else")
    for entries in ([double, *members], [*members, double]):
        error = await copied(transport, tmp_path, tars.tar(entries))
        assert isinstance(error, DocumentError)
        assert "two members" in str(error)


async def test_a_layer_that_is_not_what_the_image_says(transport: str, tmp_path: Path) -> None:
    members = [
        member.with_(data=LAYER[:-1] + b"x") if member.data == LAYER else member
        for member in TRANSPORTS[transport](tmp_path)
    ]
    error = await copied(transport, tmp_path, tars.tar(members))
    assert error is not None
    assert exit_code_of(error) == REFUSED_CONTENT


@pytest.mark.parametrize("end", [100, 700, 5000, 9000])
async def test_an_archive_that_is_cut_off(transport: str, tmp_path: Path, end: int) -> None:
    data = tars.tar(TRANSPORTS[transport](tmp_path))
    error = await copied(transport, tmp_path, data[:end])
    assert isinstance(error, DocumentError)


async def test_a_link_in_a_layout_is_refused_and_in_what_docker_saved_is_not(tmp_path: Path) -> None:
    """docker and podman write links that stay in the archive; nobody writes them into archives of layouts."""
    links = [symlink("x/y", "../one")]
    assert await copied("docker-archive", tmp_path, tars.tar([*docker_members(tmp_path), *links])) is None
    (tmp_path / "other").mkdir()
    members = layout_members(tmp_path / "other")
    assert isinstance(await copied("oci-archive", tmp_path / "other", tars.tar([*members, *links])), DocumentError)


_VALID = tars.tar(docker_archives.saved_with_links(image([LAYER, LAYER], compression="none")))


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(_VALID) - 1), st.binary(min_size=1, max_size=12)), max_size=4),
    end=st.integers(0, len(_VALID)),
    is_compressed=st.booleans(),
)
def test_whatever_is_done_to_an_archive(changes: Sequence[tuple[int, bytes]], end: int, is_compressed: bool) -> None:
    """It is read or refused; and what is read lies within the archive, under names that stay in it."""
    data = bytearray(_VALID)
    for at, change in changes:
        data[at : at + len(change)] = change
    with tempfile.NamedTemporaryFile() as archive:
        archive.write(gzip.compress(data[:end]) if is_compressed else data[:end])
        archive.flush()
        asyncio.run(_read_all(archive.name, end))


async def _read_all(path: str, size: int) -> None:
    try:
        async with open_members(path, follow_links=True) as members:
            for name, extent in members.files.items():
                assert not name.startswith(("/", "../"))
                assert 0 <= extent.offset <= extent.offset + extent.size <= size + 12
                assert len(extent.read()) == extent.size
            for name in members.links:
                assert members.has(name) in (True, False)
    except DocumentError as refusal:
        told = str(refusal)
    else:
        return
    assert path in told


def test_a_file_that_is_a_device_is_not_waited_for() -> None:
    """What never ends is not read for ever: the limit counts what was received."""

    async def read() -> None:
        async with open_members("/dev/zero", limit=1 << 20):
            pass

    with pytest.raises(DocumentError, match="more than 1048576 bytes"):
        asyncio.run(read())


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Sizes of base 256 and of PAX records may be larger than any file, or negative."""
    for records in ({"size": "9223372036854775807"}, {"size": "-1"}, {"size": "99999999999999999999"}):
        path = tmp_path / "archive"
        path.write_bytes(tars.tar([file("a", b"x").with_(pax=records)]))
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(DocumentError):
                index_members(str(path), fd)
        finally:
            os.close(fd)
