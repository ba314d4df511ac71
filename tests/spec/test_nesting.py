"""Documents that can be read and are nested too deeply to be written again: refused by whoever changes them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asyncpull.errors import DocumentError, StoreCorruptError
from asyncpull.registry.referrers import with_entry, without_entry
from asyncpull.spec import mediatype
from asyncpull.spec.conversion import convert_index, convert_manifest
from asyncpull.spec.derivation import Provenance, derive_config
from asyncpull.spec.digest import Digest
from asyncpull.spec.dockerarchive import legacy_layers
from asyncpull.spec.layout import LayoutIndex
from asyncpull.spec.manifest import Index, Manifest, parse_document
from asyncpull.spec.platform import Platform
from asyncpull.spec.schema1 import LayerFacts, convert_schema1, parse_schema1
from asyncpull.store.records import LAYERS, format_records, parse_records

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST = Digest.of(b"")
ENTRY = {"digest": str(DIGEST), "size": 2}


def deep(depth: int = 300, **document: object) -> bytes:
    """A document with a key that nobody knows, whose value is nested ``depth`` times."""
    return json.dumps(document).encode()[:-1] + b', "unknown": ' + b"[" * depth + b"]" * depth + b"}"


def manifest() -> Manifest:
    config = ENTRY | {"mediaType": mediatype.OCI_CONFIG}
    document = parse_document(deep(schemaVersion=2, mediaType=mediatype.OCI_MANIFEST, config=config))
    assert isinstance(document, Manifest)
    return document


def entries() -> dict[str, Any]:
    platform = {"os": "linux", "architecture": "arm"}
    instance = ENTRY | {"mediaType": mediatype.OCI_MANIFEST, "platform": platform}
    return {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [instance]}


def index() -> Index:
    document = parse_document(deep(**entries()))
    assert isinstance(document, Index)
    return document


def layout() -> LayoutIndex:
    return LayoutIndex.from_bytes(deep(**entries()), "index.json")


def config(depth: int = 300) -> bytes:
    return deep(depth, rootfs={"type": "layers", "diff_ids": [str(DIGEST)]})


def schema1() -> object:
    history = {"v1Compatibility": deep(id="a" * 64).decode()}
    raw = json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": str(DIGEST)}], "history": [history]}).encode()
    return convert_schema1(parse_schema1(raw), {DIGEST: LayerFacts(1, DIGEST)})


def copied_config() -> object:
    """What is copied of a config is known, and may be as deep as what is not."""
    depth = 1020
    return legacy_layers(b'{"config": ' + b"[" * depth + b"]" * depth + b"}", [DIGEST])


def without_the_only_image() -> object:
    index = layout()
    return index.without(index.entries[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda: convert_manifest(manifest(), mediatype.DOCKER_MANIFEST),
        lambda: convert_index(index(), mediatype.DOCKER_LIST),
        lambda: derive_config(config(), Platform("linux", "arm"), [DIGEST], Provenance("2026-01-02T03:04:05Z")),
        lambda: layout().with_image("name", mediatype.OCI_MANIFEST, DIGEST, 2),
        without_the_only_image,
        lambda: with_entry(deep(**entries()), {"digest": "another"}),
        lambda: without_entry(deep(**entries()), DIGEST),
        schema1,
        pytest.param(
            copied_config,
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12), reason="json writes whatever orjson reads since 3.12"
            ),
        ),
    ],
)
def test_a_document_that_cannot_be_written_is_refused(change: Callable[[], object]) -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        change()


def test_a_record_that_cannot_be_written_is_refused() -> None:
    record = deep(id="a", created="2026-01-02T03:04:05Z")
    with pytest.raises(StoreCorruptError, match="nested too deeply"):
        format_records(parse_records(b"[" + record + b"]", LAYERS, "layers.json"), LAYERS)
