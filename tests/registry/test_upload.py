"""Uploads to a registry that may do anything: what arrives is the blob, or nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    AuthenticationError,
    DigestMismatchError,
    NotFoundError,
    SizeMismatchError,
    StoreError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.http import HttpTimeouts
from asyncpull.registry.upload import PIECE, SMALLEST_PIECE
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from tests.support.contents import HeldContent
from tests.support.docker_registry import docker_registry, is_installed
from tests.support.images import noise
from tests.support.pushes import client_of, in_registry
from tests.support.registry_faults import drop, error, header, redirect, status
from tests.support.registry_simulator import Basic, Bearer, RegistrySimulator
from tests.support.registry_uploads import Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.registry.client import RegistryClient
    from tests.support.registry_simulator import Request

DATA = noise(1, 300_000)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with client_of(tmp_path) as made:
        yield made


async def put(client: RegistryClient, registry: RegistrySimulator, content: HeldContent | None = None) -> HeldContent:
    content = content or HeldContent(DATA)
    repository = await client.repository(in_registry(registry))
    await repository.put_blob(BLOB, content)
    return content


def said(registry: RegistrySimulator) -> list[str]:
    """The requests about uploads, as ``PUT 200000-`` with the range that they had, or the length of their body."""
    return [f"{each.method} {_part(each)}".strip() for each in registry.requests if "/blobs/" in each.target]


def _part(request: Request) -> str:
    length = request.headers.get("content-length", "0")
    return request.headers.get("content-range", length if length != "0" else "")


def assert_nothing_is_left(registry: RegistrySimulator) -> None:
    assert registry.blob(str(BLOB.digest)) is None
    assert registry.uploads.open == {}


async def test_a_blob_goes_in_one_request_that_is_not_kept_in_memory(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    content = await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA
    assert said(registry) == ["POST", "PUT 300000"]
    assert (content.reads, registry.uploads.open) == (1, {})
    assert registry.requests[-1].headers["content-type"] == "application/octet-stream"
    assert registry.requests[-1].headers["content-length"] == "300000"


async def test_the_source_is_asked_for_no_more_than_the_registry_takes(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    """The registry reads nothing: what waits for it is what the sockets hold."""
    data = bytes(64 << 20)
    content = _Counted(data)
    registry.stall_bodies = asyncio.Event()
    repository = await client.repository(in_registry(registry))
    descriptor = Descriptor("", Digest.of(data), len(data))
    putting = asyncio.create_task(repository.put_blob(descriptor, content))
    await registry.body_came.wait()
    before = -1
    while before != content.given or content.given == 0:  # until nothing moves any more
        before = content.given
        await asyncio.sleep(0.2)
    assert 0 < content.given < len(data) // 2
    registry.stall_bodies.set()
    await putting
    assert registry.blob(str(descriptor.digest)) == data


class _Counted(HeldContent):
    """How many bytes were taken so far."""

    given = 0

    async def chunks(self, offset: int = 0) -> AsyncIterator[bytes]:
        async for chunk in super().chunks(offset):
            self.given += len(chunk)
            yield chunk


@pytest.mark.parametrize("kept", [None, 100_000, 1, 0])
async def test_a_lost_connection_costs_what_had_not_arrived(
    registry: RegistrySimulator, client: RegistryClient, kept: int | None
) -> None:
    registry.break_body("PUT", 200_000, kept=kept)
    await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA
    arrived = 200_000 if kept is None else kept
    if arrived > 1:
        assert said(registry) == ["POST", "PUT 300000", "GET", f"PATCH {arrived}-299999", "PUT"]
    else:
        # 0-0 is said of one byte and of none.
        expected = ["POST", "PUT 300000", "GET", "DELETE", "HEAD", "POST", "PATCH 0-299999", "PUT"]
        assert said(registry) == expected


async def test_connections_that_break_again_and_again_are_no_failure_while_more_arrives(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    data = noise(2, 2_000_000)
    for number in range(12):
        registry.break_body("PUT" if number == 0 else "PATCH", 150_000)
    repository = await client.repository(in_registry(registry))
    descriptor = Descriptor("", Digest.of(data), len(data))
    await repository.put_blob(descriptor, HeldContent(data))
    assert registry.blob(str(descriptor.digest)) == data
    assert registry.uploads.begun == 1


async def test_connections_that_break_at_the_same_byte_are_one(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    for number in range(20):
        registry.break_body("PUT" if number == 0 else "PATCH", 1000, kept=0)
    with pytest.raises(UnavailableError, match="lost"):
        await put(client, registry)
    assert_nothing_is_left(registry)


async def test_an_answer_that_was_lost_is_found_out(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.on("digest=", drop, method="PUT")
    await put(client, registry)
    assert said(registry) == ["POST", "PUT 300000", "GET", "HEAD"]


@pytest.mark.parametrize(
    "fault", [status(502), status(429, Retry_After="0"), error(500, "UNKNOWN", "out of order"), drop]
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_registry_that_is_out_of_order_for_a_moment_is_asked_again(
    registry: RegistrySimulator, client: RegistryClient, method: str, fault: object
) -> None:
    registry.break_body("PUT", 200_000)
    registry.on("/blobs/uploads/", fault, method=method)  # type: ignore[arg-type]
    await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA


async def test_a_registry_that_cannot_say_what_arrived_gets_everything_again(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.break_body("PUT", 200_000)
    registry.on("/blobs/uploads/", status(405), method="GET")
    await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA
    assert registry.uploads.begun == 2
    assert registry.uploads.open == {}


async def test_pieces_are_as_large_as_the_registry_wants_them(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    data = noise(3, 1_000_000)
    registry.uploads.body_limit = 600_000
    registry.uploads.least = 500_000
    repository = await client.repository(in_registry(registry))
    descriptor = Descriptor("", Digest.of(data), len(data))
    await repository.put_blob(descriptor, HeldContent(data))
    assert registry.blob(str(descriptor.digest)) == data
    assert said(registry)[-3:] == ["PATCH 0-499999", "PATCH 500000-999999", "PUT"]
    assert (PIECE, SMALLEST_PIECE) == (16 << 20, 64 << 10)


async def test_a_limit_that_nothing_fits_is_said(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.uploads.body_limit = 1000
    with pytest.raises(UnavailableError, match="413"):
        await put(client, registry)
    assert_nothing_is_left(registry)


async def test_a_part_of_a_piece_that_was_lost_is_sent_again(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.break_body("PUT", 100_000)
    registry.uploads.lose = [50_000, 10_000]
    await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA
    assert said(registry)[3:] == ["PATCH 100000-299999", "PATCH 250000-299999", "PATCH 290000-299999", "PUT"]


@pytest.mark.parametrize("shown", ["", "0-0", "bytes=0-0"])
async def test_a_registry_that_does_not_say_what_arrived_is_believed(
    registry: RegistrySimulator, client: RegistryClient, shown: str
) -> None:
    registry.uploads.shows_range = shown
    registry.uploads.body_limit = 200_000
    registry.uploads.least = 100_000
    await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA


@pytest.mark.parametrize("shown", ["0-999999999", "0-7"])
async def test_a_registry_that_makes_up_what_arrived_does_not_get_a_wrong_blob(
    registry: RegistrySimulator, client: RegistryClient, shown: str
) -> None:
    registry.uploads.shows_range = shown
    registry.break_body("PUT", 100_000)
    with pytest.raises(UnavailableError):
        await put(client, registry)
    assert_nothing_is_left(registry)


async def test_pieces_out_of_order_are_asked_about(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.break_body("PUT", 100_000)
    registry.on("/blobs/uploads/", error(416, "BLOB_UPLOAD_INVALID", "out of order"), method="PATCH")
    await put(client, registry)
    assert registry.blob(str(BLOB.digest)) == DATA


async def test_a_digest_that_is_refused_once_is_sent_again(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.uploads.damages = 1
    await put(client, registry)
    assert registry.uploads.begun == 2
    assert registry.blob(str(BLOB.digest)) == DATA


async def test_a_registry_that_damages_everything_has_nothing_in_the_end(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.uploads.damages = 100
    with pytest.raises(UnavailableError, match="DIGEST_INVALID"):
        await put(client, registry)
    assert_nothing_is_left(registry)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(200), "200 where 201 is due"),
        (header("Docker-Content-Digest", str(Digest.of(b"other"))), "expected"),
        (error(400, "NAME_INVALID", "no such name"), "no such name"),
        (error(403, "DENIED", "over quota"), "over quota"),
    ],
)
async def test_what_a_registry_does_not_want_is_no_success(
    registry: RegistrySimulator, client: RegistryClient, fault: object, message: str
) -> None:
    registry.on("digest=", fault, method="PUT")  # type: ignore[arg-type]
    with pytest.raises((UnavailableError, DigestMismatchError, AuthenticationError), match=message):
        await put(client, registry)


async def test_a_repository_that_must_be_made_first_is_said_at_once(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.on("/blobs/uploads/", error(404, "NAME_UNKNOWN", "make it first"), method="POST", times=None)
    with pytest.raises(NotFoundError, match="make it first"):
        await put(client, registry)
    assert said(registry) == ["POST"]


@pytest.mark.parametrize("fails_at", [0, 150_000, 299_999, 10**9])
async def test_an_error_of_the_content_is_raised_and_the_upload_taken_back(
    registry: RegistrySimulator, client: RegistryClient, fails_at: int
) -> None:
    trouble = StoreError("the disk is gone")
    with pytest.raises(StoreError) as caught:
        await put(client, registry, HeldContent(DATA, fails_at=fails_at, error=trouble))
    assert caught.value is trouble
    assert_nothing_is_left(registry)


async def test_a_source_that_fails_is_not_the_registry_s_fault(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    trouble = TemporaryError("the mirror stalls")
    with pytest.raises(TemporaryError) as caught:
        await put(client, registry, HeldContent(DATA, fails_at=100_000, error=trouble))
    assert caught.value is trouble
    assert registry.uploads.begun == 1


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 0])
async def test_a_content_of_another_size_is_refused(
    registry: RegistrySimulator, client: RegistryClient, size: int
) -> None:
    with pytest.raises(SizeMismatchError):
        await put(client, registry, HeldContent((DATA + b"x")[:size]))
    assert_nothing_is_left(registry)


async def test_a_cancelled_upload_is_taken_back(registry: RegistrySimulator, client: RegistryClient) -> None:
    content = HeldContent(DATA, stops_at=150_000)
    putting = asyncio.create_task(put(client, registry, content))
    await content.stopped.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert_nothing_is_left(registry)


async def test_a_registry_that_does_not_hear_goodbye_keeps_nobody(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.on("/blobs/uploads/", error(401, "UNAUTHORIZED", "no"), method="DELETE", times=None)
    with pytest.raises(StoreError):
        await put(client, registry, HeldContent(DATA, fails_at=0, error=StoreError("the disk is gone")))


async def test_a_slow_content_is_waited_for_however_short_the_limits_are(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    class Slow(HeldContent):
        async def chunks(self, offset: int = 0) -> AsyncIterator[bytes]:
            async for chunk in super().chunks(offset):
                await asyncio.sleep(1.5 if offset == 0 and not self.waited else 0)
                self.waited = True
                yield chunk

        waited = False

    async with client_of(tmp_path, timeouts=HttpTimeouts(connect=5, headers=1, idle=1, verdict=5)) as client:
        await put(client, registry, Slow(DATA))
    assert registry.blob(str(BLOB.digest)) == DATA
    assert said(registry) == ["POST", "PUT 300000"]


async def test_a_registry_that_never_answers_is_given_up(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.on("digest=", _silence, method="PUT", times=None)
    async with client_of(tmp_path, timeouts=HttpTimeouts(connect=5, headers=5, idle=5, verdict=1)) as client:
        await put(client, registry)  # the answer was lost, and the blob is there


def _silence(reply: object) -> None:
    reply.stop_in_head, reply.then = True, "stall"  # type: ignore[attr-defined]


# Where uploads go


async def test_an_upload_elsewhere_gets_the_bytes_and_no_credentials(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    async with RegistrySimulator() as storage, client_of(tmp_path) as client:
        registry.protection = Bearer(scope="repository:a/b:pull,push")
        registry.uploads.elsewhere = storage.url
        storage.uploads.open["1"] = registry_upload()
        await put(client, registry)
        assert storage.blob(str(BLOB.digest)) == DATA
        [request] = storage.requests
        assert "authorization" not in request.headers
        assert "authorization" in registry.requests[-1].headers


def registry_upload() -> Upload:
    return Upload(state=1)


@pytest.mark.parametrize("code", [307, 308])
async def test_a_body_follows_a_redirect_without_credentials(
    registry: RegistrySimulator, tmp_path: Path, code: int
) -> None:
    async with RegistrySimulator() as storage, client_of(tmp_path) as client:
        registry.protection = Basic("me", "secret")
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(
            f'{{"auths": {{"{registry.address}": {{"auth": "bWU6c2VjcmV0"}}}}}}'
        )
        storage.uploads.open["7"] = registry_upload()
        target = f"{storage.url}/v2/x/blobs/uploads/7?state=1&digest={BLOB.digest}"
        registry.on("digest=", redirect(target, code), method="PUT")
        await put(client, registry)
        assert storage.blob(str(BLOB.digest)) == DATA
        assert [request.headers.get("authorization") for request in storage.requests] == [None]


async def test_a_key_that_has_expired_is_renewed_before_the_body_is_sent(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    registry.protection = Bearer(scope="repository:a/b:pull,push")
    async with client_of(tmp_path) as client:
        repository = await client.repository(in_registry(registry))
        await repository.has_blob(BLOB)
        registry.break_body("PUT", 100_000)
        registry.on("/blobs/uploads/", _Expiring(client), method="GET")
        await repository.put_blob(BLOB, HeldContent(DATA))
    assert registry.blob(str(BLOB.digest)) == DATA
    refused = [request for request in registry.requests if request.status == 401]
    assert [len(request.body) for request in refused] == [0] * len(refused)


class _Expiring:
    """The key expires after the next answer: nobody waits for the clock here."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def __call__(self, reply: object) -> None:
        for door in self._client._requests._doors.values():
            door._expires = 0.0


# The real one


@pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")
async def test_docker_registry_takes_blobs_of_every_size(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as running:
        async with client_of(tmp_path) as client:
            repository = await client.repository(parse_reference(f"{running.address}/a/b:t"))
            for size, algorithm in ((0, "sha256"), (1, "sha256"), (5_000_000, "sha256"), (1000, "sha512")):
                data = noise(size, size)
                blob = Descriptor("", Digest.of(data, algorithm), size)
                assert not await repository.has_blob(blob)
                await repository.put_blob(blob, HeldContent(data, digest=blob.digest, piece=100_000))
                assert await repository.has_blob(blob)
                await repository.put_blob(blob, HeldContent(data, digest=blob.digest, piece=100_000))
            wrong = Descriptor("", Digest.of(b"wrong"), 5)
            with pytest.raises(DigestMismatchError):
                await repository.put_blob(wrong, HeldContent(b"other", digest=wrong.digest))
            assert not await repository.has_blob(wrong)
