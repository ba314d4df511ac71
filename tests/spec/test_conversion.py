"""Conversions: what has to change does, what need not stays to the byte, what cannot be held is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncpull.errors import DocumentError
from asyncpull.spec import mediatype as mt
from asyncpull.spec.conversion import (
    compression_of_instance,
    convert_index,
    convert_manifest,
    instance_of,
    missing_variants,
    replaced_layer,
)
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor, Index, Manifest, parse_document
from asyncpull.spec.mediatype import ZSTD_ANNOTATION
from asyncpull.spec.platform import Platform, select_platform

OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"


def digest(text: str) -> str:
    return str(Digest.of(text.encode()))


def entry(media_type: str, text: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(text), "size": len(text), **more}


def manifest(media_type: str, config: str, *layers: dict[str, object], **more: object) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": entry(config, "config", data="Y29uZmln", x=1),
        "layers": list(layers),
        **more,
    }
    parsed = parse_document(json.dumps(document, indent=1).encode(), with_artifacts=True)
    assert isinstance(parsed, Manifest)
    return parsed


def index(media_type: str, *manifests: dict[str, object], **more: object) -> Index:
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(manifests), **more}
    parsed = parse_document(json.dumps(document, indent=1).encode())
    assert isinstance(parsed, Index)
    return parsed


def of(document: Manifest | Index) -> Any:
    return json.loads(document.raw)


OCI = manifest(
    mt.OCI_MANIFEST,
    mt.OCI_CONFIG,
    entry(mt.OCI_LAYER, "a", annotations={"k": "v"}, unknown=[1]),
    entry(mt.OCI_LAYER_GZIP, "b"),
    entry(OCI_FOREIGN + "+gzip", "c", urls=["https://example.com/c"]),
    annotations={"made": "by"},
    subject=entry(mt.OCI_MANIFEST, "about"),
    unknown={"kept": True},
)
INSTANCES = (
    entry(mt.OCI_MANIFEST, "amd64", platform={"os": "linux", "architecture": "amd64"}, unknown=1),
    entry(mt.OCI_MANIFEST, "arm64", platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
)
INDEX = index(mt.OCI_INDEX, *INSTANCES, annotations={"a": "b"}, unknown=2)


def test_to_docker_and_back() -> None:
    docker = convert_manifest(OCI, mt.DOCKER_MANIFEST)
    assert of(docker) == {
        "schemaVersion": 2,
        "mediaType": mt.DOCKER_MANIFEST,
        "config": {"mediaType": mt.DOCKER_CONFIG, "digest": digest("config"), "size": 6, "x": 1},
        "layers": [
            {"mediaType": mt.DOCKER_LAYER, "digest": digest("a"), "size": 1, "unknown": [1]},
            {"mediaType": mt.DOCKER_LAYER_GZIP, "digest": digest("b"), "size": 1},
            {
                "mediaType": DOCKER_FOREIGN + ".gzip",
                "digest": digest("c"),
                "size": 1,
                "urls": ["https://example.com/c"],
            },
        ],
        "unknown": {"kept": True},
    }
    assert docker.digest == Digest.of(docker.raw)
    back = convert_manifest(docker, mt.OCI_MANIFEST)
    assert [layer.media_type for layer in back.layers] == [layer.media_type for layer in OCI.layers]
    assert back.config.media_type == mt.OCI_CONFIG
    assert back.config.digest == OCI.config.digest


def test_nothing_to_change_changes_nothing() -> None:
    assert convert_manifest(OCI) is OCI
    assert convert_manifest(OCI, mt.OCI_MANIFEST, OCI.layers, config=OCI.config) is OCI
    assert convert_index(INDEX) is INDEX
    assert convert_index(INDEX, mt.OCI_INDEX, replaced={d.digest: d for d in INDEX.manifests}) is INDEX
    odd = index(mt.DOCKER_LIST, *INSTANCES, annotations={"not": "Docker's"})
    assert convert_index(odd) is odd


def test_replaced_layers() -> None:
    made = replaced_layer(OCI.layers[1], Digest.of(b"B"), 9, mt.ZSTD)
    assert made.media_type == mt.OCI_LAYER_ZSTD
    changed = convert_manifest(OCI, layers=(OCI.layers[0], made, OCI.layers[2]))
    assert of(changed)["layers"] == [
        of(OCI)["layers"][0],
        {"mediaType": mt.OCI_LAYER_ZSTD, "digest": digest("B"), "size": 9},
        of(OCI)["layers"][2],
    ]
    assert {key: value for key, value in of(changed).items() if key != "layers"} == {
        key: value for key, value in of(OCI).items() if key != "layers"
    }


def test_annotations_about_the_old_bytes_go() -> None:
    before = Descriptor(
        mt.OCI_LAYER_ZSTD,
        Digest.of(b""),
        0,
        annotations={
            "io.github.containers.zstd-chunked.manifest-checksum": "sha256:…",
            "containerd.io/snapshot/stargz/toc.digest": "sha256:…",
            "mine": "stays",
        },
    )
    assert replaced_layer(before, Digest.of(b"1"), 1, mt.GZIP).annotations == {"mine": "stays"}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (entry(mt.OCI_LAYER_ZSTD, "a"), "zstd"),
        (entry(OCI_FOREIGN + "+zstd", "a"), "zstd"),
        (entry(mt.OCI_LAYER_GZIP + "+encrypted", "a"), "encrypted"),
        (entry("text/plain", "a"), "no counterpart"),
    ],
)
def test_layers_that_docker_cannot_hold(layer: dict[str, object], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        convert_manifest(manifest(mt.OCI_MANIFEST, mt.OCI_CONFIG, layer), mt.DOCKER_MANIFEST)


def test_zstd_that_becomes_gzip_can_be_held() -> None:
    zstd = manifest(mt.OCI_MANIFEST, mt.OCI_CONFIG, entry(mt.OCI_LAYER_ZSTD, "a"))
    layers = [replaced_layer(zstd.layers[0], Digest.of(b"g"), 7, mt.GZIP)]
    assert convert_manifest(zstd, mt.DOCKER_MANIFEST, layers).layers[0].media_type == mt.DOCKER_LAYER_GZIP


def test_artifacts_are_not_dockers() -> None:
    artifact = manifest(mt.OCI_MANIFEST, mt.OCI_EMPTY, entry("text/plain", "a"), artifactType="application/x")
    assert not artifact.is_image
    assert convert_manifest(artifact, mt.OCI_MANIFEST) is artifact
    with pytest.raises(DocumentError, match="artifact"):
        convert_manifest(artifact, mt.DOCKER_MANIFEST)
    with pytest.raises(DocumentError, match="recompressed"):
        replaced_layer(artifact.layers[0], Digest.of(b""), 0, mt.ZSTD)


@pytest.mark.parametrize("target", [mt.OCI_INDEX, "text/plain"])
def test_formats_that_are_none(target: str) -> None:
    with pytest.raises(DocumentError, match="no format"):
        convert_manifest(OCI, target)
    with pytest.raises(DocumentError, match="layers, not"):
        convert_manifest(OCI, layers=())


def test_index_to_list_and_back() -> None:
    listed = convert_index(
        INDEX,
        mt.DOCKER_LIST,
        replaced={each.digest: Descriptor(mt.DOCKER_MANIFEST, Digest.of(b"new"), 11) for each in INDEX.manifests[:1]},
    )
    assert of(listed) == {
        "schemaVersion": 2,
        "mediaType": mt.DOCKER_LIST,
        "manifests": [
            {
                "mediaType": mt.DOCKER_MANIFEST,
                "digest": digest("new"),
                "size": 11,
                "platform": {"os": "linux", "architecture": "amd64"},
                "unknown": 1,
            },
            INSTANCES[1],
        ],
        "unknown": 2,
    }
    assert convert_index(listed, mt.OCI_INDEX).media_type == mt.OCI_INDEX


def test_dropped_instances() -> None:
    one = convert_index(INDEX, dropped=[INDEX.manifests[0].digest])
    assert of(one) == {**of(INDEX), "manifests": [INSTANCES[1]]}
    with pytest.raises(DocumentError, match="nothing is left"):
        convert_index(INDEX, dropped=[each.digest for each in INDEX.manifests])


def test_a_list_needs_platforms() -> None:
    without = index(mt.OCI_INDEX, entry(mt.OCI_MANIFEST, "x"))
    with pytest.raises(DocumentError, match="platform"):
        convert_index(without, mt.DOCKER_LIST)


def test_variants_of_zstd_come_last_and_are_found() -> None:
    attestation = entry(mt.OCI_MANIFEST, "proof", platform={"os": "unknown", "architecture": "unknown"})
    before = index(mt.OCI_INDEX, *INSTANCES, attestation)
    missing = missing_variants(before, [mt.GZIP, mt.ZSTD])
    assert missing == ((before.manifests[0], mt.ZSTD), (before.manifests[1], mt.ZSTD))
    zstd = manifest(mt.OCI_MANIFEST, mt.OCI_CONFIG, entry(mt.OCI_LAYER_ZSTD, "z"))
    variants = [instance_of(origin, zstd) for origin, _ in missing]
    after = convert_index(before, added=variants)
    assert of(after)["manifests"][:3] == [*INSTANCES, attestation]
    assert of(after)["manifests"][3] == {
        "mediaType": mt.OCI_MANIFEST,
        "digest": str(zstd.digest),
        "size": len(zstd.raw),
        "annotations": {ZSTD_ANNOTATION: "true"},
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    assert [compression_of_instance(each) for each in after.manifests] == ["gzip"] * 3 + ["zstd"] * 2
    assert missing_variants(after, [mt.GZIP, mt.ZSTD]) == ()
    assert select_platform(after.manifests, Platform("linux", "amd64")) is after.manifests[3]
    with pytest.raises(DocumentError, match="zstd"):
        convert_index(after, mt.DOCKER_LIST, added=variants)


def test_gzip_made_of_zstd_loses_its_mark_and_comes_before_it() -> None:
    zstd = {**INSTANCES[0], "annotations": {ZSTD_ANNOTATION: "true", "k": "v"}}
    before = index(mt.OCI_INDEX, zstd)
    ((origin, _),) = missing_variants(before, [mt.GZIP])
    after = convert_index(before, added=[instance_of(origin, OCI)])
    assert [compression_of_instance(each) for each in after.manifests] == ["gzip", "zstd"]
    assert after.manifests[0].annotations == {"k": "v"}


def test_an_instance_that_became_zstd_says_so_where_it_can() -> None:
    zstd = manifest(mt.OCI_MANIFEST, mt.OCI_CONFIG, entry(mt.OCI_LAYER_ZSTD, "z"))
    (first, _), listed = INDEX.manifests, index(mt.DOCKER_LIST, *INSTANCES)
    changed = convert_index(INDEX, replaced={first.digest: instance_of(first, zstd)})
    assert [each.is_zstd for each in changed.manifests] == [True, False]
    changed = convert_index(listed, replaced={first.digest: instance_of(first, zstd)})
    assert changed.manifests[0].digest == zstd.digest
    assert "annotations" not in of(changed)["manifests"][0]
    nested = Descriptor(mt.OCI_INDEX, INDEX.digest, 1, annotations={"k": "v"})
    assert instance_of(nested, INDEX).annotations == {"k": "v"}
