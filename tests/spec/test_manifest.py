"""Manifests, indexes and configs: what is read, and what is refused with the path of the key."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import DocumentError, InvalidDigestError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor, ImageConfig, Index, Manifest, is_schema1, parse_document

DIGEST = str(Digest.of(b""))
CONFIG = {"mediaType": mediatype.OCI_CONFIG, "digest": DIGEST, "size": 2}
LAYER = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": DIGEST, "size": 3, "annotations": {"a": "b"}, "x": 1}


def manifest(**changes: object) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": CONFIG,
        "layers": [LAYER],
    }
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def test_manifest_keeps_its_bytes() -> None:
    raw = b"  " + manifest(unknown={"kept": True})
    document = parse_document(raw, "application/octet-stream")
    assert isinstance(document, Manifest)
    assert document.raw == raw
    assert document.digest == Digest.of(raw)
    assert document.layers[0].size == 3
    assert document.layers[0].annotations == {"a": "b"}


@pytest.mark.parametrize("said", [mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST + "; charset=utf-8", "", None])
def test_media_type_outside_or_told_from_the_keys(said: str | None) -> None:
    document = parse_document(manifest(mediaType=...), said)
    assert isinstance(document, Manifest)
    assert document.media_type == ((said or "").split(";")[0] or mediatype.OCI_MANIFEST)


def test_index() -> None:
    entry = {"mediaType": mediatype.OCI_MANIFEST, "digest": DIGEST, "size": 7}
    entry["platform"] = {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["f"]}
    raw = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    document = parse_document(raw, None)
    assert isinstance(document, Index)
    assert str(document.manifests[0].platform) == "linux/arm/v7"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object|is not an object"),
        (b"{}", "media type"),
        (manifest(mediaType="application/vnd.cncf.helm"), "not an image"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (manifest(config=...), "no 'config'"),
        (manifest(config=7), r"manifest.config is not an object"),
        (manifest(layers={}), "manifest.layers is not an array"),
        (manifest(layers=[3]), r"manifest.layers\[0\] is not an object"),
        (manifest(layers=[{**LAYER, "size": "3"}]), r"layers\[0\].size is not an integer"),
        (manifest(layers=[{**LAYER, "size": True}]), r"layers\[0\].size is not an integer"),
        (manifest(layers=[{**LAYER, "size": -3}]), r"layers\[0\].size is negative"),
        (manifest(layers=[{**LAYER, "mediaType": "text/plain"}]), "no layer"),
        (manifest(layers=[{**LAYER, "mediaType": mediatype.OCI_LAYER_GZIP + "+encrypted"}]), "encrypted"),
        (manifest(config={**CONFIG, "mediaType": "application/vnd.x"}), "no image config"),
        (manifest(manifests=[]), "foreign key 'manifests'"),
    ],
)
def test_refuses(raw: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_document(raw, None)


def test_a_bad_digest_names_its_place() -> None:
    with pytest.raises(InvalidDigestError, match=r"manifest.layers\[0\].digest: "):
        parse_document(manifest(layers=[{**LAYER, "digest": "sha256:0"}]), None)


def test_config() -> None:
    raw = json.dumps({"rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "os": "linux", "created": None}).encode()
    config = ImageConfig.from_bytes(raw)
    assert config.diff_ids == (Digest.parse(DIGEST),)
    assert config.created is None
    assert config.digest == Digest.of(raw)
    with pytest.raises(DocumentError, match=r"rootfs.diff_ids\[1\]"):
        ImageConfig.from_bytes(json.dumps({"rootfs": {"diff_ids": [DIGEST, 1]}}).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["config", "layers", "digest"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests"]), json_values))
def test_any_object_is_a_document_or_refused(document: dict[str, object]) -> None:
    raw = json.dumps(document).encode()
    with contextlib.suppress(DocumentError):
        assert parse_document(raw, mediatype.OCI_MANIFEST).raw == raw


def test_an_artifact_only_for_who_takes_one() -> None:
    subject = {"mediaType": mediatype.OCI_MANIFEST, "digest": DIGEST, "size": 5}
    raw = manifest(
        config={**CONFIG, "mediaType": mediatype.OCI_EMPTY},
        layers=[{**LAYER, "mediaType": "text/plain"}],
        artifactType="application/vnd.x",
        subject=subject,
        annotations={"a": "b"},
    )
    with pytest.raises(DocumentError, match="no image config"):
        parse_document(raw)
    artifact = parse_document(raw, with_artifacts=True)
    assert isinstance(artifact, Manifest)
    assert not artifact.is_image
    assert artifact.artifact_type == "application/vnd.x"
    assert artifact.subject == Descriptor(mediatype.OCI_MANIFEST, Digest.parse(DIGEST), 5)
    assert artifact.annotations == {"a": "b"}


def test_an_index_of_indexes_and_artifacts() -> None:
    entries = [
        {"mediaType": mediatype.OCI_INDEX, "digest": DIGEST, "size": 1},
        {"mediaType": mediatype.OCI_MANIFEST, "digest": DIGEST, "size": 1, "artifactType": "application/vnd.x"},
    ]
    raw = json.dumps({"schemaVersion": 2, "manifests": entries, "artifactType": "t", "subject": entries[0]}).encode()
    index = parse_document(raw)
    assert isinstance(index, Index)
    assert index.subject == index.manifests[0]
    assert (index.artifact_type, index.manifests[1].artifact_type) == ("t", "application/vnd.x")


def test_keeps_the_digest_that_was_verified() -> None:
    digest = Digest.of(manifest(), "sha512")
    assert parse_document(manifest(), digest=digest).digest == digest


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (manifest(), mediatype.DOCKER_MANIFEST),
        (manifest(), mediatype.OCI_INDEX + "; charset=utf-8"),
        (manifest(mediaType=mediatype.OCI_INDEX), mediatype.OCI_MANIFEST),
        (manifest(mediaType=..., manifests=[]), None),
        (manifest(mediaType=...), mediatype.OCI_INDEX),
        (manifest(fsLayers=[]), None),
    ],
)
def test_refuses_what_could_be_read_in_two_ways(raw: bytes, said: str | None) -> None:
    for with_artifacts in (False, True):
        with pytest.raises(DocumentError):
            parse_document(raw, said, with_artifacts=with_artifacts)


@pytest.mark.parametrize(
    ("raw", "said", "expected"),
    [
        (b'{"schemaVersion": 1}', None, True),
        (b'{"schemaVersion": 1}', "application/json", True),
        (b"{}", mediatype.DOCKER_SCHEMA1, True),
        (manifest(), None, False),
        (manifest(), mediatype.DOCKER_SCHEMA1_SIGNED, False),
        (b'{"schemaVersion": 1}', mediatype.OCI_MANIFEST, False),
    ],
)
def test_tells_schema_1(raw: bytes, said: str | None, expected: bool) -> None:
    assert is_schema1(raw, said) is expected
