"""What changes a repository: blobs found and mounted, manifests put under names, deletions, and who may do that."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.destination.registry import RegistryDestination
from asyncpull.errors import (
    AuthenticationError,
    ConfigurationError,
    DigestMismatchError,
    ManifestRejectedError,
    NotFoundError,
    PolicyError,
    SizeMismatchError,
    UnavailableError,
    UsageError,
)
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.credentials import Credentials
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.source import SourceDocument
from tests.support.contents import HeldContent, descriptor
from tests.support.docker_registry import PASSWORD, USER, docker_registry, is_installed
from tests.support.images import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, image, noise
from tests.support.pushes import client_of, in_registry
from tests.support.registry_faults import drop, error, header, redirect, status
from tests.support.registry_simulator import Basic, Bearer, RegistrySimulator
from tests.support.token_server import TokenAuthority, token_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.registry.client import RegistryClient

DATA = noise(1, 1000)
BLOB = Descriptor("", Digest.of(DATA), len(DATA))
BUILT = image([noise(2, 10_000)], compression="none")
needs_registry = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")


def document(raw: bytes, media_type: str | None = OCI_MANIFEST) -> SourceDocument:
    return SourceDocument(raw, media_type, Digest.of(raw))


MANIFEST = document(BUILT.manifest.data)


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with client_of(tmp_path) as made:
        yield made


def log_in(home: Path, registry: str, user: str, password: str) -> None:
    (home / ".docker").mkdir()
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))


# Blobs that are there


async def test_blobs_are_found_by_their_digest(registry: RegistrySimulator, client: RegistryClient) -> None:
    repository = await client.repository(in_registry(registry))
    assert not await repository.has_blob(BLOB)
    registry.add_blob(DATA)
    assert await repository.has_blob(BLOB)
    assert {request.method for request in registry.asked("/blobs/")} == {"HEAD"}


@pytest.mark.parametrize(("fault", "expected"), [(status(405), False), (header("Content-Length", "0"), True)])
async def test_a_registry_that_says_little_of_a_blob(
    registry: RegistrySimulator, client: RegistryClient, fault: object, expected: bool
) -> None:
    registry.add_blob(DATA)
    registry.on("/blobs/", fault, method="HEAD")  # type: ignore[arg-type]
    assert await (await client.repository(in_registry(registry))).has_blob(BLOB) is expected


async def test_a_blob_of_another_size_is_another_blob(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_blob(DATA)
    with pytest.raises(SizeMismatchError):
        await (await client.repository(in_registry(registry))).has_blob(Descriptor("", BLOB.digest, 999))


# Mounting


async def test_a_blob_is_mounted_from_a_repository_of_the_same_registry(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.uploads.mountable = {("other/c", str(BLOB.digest))}
    names = ["docker.io/other/c", f"{registry.address}/a/b", f"{registry.address}/no", f"{registry.address}/other/c"]
    async with RegistryDestination(client, in_registry(registry)) as destination:
        assert await destination.mount_blob(BLOB, names)
    posts = [dict(request.query) for request in registry.requests if request.method == "POST"]
    assert posts == [{"mount": str(BLOB.digest), "from": name} for name in ("no", "other/c")]
    assert registry.uploads.open == {}  # what began instead of the first mount was taken back


async def test_the_upload_that_begins_instead_of_a_mount_is_made_use_of(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    async with RegistryDestination(client, in_registry(registry)) as destination:
        assert not await destination.mount_blob(BLOB, [f"{registry.address}/c", f"{registry.address}/d"])
        await destination.put_blob(BLOB, HeldContent(DATA))
    assert registry.blob(str(BLOB.digest)) == DATA
    assert (registry.uploads.begun, registry.uploads.open) == (2, {})


@pytest.mark.parametrize("fault", [status(404), status(405), error(403, "DENIED", "not yours"), status(400)])
async def test_a_mount_that_is_refused_is_no_error(
    registry: RegistrySimulator, client: RegistryClient, fault: object
) -> None:
    registry.on("mount=", fault, method="POST")  # type: ignore[arg-type]
    repository = await client.repository(in_registry(registry))
    assert not await repository.mount_blob(BLOB, "c")


async def test_a_mount_from_a_registry_that_is_gone_is_an_error(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.on("mount=", drop, method="POST", times=None)
    repository = await client.repository(in_registry(registry))
    with pytest.raises(UnavailableError):
        await repository.mount_blob(BLOB, "c")


# Manifests


@pytest.mark.parametrize(
    ("raw", "said", "expected"),
    [
        (MANIFEST.raw, None, OCI_MANIFEST),
        (MANIFEST.raw, DOCKER_MANIFEST, OCI_MANIFEST),  # what stands inside must be said
        (b'{"schemaVersion":2}', f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        (b'{"schemaVersion":2}', None, OCI_MANIFEST),
        (b'{"schemaVersion":2,"manifests":[]}', None, OCI_INDEX),
        (b'{"schemaVersion":1}', None, "application/vnd.docker.distribution.manifest.v1+json"),
        (b'{"schemaVersion":1,"signatures":[]}', None, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
async def test_a_manifest_says_what_it_is(
    registry: RegistrySimulator, client: RegistryClient, raw: bytes, said: str | None, expected: str
) -> None:
    await (await client.repository(in_registry(registry))).put_manifest("t", document(raw, said))
    assert registry.manifest("a/b", "t") == (raw, expected)


async def test_a_manifest_that_arrives_as_another_one_is_an_error(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    repository = await client.repository(in_registry(registry))
    registry.on("/manifests/t", header("Docker-Content-Digest", str(Digest.of(b"other"))), method="PUT")
    with pytest.raises(DigestMismatchError):
        await repository.put_manifest("t", MANIFEST)
    same = str(Digest.of(MANIFEST.raw, "sha512"))
    for said in (same, "", "nonsense"):
        registry.on("/manifests/t", header("Docker-Content-Digest", said), method="PUT")
        await repository.put_manifest("t", MANIFEST)


@pytest.mark.parametrize(
    "fault",
    [
        error(400, "MANIFEST_INVALID", "schema 2 is not for me"),
        error(400, "TAG_INVALID", "which tag?"),
        error(405, "UNSUPPORTED", "Invalid JSON syntax"),
        status(415),
    ],
)
async def test_a_kind_of_manifest_that_a_registry_does_not_take_is_said_as_such(
    registry: RegistrySimulator, client: RegistryClient, fault: object
) -> None:
    registry.on("/manifests/", fault, method="PUT")  # type: ignore[arg-type]
    with pytest.raises(ManifestRejectedError):
        await (await client.repository(in_registry(registry))).put_manifest("t", MANIFEST)


async def test_a_manifest_is_put_again_after_a_moment_of_disorder(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.on("/manifests/", status(503), drop, method="PUT")
    await (await client.repository(in_registry(registry))).put_manifest("t", MANIFEST)
    assert registry.manifest("a/b", "t") == (MANIFEST.raw, OCI_MANIFEST)


async def test_a_manifest_does_not_follow_a_redirect_abroad(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    async with RegistrySimulator() as elsewhere:
        registry.on("/manifests/", redirect(f"{elsewhere.url}/v2/a/b/manifests/t"), method="PUT")
        with pytest.raises(UnavailableError):
            await (await client.repository(in_registry(registry))).put_manifest("t", MANIFEST)
        assert elsewhere.requests == []


async def test_a_commit_goes_to_every_tag(registry: RegistrySimulator, client: RegistryClient) -> None:
    names = [in_registry(registry).with_tag(tag) for tag in ("t", "u", "v")]
    async with RegistryDestination(client, in_registry(registry), names) as destination:
        assert await destination.commit(MANIFEST) == MANIFEST.digest
    assert [registry.manifest("a/b", tag) for tag in ("t", "u", "v")] == [(MANIFEST.raw, OCI_MANIFEST)] * 3
    with pytest.raises(UsageError, match="no tag of"):
        RegistryDestination(client, in_registry(registry), [parse_reference("docker.io/x:t")])


async def test_a_commit_to_a_digest_is_of_that_digest(registry: RegistrySimulator, client: RegistryClient) -> None:
    reference = in_registry(registry).with_digest(MANIFEST.digest)
    async with RegistryDestination(client, reference) as destination:
        await destination.commit(MANIFEST)
        with pytest.raises(DigestMismatchError):
            await destination.commit(document(b'{"schemaVersion":2}'))
    assert [request.path for request in registry.asked("/a/b/")] == [f"/v2/a/b/manifests/{MANIFEST.digest}"]


# Deletion


async def test_a_deleted_manifest_has_no_tags_any_more(registry: RegistrySimulator, client: RegistryClient) -> None:
    for tag in ("t", "u"):
        registry.add_manifest("a/b", tag, MANIFEST.raw, OCI_MANIFEST)
    registry.add_manifest("a/b", "other", b'{"schemaVersion":2}', OCI_MANIFEST)
    assert await client.delete(in_registry(registry)) == MANIFEST.digest
    assert [registry.manifest("a/b", tag) is None for tag in ("t", "u", "other")] == [True, True, False]
    with pytest.raises(NotFoundError):
        await client.delete(in_registry(registry))


async def test_a_tag_alone_can_be_deleted_where_the_registry_does_that(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.add_manifest("a/b", "t", MANIFEST.raw, OCI_MANIFEST)
    repository = await client.repository(in_registry(registry))
    await repository.delete("t")
    assert registry.manifest("a/b", "t") is None
    assert registry.manifest("a/b", str(MANIFEST.digest)) is not None
    registry.uploads.deletes = False
    with pytest.raises(UnavailableError, match="does not delete") as caught:
        await repository.delete(MANIFEST.digest)
    assert caught.value.hint is not None


# Where, and as whom


async def test_mirrors_are_never_written_to_and_a_location_does_not_count(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    async with RegistrySimulator() as mirror:
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nprefix = "{registry.address}/a"\nlocation = "{mirror.address}/moved"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}"\ninsecure = true\n'
        )
        access = RegistryAccess(tls_verify=False, registries_conf=conf, registries_conf_dir=tmp_path)
        async with client_of(tmp_path, access=access) as client:
            async with RegistryDestination(client, in_registry(registry)) as destination:
                await destination.put_blob(BLOB, HeldContent(DATA))
                await destination.commit(MANIFEST)
            await client.delete(in_registry(registry))
        assert mirror.requests == []
        assert registry.blob(str(BLOB.digest)) == DATA


async def test_a_blocked_registry_is_not_written_to(registry: RegistrySimulator, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\nblocked = true\n')
    access = RegistryAccess(registries_conf=conf, registries_conf_dir=tmp_path)
    async with client_of(tmp_path, access=access) as client:
        with pytest.raises(PolicyError):
            async with RegistryDestination(client, in_registry(registry)):
                pass
    assert registry.requests == []


async def test_hosts_toml_says_how_the_registry_itself_is_reached(registry: RegistrySimulator, tmp_path: Path) -> None:
    directory = tmp_path / "hosts" / "reg.example"
    directory.mkdir(parents=True)
    hosts = f'server = "http://{registry.address}"\n[host."http://127.0.0.1:1"]\ncapabilities = ["pull", "push"]\n'
    (directory / "hosts.toml").write_text(hosts)
    reference = parse_reference("reg.example/a/b:t")
    async with client_of(tmp_path, access=RegistryAccess(hosts_dir=tmp_path / "hosts")) as client:
        await (await client.repository(reference)).put_manifest("t", MANIFEST)
    assert registry.manifest("a/b", "t") == (MANIFEST.raw, OCI_MANIFEST)
    async with client_of(tmp_path, access=RegistryAccess(tls_verify=True, hosts_dir=tmp_path / "hosts")) as client:
        with pytest.raises(ConfigurationError, match="plain http"):
            await client.repository(reference)


async def test_reading_and_writing_and_deleting_have_keys_of_their_own(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.protection = Bearer()
    registry.add_manifest("a/b", "t", MANIFEST.raw, OCI_MANIFEST)
    repository = await client.repository(in_registry(registry))
    await repository.has_blob(BLOB)
    await repository.mount_blob(BLOB, "other/c")
    await client.delete(in_registry(registry))
    asked = [[value for name, value in request.query if name == "scope"] for request in registry.asked("/token")]
    assert asked == [
        ["repository:a/b:pull,push"],
        ["repository:a/b:pull,push", "repository:other/c:pull"],
        ["repository:a/b:pull"],
        ["repository:a/b:*,delete,pull,push"],
    ]


@pytest.mark.parametrize("given", ["credentials", "token", "nothing"])
async def test_what_is_given_for_a_registry_is_not_for_its_mirrors(
    registry: RegistrySimulator, tmp_path: Path, given: str
) -> None:
    async with RegistrySimulator() as mirror:
        log_in(tmp_path, registry.address, "somebody", "else")
        registry.add_manifest("a/b", "t", MANIFEST.raw, OCI_MANIFEST)
        registry.protection = Basic("me", "secret") if given != "token" else Bearer()
        registry.tokens.add("mine")
        mirror.protection = Basic("me", "secret")
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}"\ninsecure = true\n'
        )
        access = RegistryAccess(
            tls_verify=False,
            registries_conf=conf,
            registries_conf_dir=tmp_path,
            credentials=Credentials("me", "secret") if given == "credentials" else None,
            token="mine" if given == "token" else None,
            is_anonymous=given == "nothing",
        )
        assert "secret" not in repr(access)
        assert "mine" not in repr(access)
        async with client_of(tmp_path, access=access) as client:
            source = RegistrySource(client, in_registry(registry))
            if given == "nothing":
                with pytest.raises(AuthenticationError):
                    await source.manifest()
                assert [request.headers.get("authorization") for request in registry.requests] == [None] * 2
            else:
                assert (await source.manifest()).raw == MANIFEST.raw
        assert {request.headers.get("authorization") for request in mirror.requests} == {None}


@needs_registry
async def test_docker_registry_with_a_password(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", password=True) as running:
        reference = parse_reference(f"{running.address}/a/b:t")
        async with client_of(tmp_path) as client, RegistryDestination(client, reference) as destination:
            with pytest.raises(AuthenticationError):
                await destination.put_blob(BLOB, HeldContent(DATA))
        log_in(tmp_path, running.address, USER, PASSWORD)
        async with client_of(tmp_path) as client:
            async with RegistryDestination(client, reference) as destination:
                for blob in BUILT.blobs:
                    await destination.put_blob(descriptor(blob), HeldContent(blob.data))
                await destination.commit(MANIFEST)
            await client.delete(reference)


@needs_registry
async def test_docker_registry_with_tokens_lets_those_push_who_may(tmp_path: Path) -> None:
    """Mounts, pushes and deletions between real parts: each with the scopes that it needs."""
    with (
        token_server(TokenAuthority(tmp_path / "authority")) as tokens,
        docker_registry(tmp_path / "registry", auth=tokens.configuration) as running,
    ):
        tokens.users["me"] = "secret"
        tokens.grants |= {None: {}, "me": {"a/b": {"pull", "push"}, "c": {"pull", "push"}}}
        log_in(tmp_path, running.address, "me", "secret")
        first, second = (parse_reference(f"{running.address}/{path}:t") for path in ("c", "a/b"))
        async with client_of(tmp_path) as client:
            async with RegistryDestination(client, first) as destination:
                for blob in BUILT.blobs:
                    await destination.put_blob(descriptor(blob), HeldContent(blob.data))
                await destination.commit(MANIFEST)
            async with RegistryDestination(client, second) as destination:
                for blob in BUILT.blobs:
                    assert not await destination.mount_blob(descriptor(blob), [f"{running.address}/secret"])
                    assert await destination.mount_blob(descriptor(blob), [first.name])
                await destination.commit(MANIFEST)
            with pytest.raises(AuthenticationError):
                await client.delete(second)
            tokens.grants["me"] = {"a/b": {"pull", "push", "delete"}}
            await client.delete(second)
            with pytest.raises(NotFoundError):
                await client.delete(second)
