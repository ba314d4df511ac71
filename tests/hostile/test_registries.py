"""Registries that mean harm, and what a pull from one comes to: an error that says so, and the store as it was."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.cli.exit_codes import exit_code_of
from asyncpull.errors import (
    AsyncpullError,
    AuthenticationError,
    DocumentError,
    DocumentTooLargeError,
    NoSpaceError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.http import HttpClient, HttpTimeouts
from asyncpull.pull import Puller
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.spec.reference import parse_reference
from asyncpull.store.store import Store
from asyncpull.trust.policyfile import TrustOptions
from tests.support.command import PROJECT
from tests.support.hostile_layers import BASE
from tests.support.hostile_pulls import differences, store_of
from tests.support.images import OCI_INDEX, OCI_MANIFEST, Image, image, noise, sha256
from tests.support.registry_faults import chunked, cut, header, redirect, replaced, status
from tests.support.registry_simulator import Basic, Bearer, RegistrySimulator
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from asyncpull.plan import PulledImage
    from tests.support.registry_faults import Fault

pytestmark = pytest.mark.root

MIB = 1 << 20
ME = Basic("me", "secret")


def target() -> Image:
    return image([BASE, tar([file("noise", noise(3, 400_000))])])


class Victim:
    """A store with an image in it, and somebody who pulls into it."""

    def __init__(self, store: Store, root: Path, puller: Puller) -> None:
        self.store, self._root, self._puller = store, root, puller

    async def pull(self, reference: str) -> PulledImage:
        return await self._puller.pull(reference)

    async def fails(self, reference: str) -> AsyncpullError:
        """Pull in vain: the store is what it was. The message is fit for a terminal."""
        before = store_of(self._root)
        with pytest.raises(AsyncpullError) as caught:
            await self._puller.pull(reference)
        assert differences(before, store_of(self._root)) == []
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
        assert "secret" not in str(caught.value)
        return caught.value


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def other() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def victim(tmp_path: Path, registry: RegistrySimulator) -> AsyncIterator[Victim]:
    root, logins = tmp_path / "store", tmp_path / "auth.json"
    login = {"auth": base64.b64encode(b"me:secret").decode()}
    logins.write_text(json.dumps({"auths": {registry.address: login}}))
    access = RegistryAccess(tls_verify=False, authfile=logins)
    patience, trust = RetryPolicy(attempts=2, first_seconds=0.01), TrustOptions(accepts_anything=True)
    async with (
        Store.open(root=root, run_root=tmp_path / "run") as store,
        Puller(store, access=access, retry=patience, trust=trust) as puller,
    ):
        await puller.pull(registry.add_image("good/image", "1", image([BASE])))
        yield Victim(store, root, puller)


def changed(**changes: object) -> bytes:
    """The manifest of the target with something else in it."""
    return json.dumps(json.loads(target().manifest.data) | changes).encode()


def offer(registry: RegistrySimulator, manifest: bytes, media_type: str = OCI_MANIFEST) -> str:
    registry.add_image("bad/image", "good", target())
    registry.add_manifest("bad/image", "1", manifest, media_type)
    return f"{registry.address}/bad/image:1"


# Credentials


@pytest.mark.parametrize("part", ["/manifests/1", "/blobs/"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_credentials_do_not_follow_a_redirect(
    victim: Victim, registry: RegistrySimulator, other: RegistrySimulator, part: str, host: str
) -> None:
    """CVE-2018-1000007, CVE-2022-27776, CVE-2023-32681: neither to another host nor to another port."""
    reference = registry.add_image("bad/image", "1", target())
    other.add_image("bad/image", "1", target())
    registry.protection = ME
    elsewhere = f"http://{other.address.replace('127.0.0.1', host)}"

    def away(reply: object) -> None:
        path = registry.requests[-1].target
        redirect(f"{elsewhere}{path}")(reply)  # type: ignore[arg-type]

    registry.on(part, away, times=None)
    await victim.pull(reference)
    assert any("authorization" in request.headers for request in registry.requests)
    assert other.requests
    assert all("authorization" not in request.headers for request in other.requests)


async def test_credentials_do_not_go_to_the_realm_of_somebody_else(
    victim: Victim, registry: RegistrySimulator, other: RegistrySimulator
) -> None:
    """CVE-2020-15157 and its like: whoever answers for a registry may name any token server."""
    reference = registry.add_image("bad/image", "1", target())
    realm = f"http://{other.address.replace('127.0.0.1', 'localhost')}/token"
    registry.protection = Bearer(realm=realm, scope="repository:bad/image:pull")
    error = await victim.fails(reference)
    assert isinstance(error, AuthenticationError)
    assert other.asked("/token")
    assert all("authorization" not in request.headers for request in other.requests)


async def test_a_realm_must_not_be_a_file(victim: Victim, registry: RegistrySimulator) -> None:
    reference = registry.add_image("bad/image", "1", target())
    registry.protection = Bearer(realm="file:///etc/passwd")
    assert isinstance(await victim.fails(reference), AuthenticationError)


# Bodies without end


@pytest.mark.parametrize("framing", [(), (chunked,)], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [5 * MIB, 40 * MIB])
async def test_a_manifest_without_end(
    victim: Victim, registry: RegistrySimulator, framing: tuple[Fault, ...], size: int
) -> None:
    """CVE-2022-23471, CVE-2023-25153: no more is read than a manifest may have."""
    reference = registry.add_image("bad/image", "1", target())
    registry.on("/manifests/", replaced(b" " * size), *framing, times=None)
    assert isinstance(await victim.fails(reference), DocumentTooLargeError)
    assert registry.sent("/manifests/1") < 12 * MIB


async def test_a_config_without_end(victim: Victim, registry: RegistrySimulator) -> None:
    reference = registry.add_image("bad/image", "1", target())
    registry.on(target().config.digest, replaced(b" " * 40 * MIB), chunked, times=None)
    assert exit_code_of(await victim.fails(reference)) == 65
    assert registry.sent(target().config.digest) < 20 * MIB


async def test_a_token_without_end(victim: Victim, registry: RegistrySimulator) -> None:
    reference = registry.add_image("bad/image", "1", target())
    registry.protection = Bearer()
    registry.on("/token", replaced(b'{"token":"' + b"x" * 30 * MIB), chunked, times=None)
    assert isinstance(await victim.fails(reference), DocumentTooLargeError)
    assert registry.sent("/token") < 10 * MIB


async def test_an_error_without_end(victim: Victim, registry: RegistrySimulator) -> None:
    body = json.dumps({"errors": [{"code": "X", "message": "\x1b[31m" + "x" * 30 * MIB}]}).encode()
    registry.on("/manifests/", status(400, body), chunked, times=None)
    assert isinstance(await victim.fails(f"{registry.address}/bad/image:1"), UnavailableError)
    assert registry.sent("/manifests/") < 20 * MIB


async def test_a_layer_without_end(victim: Victim, registry: RegistrySimulator) -> None:
    reference = registry.add_image("bad/image", "1", target())
    registry.on(target().layers[1].digest, replaced(noise(1, 30 * MIB)), chunked, times=None)
    assert exit_code_of(await victim.fails(reference)) == 65
    assert registry.sent(target().layers[1].digest) < 20 * MIB


# Numbers and names that are believed


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "../" * 21 + "x",
        "../../x:" + "a" * 64,
        "sha256:" + "A" * 64,
        "md5:x",
    ],
)
@pytest.mark.parametrize("which", ["config", "layers"])
async def test_a_digest_that_is_a_path(victim: Victim, registry: RegistrySimulator, digest: str, which: str) -> None:
    """CVE-2014-9358, CVE-2024-3727, CVE-2021-41190: digests become names of files."""
    document = json.loads(target().manifest.data)
    (document["layers"][0] if which == "layers" else document["config"])["digest"] = digest
    assert isinstance(await victim.fails(offer(registry, json.dumps(document).encode())), DocumentError)


async def test_a_diff_id_that_is_a_path(victim: Victim, registry: RegistrySimulator) -> None:
    lying = image([BASE], diff_ids=["sha256:../../../../../../etc"])
    assert isinstance(await victim.fails(registry.add_image("bad/image", "1", lying)), DocumentError)


async def test_a_content_digest_that_is_a_path_means_nothing(victim: Victim, registry: RegistrySimulator) -> None:
    reference = registry.add_image("bad/image", "1", target())
    registry.on("/manifests/1", header("Docker-Content-Digest", "sha256:../../../x"), times=None, method="*")
    await victim.pull(reference)


@pytest.mark.parametrize("name", ["1", "digest"])
async def test_a_content_digest_that_lies(victim: Victim, registry: RegistrySimulator, name: str) -> None:
    reference = registry.add_image("bad/image", "1", target())
    registry.on("/manifests/", header("Docker-Content-Digest", sha256(b"another")), times=None, method="*")
    if name == "digest":
        reference = f"{registry.address}/bad/image@{target().manifest.digest}"
    assert exit_code_of(await victim.fails(reference)) == 65


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64, -1, 1e300, "5", None])
@pytest.mark.parametrize("which", ["config", "layers"])
async def test_a_size_that_nobody_has(victim: Victim, registry: RegistrySimulator, size: object, which: str) -> None:
    """Sizes are neither allocated nor reserved before they are held against what there is."""
    document = json.loads(target().manifest.data)
    (document["layers"][1] if which == "layers" else document["config"])["size"] = size
    error = await victim.fails(offer(registry, json.dumps(document).encode()))
    assert isinstance(error, NoSpaceError | DocumentError)
    assert registry.sent(target().layers[1].digest) == 0


@pytest.mark.parametrize("part", ["/manifests/", "config", "layer"])
async def test_a_content_length_that_nobody_has(victim: Victim, registry: RegistrySimulator, part: str) -> None:
    reference = registry.add_image("bad/image", "1", target())
    names = {"config": target().config.digest, "layer": target().layers[1].digest}
    registry.on(names.get(part, part), header("Content-Length", str(1 << 60)), times=None)
    assert exit_code_of(await victim.fails(reference)) == 65


# Documents that are bombs, or two at once


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 1_000_000,
        b'{"config":' * 300_000,
        b'{"layers":[' + b"{}," * 1_000_000 + b"{}]}",
        b'{"schemaVersion":' + b"9" * 1_000_000 + b"}",
        b'{"schemaVersion":1e999999}',
        b'{"schemaVersion":NaN}',
        b'{"schemaVersion":2,"config":"\\ud800"}',
        b"\xff\xfe{}",
        b"",
    ],
    ids=["arrays", "objects", "many objects", "digits", "exponent", "not a number", "surrogate", "utf-16", "nothing"],
)
@pytest.mark.parametrize("place", ["manifest", "config", "token"])
async def test_a_bomb_of_json(victim: Victim, registry: RegistrySimulator, bomb: bytes, place: str) -> None:
    if place == "manifest":
        reference = offer(registry, bomb)
    elif place == "config":
        made = target()
        config = replace(made.config, data=bomb)
        document = json.loads(made.manifest.data) | {"config": config.descriptor()}
        manifest = replace(made.manifest, data=json.dumps(document).encode())
        reference = registry.add_image("bad/image", "1", replace(made, config=config, manifest=manifest))
    else:
        reference = registry.add_image("bad/image", "1", target())
        registry.protection = Bearer()
        registry.on("/token", replaced(bomb[: MIB - 1]), times=None)
    assert exit_code_of(await victim.fails(reference)) == 65


async def test_a_document_that_is_a_manifest_and_an_index(victim: Victim, registry: RegistrySimulator) -> None:
    """CVE-2021-41190: what one takes for an image and another for an index is nobody's."""
    confused = changed(manifests=[target().manifest.descriptor(platform={"os": "linux", "architecture": "amd64"})])
    for media_type in (OCI_MANIFEST, OCI_INDEX):
        assert isinstance(await victim.fails(offer(registry, confused, media_type)), DocumentError)


