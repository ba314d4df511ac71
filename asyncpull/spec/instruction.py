"""Instructions of a Containerfile that change nothing but the configuration of an image.

``CMD ENTRYPOINT ENV EXPOSE LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR``, written ``CMD ["sh"]`` or, as with
``podman commit --change``, ``CMD=["sh"]``. What they do is what they do in a Containerfile: an ENTRYPOINT drops the
command that was inherited, a WORKDIR that is not absolute continues the one before, ENV and LABEL take pairs, or one
name and the rest of the line.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TYPE_CHECKING, cast

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Settings = dict[str, object]

_FORM = re.compile(r"\s*([A-Za-z]+)\s*(?:=\s*|\s)(.*)", re.DOTALL)
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?")
_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, and the rest of the line."""

    name: str
    text: str


def parse_instruction(line: str) -> Instruction:
    """Parse ``NAME text`` or ``NAME=text``. Raises UsageError for what is none of them."""
    found = _FORM.fullmatch(line)
    if found is None or found[1].upper() not in _RULES or not found[2].strip():
        raise UsageError(f"{line!r} is no instruction that changes a configuration", f"there are {', '.join(_RULES)}")
    instruction = Instruction(found[1].upper(), found[2].strip())
    _RULES[instruction.name]({}, instruction.text)
    return instruction


def apply_instructions(settings: Settings, instructions: Sequence[Instruction]) -> None:
    """Change ``settings``, the member ``config`` of an image configuration, in the order of ``instructions``."""
    names = {instruction.name for instruction in instructions}
    if "ENTRYPOINT" in names and "CMD" not in names:
        settings.pop("Cmd", None)
    for instruction in instructions:
        _RULES[instruction.name](settings, instruction.text)


def _command(key: str) -> Callable[[Settings, str], None]:
    def rule(settings: Settings, text: str) -> None:
        settings[key] = _list(text) or [*_SHELL, text]

    return rule


def _one(key: str) -> Callable[[Settings, str], None]:
    def rule(settings: Settings, text: str) -> None:
        words = _words(text)
        if len(words) != 1:
            raise UsageError(f"{text!r} is not one word")
        settings[key] = words[0]

    return rule


def _environment(settings: Settings, text: str) -> None:
    known = cast("list[str]", settings.get("Env") or [])
    values = dict(entry.partition("=")[::2] for entry in known) | _pairs(text)
    settings["Env"] = [f"{name}={value}" for name, value in values.items()]


def _labels(settings: Settings, text: str) -> None:
    settings["Labels"] = cast("dict[str, str]", settings.get("Labels") or {}) | _pairs(text)


def _ports(settings: Settings, text: str) -> None:
    ports = [port if "/" in port else f"{port}/tcp" for port in _words(text)]
    for port in ports:
        if not _PORT.fullmatch(port):
            raise UsageError(f"{port!r} is no port", "write it like 80, 53/udp or 8000-8010")
    settings["ExposedPorts"] = cast("dict[str, object]", settings.get("ExposedPorts") or {}) | {p: {} for p in ports}


def _volumes(settings: Settings, text: str) -> None:
    paths = _list(text) or _words(text)
    settings["Volumes"] = cast("dict[str, object]", settings.get("Volumes") or {}) | {path: {} for path in paths}


def _later(settings: Settings, text: str) -> None:
    settings["OnBuild"] = [*cast("list[str]", settings.get("OnBuild") or []), text]


def _directory(settings: Settings, text: str) -> None:
    before = str(settings.get("WorkingDir") or "/")
    settings["WorkingDir"] = posixpath.normpath(posixpath.join(before, text))


_RULES: dict[str, Callable[[Settings, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _environment,
    "EXPOSE": _ports,
    "LABEL": _labels,
    "ONBUILD": _later,
    "STOPSIGNAL": _one("StopSignal"),
    "USER": _one("User"),
    "VOLUME": _volumes,
    "WORKDIR": _directory,
}


def _list(text: str) -> list[str] | None:
    """The strings of a JSON array; None if it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    return None


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from error


def _pairs(text: str) -> dict[str, str]:
    words = _words(text)
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise UsageError(f"{text!r} has no value")
        return {name: value.strip()}
    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise UsageError(f"{text!r} is not of NAME=VALUE")
    return {name: value for name, _, value in pairs}
