"""Layouts, their archives and flat directories between us and skopeo, podman, buildah, crane, umoci and oras."""

from __future__ import annotations

import asyncio
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.destination.opening import open_destination
from asyncpull.source.opening import open_source
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, Index, parse_document
from tests.support import images, tars
from tests.support.carrying import carry
from tests.support.samples import base_layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer
    from tests.support.stores import SharedStore

ONE = images.image([base_layer(), tars.tar([tars.file("large", images.noise(1, 300_000))])])
OTHER = images.image([base_layer(), tars.tar([tars.file("other", b"other")])], architecture="arm64")
MANY = images.index([ONE, OTHER])


@pytest.fixture
def source(place: Path) -> Path:
    """A layout with an image and an index, which neither side wrote."""
    images.write_layout(place / "src", {"one": ONE, "many": MANY, "other": OTHER})
    return place / "src"


async def ours(source: str, destination: str) -> None:
    async with (
        open_source(parse_location(source)) as reader,
        open_destination(parse_location(destination)) as writer,
    ):
        await carry(reader, writer)


def skopeo(peer: Peer, *arguments: str) -> str:
    return peer.run("skopeo", "--insecure-policy", *arguments)


async def assert_reads(location: str, target: images.Image | images.Index, access: Access | None = None) -> None:
    """We read the very bytes of ``target`` at ``location``, every blob of it."""
    async with open_source(parse_location(location), access) as source:
        document = await source.manifest()
        assert document.raw == target.manifest.data
        parsed = parse_document(document.raw, document.media_type)
        digests = [each.digest for each in parsed.manifests] if isinstance(parsed, Index) else [document.digest]
        for digest, each in zip(digests, target.images if isinstance(target, images.Index) else (target,), strict=True):
            found = await source.manifest(digest)
            assert found.raw == each.manifest.data
            manifest = parse_document(found.raw, found.media_type)
            assert not isinstance(manifest, Index)
            assert await source.blob_bytes(manifest.config, CONFIG_LIMIT) == each.config.data
            for layer, blob in zip(manifest.layers, each.layers, strict=True):
                assert await source.blob_bytes(layer, 1 << 20) == blob.data


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def members(path: Path) -> dict[str, bytes | None]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive:
            content = archive.extractfile(member)
            found[member.name] = content.read() if content else None
    return found


def podman_pull(store: SharedStore, place: Path, location: str) -> None:
    """Pull from a path below ``place``, relative: podman makes a name of a path, and an absolute one may be none."""
    pull = (*store.podman_command, "pull", "--quiet", location)
    store.peer.run("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", place, *pull)


FORMS = {
    "oci": "oci:{}",
    "oci named": "oci:{}:docker.io/library/name:1.0-a_b",
    "oci-archive": "oci-archive:{}",
    "oci-archive named": "oci-archive:{}:name",
    "dir": "dir:{}",
}


