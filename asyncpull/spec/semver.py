"""Which tags a range of versions means, as skopeo's sync files have it (Masterminds/semver; semver.org 2.0).

::

    range        alternative *("||" alternative)
    alternative  comparison *((" " | ",") comparison)      all of them; or  version " - " version
    comparison   ["=" "!=" ">" "<" ">=" "<=" "~" "^"] version
    version      ["v"] number ["." number ["." number]] ["-" prerelease] ["+" build]

A part of a version that is missing, or ``x`` or ``*``, is open: ``1.2`` is ``>=1.2.0, <1.3.0``, ``>1`` is ``>=2.0.0``.
``~1.2.3`` goes up to the next minor version, ``^1.2.3`` to where the first number changes that is not 0. A prerelease
is only meant by a comparison that names one itself. A tag need not have all three numbers.
"""

from __future__ import annotations

import re

from asyncpull.dataclass import dataclass
from asyncpull.errors import UsageError

_PRE = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"v?([0-9]{{1,18}})(?:\.([0-9]{{1,18}}))?(?:\.([0-9]{{1,18}}))?(?:-({_PRE}))?(?:\+{_PRE})?")
_PART = r"(?:[0-9]{1,18}|[xX*])"
_OPEN_VERSION = rf"v?({_PART})(?:\.({_PART}))?(?:\.({_PART}))?(?:-({_PRE}))?(?:\+{_PRE})?"
_COMPARISON = re.compile(rf"(=>|=<|>=|<=|!=|~>|[=><~^]|)\s*{_OPEN_VERSION}")
_HYPHEN = re.compile(r"(?<!\S)(\S+)\s+-\s+(\S+)")
_OPERATORS = {"=>": ">=", "=<": "<=", "~>": "~", "": "="}

Release = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Version:
    """Three numbers, and what stands behind a hyphen; what stands behind a plus means nothing."""

    release: Release
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version that ``text`` is, if it is one."""
        found = _VERSION.fullmatch(text)
        if found is None:
            return None
        parts = tuple(found[4].split(".")) if found[4] else ()
        if any(part.isdigit() and len(part) > 1 and part[0] == "0" for part in parts):
            return None
        return cls((int(found[1]), int(found[2] or 0), int(found[3] or 0)), parts)

    @property
    def key(self) -> tuple[Release, bool, tuple[tuple[bool, int, str], ...]]:
        """What to compare: a prerelease comes before its release, and numbers in it before words."""
        return self.release, not self.prerelease, tuple(map(_word, self.prerelease))


def _word(part: str) -> tuple[bool, int, str]:
    """What to compare; a number by how long it is, and then digit by digit, because it may be as long as it likes."""
    if not part.isdigit():
        return True, 0, part
    digits = part.lstrip("0")
    return False, len(digits), digits


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition: ``operator``, what it compares with, and how many numbers of that are ``given``."""

    operator: str
    version: Version
    given: int

    def allows(self, other: Version) -> bool:
        """Whether ``other`` fulfils it."""
        if other.prerelease and not self.version.prerelease and not (self.operator == "!=" and self.given == 3):
            return False
        major, minor, patch = self.version.release
        # Where what is given ends: the first release that it does not begin.
        end: Release | None = {0: None, 1: (major + 1, 0, 0), 2: (major, minor + 1, 0)}.get(
            self.given, (major, minor, patch + 1)
        )
        is_below_end = end is None or other.release < end
        is_given = self._begins(other, end)
        match self.operator:
            case "=":
                return is_given
            case "!=":
                return not is_given
            case ">":
                return other.key > self.version.key if self.given in (0, 3) else not is_below_end
            case "<":
                return other.key < self.version.key
            case ">=":
                return other.key >= self.version.key
            case "<=":
                return other.key <= self.version.key if self.given == 3 else is_below_end
            case "~":
                if self.given == 3:
                    end = None if self.version.release == (0, 0, 0) else (major, minor + 1, 0)
                return self._begins(other, end)
            case _:
                return self._begins(other, self._caret_end())

    def _begins(self, other: Version, end: Release | None) -> bool:
        """Whether ``other`` is this one or a later one that comes before the release ``end``."""
        if self.operator in ("=", "!=") and self.given == 3:
            return other.key == self.version.key
        return other.key >= self.version.key and (end is None or other.release < end)

    def _caret_end(self) -> Release | None:
        major, minor, patch = self.version.release
        if self.given == 0:
            return None
        if major > 0 or self.given == 1:
            return major + 1, 0, 0
        if minor > 0 or self.given == 2:
            return 0, minor + 1, 0
        return 0, 0, patch + 1


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Alternatives, of each of which all conditions hold."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Parse a range. Raises UsageError."""
        return cls(tuple(_alternative(text, part.strip()) for part in text.split("||")))

    def allows(self, tag: str) -> bool:
        """Whether ``tag`` is a version within the range."""
        version = Version.parse(tag)
        return version is not None and any(
            all(comparison.allows(version) for comparison in comparisons) for comparisons in self.alternatives
        )


def _alternative(text: str, part: str) -> tuple[Comparison, ...]:
    if not part:
        part = "*"
    part = _HYPHEN.sub(r">=\1, <=\2", part)
    comparisons, position = [], 0
    while position < len(part):
        found = _COMPARISON.match(part, position)
        separator = None if found is None else re.compile(r"\s*,\s*|\s+|$").match(part, found.end())
        if found is None or separator is None:
            raise UsageError(f"{text!r} is no range of versions: {part[position:]!r} is no comparison")
        comparisons.append(_comparison(found))
        position = separator.end()
    return tuple(comparisons)


def _comparison(found: re.Match[str]) -> Comparison:
    operator, *numbers, prerelease = found.groups()
    given = next((n for n, number in enumerate(numbers) if number is None or not number.isdigit()), 3)
    values = [int(number) for number in numbers[:given]] + [0] * (3 - given)
    release = values[0], values[1], values[2]
    return Comparison(
        _OPERATORS.get(operator, operator), Version(release, tuple(prerelease.split(".")) if prerelease else ()), given
    )
