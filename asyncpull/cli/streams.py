"""The standard streams of the process, any of which may have been closed by whoever started it."""

from __future__ import annotations

import os
import sys


def occupy_streams() -> None:
    """Have something at the descriptors 0, 1 and 2.

    Else some file or socket of ours would get such a number, and messages would be written into it; libuv aborts then.
    What is written to a stdout that was closed fails, what is written to such a stderr is lost.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free, which is this one
    # What Python found closed it has no stream for.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def abandon_stdout() -> None:
    """Let what could not be written be lost, for the interpreter tries to flush it once again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