@pytest.mark.parametrize("media_type", [OCI_INDEX, "application/json", "text/html"])
async def test_a_media_type_that_is_not_the_documents(
    victim: Victim, registry: RegistrySimulator, media_type: str
) -> None:
    """The header may not turn a manifest into something else: it is refused, or read for what it says that it is."""
    reference = offer(registry, target().manifest.data, media_type)
    if media_type == OCI_INDEX:
        assert isinstance(await victim.fails(reference), DocumentError)
    else:
        assert (await victim.pull(reference)).id == target().id


async def test_keys_that_come_twice(victim: Victim, registry: RegistrySimulator) -> None:
    """The last one counts, as for Go's readers, so nobody judges another image than is pulled."""
    good = target().manifest.data.decode()
    twice = '{"config":{"digest":"sha256:' + "0" * 64 + '","size":2,"mediaType":"x"},' + good[1:]
    assert (await victim.pull(offer(registry, twice.encode()))).id == target().id


async def test_indexes_in_indexes_without_end(victim: Victim, registry: RegistrySimulator) -> None:
    """CVE-2026-53493: an index may list an index, but somewhere there has to be an image."""
    inner, media_type = target().manifest.data, OCI_MANIFEST
    registry.add_image("bad/image", "good", target())
    for number in range(200):
        digest = registry.add_manifest("bad/image", f"n{number}", inner, media_type)
        entry = {"mediaType": media_type, "digest": digest, "size": len(inner)}
        inner = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry, entry]}).encode()
        media_type = OCI_INDEX
    reference = offer(registry, inner, OCI_INDEX)
    assert exit_code_of(await victim.fails(reference)) in (2, 65)
    assert len(registry.asked("/manifests/")) < 50


