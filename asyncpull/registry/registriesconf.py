"""``registries.conf``: containers-registries.conf(5), version 2, and version 1 turned into it.

One ``[[registry]]`` table counts for a repository: that with the longest prefix. A prefix matches a name that begins
with it and goes on with ``/``, ``:`` or ``@`` or not at all; ``*.example.com`` matches every name below example.com.
``location`` takes the place of what matched, for the registry itself and for each of its mirrors.

Files are merged in the order in which they are read (``updated``): tables replace tables of the same prefix, aliases
those of the same name, and every other key what was there, also if it is an empty list. A file that repeats a prefix
means the first one.

A key that the format does not have is logged and means nothing, as it does for podman. Everything else that is wrong
is an error that names file and key.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, InvalidReferenceError
from asyncpull.log import Log
from asyncpull.registry.shortnames import Alias, ShortNameMode, parse_aliases
from asyncpull.registry.toml import Table
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asyncpull.spec.reference import Reference

_VERSION_2_KEYS = (
    "registry",
    "unqualified-search-registries",
    "credential-helpers",
    "short-name-mode",
    "additional-layer-store-auth-helper",
    "aliases",
)

_PULLS = ("all", "digest-only", "tag-only")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_WILDCARD = "*."

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class MirrorRule:
    """A ``[[registry.mirror]]``; ``pull`` is all, digest-only or tag-only."""

    location: str
    insecure: bool = False
    pull: str = "all"

    def serves(self, reference: Reference) -> bool:
        """Whether the mirror is asked for ``reference`` at all."""
        return self.pull == "all" or (self.pull == "digest-only") == (reference.digest is not None)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a repository really is: ``repository`` is the reference there.

    One that does not ``resolves_tags`` is asked only for what is verified by its digest.
    """

    repository: Reference
    insecure: bool = False
    is_mirror: bool = False
    resolves_tags: bool = True


@dataclass(frozen=True, slots=True)
class RegistryRule:
    """A ``[[registry]]`` of ``path``; an empty ``location`` leaves names as they are."""

    prefix: str
    location: str
    path: Path
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[MirrorRule, ...] = ()

    def matched(self, name: str) -> int:
        """How many characters of ``name`` the prefix matches, 0 if it does not."""
        if self.prefix.startswith(_WILDCARD):
            before, found, after = name.partition(self.prefix[1:])
            length = len(before) + len(found)
            if not found or "/" in before:
                return 0
        else:
            length = len(self.prefix) if name.startswith(self.prefix) else 0
            after = name[length:]
        return length if not after or after[0] in ":/@" else 0

    def locations(self, reference: Reference) -> tuple[Location, ...]:
        """Where ``reference`` is looked for, in order, the registry itself last. Raises ConfigurationError.

        Mirrors for digests are among them if it is a tag too, for the blobs and the manifests that an index names.
        """
        found = []
        for mirror in self.mirrors:
            serves = mirror.serves(reference)
            if serves or mirror.pull == "digest-only":
                moved = self._moved(reference, mirror.location)
                found.append(Location(moved, mirror.insecure, is_mirror=True, resolves_tags=serves))
        return (*found, Location(self._moved(reference, self.location), self.insecure))

    def _moved(self, reference: Reference, location: str) -> Reference:
        if not location:
            return reference
        name = location + reference.name[self.matched(reference.name) :]
        try:
            moved = parse_reference(name)
        except InvalidReferenceError as error:
            raise self._unusable(location, reference, name) from error
        if moved.name != name:
            raise self._unusable(location, reference, name)
        return replace(reference, domain=moved.domain, path=moved.path)

    def _unusable(self, location: str, reference: Reference, name: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}: registry {self.prefix!r}: location {location!r} makes {name!r} of {reference.name}",
            "that is no full name of a repository: it lacks a registry, or library/ on docker.io",
        )


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """What one file says, or several that were merged; None is what was not said.

    ``search`` holds the registries for short names, ``search_path`` the file that says so.
    """

    rules: tuple[RegistryRule, ...] = ()  # by prefix, each once
    search: tuple[str, ...] | None = None
    search_path: Path | None = None
    credential_helpers: tuple[str, ...] | None = None
    short_name_mode: ShortNameMode | None = None
    aliases: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_bytes(cls, path: Path, raw: bytes, *, is_drop_in: bool = False) -> RegistriesConf:
        """Parse the content of ``path``; a drop-in must be version 2. Raises ConfigurationError."""
        document = Table.from_bytes(path, raw)
        registries = document.table("registries")
        lists = {} if registries is None else _version_1_lists(registries)
        conf = _parse_version_2(document)
        if lists:
            if is_drop_in:
                raise document.error("registries", "this is version 1 of the format, which a drop-in cannot have")
            if any(document.value(key) not in (None, "") for key in _VERSION_2_KEYS):
                raise document.error("registries", "versions 1 and 2 of the format cannot be mixed in one file")
            conf = _parse_version_1(path, lists)
        _log_unknown_keys(document)
        return conf

    def updated(self, later: RegistriesConf) -> RegistriesConf:
        """Both in one, where ``later`` was read after this one."""
        rules = {rule.prefix: rule for rule in (*self.rules, *later.rules)}
        said_search = later if later.search is not None else self
        return RegistriesConf(
            rules=tuple(rules[prefix] for prefix in sorted(rules)),
            search=said_search.search,
            search_path=said_search.search_path,
            credential_helpers=(
                self.credential_helpers if later.credential_helpers is None else later.credential_helpers
            ),
            short_name_mode=later.short_name_mode or self.short_name_mode,
            aliases=MappingProxyType({**self.aliases, **later.aliases}),
        )

    def rule_for(self, name: str) -> RegistryRule | None:
        """The table that counts for a repository (``docker.io/library/alpine``): the longest prefix."""
        matching = [rule for rule in self.rules if rule.matched(name)]
        return max(matching, key=lambda rule: len(rule.prefix), default=None)


