"""Digests: the algorithms that can be verified, in their exact form."""

from __future__ import annotations

import hashlib

import pytest

from asyncpull.errors import DigestMismatchError, InvalidDigestError
from asyncpull.spec.digest import Digest, verify_bytes


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_round_trip(algorithm: str) -> None:
    text = f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}"
    digest = Digest.parse(text)
    assert str(digest) == text
    assert digest == Digest.of(b"x", algorithm)
    assert digest.hasher().name == algorithm


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "0" * 64 + "\n",
        "sha256:../" + "0" * 61,
        "sha512:" + "0" * 64,
        "md5:" + "0" * 32,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidDigestError):
        Digest.parse(text)


def test_verify_names_what_was_wrong() -> None:
    verify_bytes("config", b"x", Digest.of(b"x"))
    with pytest.raises(DigestMismatchError) as caught:
        verify_bytes("config", b"y", Digest.of(b"x"))
    assert caught.value.expected == str(Digest.of(b"x"))
    assert caught.value.actual == str(Digest.of(b"y"))
    assert str(caught.value).startswith("config: digest is sha256:")