# Pages


def tags_of(registry: RegistrySimulator, retry: RetryPolicy | None = None) -> Awaitable[tuple[str, ...]]:
    async def ask() -> tuple[str, ...]:
        async with RegistryClient(RegistryAccess(tls_verify=False), retry=retry or RetryPolicy(attempts=1)) as client:
            return await client.tags(parse_reference(f"{registry.address}/a/b"))

    return ask()


def paged(location: Callable[[int], str]) -> Fault:
    number = 0

    def change(reply: object) -> None:
        nonlocal number
        number += 1
        header("Link", f'<{location(number)}>; rel="next"')(reply)  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize(
    "location",
    [
        lambda number: f"/v2/a/b/tags/list?n=1&last={number}",
        lambda number: "/v2/a/b/tags/list?again",
        lambda number: "http://127.0.0.1:1/v2/a/b/tags/list",
        lambda number: "//evil.example/v2/a/b/tags/list",
        lambda number: "file:///etc/passwd",
        lambda number: "http://[::1/v2/a/b/tags/list",
    ],
    ids=["endless", "circle", "another port", "another host", "a file", "nowhere"],
)
async def test_pages_without_end_or_elsewhere(registry: RegistrySimulator, location: Callable[[int], str]) -> None:
    registry.add_manifest("a/b", "1", b"{}", OCI_MANIFEST)
    registry.on("/tags/list", paged(location), times=None)
    with pytest.raises(UnavailableError):
        await tags_of(registry)
    assert len(registry.requests) < 2100


