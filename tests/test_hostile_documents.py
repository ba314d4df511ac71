"""Documents that two readers would read differently, or that name what is no digest: no copy takes them, from anywhere.

What they are at one source they are at the others: a registry, a layout, a directory.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asyncpull.access import Access
from asyncpull.cli.exit_codes import REFUSED_CONTENT, exit_code_of
from asyncpull.copy import Copier
from asyncpull.copying.plan import CopyOptions, Instances, Selection
from asyncpull.errors import AsyncpullError, DocumentError
from asyncpull.registry.config import RegistryAccess
from asyncpull.spec.manifest import MANIFEST_LIMIT
from asyncpull.spec.platform import Platform
from tests.support import images, tars
from tests.support.images import OCI_INDEX, OCI_MANIFEST
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = images.image([tars.tar([tars.file("a", b"a")])])
GOOD: dict[str, Any] = json.loads(IMAGE.manifest.data)
ENTRY: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": IMAGE.manifest.digest, "size": len(IMAGE.manifest.data)}
ENTRY["platform"] = {"os": "linux", "architecture": "amd64"}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [ENTRY]}
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def layer(**changes: object) -> dict[str, Any]:
    return {**GOOD, "layers": [GOOD["layers"][0] | changes]}


HOSTILE: dict[str, tuple[object, str]] = {
    "a manifest with manifests": ({**GOOD, "manifests": [ENTRY]}, OCI_MANIFEST),
    "an index with layers": ({**INDEX, "layers": GOOD["layers"]}, OCI_INDEX),
    "an index with a config": ({**INDEX, "config": GOOD["config"]}, OCI_INDEX),
    "both and no media type": ({**INDEX, **GOOD, "mediaType": None}, OCI_MANIFEST),
    "a manifest with layers of schema 1": ({**GOOD, "fsLayers": [{"blobSum": ENTRY["digest"]}]}, OCI_MANIFEST),
    "an index sent as a manifest": (INDEX, OCI_MANIFEST),
    "a manifest sent as an index": (GOOD, OCI_INDEX),
    "a manifest of Docker's sent as OCI's": ({**GOOD, "mediaType": DOCKER_MANIFEST}, OCI_MANIFEST),
    "a layer outside": (layer(digest="sha256:../../x"), OCI_MANIFEST),
    "a config outside": ({**GOOD, "config": GOOD["config"] | {"digest": "sha256:../../../etc/passwd"}}, OCI_MANIFEST),
    "an instance outside": ({**INDEX, "manifests": [ENTRY | {"digest": "sha256:/etc/passwd"}]}, OCI_INDEX),
    "a digest in capitals": (layer(digest="sha256:" + "A" * 64), OCI_MANIFEST),
    "a digest that is too short": (layer(digest="sha256:" + "a" * 63), OCI_MANIFEST),
    "a digest of no algorithm": (layer(digest="md5:" + "a" * 32), OCI_MANIFEST),
    "a size below zero": (layer(size=-1), OCI_MANIFEST),
    "a size that is text": (layer(size="5"), OCI_MANIFEST),
    "a size of another layer": (layer(size=1), OCI_MANIFEST),
    "too large": ({**GOOD, "annotations": {"x": "x" * MANIFEST_LIMIT}}, OCI_MANIFEST),
    "no document": ([], OCI_MANIFEST),
}
# In a directory nobody says what the manifest is but the manifest.
ONLY_SENT = {"an index sent as a manifest", "a manifest sent as an index", "a manifest of Docker's sent as OCI's"}


def in_registry(registry: RegistrySimulator, _directory: Path, raw: bytes, media_type: str) -> str:
    registry.add_image("a/b", "good", IMAGE)
    registry.add_manifest("a/b", "1", raw, media_type)
    return f"docker://{registry.address}/a/b:1"


def in_layout(_registry: RegistrySimulator, directory: Path, raw: bytes, media_type: str) -> str:
    images.write_layout(directory, {"good": IMAGE})
    digest = images.sha256(raw)
    (directory / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(raw)
    listed = json.loads((directory / "index.json").read_bytes())
    name = {"org.opencontainers.image.ref.name": "1"}
    listed["manifests"].append({"mediaType": media_type, "digest": digest, "size": len(raw), "annotations": name})
    (directory / "index.json").write_text(json.dumps(listed))
    return f"oci:{directory}:1"


def in_directory(_registry: RegistrySimulator, directory: Path, raw: bytes, _media_type: str) -> str:
    images.write_directory(directory, IMAGE)
    (directory / f"{IMAGE.manifest.digest.removeprefix('sha256:')}.manifest.json").write_bytes(IMAGE.manifest.data)
    (directory / "manifest.json").write_bytes(raw)
    return f"dir:{directory}"


CASES = [
    (name, offer)
    for name in HOSTILE
    for offer in (in_registry, in_layout, in_directory)
    if offer is not in_directory or name not in ONLY_SENT
]


@pytest.mark.parametrize(("name", "offer"), CASES)
async def test_it_is_refused(name: str, offer: Callable[..., str], tmp_path: Path) -> None:
    document, media_type = HOSTILE[name]
    raw = json.dumps(document).encode()
    (tmp_path / "to").mkdir()
    images.write_layout(tmp_path / "to/layout", {"old": IMAGE})
    before = contents(tmp_path / "to")
    async with RegistrySimulator() as registry:
        source = offer(registry, tmp_path / "from", raw, media_type)
        for instances in (Instances.SYSTEM, Instances.ALL):
            for goal in (f"oci:{tmp_path}/to/layout:new", f"dir:{tmp_path}/to/dir", f"oci-archive:{tmp_path}/to/a"):
                with pytest.raises(AsyncpullError) as caught:
                    await copy(source, goal, CopyOptions(Selection(instances)))
                assert exit_code_of(caught.value) == REFUSED_CONTENT, caught.value
        assert contents(tmp_path / "to") == before


@pytest.mark.parametrize("offer", [in_registry, in_layout, in_directory])
async def test_an_encrypted_layer_is_passed_on_and_not_unpacked(offer: Callable[..., str], tmp_path: Path) -> None:
    encrypted = layer(mediaType="application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
    raw = json.dumps(encrypted).encode()
    async with RegistrySimulator() as registry:
        source = offer(registry, tmp_path / "from", raw, OCI_MANIFEST)
        await copy(source, f"dir:{tmp_path}/to", CopyOptions())
        assert (tmp_path / "to/manifest.json").read_bytes() == raw
        with pytest.raises(DocumentError, match="encrypted"):
            await copy(source, f"containers-storage:[overlay@{tmp_path}/graph+{tmp_path}/run]x:1", CopyOptions())


async def copy(source: str, goal: str, options: CopyOptions) -> None:
    access = Access(RegistryAccess(tls_verify=False))
    async with Copier(source=access, platform=Platform("linux", "amd64")) as copier:
        await copier.copy(source, goal, options)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, but for blobs that nothing lists, and what is kept for the next copy.

    That goes for the file that says of a directory which kind it is: without a manifest it holds no image.
    """
    found = (
        path
        for path in directory.rglob("*")
        if path.is_file()
        and path != directory / "dir/version"
        and not any(part == "blobs" or part.endswith(".asyncpull") for part in path.parts)
    )
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}
