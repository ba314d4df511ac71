"""The command line: verbs, rendering and exit codes around the library, and nothing that a library user would miss."""

from __future__ import annotations

import gc
import os
import sys

# A command lives for seconds: to look through what its imports leave behind costs a tenth of its start.
gc.set_threshold(200_000)

from asyncpull.cli.application import main  # noqa: E402  # after the line above, which is for the imports

__all__ = ["main", "script"]


def script() -> int:
    """Be the command in a process of its own, which ends with it."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return code  # the interpreter says at its end what it makes of that
    # Nothing is left but to take down hundreds of modules one by one, which costs a tenth of the shortest pull.
    os._exit(code)