async def test_a_page_without_end(registry: RegistrySimulator) -> None:
    registry.add_manifest("a/b", "1", b"{}", OCI_MANIFEST)
    registry.on("/tags/list", replaced(b'{"tags":["' + b"x" * 40 * MIB), chunked, times=None)
    with pytest.raises(DocumentTooLargeError):
        await tags_of(registry)


async def test_a_page_of_objects(registry: RegistrySimulator) -> None:
    registry.add_manifest("a/b", "1", b"{}", OCI_MANIFEST)
    registry.on("/tags/list", replaced(b'{"tags":[' + b"{}," * 3_000_000 + b"{}]}"), times=None)
    with pytest.raises(DocumentError, match="objects and arrays"):
        await tags_of(registry)


# Ways to lead elsewhere


@pytest.mark.parametrize("part", ["/manifests/1", "config", "layer"])
async def test_a_body_that_is_compressed_on_the_way(victim: Victim, registry: RegistrySimulator, part: str) -> None:
    """A bomb by Content-Encoding never goes off: nothing is uncompressed by the client (CVE-2025-69223)."""
    reference = registry.add_image("bad/image", "1", target())
    names = {"config": target().config.digest, "layer": target().layers[1].digest}
    registry.on(names.get(part, part), header("Content-Encoding", "gzip"), times=None)
    assert exit_code_of(await victim.fails(reference)) == 69
    assert all(request.headers["accept-encoding"] == "identity" for request in registry.requests)


@pytest.mark.parametrize(
    "location",
    ["/v2/bad/image/manifests/1", "file:///etc/passwd", "gopher://127.0.0.1/x", "http://", "http://[::1", "//:0/x"],
)
async def test_redirects_in_a_circle_or_to_nowhere(victim: Victim, registry: RegistrySimulator, location: str) -> None:
    """CVE-2021-22947 and older: nothing but http and https is asked, and no more than ten times."""
    reference = registry.add_image("bad/image", "1", target())
    registry.on("/manifests/", redirect(location), times=None, method="*")
    assert exit_code_of(await victim.fails(reference)) == 69
    assert len(registry.asked("/manifests/")) <= 40


