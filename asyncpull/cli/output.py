"""The result on stdout, and nothing but the result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from asyncpull.cli.complaint import single_line
from asyncpull.cli.formats import format_table
from asyncpull.cli.streams import abandon_stdout
from asyncpull.scratch import write_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def write_text(text: str) -> None:
    """Write ``text``; bytes that were no UTF-8 where it came from are what they were."""
    write_bytes(text.encode("utf-8", "surrogateescape"))


def write_bytes(data: bytes) -> None:
    """Write ``data`` exactly. Raises BrokenPipeError where nobody reads it, NoSpaceError, StoreWriteError."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise write_error(error, "stdout") from error


def write_lines(lines: Iterable[str]) -> None:
    """Write each of ``lines`` on a line of its own."""
    write_text("".join(f"{line}\n" for line in lines))


def write_json(value: object) -> None:
    """Write ``value`` as one JSON document: on a terminal for reading, elsewhere on one line."""
    import orjson

    option = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0)
    write_bytes(orjson.dumps(value, default=str, option=option))


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table; what would steer the terminal is shown instead."""
    write_text(format_table(headings, [[single_line(cell) for cell in row] for row in rows]))
