"""The client against a registry that may do anything, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    AuthenticationError,
    ConfigurationError,
    DigestMismatchError,
    DocumentError,
    DocumentTooLargeError,
    NotFoundError,
    SizeMismatchError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.http import HttpTimeouts
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.ratelimit import RateLimit
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, Descriptor
from asyncpull.spec.reference import Reference, parse_reference
from tests.support.docker_registry import PASSWORD, USER, docker_registry
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.images import OCI_MANIFEST, image, noise
from tests.support.registry_faults import (
    chunked,
    cut,
    drop,
    error,
    flip,
    header,
    hold,
    redirect,
    replaced,
    slow_head,
    stall,
    status,
    surplus,
    truncated,
    until_close,
    without_ranges,
)
from tests.support.registry_simulator import Basic, Bearer, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.spec.source import BlobResponse
    from tests.support.registry_faults import Fault, Reply

HASTY = RetryPolicy(attempts=3, first_seconds=0.0)
RAW = b'{"schemaVersion":2}'


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with make_client(tmp_path) as made:
        yield made


def make_client(
    home: Path,
    *,
    access: RegistryAccess | None = None,
    timeouts: HttpTimeouts | None = None,
    retry: RetryPolicy = HASTY,
) -> RegistryClient:
    """A client that trusts everybody, and knows no credentials but those below ``home``."""
    return RegistryClient(
        access or RegistryAccess(tls_verify=False),
        timeouts=timeouts or HttpTimeouts(connect=5, headers=5, idle=5),
        retry=retry,
        environ={"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")},
    )


def in_registry(registry: RegistrySimulator, tag: str = "t") -> Reference:
    return parse_reference(f"{registry.address}/a/b:{tag}")


def descriptor_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


async def body_of(response: BlobResponse) -> bytes:
    return b"".join([chunk async for chunk in response.chunks])


def write_credentials(home: Path, key: str, user: str, password: str) -> None:
    path = home / ".docker" / "config.json"
    path.parent.mkdir(exist_ok=True)
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {key: {"auth": encoded}}}))


# Documents


async def test_a_manifest_by_tag_is_returned_as_it_was_sent(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    document = await RegistrySource(client, in_registry(registry)).manifest()
    assert (document.raw, document.media_type, str(document.digest)) == (RAW, OCI_MANIFEST, digest)
    [request] = registry.asked("/manifests/")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["accept"].startswith("application/vnd.oci.image.index.v1+json, ")
    assert "docker.distribution.manifest.v2+json" in request.headers["accept"]


async def test_a_digest_wins_over_a_tag(registry: RegistrySimulator, client: RegistryClient) -> None:
    digest = registry.add_manifest("a/b", "old", RAW, OCI_MANIFEST)
    registry.add_manifest("a/b", "t", b"{}", OCI_MANIFEST)
    reference = parse_reference(f"{registry.address}/a/b:t@{digest}")
    assert (await RegistrySource(client, reference).manifest()).raw == RAW


@pytest.mark.parametrize("by_digest", [False, True])
async def test_a_manifest_that_was_changed_on_the_way_is_refused(
    registry: RegistrySimulator, client: RegistryClient, by_digest: bool
) -> None:
    digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", flip(3))
    reference = in_registry(registry)
    with pytest.raises(DigestMismatchError) as caught:
        await RegistrySource(client, reference.with_digest(Digest.parse(digest)) if by_digest else reference).manifest()
    assert caught.value.expected == digest


async def test_a_wrong_content_digest_header_is_refused(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", header("Docker-Content-Digest", str(Digest.of(b"something else"))))
    with pytest.raises(DigestMismatchError):
        await RegistrySource(client, in_registry(registry)).manifest()


@pytest.mark.parametrize("said", [None, "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense"])
async def test_a_content_digest_that_nobody_can_verify_is_none(
    registry: RegistrySimulator, client: RegistryClient, said: str | None
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", header("Docker-Content-Digest", said), times=None, method="*")
    assert (await RegistrySource(client, in_registry(registry)).manifest()).digest == Digest.of(RAW)
    assert await RegistrySource(client, in_registry(registry)).digest() == Digest.of(RAW)


@pytest.mark.parametrize("faults", [(), (chunked,), (until_close,)])
async def test_a_manifest_over_the_limit_is_refused_before_it_is_read(
    registry: RegistrySimulator, client: RegistryClient, faults: tuple[Fault, ...]
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", replaced(bytes(8 * MANIFEST_LIMIT)), header("Docker-Content-Digest", None), *faults)
    with pytest.raises(DocumentTooLargeError):
        await RegistrySource(client, in_registry(registry)).manifest()
    # What was sent before we left is what buffers on the way hold.
    assert registry.sent("/manifests/") < 7 * MANIFEST_LIMIT


async def test_an_encoded_body_is_refused(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", header("Content-Encoding", "gzip"))
    with pytest.raises(UnavailableError, match="Content-Encoding 'gzip'"):
        await RegistrySource(client, in_registry(registry)).manifest()


async def test_head_tells_a_digest_without_the_manifest(registry: RegistrySimulator, client: RegistryClient) -> None:
    digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    assert str(await RegistrySource(client, in_registry(registry)).digest()) == digest
    assert [request.method for request in registry.asked("/manifests/")] == ["HEAD"]


@pytest.mark.parametrize(
    "fault",
    [
        status(405),
        status(404),
        status(400),
        status(403),
        header("Docker-Content-Digest", None),
        header("Docker-Content-Digest", "sha256:short"),
        header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        header("Content-Type", None),
    ],
)
async def test_where_head_tells_nothing_get_does(
    registry: RegistrySimulator, client: RegistryClient, fault: Fault
) -> None:
    digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", fault, method="HEAD")
    assert str(await RegistrySource(client, in_registry(registry)).digest()) == digest
    assert [request.method for request in registry.asked("/manifests/")] == ["HEAD", "GET"]


async def test_head_may_not_tell_another_digest_than_was_named(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    other = str(Digest.of(b"something else"))
    registry.on("/manifests/", header("Docker-Content-Digest", other), times=None, method="HEAD")
    named = in_registry(registry).with_digest(Digest.parse(digest))
    with pytest.raises(DigestMismatchError, match=other):
        await RegistrySource(client, named).digest()


async def test_a_small_blob_is_verified(registry: RegistrySimulator, client: RegistryClient) -> None:
    data = b'{"rootfs":{}}'
    registry.add_blob(data)
    reference, descriptor = in_registry(registry), descriptor_of(data)
    assert await RegistrySource(client, reference).blob_bytes(descriptor, CONFIG_LIMIT) == data
    registry.on("/blobs/", flip(0))
    with pytest.raises(DigestMismatchError):
        await RegistrySource(client, reference).blob_bytes(descriptor, CONFIG_LIMIT)
    registry.on("/blobs/", surplus())
    with pytest.raises(DocumentTooLargeError):
        await RegistrySource(client, reference).blob_bytes(descriptor, CONFIG_LIMIT)
    registry.on("/blobs/", truncated(5))
    with pytest.raises(SizeMismatchError):
        await RegistrySource(client, reference).blob_bytes(descriptor, CONFIG_LIMIT)
    with pytest.raises(DocumentTooLargeError):
        await RegistrySource(client, reference).blob_bytes(descriptor, len(data) - 1)


# What is wrong, said in words


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(404, "MANIFEST_UNKNOWN", "manifest unknown"), NotFoundError),
        (error(404, "NAME_UNKNOWN", "repository name not known to registry"), NotFoundError),
        (error(401, "UNAUTHORIZED", "authentication required"), AuthenticationError),
        (error(403, "DENIED", "requested access is denied"), AuthenticationError),
        (error(429, "TOOMANYREQUESTS", "slow down"), TemporaryError),
        (error(500, "UNKNOWN", "oops"), UnavailableError),
        (error(503, "UNAVAILABLE", "back soon"), UnavailableError),
        (status(418, b"<html>teapot</html>"), UnavailableError),
    ],
)
async def test_an_answer_other_than_200_is_the_error_it_means(
    registry: RegistrySimulator, client: RegistryClient, fault: Fault, kind: type[Exception]
) -> None:
    registry.on("/manifests/", fault, times=None)
    with pytest.raises(kind) as caught:
        await RegistrySource(client, in_registry(registry)).manifest()
    assert type(caught.value) is kind
    assert registry.address in str(caught.value)


async def test_the_words_of_the_registry_are_shown_without_control_characters(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.on("/manifests/", error(404, "NAME_UNKNOWN", "no\x1b[31m such\nname"))
    with pytest.raises(NotFoundError, match=r"no \[31m such name \(NAME_UNKNOWN\)"):
        await RegistrySource(client, in_registry(registry)).manifest()


@pytest.mark.parametrize("fault", [status(503), status(429), status(500), drop, cut(3), cut(3, reset=True)])
async def test_what_is_temporary_is_tried_again(
    registry: RegistrySimulator, client: RegistryClient, fault: Fault
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", fault, times=2)
    assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW
    assert len(registry.asked("/manifests/")) == 3


async def test_what_is_permanent_fails_at_once(registry: RegistrySimulator, client: RegistryClient) -> None:
    with pytest.raises(NotFoundError):
        await RegistrySource(client, in_registry(registry)).manifest()
    assert len(registry.asked("/manifests/")) == 1


async def test_retry_after_is_obeyed_unless_it_is_too_long(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", status(429, Retry_After="0"))
    assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW
    registry.on("/manifests/", status(429, Retry_After="3600"))
    with pytest.raises(TemporaryError) as caught:
        await RegistrySource(client, in_registry(registry)).manifest()
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize("fault", [slow_head, stall(0), stall(3)])
async def test_a_server_that_says_nothing_more_is_left(
    registry: RegistrySimulator, tmp_path: Path, fault: Fault
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", fault)
    timeouts = HttpTimeouts(connect=5, headers=0.2, idle=0.2)
    async with make_client(tmp_path, timeouts=timeouts) as client:
        assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW


async def test_a_registry_that_is_not_there(client: RegistryClient) -> None:
    async with RegistrySimulator() as gone:
        reference = in_registry(gone)
    with pytest.raises(UnavailableError, match="cannot connect") as caught:
        await RegistrySource(client, reference).manifest()
    assert caught.value.temporary


# Who may enter


async def test_the_token_dance_is_done_once_per_repository(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.protection = Bearer()
    reference = in_registry(registry)
    documents = await asyncio.gather(*(RegistrySource(client, reference).manifest() for _ in range(5)))
    assert [document.raw for document in documents] == [RAW] * 5
    [request] = registry.asked("/token")
    assert request.query == [("service", "simulator"), ("scope", "repository:a/b:pull")]
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    "protection",
    [
        Bearer(key="access_token"),
        Bearer(expires_in=None),
        Bearer(scope="", template='bearer realm="{realm}"'),
        Bearer(template='Basic realm="x", Bearer service="{service}",realm="{realm}"'),
        Bearer(template='Negotiate, Bearer realm="{realm}", scope="{scope}", error="invalid_token"'),
    ],
)
async def test_challenges_come_in_many_forms(
    registry: RegistrySimulator, client: RegistryClient, protection: Bearer
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.protection = protection
    assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW


async def test_a_token_that_is_refused_is_replaced_once(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.protection = Bearer()
    await RegistrySource(client, in_registry(registry)).manifest()
    registry.tokens.clear()
    await RegistrySource(client, in_registry(registry)).manifest()
    assert len(registry.asked("/token")) == 2
    registry.on("/manifests/", error(401, "UNAUTHORIZED", "never"), times=None)
    with pytest.raises(AuthenticationError) as caught:
        await RegistrySource(client, in_registry(registry)).manifest()
    assert "spelled right" in (caught.value.hint or "")
    assert len(registry.asked("/manifests/")) < 8


async def test_a_user_name_and_a_password_go_to_the_token_server(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.protection = Bearer(user="me", password="open sesame")
    write_credentials(tmp_path, registry.address, "me", "open sesame")
    async with make_client(tmp_path) as client:
        assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW
    assert registry.asked("/token")[0].query[0] == ("account", "me")


async def test_wrong_credentials_are_an_authentication_error_that_holds_no_secret(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    registry.protection = Bearer(user="me", password="right")
    write_credentials(tmp_path, registry.address, "me", "wrong-and-secret")
    async with make_client(tmp_path) as client:
        with pytest.raises(AuthenticationError, match="incorrect username or password") as caught:
            await RegistrySource(client, in_registry(registry)).manifest()
    shown = repr(caught.value) + str(caught.value) + repr(client)
    assert "wrong-and-secret" not in shown
    assert base64.b64encode(b"me:wrong-and-secret").decode() not in shown


async def test_basic_credentials_go_to_the_registry_when_it_asks(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.protection = Basic("me", "open sesame")
    async with make_client(tmp_path) as client:
        with pytest.raises(AuthenticationError, match="user name and a password"):
            await RegistrySource(client, in_registry(registry)).manifest()
    write_credentials(tmp_path, registry.address, "me", "open sesame")
    async with make_client(tmp_path) as client:
        assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW


async def test_a_bad_credentials_file_is_a_configuration_error(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.protection = Bearer()
    (tmp_path / "auth.json").write_text('{"auths": {"example.org": {"auth": "???"}}}')
    access = RegistryAccess(tls_verify=False, authfile=tmp_path / "auth.json")
    async with make_client(tmp_path, access=access) as client:
        with pytest.raises(ConfigurationError, match=r"auth\.json: auths\['example\.org'\]\.auth"):
            await RegistrySource(client, in_registry(registry)).manifest()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (replaced(b'{"token": ""}'), DocumentError),
        (replaced(b"[]"), DocumentError),
        (replaced(b'{"token": "two\\r\\nlines"}'), DocumentError),
        (replaced(b" " * (2 << 20)), DocumentTooLargeError),
        (status(403), AuthenticationError),
    ],
)
async def test_a_token_server_may_be_wrong_too(
    registry: RegistrySimulator, client: RegistryClient, fault: Fault, kind: type[Exception]
) -> None:
    registry.protection = Bearer()
    registry.on("/token", fault, times=None)
    with pytest.raises(kind):
        await RegistrySource(client, in_registry(registry)).manifest()


# Redirects


async def test_authorization_stays_at_home(registry: RegistrySimulator, tmp_path: Path) -> None:
    data = noise(1, 1000)
    registry.protection = Basic("me", "open sesame")
    write_credentials(tmp_path, registry.address, "me", "open sesame")
    async with RegistrySimulator() as elsewhere, make_client(tmp_path) as client:
        digest = elsewhere.add_blob(data)
        registry.add_blob(data)
        registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        await RegistrySource(client, in_registry(registry)).manifest()
        registry.on("/blobs/", redirect(f"{elsewhere.url}/v2/x/blobs/{digest}?signature=secret"), times=None)
        async with RegistrySource(client, in_registry(registry)).open_blob(descriptor_of(data), 100) as response:
            assert await body_of(response) == data[100:]
        assert "authorization" in registry.requests[-1].headers
        [abroad] = elsewhere.requests
        assert "authorization" not in abroad.headers
        assert abroad.headers["range"] == "bytes=100-"
        # And who is sent home from abroad comes as a stranger.
        elsewhere.on("/blobs/", redirect(f"{registry.url}/v2/other/blobs/{digest}"))
        before = len(registry.requests)
        async with RegistrySource(client, in_registry(registry)).open_blob(descriptor_of(data)):
            pass
        assert [("authorization" in request.headers) for request in registry.requests[before:]] == [True, False]


async def test_an_expired_signature_is_temporary_and_not_shown(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    data = noise(1, 1000)
    async with RegistrySimulator() as elsewhere:
        registry.on("/blobs/", redirect(f"{elsewhere.url}/v2/x/blobs/y?signature=secret"))
        registry.add_blob(data)
        elsewhere.on("/blobs/", status(403, b"<Error>Request has expired</Error>"))
        with pytest.raises(UnavailableError) as caught:
            async with RegistrySource(client, in_registry(registry)).open_blob(descriptor_of(data)):
                pass
    assert caught.value.temporary
    assert "secret" not in repr(caught.value) + repr(caught.value.__cause__)


async def test_redirects_come_to_an_end(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.on("/manifests/", redirect("/v2/a/b/manifests/again"), times=None)
    with pytest.raises(UnavailableError, match="more than 10 redirects"):
        await RegistrySource(client, in_registry(registry)).manifest()
    registry.heal()
    registry.on("/manifests/", redirect("file:///etc/passwd"))
    with pytest.raises(UnavailableError, match="no http or https"):
        await RegistrySource(client, in_registry(registry)).manifest()


# Ranges


async def test_a_range_is_asked_for_and_told(registry: RegistrySimulator, client: RegistryClient) -> None:
    data = noise(1, 5000)
    registry.add_blob(data)
    reference, descriptor = in_registry(registry), descriptor_of(data)
    for offset, end, asked in [(0, None, None), (100, None, "bytes=100-"), (0, 50, "bytes=0-49"), (7, 9, "bytes=7-8")]:
        async with RegistrySource(client, reference).open_blob(descriptor, offset, end) as response:
            told = (response.start, response.end, response.total)
            assert told == (offset, len(data) if end is None else end, len(data))
            assert await body_of(response) == data[offset:end]
        assert registry.requests[-1].headers.get("range") == asked


async def test_whoever_knows_no_ranges_sends_everything(registry: RegistrySimulator, client: RegistryClient) -> None:
    data = noise(1, 5000)
    registry.add_blob(data)
    registry.on("/blobs/", without_ranges, times=None)
    async with RegistrySource(client, in_registry(registry)).open_blob(descriptor_of(data), 4000) as response:
        assert (response.start, response.total) == (0, len(data))
        assert await body_of(response) == data


@pytest.mark.parametrize(
    "said",
    [
        None,
        "bytes 0-4899/5000",
        "bytes 99-4999/5000",
        "bytes 100-5000/5000",
        "bytes 100-98/5000",
        "bytes 100-4000/5000",
        "bytes 100-/5000",
        "100-4999/5000",
        "bytes */5000",
    ],
)
async def test_whoever_is_wrong_about_ranges_is_asked_without(
    registry: RegistrySimulator, client: RegistryClient, said: str | None
) -> None:
    data = noise(1, 5000)
    registry.add_blob(data)
    registry.on("/blobs/", header("Content-Range", said), times=None)
    reference, descriptor = in_registry(registry), descriptor_of(data)
    for _ in range(2):
        async with RegistrySource(client, reference).open_blob(descriptor, 100) as response:
            assert (response.start, await body_of(response)) == (0, data)
    assert [request.headers.get("range") for request in registry.requests[-3:]] == ["bytes=100-", None, None]


async def test_a_blob_of_another_size_is_refused_before_its_body(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    data = noise(1, 5000)
    registry.add_blob(data)
    reference, descriptor = in_registry(registry), descriptor_of(data)
    for fault, offset in [
        (surplus(), 0),
        (truncated(10), 0),
        (header("Content-Range", "bytes 100-4999/6000"), 100),
        (truncated(100), 100),
    ]:
        registry.heal()
        registry.on("/blobs/", fault)
        with pytest.raises(SizeMismatchError):
            async with RegistrySource(client, reference).open_blob(descriptor, offset):
                pass


async def test_a_length_that_is_too_small_is_an_error_of_one_kind_or_the_other(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    data = noise(1, 5000)
    registry.add_blob(data)
    registry.on("/blobs/", header("Content-Length", "4999"))
    # The surplus is no HTTP; whether it is seen before the length is, depends on how the bytes come.
    with pytest.raises((SizeMismatchError, UnavailableError)):
        async with RegistrySource(client, in_registry(registry)).open_blob(descriptor_of(data)):
            pass


# Lists of tags


async def test_tags_come_in_pages(registry: RegistrySimulator, client: RegistryClient) -> None:
    names = [f"v{number}" for number in range(7)]
    for name in names:
        registry.add_manifest("a/b", name, name.encode(), OCI_MANIFEST)
    registry.tags_per_page = 3
    assert await client.tags(in_registry(registry)) == tuple(names)
    assert [request.query for request in registry.asked("/tags/list")] == [
        [("n", "1000")],
        [("n", "3"), ("last", "v2")],
        [("n", "3"), ("last", "v5")],
    ]


async def test_what_is_no_tag_is_not_listed(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/tags/", replaced(b'{"tags": ["a", "\\u001b[31m", "a", "b c", 7, "", "b"]}'))
    assert await client.tags(in_registry(registry)) == ("a", "b")
    registry.on("/tags/", replaced(b'{"name": "a/b", "tags": null}'))
    assert await client.tags(in_registry(registry)) == ()


@pytest.mark.parametrize(
    ("faults", "kind", "said"),
    [
        ((status(404),), NotFoundError, "404"),
        ((header("Link", '</v2/a/b/tags/list?again>; rel="next"'),), UnavailableError, "circle"),
        ((header("Link", '<http://127.0.0.1:1/v2/x>; rel="next"'),), UnavailableError, "another origin"),
        ((replaced(b"[]"),), DocumentError, "not an object"),
        ((replaced(bytes((64 << 20) + 1)), chunked), DocumentTooLargeError, "the limit"),
    ],
)
async def test_a_list_of_tags_may_be_wrong(
    registry: RegistrySimulator, client: RegistryClient, faults: tuple[Fault, ...], kind: type[Exception], said: str
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/tags/", *faults, times=None)
    with pytest.raises(kind, match=said):
        await client.tags(in_registry(registry))
    assert len(registry.asked("/tags/")) <= 2


async def test_a_list_of_tags_without_an_end_is_left(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    pages = itertools.count()

    def endless(reply: Reply) -> None:
        reply.headers["Link"] = f'<?page={next(pages)}>; rel="next"'

    registry.on("/tags/", endless, times=None)
    with pytest.raises(UnavailableError, match="more than 2000 pages"):
        await client.tags(in_registry(registry))
    assert len(registry.asked("/tags/")) == 2000


# What is said beside the answers


async def test_warnings_are_logged_once(
    registry: RegistrySimulator, client: RegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", header("Warning", '299 - "moves \x1b[1m soon"'), times=None)
    for _ in range(3):
        await RegistrySource(client, in_registry(registry)).manifest()
    [record] = [record for record in caplog.records if "warns" in record.message]
    assert (vars(record)["registry"], vars(record)["text"]) == (registry.address, "moves [1m soon")


async def test_how_often_one_may_ask_is_remembered_and_its_end_told_once(
    registry: RegistrySimulator, client: RegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    reference = in_registry(registry)
    assert client.rate_limit(registry.address) is None
    for remaining in (50, 5, 4, 0):
        registry.on("/manifests/", header("RateLimit-Limit", "100;w=60"))
        registry.on("/manifests/", header("RateLimit-Remaining", f"{remaining};w=60"))
        await RegistrySource(client, reference).manifest()
        assert client.rate_limit(registry.address) == RateLimit(remaining, 100, 60)
    [record] = [record for record in caplog.records if "soon refuse" in record.message]
    assert vars(record)["remaining"] == 5


# How far it is trusted


async def test_plain_http_is_not_spoken_to_who_is_not_insecure(registry: RegistrySimulator, tmp_path: Path) -> None:
    async with make_client(tmp_path, access=RegistryAccess()) as client:
        with pytest.raises(UnavailableError, match="no TLS connection"):
            await RegistrySource(client, in_registry(registry)).manifest()
    assert not registry.requests


async def test_an_insecure_registry_is_named_in_the_configuration(registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    access = RegistryAccess(insecure=frozenset({registry.address}))
    async with make_client(tmp_path, access=access) as client:
        assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW
        await RegistrySource(client, in_registry(registry)).manifest()
    assert len(registry.asked("/v2/")) == 3  # one of them to find out what is spoken there
    strict = RegistryAccess(tls_verify=True, insecure=frozenset({registry.address}))
    async with make_client(tmp_path, access=strict) as client:
        with pytest.raises(UnavailableError):
            await RegistrySource(client, in_registry(registry)).manifest()


async def test_cancelling_a_request_closes_its_connection(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
    registry.on("/manifests/", hold(asyncio.Event(), 3))
    task = asyncio.create_task(RegistrySource(client, in_registry(registry)).manifest())
    await registry.until_asked("/manifests/")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await RegistrySource(client, in_registry(registry)).manifest()).raw == RAW


# The real registry


@pytest.mark.skipif(not has_docker_registry(), reason="docker-registry is not installed")
@pytest.mark.parametrize(("tls", "password"), [(False, False), (True, True)])
async def test_docker_registry(tmp_path: Path, tls: bool, password: bool) -> None:
    layer = noise(2, 300_000)
    built = image([layer], compression="none")
    with docker_registry(tmp_path / "registry", tls=tls, password=password) as real:
        reference = parse_reference(real.push("some/image", "v1", built))
        if password:
            write_credentials(tmp_path, f"{real.address}/some", USER, PASSWORD)
        async with make_client(tmp_path) as client:
            source = RegistrySource(client, reference)
            assert source.name == str(reference)
            document = await source.manifest()
            assert document.raw == built.manifest.data
            assert await source.digest() == document.digest == Digest.parse(built.manifest.digest)
            assert await source.manifest(document.digest) == document
            config = Descriptor("", Digest.parse(built.config.digest), len(built.config.data))
            assert await source.blob_bytes(config, CONFIG_LIMIT) == built.config.data
            async with source.open_blob(descriptor_of(layer), 1000, 2000) as response:
                assert (response.start, await body_of(response)) == (1000, layer[1000:2000])
            with pytest.raises(NotFoundError, match="MANIFEST_UNKNOWN"):
                await RegistrySource(client, reference.with_tag("missing")).manifest()
        if tls:
            async with make_client(tmp_path, access=RegistryAccess()) as client:
                with pytest.raises(UnavailableError, match="certificate is refused"):
                    await RegistrySource(client, reference).manifest()
