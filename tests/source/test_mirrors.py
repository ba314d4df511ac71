"""A repository with mirrors, as registries.conf names them: who is asked for what, in which order, with which secrets.

The mirrors are simulators; those that are real are in test_real_mirrors.py.
"""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import (
    AuthenticationError,
    DigestMismatchError,
    NotFoundError,
    SourceError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.http import HttpTimeouts
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.credentials import Credentials
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import Reference, parse_reference
from asyncpull.spec.source import Fault as Blame
from tests.support.images import OCI_MANIFEST, noise
from tests.support.mirrors import configuration
from tests.support.registry_faults import (
    cut,
    drop,
    error,
    flip,
    redirect,
    slow_head,
    status,
    surplus,
    truncated,
)
from tests.support.registry_simulator import Basic, Bearer, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.registry_faults import Fault

RAW = b'{"schemaVersion":2}'
DIGEST = Digest.of(RAW)
BLOB, OTHER = noise(1, 5000), noise(2, 5000)


def descriptor_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


async def received(
    source: RegistrySource, data: bytes = BLOB, offset: int = 0, origin: str | None = None
) -> tuple[str, bytes]:
    """Who sent a blob from ``offset`` on, and what."""
    async with source.open_blob(descriptor_of(data), offset, origin=origin) as response:
        body = b"".join([chunk async for chunk in response.chunks])
        return response.origin, body


@dataclass
class Site:
    """Two mirrors of ``a/b`` and the registry, all of which have everything, and a client that knows them."""

    one: RegistrySimulator
    two: RegistrySimulator
    home: RegistrySimulator
    client: RegistryClient
    reference: Reference

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{each.address}/a/b" for each in (self.one, self.two, self.home))

    def source(self, reference: Reference | None = None) -> RegistrySource:
        return RegistrySource(self.client, reference or self.reference)

    def asked(self, part: str) -> list[int]:
        """How often each was asked for it."""
        return [len(each.asked(part)) for each in (self.one, self.two, self.home)]

    def on_all(self, part: str, *faults: Fault) -> None:
        for each in (self.one, self.two, self.home):
            each.on(part, *faults, times=None)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        one, two, home = [await stack.enter_async_context(RegistrySimulator()) for _ in range(3)]
        for each in (one, two, home):
            each.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
            for data in (BLOB, OTHER):
                each.add_blob(data)
        path = tmp_path / "registries.conf"
        path.write_text(configuration(home.address, one.address, two.address))
        client = await stack.enter_async_context(make_client(path))
        yield Site(one, two, home, client, parse_reference(f"{home.address}/a/b:t"))


def make_client(configuration: Path, *, authfile: Path | None = None, headers: float = 5) -> RegistryClient:
    home = configuration.parent
    return RegistryClient(
        RegistryAccess(
            tls_verify=False, registries_conf=configuration, registries_conf_dir=home / "none", authfile=authfile
        ),
        timeouts=HttpTimeouts(connect=5, headers=headers, idle=5),
        retry=RetryPolicy(attempts=2, first_seconds=0.0),
        environ={"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")},
    )


async def test_the_first_mirror_is_asked_for_everything(site: Site) -> None:
    source = site.source()
    assert source.origins == ()
    assert (await source.manifest()).raw == RAW
    assert await source.digest() == DIGEST
    assert await source.blob_bytes(descriptor_of(BLOB), 10_000) == BLOB
    assert await received(source, offset=100) == (site.names[0], BLOB[100:])
    assert source.origins == site.names
    assert site.asked("/a/b/") == [4, 0, 0]
    assert (source.name, source.registry) == (str(site.reference), site.home.address)


async def test_a_mirror_is_told_whom_it_mirrors(site: Site) -> None:
    await received(site.source())
    await received(site.source(), offset=7)
    site.one.on("/blobs/", status(503), times=None)
    site.two.on("/blobs/", status(503), times=None)
    await received(site.source())
    for mirror in (site.one, site.two):
        assert {tuple(request.query) for request in mirror.asked("/a/b/")} == {(("ns", site.home.address),)}
    assert [request.query for request in site.home.asked("/a/b/")] == [[]]


async def test_a_mirror_with_other_paths_is_not_told(site: Site, tmp_path: Path) -> None:
    site.one.add_manifest("cache/b", "t", RAW, OCI_MANIFEST)
    path = tmp_path / "registries.conf"
    path.write_text(configuration(f"{site.home.address}/a", f"{site.one.address}/cache"))
    async with make_client(path) as client:
        assert (await RegistrySource(client, site.reference).manifest()).raw == RAW
    [request] = site.one.asked("/manifests/")
    assert (request.path, request.query) == ("/v2/cache/b/manifests/t", [])


