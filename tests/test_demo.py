"""The demo image, and the registry that serves it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from asyncpull.demo.image import REPOSITORY, TAG, ServedImage, demo_image
from asyncpull.demo.registry import DemoRegistry
from asyncpull.spec.manifest import ImageConfig, Index, Manifest, parse_document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IMAGE = demo_image()


def test_the_image_is_the_same_every_time() -> None:
    assert demo_image() == IMAGE


def test_every_digest_is_right() -> None:
    for digest, data in IMAGE.blobs.items():
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    for digest, document in IMAGE.documents.items():
        assert digest == "sha256:" + hashlib.sha256(document.raw).hexdigest()


def test_every_instance_is_whole() -> None:
    index = parse_document(IMAGE.tags[TAG].raw)
    assert isinstance(index, Index)
    assert {str(entry.platform) for entry in index.manifests} >= {"linux/amd64", "linux/arm64/v8", "linux/riscv64"}
    for entry in index.manifests:
        manifest = parse_document(IMAGE.documents[str(entry.digest)].raw)
        assert isinstance(manifest, Manifest)
        config = ImageConfig.from_bytes(IMAGE.blobs[str(manifest.config.digest)])
        assert config.platform == entry.platform
        assert len(config.diff_ids) == len(manifest.layers) == 5
        assert all(len(IMAGE.blobs[str(layer.digest)]) == layer.size for layer in manifest.layers)


def test_it_has_one_of_everything_and_a_single_owner() -> None:
    plain = [data for data in IMAGE.blobs.values() if not data.startswith(b"{")]
    members = [member for data in plain if not data.startswith(b"\x28\xb5\x2f\xfd") for member in _members(data)]
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    names = {member.name for member in members}
    assert any(name.endswith("/.wh..wh..opq") for name in names)
    assert any("/.wh.old" in name for name in names)
    assert any(member.islnk() for member in members)
    assert any(member.mode & 0o4000 for member in members)
    assert any("SCHILY.xattr.user.asyncpull.demo" in member.pax_headers for member in members)
    assert "srv/application/state/seed" in names
    assert "srv" not in names  # implied


def _members(blob: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        return tar.getmembers()


# ------------------------------------------------------------------------------------------- the registry

SMALL = ServedImage("a/b", {}, {}, {"sha256:" + hashlib.sha256(b"0123456789").hexdigest(): b"0123456789"})
BLOB = f"a/b/blobs/{next(iter(SMALL.blobs))}"


@pytest_asyncio.fixture
async def asked() -> AsyncIterator[Any]:
    """Ask the registry: ``await asked(path, **headers)`` is status, headers, body."""
    async with DemoRegistry([IMAGE, SMALL]) as registry, aiohttp.ClientSession(auto_decompress=False) as session:

        async def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
            url = f"http://{registry.domain}/v2/{path}"
            async with session.request(method, url, headers=headers) as response:
                return response.status, response.headers, await response.read()

        yield ask


async def test_the_base_says_which_api_it_is(asked: Any) -> None:
    status, headers, _ = await asked("")
    assert (status, headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")


async def test_manifests_by_tag_and_by_digest(asked: Any) -> None:
    index = IMAGE.tags[TAG]
    for name in (TAG, str(index.digest)):
        status, headers, body = await asked(f"{REPOSITORY}/manifests/{name}")
        assert (status, body) == (200, index.raw)
        assert (headers["Content-Type"], headers["Docker-Content-Digest"]) == (index.media_type, str(index.digest))
    status, headers, body = await asked(f"{REPOSITORY}/manifests/{TAG}", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(index.raw)), b"")


@pytest.mark.parametrize(
    ("wanted", "status", "body", "content_range"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=7-99", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=5-3", 200, b"0123456789", None),
    ],
)
async def test_ranges(asked: Any, wanted: str | None, status: int, body: bytes, content_range: str | None) -> None:
    answer = await asked(BLOB, **({"Range": wanted} if wanted else {}))
    assert (answer[0], answer[2], answer[1].get("Content-Range")) == (status, body, content_range)


async def test_who_goes_away_early_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    large = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
    async with DemoRegistry([IMAGE], bytes_per_second=100_000_000) as registry:
        url = f"http://{registry.domain}/v2/"
        async with aiohttp.ClientSession() as leaving, leaving.get(f"{url}{REPOSITORY}/blobs/{large}") as response:
            assert await response.content.readany()
        async with aiohttp.ClientSession() as other, other.get(url) as response:
            assert response.status == 200
    assert not caplog.records


async def test_a_blob_by_head(asked: Any) -> None:
    status, headers, body = await asked(BLOB, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "10", b"")


async def test_tags(asked: Any) -> None:
    _, _, body = await asked(f"{REPOSITORY}/tags/list")
    assert json.loads(body) == {"name": REPOSITORY, "tags": [TAG]}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("no/such/tags/list", "NAME_UNKNOWN"),
        ("no/such/manifests/latest", "NAME_UNKNOWN"),
        (f"{REPOSITORY}/manifests/other", "MANIFEST_UNKNOWN"),
        (f"a/b/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        (f"no/such/blobs/{BLOB[-71:]}", "BLOB_UNKNOWN"),
    ],
)
async def test_errors_have_the_specified_form(asked: Any, path: str, code: str) -> None:
    status, _, body = await asked(path)
    assert (status, json.loads(body)["errors"][0]["code"]) == (404, code)


async def test_nothing_can_be_written(asked: Any) -> None:
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        assert (await asked(BLOB, method))[0] == 405
