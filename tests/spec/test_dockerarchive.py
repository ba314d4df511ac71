"""The documents of what docker save writes: read, chosen from, and written as skopeo 1.22 writes them."""

from __future__ import annotations

import json

import pytest

from asyncpull.errors import DocumentError, NotFoundError, UsageError
from asyncpull.spec.digest import Digest
from asyncpull.spec.dockerarchive import (
    ArchivedImage,
    choose_image,
    format_images,
    format_repositories,
    legacy_layers,
    made_manifest,
    parse_images,
)
from asyncpull.spec.reference import parse_reference

IMAGES = (
    ArchivedImage("a.json", ("1.tar",), ("one:v1", "docker.io/library/one:v2", "not a tag!")),
    ArchivedImage("b.json", ("1.tar", "2.tar"), ("quay.io/x/two:latest",)),
    ArchivedImage("c.json", ()),
)
DIFF_ID = Digest.parse("sha256:ce1d6c798908e33ebab382c6ff4673c68fbcb80763181d7c80ef29dab496872e")
CONFIG = (
    b'{"created":"2023-11-14T22:13:20.5Z","architecture":"amd64","os":"linux","config":{"Cmd":["/bin/sh"],'
    b'"Env":["PATH=/bin"],"Labels":{"comment":"<x & y>"}},"rootfs":{"type":"layers","diff_ids":[]}}'
)


def test_images_are_read_as_they_are_written() -> None:
    assert parse_images(format_images(IMAGES), "x.tar") == IMAGES


def test_unknown_keys_and_missing_tags_are_fine() -> None:
    raw = b'[{"Config": "c", "RepoTags": null, "Layers": null, "Parent": "p", "LayerSources": {}}]'
    assert parse_images(raw, "x.tar") == (ArchivedImage("c", ()),)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[", "x.tar: manifest.json is not JSON"),
        (b"{}", "no list of images"),
        (b"[]", "no list of images"),
        (b"[1]", r"manifest.json\[0\] is not an object"),
        (b'[{"Layers": []}]', "has no 'Config'"),
        (b'[{"Config": 1}]', "Config is not a string"),
        (b'[{"Config": "c", "Layers": ["a", 2]}]', r"Layers\[1\] is not a string"),
        (b'[{"Config": "c", "RepoTags": "a:b"}]', "RepoTags is not an array"),
    ],
)
def test_what_is_no_list_of_images_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        parse_images(raw, "x.tar")


@pytest.mark.parametrize(
    ("reference", "number", "config"),
    [
        ("one:v1", None, "a.json"),
        ("docker.io/library/one:v2", None, "a.json"),
        ("quay.io/x/two", None, "b.json"),
        (None, 0, "a.json"),
        (None, 2, "c.json"),
    ],
)
def test_an_image_is_chosen(reference: str | None, number: int | None, config: str) -> None:
    wanted = parse_reference(reference) if reference else None
    assert choose_image(IMAGES, wanted, number, "x.tar").config == config


def test_the_only_image_needs_no_name() -> None:
    assert choose_image(IMAGES[1:2], None, None, "x.tar").config == "b.json"


def test_what_cannot_be_chosen() -> None:
    with pytest.raises(NotFoundError, match=r"x\.tar: no image in it is tagged docker\.io/library/one:v3") as caught:
        choose_image(IMAGES, parse_reference("one:v3"), None, "x.tar")
    assert caught.value.hint == ("there are @0 one:v1 docker.io/library/one:v2 not a tag!, @1 quay.io/x/two:latest, @2")
    with pytest.raises(NotFoundError, match="has no image @3: there are 3"):
        choose_image(IMAGES, None, 3, "x.tar")
    with pytest.raises(UsageError, match="holds 3 images"):
        choose_image(IMAGES, None, None, "x.tar")


def test_documents_are_those_of_skopeo() -> None:
    """Golden: what skopeo 1.22 makes of the same image; where it sorts, where it escapes, what it leaves null."""
    assert made_manifest(b"{}", [(DIFF_ID, 10240)]) == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":'
        b'"application/vnd.docker.container.image.v1+json","size":2,"digest":'
        b'"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[{"mediaType":'
        b'"application/vnd.docker.image.rootfs.diff.tar","size":10240,"digest":'
        b'"sha256:ce1d6c798908e33ebab382c6ff4673c68fbcb80763181d7c80ef29dab496872e"}]}'
    )
    base, top = legacy_layers(CONFIG, [DIFF_ID, DIFF_ID])
    assert base.id == "c491f84cd4514bc025bde22dddc2adf2f78f987d69ec2561eb8da6a6bf4d25fd"
    assert base.config == b'{"id":"c491f84cd4514bc025bde22dddc2adf2f78f987d69ec2561eb8da6a6bf4d25fd"}'
    assert base.link == (f"{base.id}/layer.tar", f"../{DIFF_ID.encoded}.tar")
    assert top.config == (
        b'{"architecture":"amd64","config":{"Cmd":["/bin/sh"],"Env":["PATH=/bin"],"Labels":{"comment":"\\u003cx '
        b'\\u0026 y\\u003e"}},"container":null,"container_config":null,"created":"2023-11-14T22:13:20.5Z",'
        b'"docker_version":null,"id":"%b","os":"linux",'
        b'"parent":"c491f84cd4514bc025bde22dddc2adf2f78f987d69ec2561eb8da6a6bf4d25fd"}' % top.id.encode()
    )


def test_tags_are_sorted_by_repository() -> None:
    tops = {parse_reference(name): f"top {name}" for name in ("b:2", "quay.io/a/b:1", "b:1")}
    assert json.loads(format_repositories(tops)) == {
        "docker.io/library/b": {"1": "top b:1", "2": "top b:2"},
        "quay.io/a/b": {"1": "top quay.io/a/b:1"},
    }
    assert format_repositories({}) == b"{}"