SENT_NEXT_DOOR = """
import asyncio
from asyncpull.errors import UnavailableError
from asyncpull.http import HttpClient

asked = []

async def main():
    async def serve(reader, writer):
        asked.append((await reader.readuntil(b"\\r\\n\\r\\n")).split(b" ")[1].decode())
        there = asked[-1].partition("?")[2]
        head = f"307 Elsewhere\\r\\nLocation: http://{there}" if there else "200 OK"
        writer.write(f"HTTP/1.1 {head}\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n".encode())
        writer.close()

    async with await asyncio.start_server(serve, "0.0.0.0", 8000), HttpClient() as client:
        for start in ("203.0.113.1", "127.0.0.1"):
            for there in ("127.0.0.1:8000/", "localhost:8000/", "0.0.0.0:8000/", "169.254.169.254:8000/",
                          "[::ffff:127.0.0.1]:8000/", "2130706433:8000/", "203.0.113.2:8000/"):
                asked.clear()
                try:
                    async with client.request("GET", f"http://{start}:8000/?{there}") as response:
                        print(start, there, response.status, len(asked))
                except UnavailableError as error:
                    print(start, there, "refused" if "at this machine" in str(error) else error, len(asked))

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip(8)")
def test_redirects_to_the_services_of_this_machine() -> None:
    """CVE-2026-33990 and other forgeries of requests: nobody out there has us ask what listens in here.

    containers/image and containerd follow such redirects. A registry that is in here itself may lead in here.
    """
    addresses = "".join(
        f"ip addr add {each}/32 dev lo && " for each in ("203.0.113.1", "203.0.113.2", "169.254.169.254")
    )
    script = f'ip link set lo up && {addresses} exec "$@"'
    command = ["unshare", "-n", "sh", "-c", script, "sh", sys.executable, "-c", SENT_NEXT_DOOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=PROJECT)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, elsewhere = [line.split() for line in done.stdout.splitlines() if line.startswith("203.0.113.1 ")]
    assert [line[2:] for line in lines] == [["refused", "1"]] * 6
    assert elsewhere[2:] == ["200", "2"]
    at_home = [line.split() for line in done.stdout.splitlines() if line.startswith("127.0.0.1 ")]
    assert [line[2:] for line in at_home if "2130706433" not in line[1]] == [["200", "2"]] * 6


# Time and space of an answer


@asynccontextmanager
async def dribbling(head: bytes, piece: bytes, pause: float) -> AsyncIterator[str]:
    """A server that answers everything with ``head`` and then a piece now and then, for ever; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v2/"


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("answer", [200, 500])
async def test_a_document_that_comes_byte_by_byte(answer: int) -> None:
    """Slow loris: each byte comes in time, the document never does."""
    head = PLAIN.replace(b"200", b"%d" % answer) + b"Content-Length: 1000000\r\n\r\n"
    async with (
        dribbling(head, b" ", 0.02) as url,
        HttpClient(HttpTimeouts(idle=0.3)) as client,
        client.request("GET", url) as response,
    ):
        if answer == 200:
            with pytest.raises(TemporaryError, match="bytes came in"):
                await response.read(MIB, "the document")
        else:
            assert set(await response.excerpt(MIB)) == {0x20}


@pytest.mark.parametrize("piece", [b"X-Y: z\r\n", b"X" * 1000], ids=["many headers", "a long one"])
async def test_headers_without_end(piece: bytes) -> None:
    async with dribbling(PLAIN, piece, 0.0) as url, HttpClient(HttpTimeouts(headers=20)) as client:
        with pytest.raises(UnavailableError, match="not HTTP"):
            async with client.request("GET", url):
                pass


# Ranges


async def test_a_range_that_holds_other_bytes(victim: Victim, registry: RegistrySimulator) -> None:
    """It says that it goes on where we were, and begins anew: that is found out, and the next pull believes no byte."""
    reference = registry.add_image("bad/image", "1", target())
    layer = target().layers[1]

    def from_the_beginning(reply: object) -> None:
        start = reply.range[0]  # type: ignore[attr-defined]
        reply.status, reply.range = 206, None  # type: ignore[attr-defined]
        reply.body = layer.data[: len(layer.data) - start]  # type: ignore[attr-defined]
        reply.headers["Content-Range"] = f"bytes {start}-{len(layer.data) - 1}/{len(layer.data)}"  # type: ignore[attr-defined]

    registry.on(layer.digest, cut(100_000))
    registry.on(layer.digest, from_the_beginning, skip=1)
    assert exit_code_of(await victim.fails(reference)) == 65
    await victim.pull(reference)
    assert (await victim.store.check()).is_clean


@pytest.mark.parametrize(
    "content_range", ["bytes 0-99/*", "bytes 5-1/400000", "bytes */*", "bytes 99999999999999999999-1/2", "nonsense"]
)
async def test_a_range_that_is_not_the_one_asked_for(
    victim: Victim, registry: RegistrySimulator, content_range: str
) -> None:
    reference = registry.add_image("bad/image", "1", target())
    digest = target().layers[1].digest
    registry.on(digest, cut(100_000))
    registry.on(digest, header("Content-Range", content_range), times=1, skip=1)
    await victim.pull(reference)
    assert (await victim.store.check()).is_clean
