"""The command line: verbs, rendering and exit codes around the library, and nothing that a library user would miss."""

from __future__ import annotations

from asyncpull.cli.application import main

__all__ = ["main"]