@pytest.mark.parametrize("many", [False, True], ids=["image", "index"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_the_same_bytes_as_skopeo(source: Path, peer: Peer, place: Path, form: str, many: bool) -> None:
    name, target = ("many", MANY) if many else ("one", ONE)
    await ours(f"oci:{source}:{name}", form.format(place / "ours"))
    skopeo(peer, "copy", *["--all"] * many, f"oci:{source}:{name}", form.format(place / "theirs"))
    written = [place / "ours", place / "theirs"]
    ours_has, theirs_has = [members(path) if "archive" in form else files(path) for path in written]
    if peer.name == "debian" and "index.json" in theirs_has:  # skopeo 1.9 had a blank here, and no media type there
        theirs_has["oci-layout"] = (theirs_has["oci-layout"] or b"").replace(b" ", b"")
        index = json.loads(theirs_has["index.json"] or b"")
        index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": index["manifests"]}
        theirs_has["index.json"] = json.dumps(index, separators=(",", ":")).encode()
    if "archive" in form and not many:
        assert ours_has.pop("manifest.json")  # for dockerd: tests/interop/test_dockerd.py
    assert ours_has == theirs_has
    await assert_reads(form.format(place / "theirs"), target)
    # And they read ours, all of it.
    skopeo(peer, "copy", *["--all"] * many, form.format(place / "ours"), f"dir:{place}/back")
    await assert_reads(f"dir:{place}/back", target)


async def test_both_write_to_one_layout(source: Path, peer: Peer, place: Path) -> None:
    where = f"oci:{place}/both"
    skopeo(peer, "copy", f"oci:{source}:other", f"{where}:theirs")
    await ours(f"oci:{source}:one", f"{where}:ours")
    skopeo(peer, "copy", "--all", f"oci:{source}:many", f"{where}:index")
    await ours(f"oci:{source}:one", f"{where}:theirs")
    skopeo(peer, "copy", f"oci:{source}:other", f"{where}:ours")
    for name, target in (("theirs", ONE), ("ours", OTHER), ("index", MANY)):
        await assert_reads(f"{where}:{name}", target)
        assert skopeo(peer, "inspect", "--raw", f"{where}:{name}").encode() == target.manifest.data
    skopeo(peer, "copy", f"oci:{source}:other", f"dir:{place}/dir")
    await ours(f"oci:{source}:one", f"dir:{place}/dir")
    await assert_reads(f"dir:{place}/dir", ONE)
    skopeo(peer, "copy", "--all", f"oci:{source}:many", f"dir:{place}/dir")
    await assert_reads(f"dir:{place}/dir", MANY)


async def test_blobs_that_layouts_share(source: Path, peer: Peer, place: Path) -> None:
    access = Access(shared_blobs=place / "blobs")
    (place / "blobs").mkdir()
    async with (
        open_source(parse_location(f"oci:{source}:one")) as reader,
        open_destination(parse_location(f"oci:{place}/ours:x"), access) as writer,
    ):
        await carry(reader, writer)
    skopeo(peer, "copy", "--dest-shared-blob-dir", str(place / "blobs"), f"oci:{source}:other", f"oci:{place}/theirs:x")
    await assert_reads(f"oci:{place}/ours:x", ONE, access)
    await assert_reads(f"oci:{place}/theirs:x", OTHER, access)
    skopeo(peer, "copy", "--src-shared-blob-dir", str(place / "blobs"), f"oci:{place}/ours:x", f"dir:{place}/back")
    await assert_reads(f"dir:{place}/back", ONE)


@pytest.mark.parametrize("form", ["oci:{}", "oci-archive:{}", "dir:{}"])
async def test_an_image_of_docker_is_kept_as_it_is(peer: Peer, place: Path, form: str) -> None:
    # Without a name: by its name skopeo 1.9 finds an image in a layout only if it is an OCI image.
    target = images.image([base_layer()], flavour="docker")
    images.write_layout(place / "src", {"1": target})
    await ours(f"oci:{place}/src:1", form.format(place / "ours"))
    assert skopeo(peer, "inspect", "--raw", form.format(place / "ours")).encode() == target.manifest.data
    skopeo(peer, "copy", form.format(place / "ours"), f"dir:{place}/back")
    await assert_reads(f"dir:{place}/back", target)


@pytest.mark.root
@pytest.mark.parametrize("form", ["oci:{}:name", "oci-archive:{}:name", "dir:{}"])
async def test_podman_loads_what_we_write_and_we_read_what_it_saves(
    source: Path, store: SharedStore, place: Path, form: str
) -> None:
    await ours(f"oci:{source}:one", form.format(place / "ours"))
    if form.startswith("oci-archive"):
        assert "name" in store.podman("load", "--quiet", "--input", str(place / "ours"))
    else:
        podman_pull(store, place, form.format("ours"))
    assert store.podman("images", "--quiet", "--no-trunc") == f"sha256:{ONE.id}"
    save = {"oci": "oci-dir", "oci-archive": "oci-archive", "dir": "docker-dir"}[form.partition(":")[0]]
    store.podman("save", "--quiet", "--format", save, "--output", str(place / "saved"), ONE.id)
    async with open_source(parse_location(form.format(place / "saved").removesuffix(":name"))) as reader:
        document = await reader.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert not isinstance(manifest, Index)
        config = await reader.blob_bytes(manifest.config, CONFIG_LIMIT)
        assert json.loads(config)["rootfs"]["diff_ids"] == list(ONE.diff_ids)
        for layer in manifest.layers:
            assert len(await reader.blob_bytes(layer, 1 << 20)) == layer.size


@pytest.mark.root
async def test_buildah_writes_what_we_read(source: Path, store: SharedStore, peer: Peer, place: Path) -> None:
    podman_pull(store, place, f"oci:{source.name}:one")
    buildah = ("buildah", *store.arguments)
    for form in ("oci:{}:name", "oci-archive:{}:name", "dir:{}"):
        where = form.format(place / f"buildah-{form.partition(':')[0]}")
        peer.run(*buildah, "push", "--quiet", "--format", "oci", ONE.id, where)
        async with open_source(parse_location(where)) as reader:
            document = await reader.manifest()
            manifest = parse_document(document.raw, document.media_type)
            assert not isinstance(manifest, Index)
            assert await reader.blob_bytes(manifest.config, CONFIG_LIMIT) == ONE.config.data


@pytest.fixture
def tools(newest: Peer) -> Callable[[str], Peer]:
    """The newest peer, if it has a tool."""

    def having(tool: str) -> Peer:
        if not newest.has(tool):
            pytest.skip(f"{tool} is not installed beside the newest podman")
        return newest

    return having


@pytest.mark.parametrize("peer", ["newest"], indirect=True)
async def test_crane_pushes_and_validates_what_we_write(
    tools: Callable[[str], Peer], source: Path, place: Path, registry: Registry
) -> None:
    crane = tools("crane")
    await ours(f"oci:{source}:one", f"oci:{place}/one")
    await ours(f"oci:{source}:many", f"oci:{place}/many")
    for name, target in (("one", ONE), ("many", MANY)):
        reference = f"{registry.address}/layouts/{name}:1"
        crane.run("crane", "push", "--insecure", str(place / name), reference)
        assert crane.run("crane", "digest", "--insecure", reference).strip() == target.manifest.digest
        crane.run("crane", "validate", "--insecure", "--remote", reference)
        crane.run("crane", "pull", "--insecure", "--format=oci", reference, str(place / f"crane-{name}"))
    await assert_reads(f"oci:{place}/crane-one", ONE)


@pytest.mark.parametrize("peer", ["newest"], indirect=True)
@pytest.mark.root
async def test_umoci_and_oras_read_what_we_write(tools: Callable[[str], Peer], source: Path, place: Path) -> None:
    await ours(f"oci:{source}:one", f"oci:{place}/layout:one")
    await ours(f"oci:{source}:many", f"oci:{place}/layout:many")
    umoci = tools("umoci")
    assert umoci.run("umoci", "ls", "--layout", str(place / "layout")).split() == ["one", "many"]
    await asyncio.to_thread(umoci.run, "umoci", "unpack", "--image", f"{place}/layout:one", str(place / "bundle"))
    assert (place / "bundle" / "rootfs" / "large").read_bytes() == images.noise(1, 300_000)
    oras = tools("oras")
    oras.run("oras", "cp", "--from-oci-layout", f"{place}/layout:many", "--to-oci-layout", f"{place}/oras:many")
    await assert_reads(f"oci:{place}/oras:many", MANY)
