"""A repository as a source: everything is asked of its own repository, by tag or by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from tests.support.images import OCI_MANIFEST
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from asyncpull.spec.source import Source

RAW, OTHER, BLOB = b'{"schemaVersion":2}', b'{"schemaVersion":2,"x":1}', b"{}"


async def test_a_repository_is_a_source() -> None:
    async with RegistrySimulator() as registry, RegistryClient(RegistryAccess(tls_verify=False)) as client:
        registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        other = Digest.parse(registry.add_manifest("a/b", "u", OTHER, OCI_MANIFEST))
        registry.add_blob(BLOB)
        source: Source = RegistrySource(client, parse_reference(f"{registry.address}/a/b:t"))
        assert source.name == f"{registry.address}/a/b:t"
        assert repr(source) == f"<RegistrySource {source.name}>"
        assert (await source.manifest()).raw == RAW
        assert (await source.manifest(other)).raw == OTHER
        assert await source.digest() == Digest.of(RAW)
        descriptor = Descriptor("", Digest.of(BLOB), len(BLOB))
        assert await source.blob_bytes(descriptor, 10) == BLOB
        async with source.open_blob(descriptor, 1) as response:
            assert [response.start, [chunk async for chunk in response.chunks]] == [1, [b"}"]]
    assert {request.path.split("/")[2:4] == ["a", "b"] for request in registry.asked("/a/b/")} == {True}
