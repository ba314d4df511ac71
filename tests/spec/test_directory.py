"""Which file of a flat directory is what."""

from __future__ import annotations

import pytest

from asyncpull.errors import DocumentError
from asyncpull.spec.digest import Digest
from asyncpull.spec.directory import blob_name, check_version, is_of_image, manifest_name, version_for

SHORT, LONG = Digest.of(b""), Digest.of(b"", "sha512")


def test_names() -> None:
    assert blob_name(SHORT) == SHORT.encoded
    assert manifest_name(SHORT) == f"{SHORT.encoded}.manifest.json"
    assert blob_name(LONG) == f"sha512-{LONG.encoded}"
    assert manifest_name(LONG) == f"sha512-{LONG.encoded}.manifest.json"


def test_the_version_is_as_old_as_can_be() -> None:
    assert version_for(frozenset()) == b"Directory Transport Version: 1.1\n"
    assert version_for(frozenset({blob_name(SHORT), manifest_name(SHORT)})) == b"Directory Transport Version: 1.1\n"
    assert version_for(frozenset({blob_name(SHORT), blob_name(LONG)})) == b"Directory Transport Version: 1.2\n"


@pytest.mark.parametrize("version", [b"1.0", b"1.1", b"1.2"])
def test_known_versions(version: bytes) -> None:
    check_version(b"Directory Transport Version: %s\n" % version, "version")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1.1\n",
        b"Directory Transport Version: 1.1",
        b"Directory Transport Version: 1.1\n\n",
        b"Directory Transport Version: 1.3\n",
        b"Directory Transport Version: 2.0\n",
    ],
)
def test_other_versions_are_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="/x/version"):
        check_version(raw, "/x/version")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (blob_name(SHORT), True),
        (manifest_name(SHORT), True),
        (f"{SHORT.encoded}.signature-1", True),
        (manifest_name(LONG), True),
        ("signature-12", True),
        ("manifest.json", False),
        ("version", False),
        (".asyncpull", False),
        ("notes.txt", False),
        ("abcdef", False),
        (f"{SHORT.encoded}.txt", False),
    ],
)
def test_what_is_a_part_of_an_image(name: str, expected: bool) -> None:
    assert is_of_image(name) is expected
