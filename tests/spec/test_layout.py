"""What the files of image layouts say, and how an entry gets into index.json and out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncpull.errors import AsyncpullError, DocumentError, NotFoundError, UsageError
from asyncpull.spec.digest import Digest
from asyncpull.spec.layout import IMAGE_NAME, REF_NAME, VERSION, LayoutIndex, blob_path, check_version
from asyncpull.spec.mediatype import OCI_INDEX, OCI_MANIFEST

NEW = Digest.of(b"new")


def entry(content: str, name: str = "", full_name: str = "", media_type: str = OCI_MANIFEST) -> dict[str, Any]:
    annotations = {key: value for key, value in ((REF_NAME, name), (IMAGE_NAME, full_name)) if value}
    found: dict[str, Any] = {"mediaType": media_type, "digest": str(Digest.of(content.encode())), "size": len(content)}
    return found | ({"annotations": annotations} if annotations else {})


def index_of(*entries: dict[str, Any], **more: object) -> LayoutIndex:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}
    return LayoutIndex.from_bytes(json.dumps(document).encode(), "index.json")


A, B, NAMELESS = entry("a", "one"), entry("b", "two"), entry("c")
DOCKER = entry("d", "latest", "docker.io/library/alpine:latest")
UNKNOWN = entry("u", "one", media_type="application/vnd.unknown+json")


@pytest.mark.parametrize(
    ("entries", "name", "number", "chosen"),
    [
        ((A,), None, None, A),
        ((NAMELESS,), None, None, NAMELESS),
        ((A, B), "two", None, B),
        ((A, B), None, 0, A),
        ((A, B, NAMELESS), None, 2, NAMELESS),
        ((DOCKER,), "latest", None, DOCKER),
        ((DOCKER,), "docker.io/library/alpine:latest", None, DOCKER),
        ((DOCKER, entry("e", "docker.io/library/alpine:latest")), "docker.io/library/alpine:latest", None, entry("e")),
        ((A, entry("e", "one")), "one", None, A),
        ((UNKNOWN, A), "one", None, A),
        ((entry("i", "i", media_type=OCI_INDEX),), "i", None, entry("i")),
    ],
)
def test_an_entry_is_chosen(
    entries: tuple[dict[str, Any], ...], name: str | None, number: int | None, chosen: dict[str, Any]
) -> None:
    assert str(index_of(*entries).choose(name, number).digest) == chosen["digest"]


@pytest.mark.parametrize(
    ("entries", "name", "number", "error", "said"),
    [
        ((), None, None, NotFoundError, "lists no image"),
        ((A, NAMELESS, DOCKER), None, None, UsageError, "lists 3 images"),
        ((A, DOCKER), "three", None, NotFoundError, "no image 'three'"),
        ((A, B), None, 2, NotFoundError, "no entry 2"),
        ((UNKNOWN,), "one", None, DocumentError, "media type 'application/vnd.unknown"),
    ],
)
def test_what_cannot_be_chosen(
    entries: tuple[dict[str, Any], ...],
    name: str | None,
    number: int | None,
    error: type[AsyncpullError],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        index_of(*entries).choose(name, number)


def test_the_hint_names_what_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        index_of(A, NAMELESS, DOCKER).choose(None, None)
    assert caught.value.hint == "choose one by :NAME or :@N; it has one, @1, latest"


def new(name: str = "") -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, "digest": str(NEW), "size": 3} | (
        {"annotations": {REF_NAME: name}} if name else {}
    )


@pytest.mark.parametrize(
    ("entries", "name", "after"),
    [
        ((), "one", (new("one"),)),
        ((), None, (new(),)),
        ((A, B), "one", (new("one"), B)),
        ((B,), "one", (B, new("one"))),
        ((A, B, entry("e", "one")), "one", (new("one"), B)),
        ((B, new()), "one", (B, new("one"))),
        ((new("two"),), "one", (new("two"), new("one"))),
        ((DOCKER,), "latest", (entry("d", "", "docker.io/library/alpine:latest"), new("latest"))),
        ((DOCKER, B), "docker.io/library/alpine:latest", (new("docker.io/library/alpine:latest"), B)),
        ((NAMELESS,), None, (new(),)),
        ((A,), None, (A, new())),
        ((NAMELESS, entry("e")), None, (NAMELESS, entry("e"), new())),
        ((A, new(), B), None, (A, new(), B)),
        ((NAMELESS,), "one", (NAMELESS, new("one"))),
    ],
)
def test_an_image_takes_its_place(
    entries: tuple[dict[str, Any], ...], name: str | None, after: tuple[dict[str, Any], ...]
) -> None:
    written = json.loads(index_of(*entries).with_image(name, OCI_MANIFEST, NEW, 3))
    assert tuple(written["manifests"]) == after


def test_what_nobody_knows_is_kept() -> None:
    odd = A | {"data": "YQ==", "x": [1]}
    index = index_of(odd, annotations={"a": "b"}, unknown={"x": 1.5})
    written = json.loads(index.with_image("two", OCI_MANIFEST, NEW, 3))
    assert written == json.loads(index.raw) | {"manifests": [odd, new("two")]}


def test_a_new_index_is_what_skopeo_writes() -> None:
    written = LayoutIndex.empty("index.json").with_image("x", OCI_MANIFEST, NEW, 3)
    assert written == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":3,'
        b'"annotations":{"org.opencontainers.image.ref.name":"x"}}]}' % str(NEW).encode()
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object"),
        (b'{"schemaVersion":2,"layers":[],"config":{}}', "foreign key"),
        (b'{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}', "manifests"),
        (b'{"schemaVersion":2,"manifests":[{"digest":"sha256:%s","size":-1}]}' % (b"a" * 64), "negative"),
        (b'{"schemaVersion":2,"manifests":{}}', "not an array"),
    ],
)
def test_a_bad_index_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said) as caught:
        LayoutIndex.from_bytes(raw, "/x/index.json")
    assert str(caught.value).startswith("/x/index.json")


@pytest.mark.parametrize("raw", [VERSION, b'{"imageLayoutVersion": "1.1.0-dev", "x": 1}'])
def test_known_versions(raw: bytes) -> None:
    check_version(raw, "oci-layout")


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"imageLayoutVersion":"2.0.0"}', b'{"imageLayoutVersion":1}', b"null"])
def test_other_versions_are_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="oci-layout"):
        check_version(raw, "oci-layout")


def test_blobs_are_below_their_algorithm() -> None:
    assert blob_path(Digest.of(b"", "sha512")) == f"sha512/{Digest.of(b'', 'sha512').encoded}"
