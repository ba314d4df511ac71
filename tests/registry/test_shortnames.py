"""What a short name may mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpull.errors import InvalidReferenceError, UsageError
from asyncpull.registry.shortnames import Alias, ShortNameMode, candidates
from asyncpull.spec.reference import parse_reference

FILE = Path("/etc/registries.conf")
DIGEST = "sha256:" + "0" * 64
ALIASES = {
    "fedora": Alias(parse_reference("registry.fedoraproject.org/fedora"), FILE),
    "ns/tool": Alias(parse_reference("quay.io/other/tool"), FILE),
    "gone": Alias(None, FILE),
}
TWO = ("a.example", "b.example:5000")
PERMISSIVE, ENFORCING, DISABLED = ShortNameMode.PERMISSIVE, ShortNameMode.ENFORCING, ShortNameMode.DISABLED


@pytest.mark.parametrize(
    ("text", "search", "expected"),
    [
        # with a registry
        ("quay.io/a/b", TWO, ["quay.io/a/b:latest"]),
        ("localhost/a", TWO, ["localhost/a:latest"]),
        ("localhost:5000/a:1", TWO, ["localhost:5000/a:1"]),
        ("docker.io/fedora", TWO, ["docker.io/library/fedora:latest"]),
        ("index.docker.io/fedora", TWO, ["docker.io/library/fedora:latest"]),
        ("docker://fedora", TWO, ["docker.io/library/fedora:latest"]),
        # by an alias; tag and digest go over
        ("fedora", TWO, ["registry.fedoraproject.org/fedora:latest"]),
        ("fedora:40", TWO, ["registry.fedoraproject.org/fedora:40"]),
        (f"fedora@{DIGEST}", TWO, [f"registry.fedoraproject.org/fedora@{DIGEST}"]),
        (f"fedora:40@{DIGEST}", TWO, [f"registry.fedoraproject.org/fedora:40@{DIGEST}"]),
        ("ns/tool:1", TWO, ["quay.io/other/tool:1"]),
        ("fedora", None, ["registry.fedoraproject.org/fedora:latest"]),
        ("fedora", (), ["registry.fedoraproject.org/fedora:latest"]),
        # by the registries to search
        ("ns/fedora", TWO, ["a.example/ns/fedora:latest", "b.example:5000/ns/fedora:latest"]),
        ("gone:1", TWO, ["a.example/gone:1", "b.example:5000/gone:1"]),
        (f"x@{DIGEST}", TWO, [f"a.example/x@{DIGEST}", f"b.example:5000/x@{DIGEST}"]),
        ("x", ("docker.io", "quay.io"), ["docker.io/library/x:latest", "quay.io/x:latest"]),
        ("ns/x", ("docker.io",), ["docker.io/ns/x:latest"]),
        # where nothing is configured
        ("x:1", None, ["docker.io/library/x:1"]),
        ("ns/x", None, ["docker.io/ns/x:latest"]),
    ],
)
def test_candidates(text: str, search: tuple[str, ...] | None, expected: list[str]) -> None:
    found = candidates(text, ALIASES, search, PERMISSIVE, FILE)
    assert [str(reference) for reference in found.references] == expected
    assert found.needs_choice == (len(expected) > 1)
    assert found.unasked() == found.references
    assert found.reason


@pytest.mark.parametrize(
    ("mode", "search", "needs_choice", "is_enforced"),
    [
        (ENFORCING, TWO, True, True),
        (PERMISSIVE, TWO, True, False),
        (DISABLED, TWO, False, False),
        (ENFORCING, TWO[:1], False, False),
        (PERMISSIVE, TWO[:1], False, False),
        (ENFORCING, None, False, False),
    ],
)
def test_modes(mode: ShortNameMode, search: tuple[str, ...] | None, needs_choice: bool, is_enforced: bool) -> None:
    found = candidates("ns/x:1", {}, search, mode, FILE)
    assert (found.needs_choice, found.is_enforced) == (needs_choice, is_enforced)
    assert found.record == ("ns/x" if needs_choice else None)
    if is_enforced:
        with pytest.raises(UsageError) as caught:
            found.unasked()
        assert caught.value.hint == "name one: a.example/ns/x:1, b.example:5000/ns/x:1"


@pytest.mark.parametrize("text", ["", "X", "a b", "x:", "x@sha256:0", "0" * 64, "x:1:2"])
def test_what_breaks_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        candidates(text, {}, TWO, PERMISSIVE, FILE)


def test_an_empty_list_means_nowhere() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        candidates("x", {}, (), PERMISSIVE, FILE)
    assert str(FILE) in str(caught.value)
