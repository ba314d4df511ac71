"""Registries that we push to, read by skopeo, crane and oras; and layouts from which skopeo and we remove the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.deletion import delete_image
from asyncpull.destination.registry import RegistryDestination
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.source import SourceDocument
from tests.support.contents import HeldContent, descriptor
from tests.support.images import OCI_MANIFEST, Index, image, index, noise, write_layout
from tests.support.pushes import client_of
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.registry.client import RegistryClient
    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.peers import Peer

ONE = image([tar([file("base", noise(1, 3_000_000))]), tar([file("own", b"x")])], comment="pushed")
BOTH = index([ONE, image([tar([file("arm", b"y")])], architecture="arm64")])


def document_of(target: Image | Index) -> SourceDocument:
    return SourceDocument(target.manifest.data, target.manifest.media_type, Digest.parse(target.manifest.digest))


async def push(client: RegistryClient, name: str, target: Image | Index) -> None:
    async with RegistryDestination(client, parse_reference(name)) as destination:
        for each in target.images if isinstance(target, Index) else (target,):
            for blob in each.blobs:
                await destination.put_blob(descriptor(blob), HeldContent(blob.data, piece=1 << 20))
            await destination.put_manifest(document_of(each))
        await destination.commit(document_of(target))


@pytest.mark.parametrize("target", [ONE, BOTH], ids=["image", "index"])
async def test_what_we_push_others_read(
    peer: Peer, registry: Registry, place: Path, tmp_path: Path, target: Image | Index
) -> None:
    name = f"{registry.address}/pushed/{peer.name}:t"
    async with client_of(tmp_path) as client:
        await push(client, name, target)
    raw = peer.run("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}")
    assert raw.encode() == target.manifest.data
    peer.run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{place}/copied")
    copied = {path.name for path in (place / "copied").iterdir()}
    assert copied >= {blob.digest.removeprefix("sha256:") for blob in ONE.blobs}
    if peer.has("crane"):
        peer.run("crane", "validate", "--insecure", "--remote", name)


async def test_what_is_about_an_image_oras_finds(newest: Peer, registry: Registry, tmp_path: Path) -> None:
    if not newest.has("oras"):
        pytest.skip("oras is not installed")
    name = f"{registry.address}/pushed/referrers"
    artifact = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/spdx+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2},
            "layers": [],
            "subject": {"mediaType": OCI_MANIFEST, "digest": ONE.manifest.digest, "size": len(ONE.manifest.data)},
            "annotations": {"by": "us"},
        }
    ).encode()
    document = SourceDocument(artifact, OCI_MANIFEST, Digest.of(artifact))
    async with client_of(tmp_path) as client:
        await push(client, f"{name}:t", ONE)
        repository = await client.repository(parse_reference(f"{name}:t"))
        await repository.put_blob(Descriptor("", Digest.of(b"{}"), 2), HeldContent(b"{}"))
        await repository.put_manifest(document.digest, document)
        found = newest.run("oras", "discover", "--plain-http", "--format", "json", f"{name}:t")
        assert str(document.digest) in found
        attach = f"oras attach --plain-http --artifact-type t/sig {name}:t signature"
        newest.run("sh", "-c", f'cd "$(mktemp -d)" && echo sig > signature && {attach}')
        listed = await repository.referrers(Digest.parse(ONE.manifest.digest))
        assert [each.artifact_type for each in listed] == ["application/spdx+json", "t/sig"]


@pytest.mark.parametrize("peer", ["newest"], indirect=True)  # Debian's deletes nothing from layouts
async def test_skopeo_deletes_from_a_layout_what_we_delete(peer: Peer, place: Path) -> None:
    two = image([tar([file("base", noise(1, 3_000_000))]), tar([file("two", b"z")])], comment="two")
    for name in ("ours", "theirs"):
        write_layout(place / name, {"one": ONE, "two": two, "both": BOTH})
    for name in ("two", "one", "both"):
        await delete_image(parse_location(f"oci:{place}/ours:{name}"))
        peer.run("skopeo", "delete", f"oci:{place}/theirs:{name}")
        assert _held(place / "ours") == _held(place / "theirs")


def _held(layout: Path) -> tuple[set[str], object]:
    blobs = {path.name for path in (layout / "blobs").rglob("*") if path.is_file()}
    return blobs, json.loads((layout / "index.json").read_bytes())["manifests"]
