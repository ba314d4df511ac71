"""Where signatures come from: files, web servers, the registry itself, attachments; with limits everywhere."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AsyncpullError, DocumentError, DocumentTooLargeError, StoreError, UnavailableError
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.spec.digest import Digest
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.signature import (
    SIGNATURE_LIMIT,
    SIGNATURES_LIMIT,
    SIGSTORE_TYPE,
    Signature,
    SigstoreSignature,
    SimpleSignature,
    signature_from_file,
    signature_to_file,
)
from asyncpull.trust.gate import Gate
from asyncpull.trust.policyfile import TrustOptions
from asyncpull.trust.signaturestore import DirectorySignatures
from tests.support import images
from tests.support.mirrors import configuration
from tests.support.registry_faults import header, replaced, status
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DIGEST = Digest.of(b"manifest")
FIRST, SECOND = SimpleSignature(b"\x90one"), SigstoreSignature(SIGSTORE_TYPE, b"{}", {"a": "b"})


class Place:
    """A registry, and a registries.d that says where its signatures are."""

    def __init__(self, registry: RegistrySimulator, client: RegistryClient, directory: Path) -> None:
        self.registry, self._client, self.directory = registry, client, directory

    def configure(self, **section: object) -> None:
        named = {name.replace("_", "-"): value for name, value in section.items()}
        (self.directory / "x.yaml").write_text(json.dumps({"docker": {self.registry.address: named}}))

    async def found(self) -> tuple[Signature, ...]:
        gate = Gate(TrustOptions(registries_dir=self.directory), environ={})
        reference = parse_reference(f"{self.registry.address}/a/b:1")
        return await gate.registry_signatures(self._client, reference).of(DIGEST, is_instance=False)

    def files(self, *signatures: bytes) -> None:
        """Put files into a lookaside store."""
        place = self.directory / f"look aside/a/b@sha256={DIGEST.encoded}"
        place.mkdir(parents=True, exist_ok=True)
        for number, raw in enumerate(signatures, 1):
            (place / f"signature-{number}").write_bytes(raw)


@asynccontextmanager
async def a_place(directory: Path) -> AsyncIterator[Place]:
    access = RegistryAccess(tls_verify=False)
    retry = RetryPolicy(attempts=1)
    async with RegistrySimulator() as registry, RegistryClient(access, retry=retry, environ={}) as client:
        yield Place(registry, client, directory)


def test_files_of_signatures() -> None:
    for signature in (FIRST, SECOND):
        assert signature_from_file(signature_to_file(signature), "x") == signature
    assert signature_from_file(b"\0simple-signing\n\x90one", "x") == FIRST
    for raw in (b"", b"text", b"\0", b"\0sigstore-json", b"\0other\n{}", b"\0sigstore-json\n[]", b"\xff"):
        with pytest.raises(DocumentError):
            signature_from_file(raw, "x")


async def test_files(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        place.configure(lookaside=f"file://{tmp_path}/look%20aside")
        assert await place.found() == ()
        place.files(signature_to_file(FIRST), signature_to_file(SECOND))
        assert await place.found() == (FIRST, SECOND)
        place.files(b"\x90" + bytes(SIGNATURE_LIMIT))
        with pytest.raises(DocumentTooLargeError):
            await place.found()
        place.files(b"nonsense")
        with pytest.raises(DocumentError, match="signature-1"):
            await place.found()
        place.files(*[b"\x90" + bytes(SIGNATURE_LIMIT - 1)] * 4, b"\x90" + bytes(9))
        with pytest.raises(DocumentTooLargeError, match="signatures of one manifest"):
            await place.found()
        place.files(*[signature_to_file(FIRST)] * SIGNATURES_LIMIT)
        with pytest.raises(DocumentError, match=f"more than {SIGNATURES_LIMIT}"):
            await place.found()


async def test_a_web_server(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        place.configure(lookaside=f"http://{place.registry.address}/look%20aside")
        assert await place.found() == ()
        path = f"/look%20aside/a/b@sha256={DIGEST.encoded}/signature-"
        assert [request.target for request in place.registry.asked("look")] == [f"{path}1"]
        place.registry.on(f"{path}1", status(200, signature_to_file(FIRST)), times=None)
        place.registry.on(f"{path}2", status(200, signature_to_file(SECOND)), times=None)
        assert await place.found() == (FIRST, SECOND)
        place.registry.on(f"{path}2", status(500))
        with pytest.raises(UnavailableError, match="answers 500"):
            await place.found()
        place.registry.on(f"{path}2", status(200, b"<html>"))
        with pytest.raises(DocumentError):
            await place.found()
        place.registry.on(f"{path}2", status(200, b"\x90" + bytes(SIGNATURE_LIMIT)))
        with pytest.raises(DocumentTooLargeError):
            await place.found()
        place.registry.on(path, status(200, signature_to_file(FIRST)), times=None)
        with pytest.raises(DocumentError, match=f"more than {SIGNATURES_LIMIT}"):
            await place.found()


async def test_what_is_said_of_a_mirror_counts_too(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        address = place.registry.address
        section = {"lookaside": f"file://{tmp_path}/look%20aside", "use-sigstore-attachments": True}
        conf = tmp_path / "registries.conf"
        conf.write_text(configuration("named.example/x", f"{address}/a"))
        access = RegistryAccess(tls_verify=False, registries_conf=conf, registries_conf_dir=tmp_path / "none")
        tag = f"sha256-{DIGEST.encoded}.sig"
        place.registry.add_blob(SECOND.payload)
        layer = images.Blob(SIGSTORE_TYPE, SECOND.payload).descriptor(annotations=dict(SECOND.annotations))
        document = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
        place.registry.add_manifest("a/b", tag, document, images.OCI_MANIFEST)
        reference = parse_reference("named.example/x/b:1")
        other, said = SimpleSignature(b"\x90two"), tmp_path / "x.yaml"
        for scope, path, signature in (("named.example", "x/b", FIRST), (address, "a/b", other)):
            beside = tmp_path / f"look aside/{path}@sha256={DIGEST.encoded}"
            beside.mkdir(parents=True)
            (beside / "signature-1").write_bytes(signature_to_file(signature))
            said.write_text(json.dumps({"docker": {scope: section}}))
            async with RegistryClient(access, retry=RetryPolicy(attempts=1), environ={}) as client:
                gate = Gate(TrustOptions(registries_dir=tmp_path), environ={"HOME": str(tmp_path)})
                found = await gate.registry_signatures(client, reference).of(DIGEST, is_instance=False)
            assert found == (signature, SECOND)


async def test_the_registrys_own(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        place.configure(lookaside=f"file://{tmp_path}/look%20aside")
        place.files(signature_to_file(SECOND))
        content = base64.b64encode(FIRST.message).decode()
        listed = [
            {"schemaVersion": 2, "name": "x", "type": "atomic", "content": content},
            {"schemaVersion": 1, "name": "x", "type": "atomic", "content": "!"},
            {"schemaVersion": 2, "name": "x", "type": "other", "content": "!"},
        ]
        path = f"/extensions/v2/a/b/signatures/{DIGEST}"
        place.registry.on(path, status(200, json.dumps({"signatures": listed}).encode()), times=None)
        assert await place.found() == (SECOND,)  # nobody said that there is such an extension
        place.registry.on("/v2/", header("X-Registry-Supports-Signatures", "1"), times=None)
        assert await place.found() == (FIRST,)
        for body in (
            b"[]",
            b'{"signatures": [1]}',
            b'{"signatures": [{"schemaVersion": 2, "type": "atomic", "content": "!"}]}',
        ):
            place.registry.on(path, replaced(body))
            with pytest.raises(DocumentError):
                await place.found()


async def test_attachments(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        place.configure(lookaside=f"file://{tmp_path}/look%20aside", use_sigstore_attachments=True)
        assert await place.found() == ()
        tag = f"sha256-{DIGEST.encoded}.sig"
        other = images.Blob("application/vnd.dsse.envelope.v1+json", b"attestation")
        blob = images.Blob(SIGSTORE_TYPE, SECOND.payload)
        for each in (other, blob):
            place.registry.add_blob(each.data)
        layers = [other.descriptor(), blob.descriptor(annotations={"a": "b"})]

        def offer(media_type: str = images.OCI_MANIFEST, **changes: object) -> None:
            document = json.dumps({"schemaVersion": 2, "layers": layers} | changes).encode()
            place.registry.add_manifest("a/b", tag, document, media_type)

        offer()
        place.files(signature_to_file(FIRST))
        assert await place.found() == (FIRST, SigstoreSignature(other.media_type, other.data), SECOND)
        for kind, changed in (
            (DocumentError, [{"digest": "x"}]),
            (DocumentError, layers * SIGNATURES_LIMIT),
            (DocumentError, [blob.descriptor(annotations={"a": 1})]),
            (DocumentTooLargeError, [{**blob.descriptor(), "size": SIGNATURE_LIMIT + 1}]),
        ):
            offer(layers=changed)
            with pytest.raises(kind):
                await place.found()
        offer(images.DOCKER_MANIFEST)
        with pytest.raises(DocumentError, match="media type"):
            await place.found()
        offer()
        place.registry.on(f"/blobs/{blob.digest}", replaced(b"[]"), times=None)
        with pytest.raises(AsyncpullError, match="digest"):
            await place.found()
        place.configure(lookaside=f"file://{tmp_path}/look%20aside")
        assert await place.found() == (FIRST,)


async def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "signature-1").write_bytes(signature_to_file(FIRST))
    (tmp_path / "signature-3").write_bytes(signature_to_file(SECOND))
    (tmp_path / f"{DIGEST.encoded}.signature-1").write_bytes(signature_to_file(SECOND))
    found = DirectorySignatures(str(tmp_path))
    assert await found.of(DIGEST, is_instance=False) == (FIRST,)
    assert await found.of(DIGEST, is_instance=True) == (SECOND,)
    assert await found.of(Digest.of(b"x"), is_instance=True) == ()
    (tmp_path / "signature-1").unlink()
    (tmp_path / "signature-1").mkdir()
    with pytest.raises(StoreError, match="signature-1"):
        await found.of(DIGEST, is_instance=False)
