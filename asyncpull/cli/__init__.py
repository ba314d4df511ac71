"""The command line: verbs, rendering and exit codes around the library, and nothing that a library user would miss."""

from __future__ import annotations

import gc

# A command lives for seconds: to look through what its imports leave behind costs a tenth of its start.
gc.set_threshold(200_000)

from asyncpull.cli.application import main  # noqa: E402  # after the line above, which is for the imports

__all__ = ["main", "script"]


def script() -> int:
    """Be the command in a process of its own, which ends with it."""
    code = main()
    gc.freeze()  # nor has the interpreter anything to look through at its end, which costs another tenth
    return code
