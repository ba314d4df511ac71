"""Which reporter a command gets."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from asyncpull.progress import Reporter, Silent

if TYPE_CHECKING:
    from asyncpull.cli.settings import Settings


def reporter_for(settings: Settings) -> AbstractContextManager[Reporter]:
    """The reporter that ``--progress`` and ``-q`` ask for; only bars import the library that draws them."""
    kind = "none" if settings.quiet else settings.progress
    if kind == "auto":
        drawable = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        kind = "bar" if drawable else "plain"
    if kind == "bar":
        from asyncpull.cli.progress.bars import Bars

        return Bars()
    if kind in ("plain", "json"):
        from asyncpull.cli.progress.lines import JsonLines, PlainLines

        return PlainLines() if kind == "plain" else JsonLines()
    return nullcontext(Silent())
