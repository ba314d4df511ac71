"""``registries.d``: where signatures are, and what is wrong with the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.spec.digest import Digest
from asyncpull.spec.reference import parse_reference
from asyncpull.trust.policyfile import TrustOptions
from asyncpull.trust.registriesd import RegistriesDirectory, load_registries_directory, signature_url
from asyncpull.trust.scopes import of_reference

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = Digest.of(b"x")


def loaded(directory: Path, *texts: str) -> RegistriesDirectory:
    for number, text in enumerate(texts):
        (directory / f"{number}.yaml").write_text(text)
    return load_registries_directory(TrustOptions(registries_dir=directory), {}, 0)


SECTIONS = """
default-docker:
    lookaside: https://default.example
    use-sigstore-attachments: true
docker:
    a.example:
        lookaside: https://a.example/lookaside
        lookaside-staging: file:///staging
    a.example/b:
        use-sigstore-attachments: false
    a.example/b/c:tag:
        sigstore: http://old.example:8080/x/
        sigstore-staging: file:///old
    "*.wild.example":
        lookaside: file:///wild
    other.example:
"""


@pytest.mark.parametrize(
    ("reference", "lookaside", "staging", "attachments"),
    [
        ("a.example/x", "https://a.example/lookaside", "file:///staging", True),
        ("a.example/b", "https://a.example/lookaside", "file:///staging", False),
        ("a.example/b/c:tag", "http://old.example:8080/x/", "file:///old", False),
        ("a.example/b/c:other", "https://a.example/lookaside", "file:///staging", False),
        ("x.wild.example/b", "file:///wild", "file:///wild", True),
        ("a.example:5000/b", "https://default.example", "https://default.example", True),
        ("other.example/b", "https://default.example", "https://default.example", True),
    ],
)
def test_the_most_specific_value(
    tmp_path: Path, reference: str, lookaside: str, staging: str, attachments: bool
) -> None:
    found, image = loaded(tmp_path, SECTIONS), of_reference(parse_reference(reference))
    assert (found.lookaside(image), found.staging(image)) == (lookaside, staging)
    assert found.uses_attachments(image) is attachments


def test_without_any_file(tmp_path: Path) -> None:
    image = of_reference(parse_reference("a.example/b"))
    assert loaded(tmp_path).lookaside(image) == "file:///var/lib/containers/sigstore"
    assert loaded(tmp_path / "none").uses_attachments(image) is False
    mine = load_registries_directory(TrustOptions(registries_dir=tmp_path), {"HOME": "/home/me"}, 1000)
    assert mine.lookaside(image) == "file:///home/me/.local/share/containers/sigstore"


def test_files_are_merged_and_others_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nonsense: [")
    found = loaded(
        tmp_path, "docker: {a.example: {lookaside: file:///a}}", "docker: {b.example: {lookaside: file:///b}}", ""
    )
    for name in "ab":
        assert found.lookaside(of_reference(parse_reference(f"{name}.example/x"))) == f"file:///{name}"


def test_unknown_keys_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = loaded(tmp_path, "other: 1\ndocker: {a.example: {lookasid: 1, lookaside: file:///a}}")
    assert found.lookaside(of_reference(parse_reference("a.example/x"))) == "file:///a"
    assert [record.__dict__["key"] for record in caplog.records] == ["other", "docker.a.example.lookasid"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["nonsense: ["], "0.yaml: not YAML"),
        (["- a"], "0.yaml: the file is no mapping"),
        (["docker: []"], "0.yaml: docker is no mapping"),
        (["docker: {1: {}}"], "0.yaml: docker is no mapping"),
        (["docker: {a.example: x}"], "0.yaml: docker.a.example is no mapping"),
        (["docker: {a.example: {lookaside: 1}}"], "docker.a.example.lookaside has a value of another type"),
        (["docker: {a.example: {use-sigstore-attachments: 'true'}}"], "has a value of another type"),
        (["docker: {a.example: {lookaside: ftp://x}}"], "lookaside is no URL of file, http or https"),
        (["docker: {a.example: {lookaside: /x}}"], "lookaside is no URL of file, http or https"),
        (["docker: {a.example: {}, a.example: {}}"], "'a.example' is there twice"),
        (["docker: {a.example: {}}", "docker: {a.example: {}}"], "1.yaml: a.example is also in"),
        (["default-docker: {}", "default-docker: {}"], "1.yaml: default-docker is also in"),
        (["!!python/object/apply:os.system [true]"], "0.yaml: not YAML"),
        (["!!timestamp noon"], "0.yaml: not YAML"),
        (["!!bool perhaps"], "0.yaml: not YAML"),
        (['!!int ""'], "0.yaml: not YAML"),
        (["9" * 5000], "0.yaml: not YAML"),
        (["[" * 5000], "0.yaml: not YAML"),
    ],
)
def test_refused(tmp_path: Path, texts: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, *texts)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("file:///x", "file:///x/b/c@sha256={hex}/signature-2"),
        ("https://h.example:5/x?y=1", "https://h.example:5/x/b/c@sha256={hex}/signature-2?y=1"),
        ("https://h.example", "https://h.example/b/c@sha256={hex}/signature-2"),
    ],
)
def test_urls_of_signatures(base: str, expected: str) -> None:
    url = signature_url(base, parse_reference("a.example/b/c:1"), DIGEST, 2)
    assert url == expected.format(hex=DIGEST.encoded)