@pytest.mark.parametrize(
    "fault", [status(404), status(503), status(429, Retry_After="9999"), status(403), drop, truncated(9), surplus()]
)
async def test_what_a_mirror_does_not_give_another_one_does_at_once(site: Site, fault: Fault) -> None:
    """Without a pause, or this test would last for hours."""
    site.one.on(f"/blobs/{Digest.of(BLOB)}", fault, times=None)
    source = site.source()
    for _ in range(3):
        assert await received(source) == (site.names[1], BLOB)
    once, *others = site.asked("/blobs/")
    assert others == [3, 0]
    assert once <= 2  # a connection that was used before and is lost is tried anew, as it may have been closed long ago


async def test_a_mirror_that_is_not_there(site: Site) -> None:
    await site.one.__aexit__(None, None, None)
    source = site.source()
    assert (await source.manifest()).raw == RAW
    assert await received(source) == (site.names[1], BLOB)


async def test_a_mirror_that_says_nothing(site: Site, tmp_path: Path) -> None:
    site.one.on("/v2/a/", slow_head, times=None)
    async with make_client(tmp_path / "registries.conf", headers=0.2) as client:
        for _ in range(2):
            assert await received(RegistrySource(client, site.reference)) == (site.names[1], BLOB)
    assert site.asked("/blobs/") == [1, 2, 0]


async def test_what_was_wrong_with_a_mirror_counts_for_all_images(site: Site) -> None:
    site.one.on("/v2/a/b/", status(503), times=None)
    await received(site.source())
    another = parse_reference(f"{site.home.address}/another/image:t")
    for each in (site.one, site.two, site.home):
        each.add_manifest("another/image", "t", RAW, OCI_MANIFEST)
    assert (await site.source(another).manifest()).raw == RAW
    assert site.asked("/another/image/") == [0, 1, 0]


async def test_a_missing_blob_counts_for_itself_only(site: Site) -> None:
    site.one.on(str(Digest.of(BLOB)), error(404, "BLOB_UNKNOWN", "blob unknown"), times=None)
    source = site.source()
    assert (await received(source))[0] == site.names[1]
    assert (await received(source))[0] == site.names[1]
    assert (await received(source, OTHER))[0] == site.names[0]
    assert len(site.one.asked(str(Digest.of(BLOB)))) == 1


async def test_a_wrong_manifest_comes_from_the_next_and_its_mirror_is_left_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.one.on("/manifests/", flip(3), times=None)
    source = site.source()
    assert (await source.manifest(DIGEST)).raw == RAW
    assert (await received(source))[0] == site.names[1]
    assert site.asked("/a/b/") == [1, 2, 0]
    [record] = [record for record in caplog.records if "a mirror failed" in record.message]
    assert vars(record)["mirror"] == site.names[0]


async def test_a_wrong_config_comes_from_the_next(site: Site) -> None:
    site.one.on("/blobs/", flip(3), times=None)
    site.two.on("/blobs/", surplus(), times=None)
    assert await site.source().blob_bytes(descriptor_of(BLOB), 10_000) == BLOB
    assert site.asked("/blobs/") == [1, 1, 1]


@pytest.mark.parametrize("fault", list(Blame))
async def test_who_is_blamed_in_the_middle_is_not_asked_for_the_rest(site: Site, fault: Blame) -> None:
    source = site.source()
    origin, _ = await received(source)
    source.blame(origin, fault)
    assert await received(source, offset=1000) == (site.names[1], BLOB[1000:])
    assert await received(site.source(), OTHER) == (site.names[1], OTHER)
    assert source.origins == site.names


async def test_all_are_asked_before_it_fails_and_again_afterwards(site: Site) -> None:
    site.on_all("/blobs/", status(503))
    source = site.source()
    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            await received(source)
        assert caught.value.temporary
        assert site.home.address in str(caught.value)
        assert all(name in (caught.value.hint or "") for name in site.names[:2])
    assert site.asked("/blobs/") == [2, 2, 2]
    for each in (site.one, site.two, site.home):
        each.heal()
    assert (await received(source))[1] == BLOB


