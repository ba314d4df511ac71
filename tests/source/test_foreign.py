"""Layers that are to be had elsewhere: only on request, in order, without credentials, and verified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.copy import Copier
from asyncpull.copying.plan import CopyOptions
from asyncpull.errors import (
    DigestMismatchError,
    DocumentTooLargeError,
    NotFoundError,
    SizeMismatchError,
    SourceError,
)
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.credentials import Credentials
from tests.support import images
from tests.support.pulls import AMD64, HURRY, layer
from tests.support.registry_faults import flip, status, surplus, without_ranges
from tests.support.registry_simulator import Basic, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ACCESS = Access(RegistryAccess(tls_verify=False, credentials=Credentials("me", "secret")), retry=HURRY)
WANTED = CopyOptions(takes_foreign_layers=True)
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


@pytest.fixture(autouse=True)
def private_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        simulator.protection = Basic("me", "secret")
        yield simulator


@pytest.fixture
async def elsewhere() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture(params=[1000, 900_000])
def blob(request: pytest.FixtureRequest) -> images.Blob:
    return images.Blob(FOREIGN, images.image([layer("foreign", request.param)]).layers[0].data)


def offer(registry: RegistrySimulator, blob: images.Blob, *urls: str) -> str:
    """An image whose one layer the registry does not have."""
    target = images.image([layer("foreign")])
    document = json.loads(target.manifest.data)
    document["layers"] = [blob.descriptor(urls=list(urls))]
    registry.add_blob(target.config.data)
    registry.add_manifest("a/b", "1", json.dumps(document).encode(), images.OCI_MANIFEST)
    return f"docker://{registry.address}/a/b:1"


def at(server: RegistrySimulator, blob: images.Blob) -> str:
    return f"http://{server.address}/v2/layers/here/blobs/{blob.digest}"


async def copy(source: str, place: Path, options: CopyOptions | None = None) -> None:
    async with Copier(source=ACCESS, platform=AMD64) as copier:
        await copier.copy(source, f"oci:{place}:1", options)


async def test_only_on_request_and_without_credentials(
    registry: RegistrySimulator, elsewhere: RegistrySimulator, blob: images.Blob, tmp_path: Path
) -> None:
    elsewhere.add_blob(blob.data)
    source = offer(
        registry, blob, "ftp://nowhere.example/layer", "http://[", "http://127.0.0.1:1/layer", at(elsewhere, blob)
    )
    await copy(source, tmp_path / "left")
    assert elsewhere.requests == []
    await copy(source, tmp_path / "taken", WANTED)
    taken = tmp_path / "taken" / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
    assert taken.read_bytes() == blob.data
    assert elsewhere.requests
    assert all("authorization" not in request.headers for request in elsewhere.requests)
    assert any("authorization" in request.headers for request in registry.asked("/blobs/"))


async def test_a_server_without_ranges(
    registry: RegistrySimulator, elsewhere: RegistrySimulator, blob: images.Blob, tmp_path: Path
) -> None:
    elsewhere.add_blob(blob.data)
    elsewhere.on("/blobs/", without_ranges, times=None)
    await copy(offer(registry, blob, at(elsewhere, blob)), tmp_path / "taken", WANTED)


@pytest.mark.parametrize(
    ("contents", "error"),
    [
        ("other", (DigestMismatchError,)),
        ("longer", (SizeMismatchError, DocumentTooLargeError)),
        ("missing", (NotFoundError,)),
        ("broken", (SourceError,)),
    ],
)
async def test_what_is_not_the_layer_is_refused(
    registry: RegistrySimulator,
    elsewhere: RegistrySimulator,
    blob: images.Blob,
    tmp_path: Path,
    contents: str,
    error: tuple[type[Exception], ...],
) -> None:
    match contents:
        case "other":
            elsewhere.add_blob(blob.data)
            elsewhere.on("/blobs/", flip(100), times=None)
        case "longer":
            elsewhere.add_blob(blob.data)
            elsewhere.on("/blobs/", surplus(), times=None)
        case "broken":
            elsewhere.on("/blobs/", status(503), times=None)
        case _:
            pass
    with pytest.raises(error):
        await copy(offer(registry, blob, at(elsewhere, blob)), tmp_path / "taken", WANTED)
    assert not (tmp_path / "taken" / "index.json").exists()


async def test_no_url_that_can_be_asked(registry: RegistrySimulator, blob: images.Blob, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        await copy(offer(registry, blob, "file:///etc/passwd"), tmp_path / "taken", WANTED)
