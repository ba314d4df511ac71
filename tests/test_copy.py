"""Copies between places of every kind: what arrives is what was there, or what was asked for; or nothing is."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asyncpull.access import Access
from asyncpull.copy import Copier
from asyncpull.copying.blobinfo import FILE, BlobInfoCache
from asyncpull.copying.plan import CopyOptions, Instances, ManifestFormat, Selection, parse_selection
from asyncpull.copying.transfer import HELD_BYTES
from asyncpull.errors import (
    AsyncpullError,
    DigestMismatchError,
    NotFoundError,
    PolicyError,
    SourceError,
    UsageError,
)
from asyncpull.layer.codec import Compression
from asyncpull.limits import Limits
from asyncpull.progress import CopyCompleted, CopyFailed, CopyStarted, FetchStarted, LayerReused, PutCompleted
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.opening import open_source
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import parse_location
from asyncpull.spec.manifest import CONFIG_LIMIT, ImageConfig, Index, Manifest, parse_document
from asyncpull.spec.mediatype import DOCKER_SCHEMA1_SIGNED, OCI_LAYER_ZSTD
from asyncpull.spec.source import RebuildingSource
from asyncpull.trust.policyfile import TrustOptions
from tests.support import images
from tests.support.docker_registry import docker_registry, is_installed
from tests.support.pulls import AMD64, HURRY, Heard, layer, open_fds
from tests.support.registry_faults import flip, hold, status
from tests.support.registry_simulator import RegistrySimulator
from tests.support.schema1 import as_schema1, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncpull.spec.source import Source

ACCESS = Access(RegistryAccess(tls_verify=False), retry=HURRY)
ALL = CopyOptions(Selection(Instances.ALL))
SHARED, LARGE, SMALL = layer("shared", 400_000), layer("large", 2_500_000), layer("small", 1000)
IMAGE = images.image([SHARED, LARGE, SMALL], compression=("gzip", "gzip", "none"))
OTHER = images.image([SHARED], architecture="arm64")
INDEX = images.index([IMAGE, OTHER])
SCHEMA1 = images.image([SHARED, SMALL], flavour="docker")


@pytest.fixture(autouse=True)
def private_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is on its way to places without a room of their own lies here, and nothing is left of it but spools."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    before = open_fds()
    yield tmp_path / "scratch"
    assert open_fds() == before


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def copier(heard: Heard) -> AsyncIterator[Copier]:
    async with Copier(source=ACCESS, platform=AMD64, reporter=heard, limits=Limits(workers=2)) as copier:
        yield copier


def place(kind: str, root: Path) -> str:
    """A location of each kind below ``root``."""
    return {
        "oci": f"oci:{root}/layout:name",
        "oci-archive": f"oci-archive:{root}/layout.tar:name",
        "dir": f"dir:{root}/directory",
        "docker-archive": f"docker-archive:{root}/docker.tar:example.com/a/b:1",
        "containers-storage": f"containers-storage:[overlay@{root}/graph+{root}/run]example.com/a/b:1",
    }[kind]


KINDS = ["oci", "oci-archive", "dir", "docker-archive", "containers-storage"]


async def config_of(location: str) -> ImageConfig:
    """The config of the image there, every layer of which is read and has its diff ID."""
    async with open_source(parse_location(location)) as source:
        document = await source.manifest()
        manifest = parse_document(document.raw, document.media_type)
        assert isinstance(manifest, Manifest)
        config = ImageConfig.from_bytes(await source.blob_bytes(manifest.config, CONFIG_LIMIT))
        blobs = await source.layers(manifest) if isinstance(source, RebuildingSource) else manifest.layers
        assert [await tar_digest(source, blob) for blob in blobs] == list(config.diff_ids)
        return config


async def tar_digest(source: Source, blob: Any) -> Digest:
    from asyncpull.layer.codec import Inflater

    hasher, inflater = Digest.of(b"").hasher(), Inflater()
    async with source.open_blob(blob) as response:
        async for chunk in response.chunks:
            for piece in inflater.feed(chunk):
                hasher.update(piece)
    inflater.close()
    return Digest("sha256", hasher.hexdigest())


@pytest.mark.parametrize("flavour", ["oci", "docker"])
@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_from_everywhere_to_everywhere(
    kind: str, to: str, flavour: images.Flavour, registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    target = images.image([SHARED, SMALL], flavour=flavour)
    before, after = place(kind, tmp_path / "before"), place(to, tmp_path / "after")
    for directory in ("before", "after"):
        (tmp_path / directory).mkdir()
    await copier.copy(f"docker://{registry.add_image('a/b', '1', target)}", before)
    copied = await copier.copy(before, after)
    assert (await config_of(after)).raw == target.config.data
    if {kind, to} <= {"oci", "oci-archive", "dir"} or (kind, to) == ("oci", "containers-storage"):
        assert str(copied.digest) == target.manifest.digest, "what need not change did not"
    again = await copier.copy(before, after) if to != "docker-archive" else None
    assert again is None or again.digest == copied.digest


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "dir"])
async def test_an_index_is_copied_with_all_that_it_lists(
    kind: str, registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    reference = registry.add_image("a/b", "1", INDEX)
    copied = await copier.copy(f"docker://{reference}", place(kind, tmp_path), ALL)
    assert str(copied.digest) == INDEX.manifest.digest
    assert len(copied.digests) == 2
    assert registry.sent("/blobs/") == sum(len(blob.data) for blob in {*IMAGE.blobs, *OTHER.blobs}), "each blob once"
    async with open_source(parse_location(place(kind, tmp_path))) as source:
        for each in INDEX.images:
            assert (await source.manifest(Digest.parse(each.manifest.digest))).raw == each.manifest.data
    one = await copier.copy(f"docker://{reference}", place(kind, tmp_path / "one"))
    assert str(one.digest) == IMAGE.manifest.digest, "the one for the platform"


@pytest.mark.parametrize("kind", ["docker-archive", "containers-storage"])
async def test_who_holds_one_image_refuses_an_index(
    kind: str, registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    reference = registry.add_image("a/b", "1", INDEX)
    with pytest.raises(UsageError, match="one image"):
        await copier.copy(f"docker://{reference}", place(kind, tmp_path), ALL)
    assert registry.sent("/blobs/") == 0


async def test_some_of_an_index(registry: RegistrySimulator, copier: Copier, tmp_path: Path) -> None:
    source = f"docker://{registry.add_image('a/b', '1', INDEX)}"
    kept = await copier.copy(source, f"oci:{tmp_path}/kept", CopyOptions(parse_selection("linux/arm64")))
    assert (str(kept.digest), len(kept.digests)) == (INDEX.manifest.digest, 1)
    options = CopyOptions(parse_selection("linux/arm64", is_stripped=True))
    stripped = await copier.copy(source, f"oci:{tmp_path}/stripped", options)
    async with open_source(parse_location(f"oci:{tmp_path}/stripped")) as found:
        index = parse_document((await found.manifest()).raw)
    assert isinstance(index, Index)
    assert [str(each.digest) for each in index.manifests] == [OTHER.manifest.digest]
    assert stripped.digest == index.digest
    with pytest.raises(UsageError):
        await copier.copy(source, f"oci:{tmp_path}/none", replace(options, preserve_digests=True))
    assert not (tmp_path / "none" / "index.json").exists()
    only = await copier.copy(source, f"oci:{tmp_path}/only", CopyOptions(Selection(Instances.INDEX_ONLY)))
    assert (str(only.digest), only.bytes_copied) == (INDEX.manifest.digest, 0)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD, Compression.NONE])
@pytest.mark.parametrize("flavour", ["oci", "docker"])
async def test_layers_get_the_compression_that_is_asked_for(
    flavour: images.Flavour, compression: Compression, registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    level = None if compression is Compression.NONE else 3
    target = images.image([SHARED, LARGE, SMALL], compression=("gzip", "none", "gzip"), flavour=flavour)
    source = f"docker://{registry.add_image('a/b', '1', target)}"
    await copier.copy(source, f"oci:{tmp_path}/layout", CopyOptions(compression=compression, level=level))
    assert (await config_of(f"oci:{tmp_path}/layout")).raw == target.config.data
    async with open_source(parse_location(f"oci:{tmp_path}/layout")) as found:
        manifest = parse_document((await found.manifest()).raw)
    assert isinstance(manifest, Manifest)
    ends = {Compression.GZIP: "gzip", Compression.ZSTD: "zstd", Compression.NONE: "tar"}
    assert all(each.media_type.endswith(ends[compression]) for each in manifest.layers)
    with pytest.raises(UsageError):
        await copier.copy(source, f"oci:{tmp_path}/none", CopyOptions(compression=compression, preserve_digests=True))
    assert not (tmp_path / "none" / "index.json").exists()


@pytest.mark.parametrize("wanted", list(ManifestFormat))
async def test_an_index_gets_the_format_that_is_asked_for(
    wanted: ManifestFormat, registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    source = f"docker://{registry.add_image('a/b', '1', INDEX)}"
    copied = await copier.copy(source, f"oci:{tmp_path}/layout", replace(ALL, format=wanted))
    assert (str(copied.digest) == INDEX.manifest.digest) == (wanted is ManifestFormat.OCI)
    async with open_source(parse_location(f"oci:{tmp_path}/layout")) as found:
        index = parse_document((await found.manifest()).raw)
        assert isinstance(index, Index)
        assert index.media_type == wanted.index_type
        for each in index.manifests:
            instance = parse_document((await found.manifest(each.digest)).raw)
            assert instance.media_type == each.media_type == wanted.media_type


async def test_what_a_store_has_lost_is_not_sent_where_it_is(
    registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    source = f"docker://{registry.add_image('a/b', '1', IMAGE)}"
    store = place("containers-storage", tmp_path)
    await copier.copy(source, f"oci:{tmp_path}/layout:first")
    await copier.copy(source, store)
    copied = await copier.copy(store, f"oci:{tmp_path}/layout:second")
    assert (str(copied.digest), copied.bytes_copied) == (IMAGE.manifest.digest, 0)
    changed = await copier.copy(store, f"oci:{tmp_path}/empty")
    assert str(changed.digest) != IMAGE.manifest.digest
    assert (await config_of(f"oci:{tmp_path}/empty")).raw == IMAGE.config.data


async def test_an_artifact_is_copied_as_it_is(registry: RegistrySimulator, copier: Copier, tmp_path: Path) -> None:
    empty, anything = b"{}", images.noise(8, 5000)
    registry.add_blob(empty)
    registry.add_blob(anything)
    document = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": images.OCI_MANIFEST,
            "artifactType": "application/x-thing",
            "config": images.Blob("application/vnd.oci.empty.v1+json", empty).descriptor(),
            "layers": [images.Blob("application/x-thing-part", anything).descriptor(title="part")],
            "unknown": {"kept": True},
        }
    ).encode()
    registry.add_manifest("a/b", "1", document, images.OCI_MANIFEST)
    source = f"docker://{registry.address}/a/b:1"
    await copier.copy(source, f"oci:{tmp_path}/layout", CopyOptions(compression=Compression.ZSTD))
    async with open_source(parse_location(f"oci:{tmp_path}/layout")) as found:
        assert (await found.manifest()).raw == document
    with pytest.raises(AsyncpullError):
        await copier.copy(source, place("docker-archive", tmp_path))


def about(subject: str, media_type: str, artifact_type: str) -> bytes:
    """An artifact without layers that is about ``subject``."""
    empty = images.Blob("application/vnd.oci.empty.v1+json", b"{}").descriptor()
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": images.OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": empty,
            "layers": [empty],
            "subject": {"mediaType": media_type, "digest": subject, "size": 1},
        }
    ).encode()


@pytest.mark.parametrize("knows", [True, False])
async def test_what_is_about_an_image_comes_with_all_of_it(
    registry: RegistrySimulator, copier: Copier, tmp_path: Path, knows: bool
) -> None:
    registry.uploads.knows_referrers = True
    registry.add_image("a/b", "all", INDEX)
    registry.add_blob(b"{}")
    signature = about(INDEX.manifest.digest, images.OCI_INDEX, "signature")
    bill = about(IMAGE.manifest.digest, images.OCI_MANIFEST, "bill")
    signed_bill = about(str(Digest.of(bill)), images.OCI_MANIFEST, "signature")
    for raw in (signature, bill, signed_bill):
        registry.add_manifest("a/b", str(Digest.of(raw)), raw, images.OCI_MANIFEST)
    source = f"docker://{registry.address}/a/b:all"
    async with RegistrySimulator() as target:
        target.uploads.knows_referrers = knows
        await copier.copy(source, f"docker://{target.address}/c:one")
        assert target.manifest("c", str(Digest.of(bill))) is None
        await copier.copy(source, f"docker://{target.address}/c:all", ALL)
        for raw in (signature, bill, signed_bill):
            assert target.manifest("c", str(Digest.of(raw))) == (raw, images.OCI_MANIFEST)
        # From there on, too, whichever way they are listed.
        async with RegistrySimulator() as last:
            await copier.copy(f"docker://{target.address}/c:all", f"docker://{last.address}/d:all", ALL)
            assert last.manifest("d", str(Digest.of(signed_bill))) == (signed_bill, images.OCI_MANIFEST)
        before = len(target.requests)
        await copier.copy(source, f"docker://{target.address}/c:changed", replace(ALL, format=ManifestFormat.V2S2))
        puts = [request.path for request in target.requests[before:] if request.method == "PUT"]
        assert not [path for path in puts if str(Digest.of(signature)) in path]  # it is about what was there before
    await copier.copy(source, f"oci:{tmp_path}/layout", ALL)  # which lists nothing under something else


async def test_what_cannot_be_listed_keeps_no_image_back(registry: RegistrySimulator, copier: Copier) -> None:
    registry.add_image("a/b", "all", INDEX)
    registry.on("/referrers/", status(403), times=None)
    registry.on("/manifests/sha256-", status(403), times=None)
    async with RegistrySimulator() as target:
        copied = await copier.copy(f"docker://{registry.address}/a/b:all", f"docker://{target.address}/c:all", ALL)
        assert str(copied.digest) == INDEX.manifest.digest


async def test_layers_of_elsewhere_are_left_there(registry: RegistrySimulator, copier: Copier, tmp_path: Path) -> None:
    target = images.image([SHARED])
    document = json.loads(target.manifest.data)
    foreign = images.Blob("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", target.layers[0].data)
    document["layers"] = [foreign.descriptor(urls=["https://elsewhere.example.com/layer"])]
    registry.add_blob(target.config.data)
    registry.add_manifest("a/b", "1", json.dumps(document).encode(), images.OCI_MANIFEST)
    source = f"docker://{registry.address}/a/b:1"
    await copier.copy(source, f"oci:{tmp_path}/layout")
    blobs = {path.name for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    assert foreign.digest.removeprefix("sha256:") not in blobs
    registry.add_blob(foreign.data)
    await copier.copy(source, f"oci:{tmp_path}/layout", CopyOptions(takes_foreign_layers=True))
    assert (tmp_path / "layout/blobs/sha256" / foreign.digest.removeprefix("sha256:")).read_bytes() == foreign.data


@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_bytes_of_a_layer_leave_the_place_as_it_was(
    kind: str, registry: RegistrySimulator, copier: Copier, heard: Heard, tmp_path: Path
) -> None:
    source = f"docker://{registry.add_image('a/b', '1', IMAGE)}"
    registry.on(IMAGE.layers[1].digest, flip(700_000), times=None)
    with pytest.raises(DigestMismatchError):
        await copier.copy(source, place(kind, tmp_path))
    with pytest.raises((NotFoundError, AsyncpullError)):
        await config_of(place(kind, tmp_path))
    assert heard.of(CopyFailed)


@pytest.mark.parametrize("kind", ["oci", "docker-archive"])
async def test_a_copy_that_is_cancelled_goes_on_where_it_was(
    kind: str, registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    source = f"docker://{registry.add_image('a/b', '1', IMAGE)}"
    gate = asyncio.Event()
    registry.on(IMAGE.layers[1].digest, hold(gate, at=2_000_000))
    copying = asyncio.create_task(copier.copy(source, place(kind, tmp_path)))
    while registry.sent(IMAGE.layers[1].digest) < 2_000_000:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # what was sent is received
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    with pytest.raises(AsyncpullError):
        await config_of(place(kind, tmp_path))
    before = registry.sent(IMAGE.layers[1].digest)
    await copier.copy(source, place(kind, tmp_path))
    assert (await config_of(place(kind, tmp_path))).raw == IMAGE.config.data
    assert registry.sent(IMAGE.layers[1].digest) - before < len(IMAGE.layers[1].data) - 1_000_000
    assert not list((tmp_path / "scratch").rglob("blob"))
    assert not list(tmp_path.glob("layout/.asyncpull*"))


async def test_a_registry_that_stops_leaves_the_place_as_it_was(
    registry: RegistrySimulator, copier: Copier, tmp_path: Path
) -> None:
    first = f"docker://{registry.add_image('a/b', '1', OTHER)}"
    second = f"docker://{registry.add_image('a/b', '2', IMAGE)}"
    await copier.copy(first, f"oci:{tmp_path}/layout:name")
    before = (tmp_path / "layout/index.json").read_bytes()
    registry.on(IMAGE.layers[1].digest, status(500), times=None)
    with pytest.raises(SourceError):
        await copier.copy(second, f"oci:{tmp_path}/layout:name")
    assert (tmp_path / "layout/index.json").read_bytes() == before
    assert (await config_of(f"oci:{tmp_path}/layout:name")).raw == OTHER.config.data


async def test_what_a_copy_tells(registry: RegistrySimulator, copier: Copier, heard: Heard, tmp_path: Path) -> None:
    source = f"docker://{registry.add_image('a/b', '1', IMAGE)}"
    copied = await copier.copy(source, f"oci:{tmp_path}/layout")
    assert [event.reference for event in heard.of(CopyStarted)] == [source]
    assert len(heard.of(PutCompleted)) == len(IMAGE.blobs)
    large = [blob for blob in IMAGE.blobs if len(blob.data) > HELD_BYTES]
    assert len(heard.of(FetchStarted)) == len(large), "small blobs go through memory"
    (done,) = heard.of(CopyCompleted)
    assert isinstance(done, CopyCompleted)
    assert (done.digest, done.bytes_copied) == (str(copied.digest), sum(len(blob.data) for blob in IMAGE.blobs))
    again = await copier.copy(source, f"oci:{tmp_path}/layout:other")
    assert again.bytes_copied == 0
    assert len(heard.of(LayerReused)) == len(IMAGE.blobs)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("oci:there:1", "sif:file"), ("nonsense://x", "oci:there"), ("docker://a/b", "docker-archive:")],
)
async def test_what_cannot_be_meant(source: str, destination: str, copier: Copier) -> None:
    with pytest.raises(UsageError):
        await copier.copy(source, destination)


@pytest.mark.parametrize("raw", [as_schema1(SCHEMA1), signed(as_schema1(SCHEMA1))])
async def test_schema_1_becomes_schema_2(
    copier: Copier, registry: RegistrySimulator, tmp_path: Path, private_scratch: Path, raw: bytes
) -> None:
    for blob in SCHEMA1.layers:
        registry.add_blob(blob.data)
    registry.add_manifest("a/b", "1", raw, DOCKER_SCHEMA1_SIGNED)
    images.write_directory(tmp_path / "old", replace(SCHEMA1, manifest=images.Blob("", raw)))
    copied = {
        (await copier.copy(source, f"dir:{tmp_path / name}", options)).digest
        for name, source, options in (
            ("far", f"docker://{registry.address}/a/b:1", CopyOptions()),
            ("near", f"dir:{tmp_path / 'old'}", CopyOptions()),
            ("other", f"dir:{tmp_path / 'old'}", CopyOptions(format=ManifestFormat.OCI)),
        )
    }
    assert len(copied) == 2  # of schema 2 from anywhere, and of OCI
    for name in ("far", "near", "other"):
        manifest = json.loads((tmp_path / name / "manifest.json").read_bytes())
        assert [each["digest"] for each in manifest["layers"]] == [blob.digest for blob in SCHEMA1.layers]
        config = json.loads((tmp_path / name / manifest["config"]["digest"].removeprefix("sha256:")).read_bytes())
        assert config["rootfs"]["diff_ids"] == list(SCHEMA1.diff_ids)
        for blob in SCHEMA1.layers:
            assert (tmp_path / name / blob.digest.removeprefix("sha256:")).read_bytes() == blob.data
    assert not [path for path in private_scratch.rglob("*") if path.is_file()]


async def test_schema_1_cannot_be_preserved(copier: Copier, tmp_path: Path) -> None:
    images.write_directory(tmp_path / "old", replace(SCHEMA1, manifest=images.Blob("", as_schema1(SCHEMA1))))
    with pytest.raises(UsageError, match="schema 1"):
        await copier.copy(f"dir:{tmp_path / 'old'}", f"dir:{tmp_path / 'new'}", CopyOptions(preserve_digests=True))
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not is_installed(), reason="the package docker-registry is not installed")
async def test_a_blob_is_mounted_from_where_the_cache_knows_it(tmp_path: Path) -> None:
    images.write_directory(tmp_path / "image", IMAGE)
    known = tmp_path / "cache" / FILE
    size = sum(len(blob.data) for blob in IMAGE.blobs)
    with docker_registry(tmp_path / "registry") as registry:

        async def copy(repository: str, blob_info: Path | None) -> int:
            async with Copier(source=ACCESS, platform=AMD64, blob_info=blob_info) as copier:
                copied = await copier.copy(f"dir:{tmp_path / 'image'}", f"docker://{registry.address}/{repository}:1")
            return copied.bytes_copied

        assert await copy("first", known) == size
        async with BlobInfoCache(known) as cache:
            for blob in IMAGE.blobs:
                found = await cache.locations(Digest.parse(blob.digest), registry.address)
                assert found == (f"{registry.address}/first",)
        assert await copy("second", None) == size
        assert await copy("third", known) == 0
        mounted = [request for request in registry.requests() if "from=first" in request]
        assert len(mounted) == len(IMAGE.blobs)
        # What the cache says and is true no longer costs a question, and no more.
        shutil.rmtree(registry.data / "docker/registry/v2/repositories/first")
        shutil.rmtree(registry.data / "docker/registry/v2/repositories/third")
        assert await copy("fourth", known) == size


async def test_what_was_compressed_anew_is_known_afterwards(tmp_path: Path) -> None:
    images.write_directory(tmp_path / "image", IMAGE)
    known = tmp_path / "cache" / FILE
    async with Copier(source=ACCESS, platform=AMD64, blob_info=known) as copier:
        options = CopyOptions(compression=Compression.ZSTD, force_compression=True)
        await copier.copy(f"dir:{tmp_path / 'image'}", f"oci:{tmp_path / 'layout'}:1", options)
    async with BlobInfoCache(known) as cache:
        for blob, diff_id in zip(IMAGE.layers, IMAGE.diff_ids, strict=True):
            assert str(await cache.diff_id(Digest.parse(blob.digest))) == diff_id
            found = await cache.candidates(Digest.parse(blob.digest), "nowhere.example")
            assert Compression.ZSTD in [each.compression for each in found]


async def test_zstd_is_added_to_an_index(copier: Copier, registry: RegistrySimulator, tmp_path: Path) -> None:
    source = f"docker://{registry.add_image('a/b', '1', INDEX)}"
    layout = tmp_path / "layout"
    options = replace(ALL, variants=(Compression.GZIP, Compression.ZSTD))
    copied = await copier.copy(source, f"oci:{layout}:1", options)
    assert set(map(str, copied.digests)) == {each.manifest.digest for each in INDEX.images}
    async with open_source(parse_location(f"oci:{layout}:1")) as written:
        index = parse_document((await written.manifest()).raw)
        assert isinstance(index, Index)
        assert [str(each.digest) for each in index.manifests[:2]] == [each.manifest.digest for each in INDEX.images]
        assert [each.is_zstd for each in index.manifests] == [False, False, True, True]
        assert [str(each.platform) for each in index.manifests[2:]] == ["linux/amd64", "linux/arm64"]
        for before, after in zip(INDEX.images, index.manifests[2:], strict=True):
            raw = (await written.manifest(after.digest)).raw
            manifest = parse_document(raw, after.media_type)
            assert isinstance(manifest, Manifest)
            assert str(manifest.config.digest) == before.config.digest
            for blob, diff_id in zip(manifest.layers, before.diff_ids, strict=True):
                assert blob.media_type == OCI_LAYER_ZSTD
                packed = (layout / "blobs/sha256" / blob.digest.encoded).read_bytes()
                tar = subprocess.run(("zstd", "-dc"), input=packed, capture_output=True, check=True).stdout
                assert str(Digest.of(tar)) == diff_id
    # Nothing is missing any more, so nothing changes.
    again = await copier.copy(f"oci:{layout}:1", f"oci:{layout}:2", options)
    assert again.digest == copied.digest


@pytest.mark.parametrize(
    "options",
    [
        CopyOptions(parse_selection("linux/amd64,linux/arm64"), variants=(Compression.ZSTD,)),
        replace(ALL, variants=(Compression.ZSTD,), preserve_digests=True),
    ],
)
async def test_a_compression_that_cannot_be_added(
    copier: Copier, registry: RegistrySimulator, tmp_path: Path, options: CopyOptions
) -> None:
    source = f"docker://{registry.add_image('a/b', '1', INDEX)}"
    with pytest.raises(UsageError):
        await copier.copy(source, f"oci:{tmp_path / 'layout'}:1", options)
    assert registry.asked("/blobs/") == []


@pytest.mark.parametrize("raw", [as_schema1(SCHEMA1), signed(as_schema1(SCHEMA1))])
async def test_schema_1_is_judged_before_anything_of_it_is_asked_for(
    registry: RegistrySimulator, tmp_path: Path, raw: bytes
) -> None:
    for blob in SCHEMA1.layers:
        registry.add_blob(blob.data)
    registry.add_manifest("a/b", "1", raw, DOCKER_SCHEMA1_SIGNED)
    (tmp_path / "policy.json").write_text(json.dumps({"default": [{"type": "reject"}]}))
    async with Copier(source=ACCESS, trust=TrustOptions(policy=tmp_path / "policy.json")) as copier:
        with pytest.raises(PolicyError):
            await copier.copy(f"docker://{registry.address}/a/b:1", f"dir:{tmp_path / 'new'}")
    assert registry.asked("/blobs/") == []
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not is_installed(), reason="the package docker-registry is not installed")
async def test_a_layer_that_is_there_in_the_wanted_compression_is_not_made_again(tmp_path: Path, heard: Heard) -> None:
    images.write_directory(tmp_path / "image", IMAGE)
    zstd = CopyOptions(compression=Compression.ZSTD, force_compression=True)
    with docker_registry(tmp_path / "registry") as registry:

        async def copy(repository: str, blob_info: Path | None, options: CopyOptions = zstd) -> tuple[Digest, int]:
            heard.events.clear()
            async with Copier(source=ACCESS, platform=AMD64, blob_info=blob_info, reporter=heard) as copier:
                copied = await copier.copy(
                    f"dir:{tmp_path / 'image'}", f"docker://{registry.address}/{repository}:1", options
                )
            return copied.digest, copied.bytes_copied

        known = tmp_path / "cache" / FILE
        made, moved = await copy("first", known)
        assert moved > 0
        again, moved = await copy("second", known)
        assert (again, moved) == (made, 0)  # mounted, but for nothing
        assert len(heard.of(LayerReused)) == len(IMAGE.blobs)
        # A level that is asked for is made; what the registry no longer has, too.
        _, moved = await copy("third", known, replace(zstd, level=19))
        assert moved > 0
        shutil.rmtree(registry.data)
        afresh, moved = await copy("fourth", known)
        assert (afresh, moved > 0) == (made, True)