@pytest.mark.parametrize(
    ("one", "two", "home", "kind", "temporary", "retry_after"),
    [
        (status(404), status(404), status(404), NotFoundError, False, None),
        (status(503), status(404), status(404), NotFoundError, True, None),
        (status(404), status(429, Retry_After="7"), status(404), NotFoundError, True, 7.0),
        (status(429, Retry_After="9"), status(429, Retry_After="7"), status(403), AuthenticationError, True, 7.0),
        (status(429, Retry_After="9"), status(503), status(429, Retry_After="8"), TemporaryError, True, None),
        (status(404), status(403), status(500), UnavailableError, True, None),
        (status(418), status(404), status(418), UnavailableError, False, None),
    ],
)
async def test_the_error_is_the_registrys_and_temporary_if_any_was(
    site: Site,
    one: Fault,
    two: Fault,
    home: Fault,
    kind: type[SourceError],
    temporary: bool,
    retry_after: float | None,
) -> None:
    for each, fault in ((site.one, one), (site.two, two), (site.home, home)):
        each.on("/blobs/", fault, times=None)
    with pytest.raises(kind) as caught:
        await received(site.source())
    assert (type(caught.value), caught.value.temporary, caught.value.retry_after) == (kind, temporary, retry_after)
    assert str(caught.value).count(site.home.address) >= 1


async def test_a_tag_that_the_registry_does_not_have_is_not_waited_for(site: Site) -> None:
    site.one.on("/manifests/", status(503), times=None)
    site.two.on("/manifests/", status(404), times=None)
    site.home.on("/manifests/", status(404), times=None)
    with pytest.raises(NotFoundError) as caught:
        await site.source().manifest()
    assert not caught.value.temporary
    assert site.asked("/manifests/") == [1, 1, 1]


async def test_documents_are_asked_for_again_by_all(site: Site) -> None:
    for each in (site.one, site.two, site.home):
        each.on("/manifests/", status(503))
    assert (await site.source().manifest()).raw == RAW
    assert sum(site.asked("/manifests/")) == 4


async def test_one_endpoint_alone_may_be_asked(site: Site) -> None:
    source = site.source()
    await received(source)
    assert await received(source, origin=site.names[2]) == (site.names[2], BLOB)
    site.home.on("/blobs/", status(503), times=None)
    with pytest.raises(UnavailableError, match="503"):
        await received(source, origin=site.names[2])
    assert site.asked("/blobs/") == [1, 0, 2]
    with pytest.raises(ValueError, match="no endpoint"):
        await received(source, origin="example.org/a/b")


async def test_who_knows_no_ranges_is_remembered_by_itself(site: Site) -> None:
    site.one.on("/blobs/", status(206, BLOB), times=1)  # no Content-Range
    source = site.source()
    assert await received(source, offset=10) == (site.names[0], BLOB)
    source.blame(site.names[0], Blame.STALLED)
    assert await received(source, offset=10) == (site.names[1], BLOB[10:])


async def test_a_body_that_breaks_is_the_readers_business(site: Site) -> None:
    site.one.on("/blobs/", cut(1000), times=None)
    source = site.source()
    with pytest.raises(UnavailableError, match="too early"):
        await received(source)
    assert site.asked("/blobs/") == [1, 0, 0]


# Who may say what a tag means


async def with_mirrors(site: Site, tmp_path: Path, one: str, two: str) -> RegistryClient:
    path = tmp_path / "other.conf"
    path.write_text(configuration(site.home.address, f"{site.one.address} {one}", f"{site.two.address} {two}"))
    return make_client(path)


async def test_a_mirror_for_digests_is_never_asked_for_a_tag(site: Site, tmp_path: Path) -> None:
    async with await with_mirrors(site, tmp_path, "digest-only", "digest-only") as client:
        source = RegistrySource(client, site.reference)
        assert (await source.manifest()).raw == RAW
        assert await source.digest() == DIGEST
        assert site.asked("/manifests/") == [0, 0, 2]
        # But what has a digest may come from it.
        assert (await source.manifest(DIGEST)).raw == RAW
        assert (await received(source))[0] == site.names[0]
        site.home.on("/manifests/", status(503), times=None)
        with pytest.raises(UnavailableError):
            await source.manifest()
    assert not site.one.asked("/manifests/t")
    assert not site.two.asked("/manifests/t")


