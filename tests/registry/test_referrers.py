"""What is about a manifest: as the registry lists it, and as clients list it for registries that do not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import DocumentError, InvalidDigestError, UnavailableError
from asyncpull.registry.referrers import (
    entry_of,
    fallback_tag,
    parse_referrers,
    subject_of,
    with_entry,
    without_entry,
)
from asyncpull.spec.digest import Digest
from asyncpull.spec.source import SourceDocument
from tests.support.docker_registry import docker_registry, is_installed
from tests.support.images import OCI_INDEX, OCI_MANIFEST
from tests.support.pushes import client_of, in_registry
from tests.support.registry_faults import error, header, status
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.registry.client import RegistryClient
    from asyncpull.registry.repository import Repository

SUBJECT = Digest.of(b"the image")
OTHER = Digest.of(b"another image")
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}


def artifact(artifact_type: str, *, subject: Digest | None = SUBJECT, **more: object) -> SourceDocument:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY,
        "layers": [],
        **more,
    }
    if subject is not None:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 9}
    raw = json.dumps(document).encode()
    return SourceDocument(raw, OCI_MANIFEST, Digest.of(raw))


SBOM, SIGNATURE = artifact("application/spdx+json"), artifact("application/signature", annotations={"by": "me"})


# Pure


def test_a_tag_for_every_digest() -> None:
    assert fallback_tag(Digest.of(b"x")) == "sha256-2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert fallback_tag(Digest.of(b"x", "sha512")) == f"sha512-{Digest.of(b'x', 'sha512').encoded[:64]}"


def test_subjects() -> None:
    assert subject_of(SBOM.raw) == SUBJECT
    assert subject_of(artifact("a", subject=None).raw) is None
    with pytest.raises(InvalidDigestError):
        subject_of(b'{"subject": {"digest": "sha256:../../x"}}')
    with pytest.raises(DocumentError):
        subject_of(b'{"subject": []}')


def test_entries_have_type_and_annotations() -> None:
    assert entry_of(SIGNATURE) == {
        "mediaType": OCI_MANIFEST,
        "digest": str(SIGNATURE.digest),
        "size": len(SIGNATURE.raw),
        "artifactType": "application/signature",
        "annotations": {"by": "me"},
    }
    assert entry_of(artifact(""))["artifactType"] == EMPTY["mediaType"]


def test_lists_change_by_one_entry_and_keep_what_nobody_knows() -> None:
    first = with_entry(None, entry_of(SBOM))
    assert first is not None
    assert with_entry(first, entry_of(SBOM)) is None
    strange = json.dumps(json.loads(first) | {"x": 1}).encode()
    both = with_entry(strange, entry_of(SIGNATURE))
    assert both is not None
    assert json.loads(both)["x"] == 1
    assert [(str(each.descriptor.digest), each.artifact_type) for each in parse_referrers(both, OCI_INDEX)] == [
        (str(SBOM.digest), "application/spdx+json"),
        (str(SIGNATURE.digest), "application/signature"),
    ]
    assert json.loads(without_entry(both, SIGNATURE.digest) or b"") == json.loads(strange)
    assert without_entry(first, SIGNATURE.digest) is None
    assert without_entry(None, SIGNATURE.digest) is None


@pytest.mark.parametrize("raw", [b"[]", b"{", b'{"manifests": [1], "schemaVersion": 2}', SBOM.raw])
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_referrers(raw, None if raw != SBOM.raw else OCI_MANIFEST)


# Against a registry


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with client_of(tmp_path) as made:
        yield made


async def digests(repository: Repository, artifact_type: str | None = None) -> list[Digest]:
    return [each.descriptor.digest for each in await repository.referrers(SUBJECT, artifact_type)]


@pytest.mark.parametrize("knows", [True, False])
async def test_what_is_pushed_is_listed(registry: RegistrySimulator, client: RegistryClient, knows: bool) -> None:
    registry.uploads.knows_referrers = knows
    repository = await client.repository(in_registry(registry))
    assert await digests(repository) == []
    for document in (SBOM, SIGNATURE, SBOM, artifact("x", subject=OTHER)):
        await repository.put_manifest(document.digest, document)
    assert await digests(repository) == [SBOM.digest, SIGNATURE.digest]
    assert await digests(repository, "application/signature") == [SIGNATURE.digest]
    assert await digests(repository, "no/such") == []
    listed = registry.manifest("a/b", fallback_tag(SUBJECT))
    assert (listed is None) is knows


@pytest.mark.parametrize("heeds", [True, False])
async def test_many_at_once_lose_nothing(registry: RegistrySimulator, tmp_path: Path, heeds: bool) -> None:
    """One client waits for itself; two of them are helped by the registry, or by looking again."""
    registry.uploads.heeds_conditions = heeds
    documents = [artifact(f"type/{number}") for number in range(12)]
    async with client_of(tmp_path) as one, client_of(tmp_path) as two:
        repositories = [await each.repository(in_registry(registry)) for each in (one, two)]
        clients = 2 if heeds else 1
        await asyncio.gather(
            *(repositories[n % clients].put_manifest(each.digest, each) for n, each in enumerate(documents))
        )
        assert set(await digests(repositories[0])) == {each.digest for each in documents}


async def test_a_list_that_is_overwritten_meanwhile_is_written_again(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.uploads.heeds_conditions = False
    repository = await client.repository(in_registry(registry))
    lost = with_entry(None, entry_of(SIGNATURE))
    assert lost is not None

    def overwrite(_reply: object) -> None:
        registry.add_manifest("a/b", fallback_tag(SUBJECT), lost, OCI_INDEX)

    registry.on(fallback_tag(SUBJECT), overwrite, method="PUT")
    await repository.put_manifest(SBOM.digest, SBOM)
    assert await digests(repository) == [SIGNATURE.digest, SBOM.digest]


async def test_a_list_that_always_changes_is_given_up(registry: RegistrySimulator, client: RegistryClient) -> None:
    repository = await client.repository(in_registry(registry))
    theirs = with_entry(None, entry_of(SIGNATURE))
    assert theirs is not None

    def overwrite(_reply: object) -> None:
        registry.add_manifest("a/b", fallback_tag(SUBJECT), theirs, OCI_INDEX)

    registry.on(fallback_tag(SUBJECT), overwrite, method="PUT", times=None)
    with pytest.raises(UnavailableError, match="changed by somebody else"):
        await repository.put_manifest(SBOM.digest, SBOM)


async def test_a_tag_that_is_no_list_is_left_alone(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.add_manifest("a/b", fallback_tag(SUBJECT), SBOM.raw, OCI_MANIFEST)
    repository = await client.repository(in_registry(registry))
    with pytest.raises(DocumentError, match="no index"):
        await repository.put_manifest(SIGNATURE.digest, SIGNATURE)
    assert registry.manifest("a/b", fallback_tag(SUBJECT)) == (SBOM.raw, OCI_MANIFEST)


@pytest.mark.parametrize(
    "fault", [status(404), status(405), error(400, "UNSUPPORTED", "what?"), header("Content-Type", "text/html")]
)
async def test_a_registry_that_never_heard_of_referrers_has_the_tag(
    registry: RegistrySimulator, client: RegistryClient, fault: object
) -> None:
    registry.uploads.knows_referrers = True
    registry.on("/referrers/", fault, times=None)  # type: ignore[arg-type]
    registry.add_manifest("a/b", fallback_tag(SUBJECT), with_entry(None, entry_of(SBOM)) or b"", OCI_INDEX)
    assert await digests(await client.repository(in_registry(registry))) == [SBOM.digest]


async def test_a_registry_that_is_out_of_order_has_no_empty_list(
    registry: RegistrySimulator, client: RegistryClient
) -> None:
    registry.on("/referrers/", status(503), times=None)
    with pytest.raises(UnavailableError):
        await digests(await client.repository(in_registry(registry)))


async def test_lists_come_in_pages(registry: RegistrySimulator, client: RegistryClient) -> None:
    registry.uploads.knows_referrers = True
    repository = await client.repository(in_registry(registry))
    await repository.put_manifest(SBOM.digest, SBOM)
    registry.on("/referrers/", header("Link", f'</v2/a/b/referrers/{SUBJECT}?page=2>; rel="next"'))
    assert await digests(repository) == [SBOM.digest, SBOM.digest]
    registry.on("/referrers/", header("Link", '<https://elsewhere.example/x>; rel="next"'))
    with pytest.raises(UnavailableError, match="another origin"):
        await digests(repository)


@pytest.mark.parametrize("knows", [True, False])
async def test_what_is_deleted_is_listed_no_more(
    registry: RegistrySimulator, client: RegistryClient, knows: bool
) -> None:
    registry.uploads.knows_referrers = knows
    reference = in_registry(registry)
    repository = await client.repository(reference)
    for document in (SBOM, SIGNATURE):
        await repository.put_manifest(document.digest, document)
    assert await client.delete(reference.with_digest(SBOM.digest)) == SBOM.digest
    assert await digests(repository) == [SIGNATURE.digest]
    assert registry.manifest("a/b", str(SBOM.digest)) is None


@pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")
async def test_docker_registry_is_helped(tmp_path: Path) -> None:
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import parse_reference
    from tests.support.contents import HeldContent

    with docker_registry(tmp_path / "registry") as running:
        async with client_of(tmp_path) as client:
            reference = parse_reference(f"{running.address}/a/b:t")
            repository = await client.repository(reference)
            await repository.put_blob(Descriptor("", Digest.of(b"{}"), 2), HeldContent(b"{}"))
            for document in (SBOM, SIGNATURE):
                await repository.put_manifest(document.digest, document)
            assert await digests(repository) == [SBOM.digest, SIGNATURE.digest]
            await client.delete(reference.with_digest(SBOM.digest))
            assert await digests(repository) == [SIGNATURE.digest]
