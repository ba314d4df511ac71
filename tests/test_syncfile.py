"""skopeo's sync files: what they want, and what is wrong with them, by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.syncfile import parse_sync_file

PATH = Path("sync.yml")

# After the example of skopeo-sync(1).
EXAMPLE = r"""
registry.example.com:
    images:
        busybox: []
        redis:
            - "1.0"
            - "2.0"
            - "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    images-by-tag-regex:
        nginx: ^1\.13\.[12]-alpine-perl$
    credentials:
        username: john
        password: this is a secret
    tls-verify: true
    cert-dir: /home/john/certs
quay.io:
    tls-verify: false
    images:
        coreos/etcd:
            - latest
    images-by-semver:
        coreos/other: ">= 3.12.0"
localhost:5000:
"""


def test_the_example_of_the_manual() -> None:
    first, second, third = parse_sync_file(PATH, EXAMPLE.encode())
    assert [str(image) for image in first.images] == [
        "registry.example.com/redis:1.0",
        "registry.example.com/redis:2.0",
        "registry.example.com/redis@sha256:0000000000000000000000000000000011111111111111111111111111111111",
    ]
    everything, nginx = first.tags
    assert (everything.repository.name, everything.allows("anything")) == ("registry.example.com/busybox", True)
    assert [tag for tag in ("1.13.1-alpine-perl", "1.13.3-alpine-perl", "x") if nginx.allows(tag)] == [
        "1.13.1-alpine-perl"
    ]
    assert first.credentials is not None
    assert (first.credentials.username, first.credentials.password) == ("john", "this is a secret")
    assert "secret" not in repr(first)
    assert (first.tls_verify, first.cert_dir) == (True, Path("/home/john/certs"))
    assert [str(image) for image in second.images] == ["quay.io/coreos/etcd:latest"]
    [other] = second.tags
    assert [tag for tag in ("3.11", "3.12.1", "latest") if other.allows(tag)] == ["3.12.1"]
    assert (second.tls_verify, second.credentials, second.cert_dir) == (False, None, None)
    assert (third.domain, third.images, third.tags) == ("localhost:5000", (), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the file is no mapping"),
        ("a.b: [", "not YAML"),
        ("a.b:\n  images: {x: []}\n  images: {y: []}", "there twice"),
        ("a.b: {imags: {}}", "unknown key 'imags'"),
        ("a.b: {images: [x]}", "a.b / images is no mapping"),
        ("a.b: {images: {x: [1.0]}}", "a.b / images / x is no list"),
        ("a.b: {images: {x: y}}", "a.b / images / x is no list"),
        ("a.b: {images: {'x:tag': []}}", "an image, not a repository"),
        ("a.b: {images: {X: []}}", "no repository"),
        ("a.b: {images: {x: ['sha256:../../x']}}", "neither a tag nor a digest"),
        ("a.b: {images: {x: ['a b']}}", "neither a tag nor a digest"),
        ("a.b: {images-by-tag-regex: {x: '('}}", "no regular expression"),
        ("a.b: {images-by-tag-regex: {x: 1}}", "no string"),
        ("a.b: {images-by-semver: {x: '>>'}}", "no range of versions"),
        ("a.b: {credentials: {password: x}}", "needs username"),
        ("a.b: {credentials: {username: x, pass: y}}", "needs username"),
        ("a.b: {tls-verify: 'no'}", "neither true nor false"),
        ("a.b: {cert-dir: [x]}", "no path"),
        ("ab: {images: {x: []}}", "ab is no registry"),
        ("a.b: {images: {'x:latest': []}}", "an image, not a repository"),
        ("a.b: {images-by-tag-regex: {x: 'a{99999999999}'}}", "no regular expression"),
        (f"a.b: {{images-by-tag-regex: {{x: '{'(' * 5000}'}}}}", "no regular expression"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_sync_file(PATH, text.encode())
    assert str(caught.value).startswith("sync.yml: ")