async def test_a_mirror_for_tags(site: Site, tmp_path: Path) -> None:
    async with await with_mirrors(site, tmp_path, "digest-only", "tag-only") as client:
        source = RegistrySource(client, site.reference)
        assert (await source.manifest()).raw == RAW
        assert site.asked("/manifests/t") == [0, 1, 0]
        assert (await source.manifest(DIGEST)).raw == RAW
        assert source.origins == site.names
        assert site.asked("/manifests/sha256:") == [1, 0, 0]
        by_digest = RegistrySource(client, site.reference.with_digest(DIGEST))
        await received(by_digest)
        assert by_digest.origins == (site.names[0], site.names[2])


async def test_tags_are_listed_by_the_registry_itself(site: Site) -> None:
    site.one.add_manifest("a/b", "more", b"{}", OCI_MANIFEST)
    assert await site.client.tags(site.reference) == ("t",)
    assert site.asked("/tags/") == [0, 0, 1]


# Secrets


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_credentials_go_to_whom_they_belong(site: Site, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    accounts = {site.one.address: ("mirror", "of one"), site.home.address: ("owner", "of home")}
    encoded = {
        key: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        for key, (user, password) in accounts.items()
    }
    authfile.write_text(json.dumps({"auths": encoded}))
    site.one.protection = Basic("mirror", "of one")
    site.two.protection = Basic("nobody", "has this")
    site.home.protection = Bearer(user="owner", password="of home")
    async with make_client(tmp_path / "registries.conf", authfile=authfile) as client:
        source = RegistrySource(client, site.reference)
        await received(source)
        site.one.on("/blobs/", redirect(f"{site.home.url}/v2/a/b/blobs/{Digest.of(OTHER)}"))
        await received(source, OTHER)  # refused at home, as it comes without a token; then from home itself
    shown = [
        {request.headers["authorization"] for request in each.requests if "authorization" in request.headers}
        for each in (site.one, site.two, site.home)
    ]
    assert shown[0] == {basic("mirror", "of one")}
    assert shown[1] == set()
    assert shown[2] == {basic("owner", "of home"), "Bearer token-0"}


async def test_a_login_is_checked_by_whom_it_is_for(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "moved.conf"
    path.write_text(f'[[registry]]\nprefix = "{site.home.address}"\nlocation = "{site.one.address}"\n')
    site.home.protection = Basic("owner", "of home")
    async with make_client(path) as client:
        await client.check_login(site.home.address, Credentials("owner", "of home"))
        with pytest.raises(AuthenticationError):
            await client.check_login(site.home.address, Credentials("owner", "wrong"))
        assert not site.one.requests
        # What is pulled is where the configuration says.
        assert await client.tags(site.reference) == ("t",)
        assert (await RegistrySource(client, site.reference).manifest()).raw == RAW
    assert len(site.one.asked("/a/b/")) == 2


# hosts.toml


async def test_hosts_of_containerd(site: Site, tmp_path: Path) -> None:
    directory = tmp_path / "hosts" / site.home.address
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(f"""
server = "http://{site.two.address}"
[host."http://{site.one.address}/mirror"]
  capabilities = ["pull"]
  [host."http://{site.one.address}/mirror".header]
    x-key = "secret"
""")
    access = RegistryAccess(hosts_dir=tmp_path / "hosts", registries_conf_dir=tmp_path / "none")
    site.one.on("/mirror/v2/a/b/manifests", redirect(f"{site.home.url}/v2/a/b/manifests/{DIGEST}"), times=None)
    site.one.on("/mirror/v2/a/b/blobs", status(200, BLOB), times=None)
    async with RegistryClient(access, environ={"HOME": str(tmp_path)}) as client:
        source = RegistrySource(client, site.reference)
        assert (await source.manifest()).raw == RAW
        assert site.asked("/manifests/t") == [0, 1, 0]
        assert (await source.manifest(DIGEST)).raw == RAW
        assert await received(source) == (f"{site.one.address}/mirror/v2/a/b", BLOB)
        assert await client.tags(site.reference) == ("t",)
    assert [request.headers["x-key"] for request in site.one.requests] == ["secret"] * 2
    assert {request.query[0] for request in site.one.requests} == {("ns", site.home.address)}
    [redirected] = site.home.asked("/manifests/")
    assert "x-key" not in redirected.headers


async def test_a_wrong_digest_from_all_is_refused(site: Site) -> None:
    site.on_all("/manifests/", flip(3))
    with pytest.raises(DigestMismatchError) as caught:
        await site.source().manifest(DIGEST)
    assert caught.value.expected == str(DIGEST)
    assert site.asked("/manifests/") == [1, 1, 1]
