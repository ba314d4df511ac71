"""Claims: what is signed, to the letter of containers-signature(5)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from asyncpull.errors import DocumentError
from asyncpull.spec.digest import Digest
from asyncpull.trust.claim import Claim, ClaimType

DIGEST = Digest.of(b"x")
GOOD: dict[str, Any] = {
    "critical": {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": str(DIGEST)},
        "identity": {"docker-reference": "a.example/b:1"},
    },
    "optional": {"creator": "me", "timestamp": 1458239713, "whatever": {"x": [1]}},
}


def test_read() -> None:
    expected = Claim(DIGEST, "a.example/b:1", "me", 1458239713)
    assert Claim.from_bytes(json.dumps(GOOD).encode(), ClaimType.SIMPLE) == expected
    short = GOOD | {"optional": {}}
    assert Claim.from_bytes(json.dumps(short).encode(), ClaimType.SIMPLE) == Claim(DIGEST, "a.example/b:1")
    whole = GOOD | {"optional": {"timestamp": 1e9}}
    assert Claim.from_bytes(json.dumps(whole).encode(), ClaimType.SIMPLE).timestamp == 10**9


def test_written_as_the_library_in_go_writes_it() -> None:
    assert Claim(DIGEST, "a/b:1", "me", 7).to_bytes(ClaimType.SIMPLE) == (
        b'{"critical":{"identity":{"docker-reference":"a/b:1"},"image":{"docker-manifest-digest":"'
        + str(DIGEST).encode()
        + b'"},"type":"atomic container signature"},"optional":{"creator":"me","timestamp":7}}'
    )


def test_cosign_writes_null() -> None:
    document = copy.deepcopy(GOOD) | {"optional": None}
    document["critical"]["type"] = "cosign container image signature"
    assert Claim.from_bytes(json.dumps(document).encode(), ClaimType.SIGSTORE).reference == "a.example/b:1"
    document["critical"]["type"] = "atomic container signature"
    with pytest.raises(DocumentError):
        Claim.from_bytes(json.dumps(document).encode(), ClaimType.SIMPLE)


def test_a_claim_of_one_kind_is_none_of_the_other() -> None:
    with pytest.raises(DocumentError, match=r"critical\.type"):
        Claim.from_bytes(json.dumps(GOOD).encode(), ClaimType.SIGSTORE)


CHANGES: list[tuple[tuple[str, ...], object]] = [
    (("x",), 1),
    (("critical",), None),
    (("optional",), None),
    (("optional",), []),
    (("optional", "creator"), 1),
    (("optional", "timestamp"), 0.5),
    (("optional", "timestamp"), 1e300),
    (("optional", "timestamp"), 1 << 63),
    (("optional", "timestamp"), "1"),
    (("optional", "timestamp"), True),
    (("critical", "x"), 1),
    (("critical", "type"), "Atomic container signature"),
    (("critical", "type"), 1),
    (("critical", "image"), []),
    (("critical", "image", "x"), 1),
    (("critical", "image", "docker-manifest-digest"), "sha256:00"),
    (("critical", "image", "docker-manifest-digest"), None),
    (("critical", "identity", "x"), 1),
    (("critical", "identity", "docker-reference"), 1),
]


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_refused(path: tuple[str, ...], value: object) -> None:
    document = copy.deepcopy(GOOD)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(DocumentError):
        Claim.from_bytes(json.dumps(document).encode(), ClaimType.SIMPLE)


@pytest.mark.parametrize("path", [("critical",), ("optional",), ("critical", "type"), ("critical", "identity")])
def test_missing(path: tuple[str, ...]) -> None:
    document = copy.deepcopy(GOOD)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(DocumentError, match="is missing"):
        Claim.from_bytes(json.dumps(document).encode(), ClaimType.SIMPLE)


@pytest.mark.parametrize("what", ['"docker-reference"', '"type"', '"critical"', '"creator"'])
def test_repeated(what: str) -> None:
    text = json.dumps(GOOD)
    start = text.index(what)
    with pytest.raises(DocumentError):
        Claim.from_bytes((text[:start] + f"{what}: {{}}, " + text[start:]).encode(), ClaimType.SIMPLE)
