"""What becomes of instances and layers, decided over plain values."""

from __future__ import annotations

import pytest

from asyncpull.copying.plan import (
    CopyOptions,
    Instances,
    ManifestFormat,
    Selection,
    Treatment,
    parse_selection,
    plan_copy,
    selected,
)
from asyncpull.errors import NoMatchingPlatformError, NotFoundError, UsageError
from asyncpull.layer.codec import Compression
from asyncpull.spec.destination import Abilities
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Index, Manifest, parse_document
from asyncpull.spec.mediatype import DOCKER_MANIFEST, OCI_MANIFEST
from asyncpull.spec.platform import parse_platform
from tests.support import images, tars

AMD64, ARM64 = parse_platform("linux/amd64"), parse_platform("linux/arm64")
LAYERS = [tars.tar([tars.file(name, b"x")]) for name in "abc"]
PASS, DECOMPRESS, RECOMPRESS = Treatment.PASS, Treatment.DECOMPRESS, Treatment.RECOMPRESS
NONE, GZIP, ZSTD = Compression.NONE, Compression.GZIP, Compression.ZSTD


def manifest(
    flavour: images.Flavour = "oci", kinds: tuple[images.Compression, ...] = ("gzip", "zstd", "none")
) -> Manifest:
    parsed = parse_document(images.image(LAYERS, compression=kinds, flavour=flavour).manifest.data)
    assert isinstance(parsed, Manifest)
    return parsed


def index() -> Index:
    parsed = parse_document(
        images.index([images.image(LAYERS, architecture=each) for each in ("amd64", "arm64", "s390x")]).manifest.data
    )
    assert isinstance(parsed, Index)
    return parsed


@pytest.mark.parametrize(
    ("abilities", "options", "treatments"),
    [
        (Abilities(), CopyOptions(), [PASS, PASS, PASS]),
        (Abilities(wants_plain_layers=True), CopyOptions(), [DECOMPRESS, DECOMPRESS, PASS]),
        (Abilities(), CopyOptions(compression=GZIP), [PASS, RECOMPRESS, RECOMPRESS]),
        (Abilities(), CopyOptions(compression=ZSTD), [RECOMPRESS, PASS, RECOMPRESS]),
        (Abilities(), CopyOptions(compression=NONE), [DECOMPRESS, DECOMPRESS, PASS]),
        (Abilities(wants_plain_layers=True), CopyOptions(compression=GZIP), [DECOMPRESS, DECOMPRESS, PASS]),
    ],
)
def test_layers_change_only_where_they_must(
    abilities: Abilities, options: CopyOptions, treatments: list[Treatment]
) -> None:
    plan = plan_copy(manifest(), manifest().layers, abilities, options)
    assert [step.treatment for step in plan.steps] == treatments
    assert plan.is_unchanged == (treatments == [PASS, PASS, PASS])


def test_what_the_destination_has_is_left_as_it_is() -> None:
    found = manifest()
    there = {found.layers[0].digest}
    plan = plan_copy(found, found.layers, Abilities(), CopyOptions(compression=ZSTD), there)
    assert [step.treatment for step in plan.steps] == [PASS, PASS, RECOMPRESS]


def test_what_the_source_has_lost_is_made_again() -> None:
    found, plain = manifest(kinds=("gzip", "zstd", "none")), manifest(kinds=("none", "none", "none"))
    plan = plan_copy(found, plain.layers, Abilities(), CopyOptions())
    assert [(step.treatment, step.to) for step in plan.steps] == [(RECOMPRESS, GZIP), (RECOMPRESS, ZSTD), (PASS, None)]
    assert not plan.is_unchanged
    plan = plan_copy(found, plain.layers, Abilities(wants_plain_layers=True), CopyOptions())
    assert [step.treatment for step in plan.steps] == [PASS, PASS, PASS]
    assert not plan.is_unchanged, "the digests of its layers are other ones"


def test_what_the_source_keeps_plain_is_compressed_where_that_is_wanted() -> None:
    found = manifest("docker", ("none", "none", "none"))
    takes, wants = Abilities((OCI_MANIFEST, DOCKER_MANIFEST)), Abilities(wants_compressed_layers=True)
    both = Abilities(takes.media_types, wants_compressed_layers=True)
    for abilities, is_made, options, treatment, media_type in (
        (both, True, CopyOptions(), RECOMPRESS, OCI_MANIFEST),
        (wants, True, CopyOptions(), RECOMPRESS, DOCKER_MANIFEST),
        (takes, True, CopyOptions(), PASS, OCI_MANIFEST),
        (both, True, CopyOptions(compression=NONE), PASS, OCI_MANIFEST),
        (both, True, CopyOptions(preserve_digests=True), PASS, DOCKER_MANIFEST),
        (both, False, CopyOptions(), PASS, DOCKER_MANIFEST),
    ):
        plan = plan_copy(found, found.layers, abilities, options, is_made=is_made)
        assert ([step.treatment for step in plan.steps], plan.media_type) == ([treatment] * 3, media_type)


