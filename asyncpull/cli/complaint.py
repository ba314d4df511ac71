"""Errors as a person reads them: one line what failed, one line what to do next, on stderr."""

from __future__ import annotations

import sys

LINE_LIMIT = 2000


def complain(message: str, hint: str | None = None) -> None:
    """Write ``message`` and ``hint`` to stderr; where nobody listens there, that is no error of its own."""
    try:
        sys.stderr.write(f"asyncpull: {single_line(message)}\n")
        if hint:
            sys.stderr.write(f"  hint: {single_line(hint)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def single_line(text: str) -> str:
    """``text`` on one line, and without what would steer a terminal: parts of it may come from a registry."""
    joined = " ".join(text.split())
    if len(joined) > LINE_LIMIT:
        joined = joined[:LINE_LIMIT] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)
