"""``signedIdentity``: which signed names are accepted for which names."""

from __future__ import annotations

import pytest

from asyncpull.spec.reference import Reference, parse_reference
from asyncpull.spec.strictjson import StrictObject
from asyncpull.trust.identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    SignedIdentity,
    named,
    parse_identity,
)

D = "@sha256:" + "0123456789abcdef" * 4
E = "@sha256:" + "fedcba9876543210" * 4

EXACT, USUAL, REPOSITORY = MatchExact(), MatchRepoDigestOrExact(), MatchRepository()
THIS, HERE = ExactReference(parse_reference("a.example/b:1")), ExactRepository("a.example/b")
REMAP = RemapIdentity("mirror.example:5/m", "a.example")


@pytest.mark.parametrize(
    ("identity", "intended", "signed", "expected"),
    [
        (EXACT, "a.example/b:1", "a.example/b:1", True),
        (EXACT, "busybox:1", "docker.io/library/busybox:1", True),
        (EXACT, "docker.io/library/busybox:1", "busybox:1", True),
        (EXACT, "busybox:latest", "busybox", False),
        (EXACT, "a.example/b:1", "a.example/b:2", False),
        (EXACT, "a.example/b:1", "a.example/c:1", False),
        (EXACT, "a.example/b:1", f"a.example/b:1{D}", False),
        (EXACT, f"a.example/b{D}", f"a.example/b{D}", True),
        (EXACT, f"a.example/b{D}", "a.example/b:1", False),
        (EXACT, f"a.example/b{D}", f"a.example/b{E}", False),
        (EXACT, None, "a.example/b:1", False),
        (EXACT, "a.example/b:1", "docker://a.example/b:1", False),
        (EXACT, "a.example/b:1", "A b", False),
        (EXACT, "a.example/b:1", "", False),
        (USUAL, "a.example/b:1", "a.example/b:1", True),
        (USUAL, "a.example/b:1", "a.example/b:2", False),
        (USUAL, "a.example/b:1", "a.example/b", False),
        (USUAL, f"a.example/b{D}", "a.example/b:1", True),
        (USUAL, f"a.example/b{D}", f"a.example/b{E}", True),
        (USUAL, f"a.example/b{D}", "a.example/b", False),
        (USUAL, f"a.example/b{D}", "a.example/c:1", False),
        (USUAL, None, "a.example/b:1", False),
        (REPOSITORY, "a.example/b:1", "a.example/b:2", True),
        (REPOSITORY, "a.example/b:1", "a.example/b", True),
        (REPOSITORY, "a.example/b:1", "a.example/bb", False),
        (REPOSITORY, None, "a.example/b", False),
        (THIS, None, "a.example/b:1", True),
        (THIS, "other.example/x:1", "a.example/b:1", True),
        (THIS, "a.example/b:2", "a.example/b:2", False),
        (THIS, None, "a.example/b", False),
        (HERE, None, "a.example/b", True),
        (HERE, "a.example/b:1", f"a.example/b{D}", True),
        (HERE, "a.example/c:1", "a.example/c:1", False),
        (REMAP, "mirror.example:5/m/b:1", "a.example/b:1", True),
        (REMAP, "mirror.example:5/m/b:1", "mirror.example:5/m/b:1", False),
        (REMAP, "mirror.example:5/m/b:1", "a.example/b:2", False),
        (REMAP, f"mirror.example:5/m/b{D}", "a.example/b:2", True),
        (REMAP, "mirror.example:5/mm/b:1", "mirror.example:5/mm/b:1", True),
        (REMAP, "mirror.example:5/mm/b:1", "a.example/b:1", False),
        (REMAP, "mirror.example:5/x:1", "mirror.example:5/x:1", True),
        (REMAP, None, "a.example/b:1", False),
        (RemapIdentity("a.example/b", "busybox"), "a.example/b:1", "busybox:1", False),
        (RemapIdentity("a.example/b", "docker.io/library/busybox"), "a.example/b:1", "busybox:1", True),
        (RemapIdentity("a.example", "a.example"), "a.example/b:1", "a.example/b:1", True),
    ],
)
def test_accepts(identity: SignedIdentity, intended: str | None, signed: str, expected: bool) -> None:
    name = None if intended is None else parse_reference(intended)
    assert identity.accepts(name, signed) is expected


def test_a_name_without_a_tag_stays_one() -> None:
    assert named("busybox") == Reference("docker.io", "library/busybox")
    assert named("localhost:5000/b") == Reference("localhost:5000", "b")
    assert named("localhost:5000/b:1") == Reference("localhost:5000", "b", "1")
    assert named("0" * 64) is None


def test_parsed() -> None:
    text = b'{"type": "remapIdentity", "prefix": "mirror.example:5/m", "signedPrefix": "a.example"}'
    assert parse_identity(StrictObject.parse(text)) == REMAP
    text = b'{"type": "exactRepository", "dockerRepository": "busybox:1"}'
    assert parse_identity(StrictObject.parse(text)) == ExactRepository("docker.io/library/busybox")
