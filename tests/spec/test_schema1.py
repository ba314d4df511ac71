"""Docker's schema 1: read from bytes that skopeo signed, converted to the bytes that skopeo makes of them.

The golden files were made with skopeo 1.9.3 from an image with two layers and two throwaway ones:
``skopeo copy --format v2s1`` to docker-registry 2.8, whose answer is ``schema1-signed.json``, and
``skopeo copy --format v2s2`` of that.
"""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import DigestMismatchError, DocumentError
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import parse_document
from asyncpull.spec.schema1 import LayerFacts, convert_schema1, document_digest, parse_schema1, verify_document

GOLDEN = Path(__file__).parent / "golden"
SIGNED = (GOLDEN / "schema1-signed.json").read_bytes()
DIGEST = Digest.parse("sha256:e32a80e8afdd7241f9f9abec968d9385a7b8554f8320dc0024871b97c8ac0057")
EMPTY = Digest.parse("sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")
ID = "a" * 64


def unsigned(**changes: object) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 1,
        "fsLayers": [{"blobSum": str(EMPTY)}],
        "history": [history(id=ID, created="2020-01-01T00:00:00Z", os="linux")],
    }
    document.update(changes)
    return json.dumps(document).encode()


def history(**keys: object) -> dict[str, str]:
    return {"v1Compatibility": json.dumps(keys)}


def resigned(**protected: object) -> bytes:
    """The golden manifest with another protected header in its signature."""
    document = json.loads(SIGNED)
    text = base64.urlsafe_b64encode(json.dumps(protected).encode()).decode().rstrip("=")
    document["signatures"][0]["protected"] = text
    return json.dumps(document).encode()


def test_signed() -> None:
    manifest = parse_schema1(SIGNED, mediatype.DOCKER_SCHEMA1_SIGNED)
    assert manifest.digest == DIGEST  # what the registry said, as Docker-Content-Digest
    assert manifest.media_type == mediatype.DOCKER_SCHEMA1_SIGNED
    assert [layer.is_throwaway for layer in manifest.layers] == [False, True, False, True]
    assert manifest.layers[1].digest == EMPTY
    assert len(manifest.blobs) == 2
    assert manifest.raw == SIGNED


def test_converted_as_skopeo_does() -> None:
    config = (GOLDEN / "schema1-as-schema2.config.json").read_bytes()
    expected = (GOLDEN / "schema1-as-schema2.json").read_bytes()
    layers = json.loads(expected)["layers"]
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    facts = {
        Digest.parse(layer["digest"]): LayerFacts(layer["size"], Digest.parse(diff_id))
        for layer, diff_id in zip(layers, diff_ids, strict=True)
    }
    converted = convert_schema1(parse_schema1(SIGNED), facts)
    assert converted.config == config
    assert converted.manifest == expected
    parse_document(converted.manifest, mediatype.DOCKER_MANIFEST)


def test_digest_of_documents() -> None:
    assert document_digest(SIGNED) == DIGEST
    verify_document("manifest", SIGNED, DIGEST)
    verify_document("manifest", SIGNED, Digest.of(SIGNED))
    verify_document("manifest", unsigned(), Digest.of(unsigned(), "sha512"))
    for raw in (SIGNED.replace(b"amd64", b"arm64"), b"\xff", unsigned(), b'{"schemaVersion": 2, "signatures": []}'):
        with pytest.raises(DigestMismatchError):
            verify_document("manifest", raw, DIGEST)


def test_what_follows_the_payload_means_nothing() -> None:
    other = SIGNED[:-1] + b',"fsLayers":[],"schemaVersion":1}'
    manifest = parse_schema1(other)
    assert manifest.digest == DIGEST
    assert len(manifest.layers) == 4