def _parse_version_2(document: Table) -> RegistriesConf:
    tables = document.tables("registry") or ()
    rules: dict[str, RegistryRule] = {}
    by_location: dict[str, RegistryRule] = {}
    for table in tables:
        rule = _parse_rule(table)
        same = by_location.setdefault(rule.location or rule.prefix, rule)
        for key in ("insecure", "blocked"):
            if getattr(same, key) != getattr(rule, key):
                raise table.error(key, f"{rule.location or rule.prefix} is there twice and they contradict each other")
        rules.setdefault(rule.prefix, rule)
    search = document.texts("unqualified-search-registries")
    document.text("additional-layer-store-auth-helper")  # not for us: nothing here mounts layers of others
    return RegistriesConf(
        rules=tuple(rules[prefix] for prefix in sorted(rules)),
        search=None if search is None else _search(document, "unqualified-search-registries", search),
        search_path=None if search is None else document.path,
        credential_helpers=document.texts("credential-helpers"),
        short_name_mode=_mode(document),
        aliases=MappingProxyType(parse_aliases(document.table("aliases"))),
    )


def _parse_rule(table: Table) -> RegistryRule:
    location, prefix = _place(table, "location"), _place(table, "prefix")
    if not prefix and not location:
        raise table.error("location", "neither prefix nor location is given")
    if prefix.startswith(_WILDCARD) and any(mark in prefix for mark in "/@:"):
        raise table.error("prefix", f"{prefix!r} is a wildcard that is not of the form *.example.com")
    if not location and not prefix.startswith(_WILDCARD):
        raise table.error("location", f"is not given, which needs a prefix of the form *.example.com, not {prefix!r}")
    if table.text("pull-from-mirror"):
        raise table.error("pull-from-mirror", "belongs to a [[registry.mirror]]")
    by_digest_only = table.flag("mirror-by-digest-only") or False
    rule = RegistryRule(
        prefix=prefix or location,
        location=location,
        path=table.path,
        insecure=table.flag("insecure") or False,
        blocked=table.flag("blocked") or False,
        mirrors=tuple(_parse_mirror(each, by_digest_only=by_digest_only) for each in table.tables("mirror") or ()),
    )
    _log_unknown_keys(table)
    return rule


def _parse_mirror(table: Table, *, by_digest_only: bool) -> MirrorRule:
    location = _place(table, "location")
    if not location:
        raise table.error("location", "a mirror needs one")
    pull = table.text("pull-from-mirror")
    if pull and by_digest_only:
        raise table.error("pull-from-mirror", "cannot be given together with mirror-by-digest-only of the registry")
    if pull and pull not in _PULLS:
        raise table.error("pull-from-mirror", f"{pull!r} is none of {', '.join(_PULLS)}")
    insecure = table.flag("insecure") or False
    _log_unknown_keys(table)
    return MirrorRule(location, insecure, "digest-only" if by_digest_only else pull or "all")


def _log_unknown_keys(table: Table) -> None:
    for key in table.unknown_keys():
        _log.warning("unknown key ignored", file=str(table.path), key=key)


def _place(table: Table, name: str) -> str:
    return _without_scheme(table, name, table.text(name))


def _without_scheme(table: Table, name: str, text: str) -> str:
    if text.startswith(("http://", "https://")):
        raise table.error(name, f"{text!r} begins with a scheme; write host[:port][/namespace]")
    return text.rstrip("/")


def _search(table: Table, name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    hosts = tuple(_without_scheme(table, f"{name}[{number}]", text) for number, text in enumerate(texts))
    for number, host in enumerate(hosts):
        if not _HOST.fullmatch(host):
            raise table.error(f"{name}[{number}]", f"{texts[number]!r} is not host[:port]")
    return hosts


def _mode(document: Table) -> ShortNameMode | None:
    text = document.text("short-name-mode")
    try:
        return ShortNameMode(text) if text else None
    except ValueError as error:
        modes = ", ".join(mode.value for mode in ShortNameMode)
        raise document.error("short-name-mode", f"{text!r} is none of {modes}") from error


def _version_1_lists(registries: Table) -> dict[str, tuple[str, ...]]:
    """What version 1 says: lists of registries, under search, insecure and block."""
    lists = {}
    for name in ("search", "insecure", "block"):
        table = registries.table(name)
        texts = None if table is None else table.texts("registries")
        if table is not None and texts is not None:
            lists[name] = tuple(_without_scheme(table, f"registries[{i}]", text) for i, text in enumerate(texts))
            if name == "search":
                _search(table, "registries", texts)
    return lists


def _parse_version_1(path: Path, lists: Mapping[str, tuple[str, ...]]) -> RegistriesConf:
    insecure, blocked = lists.get("insecure", ()), lists.get("block", ())
    return RegistriesConf(
        rules=tuple(
            RegistryRule(each, each, path, insecure=each in insecure, blocked=each in blocked)
            for each in sorted({*insecure, *blocked})
        ),
        search=lists.get("search"),
        search_path=path if "search" in lists else None,
    )