@pytest.mark.parametrize(
    ("flavour", "takes", "wanted", "compression", "expected"),
    [
        ("oci", (), None, None, OCI_MANIFEST),
        ("docker", (), None, None, DOCKER_MANIFEST),
        ("docker", (OCI_MANIFEST,), None, None, OCI_MANIFEST),
        ("oci", (DOCKER_MANIFEST,), None, GZIP, DOCKER_MANIFEST),
        ("oci", (), ManifestFormat.V2S2, GZIP, DOCKER_MANIFEST),
        ("docker", (), ManifestFormat.OCI, None, OCI_MANIFEST),
        ("docker", (), None, ZSTD, OCI_MANIFEST),
        ("oci", (), ManifestFormat.V2S2, ZSTD, None),
        ("docker", (DOCKER_MANIFEST,), None, ZSTD, None),
        ("docker", (OCI_MANIFEST,), ManifestFormat.V2S2, None, None),
    ],
)
def test_the_kind_of_manifest(
    flavour: images.Flavour,
    takes: tuple[str, ...],
    wanted: ManifestFormat | None,
    compression: Compression | None,
    expected: str | None,
) -> None:
    found = manifest(flavour, ("gzip", "gzip", "none"))
    options = CopyOptions(format=wanted, compression=compression)
    if expected is None:
        with pytest.raises(UsageError):
            plan_copy(found, found.layers, Abilities(takes), options)
    else:
        assert plan_copy(found, found.layers, Abilities(takes), options).media_type == expected


@pytest.mark.parametrize(
    "options",
    [
        CopyOptions(compression=ZSTD, preserve_digests=True),
        CopyOptions(format=ManifestFormat.V2S2, preserve_digests=True),
    ],
)
def test_digests_are_preserved_or_the_copy_is_refused(options: CopyOptions) -> None:
    found = manifest(kinds=("gzip", "gzip", "gzip"))
    with pytest.raises(UsageError, match="cannot be copied as it is"):
        plan_copy(found, found.layers, Abilities(), options)


def test_which_instances_are_taken() -> None:
    found = index()
    amd64, arm64, s390x = found.manifests
    assert selected(found, Selection(), ARM64) == (arm64,)
    assert selected(found, Selection(Instances.ALL), ARM64) == (amd64, arm64, s390x)
    assert selected(found, Selection(Instances.INDEX_ONLY), ARM64) == ()
    some = Selection(Instances.SOME, (ARM64, AMD64), (s390x.digest,))
    assert selected(found, some, AMD64) == (amd64, arm64, s390x)
    assert selected(found, Selection(Instances.SOME, (AMD64,), (amd64.digest,)), ARM64) == (amd64,)
    with pytest.raises(NoMatchingPlatformError):
        selected(found, Selection(Instances.SOME, (parse_platform("linux/riscv64"),)), AMD64)
    with pytest.raises(NotFoundError):
        selected(found, Selection(Instances.SOME, digests=(Digest.of(b"x"),)), AMD64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("system", Selection()),
        ("all", Selection(Instances.ALL)),
        ("index-only", Selection(Instances.INDEX_ONLY)),
        ("linux/amd64,linux/arm64", Selection(Instances.SOME, (AMD64, ARM64))),
        ("sparse:linux/amd64", Selection(Instances.SOME, (AMD64,))),
        (
            "sparse:platform=linux/amd64,digest=sha256:" + "a" * 64,
            Selection(Instances.SOME, (AMD64,), (Digest("sha256", "a" * 64),)),
        ),
    ],
)
def test_selections_as_text(text: str, expected: Selection) -> None:
    assert parse_selection(text) == expected


@pytest.mark.parametrize("text", ["", ",", "sparse:", "everything", "linux/amd64,arm", "digest=sha256:fa", ":"])
def test_selections_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        parse_selection(text)


def test_only_a_list_of_some_can_be_stripped() -> None:
    assert parse_selection("linux/amd64", is_stripped=True).is_stripped
    with pytest.raises(UsageError):
        parse_selection("all", is_stripped=True)