def test_unsigned_and_the_time_in_gos_form() -> None:
    raw = unsigned(
        fsLayers=[{"blobSum": str(EMPTY)}] * 3,
        history=[
            history(id="c" * 64, parent="b" * 64, created="2020-01-01T00:00:00.120Z", Size=7),
            history(id="b" * 64, parent="a" * 64, created="2020-01-01T00:00:00.000+02:00", throwaway=True),
            history(id="a" * 64, container_config={"Cmd": ["a", "b"]}),
        ],
    )
    manifest = parse_schema1(raw)
    assert (manifest.media_type, manifest.digest) == (mediatype.DOCKER_SCHEMA1, Digest.of(raw))
    config = json.loads(convert_schema1(manifest, {EMPTY: LayerFacts(32, Digest.of(b"tar"))}).config)
    assert config["history"] == [
        {"created": "0001-01-01T00:00:00Z", "created_by": "a b"},
        {"created": "2020-01-01T00:00:00+02:00", "empty_layer": True},
        {"created": "2020-01-01T00:00:00.12Z"},
    ]
    assert config["rootfs"]["diff_ids"] == [str(Digest.of(b"tar"))] * 2
    assert not {"id", "parent", "Size", "throwaway"} & config.keys()


def test_a_layer_listed_twice_is_one() -> None:
    raw = unsigned(
        fsLayers=[{"blobSum": str(DIGEST)}, {"blobSum": str(EMPTY)}, {"blobSum": str(EMPTY)}],
        history=[history(id="b" * 64, parent=ID), history(id=ID), history(id=ID)],
    )
    assert parse_schema1(raw).blobs == (EMPTY, DIGEST)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[]", "not an object"),
        (b'{"schemaVersion": 2}', "not of Docker's schema 1"),
        (unsigned(schemaVersion=2), "not of Docker's schema 1"),
        (unsigned(layers=[]), "foreign key 'layers'"),
        (unsigned(manifests=[]), "foreign key 'manifests'"),
        (unsigned(fsLayers=[]), "0 layers"),
        (unsigned(history=[]), "0 entries"),
        (unsigned(fsLayers=[{"blobSum": "sha256:../../x"}]), r"fsLayers\[0\].blobSum"),
        (unsigned(history=[{"v1Compatibility": "{"}]), "not JSON"),
        (unsigned(history=[history(id="x")]), "64 hex digits"),
        (unsigned(history=[history(id=ID, parent=ID)]), "is on"),
        (unsigned(signatures=[]), "empty"),
        (unsigned(signatures=[{}]), "no 'header'"),
        (resigned(formatLength=0, formatTail="fQ"), "0 bytes"),
        (resigned(formatLength=10**6, formatTail="fQ"), "1000000 bytes"),
        (resigned(formatLength=10, formatTail="fQ"), "not JSON"),
        (resigned(formatLength="1", formatTail="fQ"), "not an integer"),
        (resigned(formatLength=10, formatTail="!"), "signatures"),
        (resigned(formatLength=10), "no 'formatTail'"),
    ],
)
def test_refuses(raw: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_schema1(raw)


def test_refuses_layers_in_a_circle() -> None:
    raw = unsigned(
        fsLayers=[{"blobSum": str(EMPTY)}] * 3,
        history=[history(id=ID, parent="b" * 64), history(id="b" * 64, parent=ID), history(id=ID)],
    )
    with pytest.raises(DocumentError, match="several times"):
        parse_schema1(raw)


def test_refuses_signatures_about_different_contents() -> None:
    document = json.loads(SIGNED)
    document["signatures"] += json.loads(resigned(formatLength=10, formatTail="fQ"))["signatures"]
    with pytest.raises(DocumentError, match="different contents"):
        parse_schema1(json.dumps(document).encode())


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 255))
def test_any_byte_changed_is_parsed_or_refused(at: int, value: int) -> None:
    raw = SIGNED[:at] + bytes([value]) + SIGNED[at + 1 :]
    with contextlib.suppress(DocumentError):
        manifest = parse_schema1(raw)
        convert_schema1(manifest, {blob: LayerFacts(1, EMPTY) for blob in manifest.blobs})
