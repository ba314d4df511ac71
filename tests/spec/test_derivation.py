"""The documents of an image that is another with one layer more."""

from __future__ import annotations

import json

import pytest

from asyncpull.errors import DocumentError
from asyncpull.spec.derivation import Flavour, Provenance, derive_config, derive_manifest, flavour_of
from asyncpull.spec.digest import Digest
from asyncpull.spec.instruction import parse_instruction
from asyncpull.spec.manifest import ImageConfig, Manifest, parse_document
from asyncpull.spec.platform import Platform

ARM = Platform(os="linux", architecture="arm64", variant="v8")
DIGESTS = [Digest.of(b"base"), Digest.of(b"new")]
NOW = Provenance("2026-01-02T03:04:05Z", "somebody", "me", "why")


def base(**changes: object) -> bytes:
    return json.dumps(
        {
            "created": "2020-01-01T00:00:00Z",
            "architecture": "s390x",
            "os": "linux",
            "x-unknown": {"kept": 1},
            "container_config": {"Cmd": ["stale"]},
            "config": {"Cmd": ["sh"], "X": 1},
            "rootfs": {"type": "layers", "diff_ids": [str(DIGESTS[0])]},
            "history": [{"created_by": "base"}, {"created_by": "env", "empty_layer": True}],
        }
        | changes
    ).encode()


def test_a_config_keeps_what_is_not_changed() -> None:
    raw = derive_config(base(), ARM, DIGESTS, NOW, [parse_instruction("USER app")])
    assert json.loads(raw) == {
        "created": "2026-01-02T03:04:05Z",
        "author": "me",
        "architecture": "s390x",
        "os": "linux",
        "x-unknown": {"kept": 1},
        "config": {"Cmd": ["sh"], "X": 1, "User": "app"},
        "rootfs": {"type": "layers", "diff_ids": list(map(str, DIGESTS))},
        "history": [
            {"created_by": "base"},
            {"created_by": "env", "empty_layer": True},
            {"created": "2026-01-02T03:04:05Z", "created_by": "somebody", "author": "me", "comment": "why"},
        ],
    }
    assert ImageConfig.from_bytes(raw).diff_ids == tuple(DIGESTS)


def test_a_config_of_nothing_is_for_the_platform() -> None:
    document = json.loads(derive_config(None, ARM, DIGESTS[:1], Provenance("2026-01-02T03:04:05Z")))
    assert (document["architecture"], document["variant"], document["config"]) == ("arm64", "v8", {})
    assert document["history"] == [{"created": "2026-01-02T03:04:05Z"}]


def test_every_layer_has_an_entry_in_the_history() -> None:
    document = json.loads(derive_config(base(history=None), ARM, DIGESTS, NOW))
    assert [entry.get("comment") for entry in document["history"]] == ["not recorded", "why"]


@pytest.mark.parametrize("raw", [b"[]", b"{", base(config=[]), base(history={})])
def test_a_base_that_is_no_config(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        derive_config(raw, ARM, DIGESTS, NOW)


@pytest.mark.parametrize("flavour", ["oci", "docker"])
def test_a_manifest_of_either_kind(flavour: Flavour) -> None:
    config = derive_config(base(), ARM, DIGESTS, NOW)
    manifest = parse_document(derive_manifest(flavour, config, [(DIGESTS[0], 10), (DIGESTS[1], 20)], {"a": "b"}))
    assert isinstance(manifest, Manifest)
    assert flavour_of(manifest.media_type) == flavour
    assert (manifest.config.digest, manifest.config.size) == (Digest.of(config), len(config))
    assert [(layer.digest, layer.size) for layer in manifest.layers] == [(DIGESTS[0], 10), (DIGESTS[1], 20)]
    assert (b'"annotations"' in manifest.raw) is (flavour == "oci")
