"""registries.conf, key by key: what each value means, what is refused, and how files are merged.

The expectations are those of containers-registries.conf(5); the doubtful ones were tried with skopeo 1.22.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.registry.registriesconf import RegistriesConf
from asyncpull.registry.shortnames import ShortNameMode
from asyncpull.spec.reference import parse_reference
from tests.support.registries_conf import DIGEST, LOCATIONS, MIRROR, table

FILE = Path("/etc/registries.conf")


def conf(text: str, *, is_drop_in: bool = False) -> RegistriesConf:
    return RegistriesConf.from_bytes(FILE, text.encode(), is_drop_in=is_drop_in)


def sources(text: str, reference: str) -> list[str] | None:
    """Where a reference itself is looked for by the table that counts, None where there is none."""
    parsed = parse_reference(reference)
    rule = conf(text).rule_for(parsed.name)
    if rule is None:
        return None
    return [f"{'!' if each.insecure else ''}{each.repository}" for each in rule.locations(parsed) if each.resolves_tags]


@pytest.mark.parametrize(("text", "reference", "expected"), LOCATIONS)
def test_where_a_reference_is_looked_for(text: str, reference: str, expected: list[str] | None) -> None:
    assert sources(text, reference) == expected


@pytest.mark.parametrize(
    ("text", "name", "is_blocked"),
    [
        (table(location='"a.example"', blocked="true"), "a.example/x", True),
        (table(location='"a.example"', blocked="false"), "a.example/x", False),
        (table(location='"*.example"', blocked="true"), "a.example/x", True),
        (
            table(location='"a.example"', blocked="true") + table(location='"a.example/open"'),
            "a.example/open/x",
            False,
        ),
        ('[registries.block]\nregistries = ["a.example"]', "a.example/x", True),
        ('[registries.block]\nregistries = ["a.example"]', "b.example/x", None),
    ],
)
def test_blocked(text: str, name: str, is_blocked: bool | None) -> None:
    rule = conf(text).rule_for(name)
    assert (None if rule is None else rule.blocked) is is_blocked


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("", None),
        ("unqualified-search-registries = []", ()),
        ('unqualified-search-registries = ["a.example", "b.example:5000/"]', ("a.example", "b.example:5000")),
        ('unqualified-search-registries = ["localhost", "[::1]:5000"]', ("localhost", "[::1]:5000")),
        ('[registries.search]\nregistries = ["a.example///", "b.example"]', ("a.example", "b.example")),
        ('[registries.block]\nregistries = ["a.example"]', None),
    ],
)
def test_unqualified_search_registries(text: str, search: tuple[str, ...] | None) -> None:
    parsed = conf(text)
    assert parsed.search == search
    assert parsed.search_path == (None if search is None else FILE)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", None),
        ('short-name-mode = ""', None),
        ('short-name-mode = "enforcing"', ShortNameMode.ENFORCING),
        ('short-name-mode = "permissive"', ShortNameMode.PERMISSIVE),
        ('short-name-mode = "disabled"', ShortNameMode.DISABLED),
    ],
)
def test_short_name_mode(text: str, mode: ShortNameMode | None) -> None:
    assert conf(text).short_name_mode is mode


@pytest.mark.parametrize(
    ("text", "helpers"),
    [
        ("", None),
        ("credential-helpers = []", ()),
        ('credential-helpers = ["pass", "containers-auth.json"]', ("pass", "containers-auth.json")),
    ],
)
def test_credential_helpers(text: str, helpers: tuple[str, ...] | None) -> None:
    assert conf(text).credential_helpers == helpers


@pytest.mark.parametrize(
    ("value", "repository"),
    [
        ("a.example/x", "a.example/x"),
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/x/y", "localhost:5000/x/y"),
        ("", None),
    ],
)
def test_aliases(value: str, repository: str | None) -> None:
    alias = conf(f'[aliases]\n"x" = "{value}"').aliases["x"]
    assert (alias.repository and alias.repository.name, alias.path) == (repository, FILE)


def test_keys_that_do_not_concern_us_are_known(caplog: pytest.LogCaptureFixture) -> None:
    conf('additional-layer-store-auth-helper = "helper"')
    assert not caplog.records
    conf('colour = "blue"\n[[registry]]\nlocation = "a.example"\nlokation = "b.example"\n' + MIRROR + "insecur = true")
    said = [(record.__dict__["file"], record.__dict__["key"]) for record in caplog.records]
    expected = ["registry[0].mirror[0].insecur", "registry[0].lokation", "colour"]
    assert said == [(str(FILE), key) for key in expected]


V1 = '[registries.search]\nregistries = ["a.example"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registry = [", "not TOML"),
        ("\udcff", "not TOML"),
        ("registry = 7", "registry: is a number, not an array of tables ([[registry]])"),
        ('[registry]\nlocation = "a.example"', "registry: is a table, not an array of tables"),
        (table(prefix='""'), "registry[0].location: neither prefix nor location is given"),
        (table(prefix='"a.example"'), "registry[0].location: is not given, which needs a prefix of the form"),
        (table(location="7"), "registry[0].location: is a number, not a string"),
        (table(prefix="1979-05-27"), "registry[0].prefix: is a date or a time, not a string"),
        (table(location='"https://a.example"'), "registry[0].location: 'https://a.example' begins with a scheme"),
        (table(prefix='"http://a"', location='"a.example"'), "registry[0].prefix: 'http://a' begins with a scheme"),
        (table(prefix='"*.example.com/a"'), "registry[0].prefix: '*.example.com/a' is a wildcard that is not"),
        (table(prefix='"*.example.com:5000"'), "registry[0].prefix: '*.example.com:5000' is a wildcard that is not"),
        (table(location='"a.example"', insecure='"yes"'), "registry[0].insecure: is a string, not true or false"),
        (table(location='"a.example"', blocked="1"), "registry[0].blocked: is a number, not true or false"),
        (table(location='"a.example"', mirror_by_digest_only="[]"), "registry[0].mirror-by-digest-only: is an array"),
        (table(location='"a.example"', pull_from_mirror='"all"'), "registry[0].pull-from-mirror: belongs to a"),
        (table(location='"a.example"', mirror='"m.example"'), "registry[0].mirror: is a string, not an array of"),
        (
            table(location='"a.example"') + table(location='"a.example"', insecure="true"),
            "registry[1].insecure: a.example is there twice and they contradict each other",
        ),
        (
            table(location='"a.example"') + table(prefix='"b.example"', location='"a.example"', blocked="true"),
            "registry[1].blocked: a.example is there twice and they contradict each other",
        ),
        (
            table(prefix='"*.example"') + table(prefix='"*.example"', blocked="true"),
            "registry[1].blocked: *.example is there twice",
        ),
        (table(location='"a.example"') + "[[registry.mirror]]", "registry[0].mirror[0].location: a mirror needs one"),
        (
            table(location='"a.example"') + '[[registry.mirror]]\nlocation = "http://m"',
            "registry[0].mirror[0].location: 'http://m' begins with a scheme",
        ),
        (
            table(location='"a.example"') + MIRROR + 'pull-from-mirror = "never"',
            "registry[0].mirror[0].pull-from-mirror: 'never' is none of all, digest-only, tag-only",
        ),
        (
            table(location='"a.example"', mirror_by_digest_only="true") + MIRROR + 'pull-from-mirror = "all"',
            "registry[0].mirror[0].pull-from-mirror: cannot be given together with mirror-by-digest-only",
        ),
        (table(location='"a.example"') + MIRROR + 'insecure = "no"', "registry[0].mirror[0].insecure: is a string"),
        ('unqualified-search-registries = "a.example"', "unqualified-search-registries: is a string, not an array"),
        ("unqualified-search-registries = [7]", "unqualified-search-registries[0]: is a number, not a string"),
        ('unqualified-search-registries = ["a/b"]', "unqualified-search-registries[0]: 'a/b' is not host[:port]"),
        ('unqualified-search-registries = [""]', "unqualified-search-registries[0]: '' is not host[:port]"),
        ('unqualified-search-registries = ["https://a"]', "unqualified-search-registries[0]: 'https://a' begins with"),
        ('short-name-mode = "prompt"', "short-name-mode: 'prompt' is none of enforcing, permissive, disabled"),
        ("short-name-mode = true", "short-name-mode: is a boolean, not a string"),
        ('credential-helpers = "pass"', "credential-helpers: is a string, not an array of strings"),
        ("additional-layer-store-auth-helper = []", "additional-layer-store-auth-helper: is an array, not a string"),
        ('aliases = ["x"]', "aliases: is an array, not a table"),
        ('[aliases]\n"x:1" = "a.example/x"', "aliases.x:1: a short name has no tag and no digest"),
        ('[aliases]\n"a.example/x" = "a.example/x"', "aliases.a.example/x: a short name has no registry"),
        ('[aliases]\n"X" = "a.example/x"', "aliases.X: "),
        ('[aliases]\n"x" = 7', "aliases.x: its value is not a string"),
        ('[aliases]\n"x" = "y"', "aliases.x: 'y' does not name a registry and a repository"),
        ('[aliases]\n"x" = "library/y"', "aliases.x: 'library/y' does not name a registry and a repository"),
        ('[aliases]\n"x" = "a.example/y:1"', "aliases.x: 'a.example/y:1' has a tag or a digest"),
        (f'[aliases]\n"x" = "a.example/y@{DIGEST}"', "has a tag or a digest"),
        ('[aliases]\n"x" = "a.example/Y"', "aliases.x: "),
        ('[aliases]\n"x" = "y"\n"z" = "z"', "aliases.x: 'y' does not name a registry and a repository; aliases.z: "),
        ("a = " + "[" * 3000, "not TOML"),
        ("a = " + "9" * 5000, "not TOML"),
        # version 1
        ("registries = []", "registries: is an array, not a table"),
        ('[registries]\nsearch = ["a.example"]', "registries.search: is an array, not a table"),
        ('[registries.search]\nregistries = "a"', "registries.search.registries: is a string, not an array"),
        ('[registries.search]\nregistries = ["a/b"]', "registries.search.registries[0]: 'a/b' is not host[:port]"),
        ('[registries.insecure]\nregistries = ["http://a"]', "registries.insecure.registries[0]: 'http://a' begins"),
        ('[registries.block]\nregistries = ["http://a"]', "registries.block.registries[0]: 'http://a' begins"),
        # both versions in one file
        ("unqualified-search-registries = []\n" + V1, "registries: versions 1 and 2 of the format cannot be mixed"),
        (V1 + table(location='"a.example"'), "registries: versions 1 and 2 of the format cannot be mixed"),
        ('short-name-mode = "disabled"\n' + V1, "registries: versions 1 and 2 of the format cannot be mixed"),
        ("credential-helpers = []\n" + V1, "registries: versions 1 and 2 of the format cannot be mixed"),
        (V1 + "[aliases]", "registries: versions 1 and 2 of the format cannot be mixed"),
    ],
)
def test_what_is_refused_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RegistriesConf.from_bytes(FILE, text.encode(errors="surrogateescape"))
    assert str(caught.value).startswith(f"{FILE}: ")
    assert said in str(caught.value)


def test_a_drop_in_is_version_2() -> None:
    with pytest.raises(ConfigurationError) as caught:
        conf(V1, is_drop_in=True)
    assert str(caught.value).startswith(f"{FILE}: registries: this is version 1 of the format")


def test_slashes_at_the_end_mean_nothing() -> None:
    # skopeo up to 1.9 forgets them at mirrors, and fails.
    text = table(location='"a.example/"') + '[[registry.mirror]]\nlocation = "m.example/a//"'
    assert sources(text, "a.example/x:1") == ["m.example/a/x:1", "a.example/x:1"]


@pytest.mark.parametrize("location", ["mirror", "docker.io", "b.example/X", "*.example"])
def test_a_location_that_makes_no_name_is_refused(location: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sources(table(prefix='"a.example"', location=f'"{location}"'), "a.example/x")
    assert str(caught.value) == (
        f"{FILE}: registry 'a.example': location {location!r} makes '{location}/x' of a.example/x"
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # a table replaces the whole table of the same prefix, and no other
        (table(location='"a.example"') + MIRROR, table(location='"a.example"'), ["a.example/x:1"]),
        (
            table(location='"a.example"') + MIRROR,
            table(location='"b.example"'),
            ["m.example/x:1", "a.example/x:1"],
        ),
        (table(location='"a.example"') + MIRROR, "", ["m.example/x:1", "a.example/x:1"]),
        ("", table(location='"a.example"') + MIRROR, ["m.example/x:1", "a.example/x:1"]),
    ],
)
def test_tables_are_merged_by_prefix(first: str, second: str, expected: list[str]) -> None:
    reference = parse_reference("a.example/x:1")
    rule = conf(first).updated(conf(second, is_drop_in=True)).rule_for(reference.name)
    assert rule is not None
    assert [str(each.repository) for each in rule.locations(reference)] == expected


@pytest.mark.parametrize(
    ("key", "first", "second", "expected"),
    [
        ("search", 'unqualified-search-registries = ["a.example"]', "", ("a.example",)),
        (
            "search",
            'unqualified-search-registries = ["a.example"]',
            'unqualified-search-registries = ["b.example"]',
            ("b.example",),
        ),
        ("search", 'unqualified-search-registries = ["a.example"]', "unqualified-search-registries = []", ()),
        ("credential_helpers", 'credential-helpers = ["a"]', "", ("a",)),
        ("credential_helpers", 'credential-helpers = ["a"]', 'credential-helpers = ["b"]', ("b",)),
        ("credential_helpers", 'credential-helpers = ["a"]', "credential-helpers = []", ()),
        ("short_name_mode", 'short-name-mode = "enforcing"', "", ShortNameMode.ENFORCING),
        ("short_name_mode", 'short-name-mode = "enforcing"', 'short-name-mode = ""', ShortNameMode.ENFORCING),
        (
            "short_name_mode",
            'short-name-mode = "enforcing"',
            'short-name-mode = "disabled"',
            ShortNameMode.DISABLED,
        ),
    ],
)
def test_later_files_replace_what_they_say(key: str, first: str, second: str, expected: object) -> None:
    assert getattr(conf(first).updated(conf(second)), key) == expected


def test_aliases_are_merged_by_name() -> None:
    merged = conf('[aliases]\nx = "a.example/x"\ny = "a.example/y"\nz = "a.example/z"').updated(
        conf('[aliases]\nx = "b.example/x"\ny = ""')
    )
    values = {name: alias.repository and alias.repository.name for name, alias in merged.aliases.items()}
    assert values == {"x": "b.example/x", "y": None, "z": "a.example/z"}
