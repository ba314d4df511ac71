"""Errors as a person reads them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from asyncpull.cli.complaint import complain, single_line

if TYPE_CHECKING:
    import pytest


def test_one_line_for_what_and_one_for_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    complain("x/y:1: manifest\nunknown", "try\nagain")
    complain("no hint")
    assert capsys.readouterr() == (
        "",
        "asyncpull: x/y:1: manifest unknown\n  hint: try again\nasyncpull: no hint\n",
    )


def test_what_a_registry_says_cannot_steer_the_terminal() -> None:
    assert single_line("evil \x1b[2J\x07 é \u202e") == "evil \\x1b[2J\\x07 é \\u202e"


def test_a_line_has_a_limit() -> None:
    assert len(single_line("x" * 100_000)) < 3000


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    complain("into the void")
