"""A coroutine as the work of the command: event loop, signals, exit code.

The first SIGINT or SIGTERM cancels the work, which cleans up and keeps what was received; the second ends the
process at once. Either way the exit code tells which signal it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from asyncpull.cli.complaint import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncpull.cli.settings import Settings

    Work = Callable[[], Coroutine[None, None, int]]

_SIGNAL_BASE = 128
_SHOW_CURSOR = b"\x1b[?25h\n"  # bars hide it


def run(settings: Settings, work: Work) -> int:
    """Run ``work`` on a uvloop and return its exit code, or the one of the signal that ended it."""
    import uvloop  # not needed by verbs that never come here

    from asyncpull.cli import logs

    logs.configure(settings.log_level, settings.log_format)
    received: list[signal.Signals] = []
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_interruptible(work, received))
    except BaseException:
        if not received:
            raise
        complain("interrupted" if received[0] is signal.SIGINT else "terminated")
        return _SIGNAL_BASE + received[0]
    finally:
        # uvloop leaves the handlers of a closed loop in place, which would swallow what comes after it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


async def _interruptible(work: Work, received: list[signal.Signals]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work())

    def take(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 1:
            _leave_at_once(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, take, number)
    return await task


def _leave_at_once(number: signal.Signals) -> None:
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    os._exit(_SIGNAL_BASE + number)
