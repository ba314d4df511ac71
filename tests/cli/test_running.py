"""Signals and the exit code, with work that is under the test's control."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.command import Command

# Work that says when it runs, and how it ends; "stubborn" work does not let itself be cancelled.
SCRIPT = """
import asyncio, sys
from asyncpull.cli.running import run
from asyncpull.cli.settings import Settings

async def work() -> int:
    print("running", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            if sys.argv[1] != "stubborn":
                raise
sys.exit(run(Settings(), work))
"""


def started(command: Command, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, kind],
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_cancels(command: Command, number: signal.Signals, code: int) -> None:
    process = started(command, "obedient")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "cancelled\n")
    assert err in ("asyncpull: interrupted\n", "asyncpull: terminated\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_at_once(command: Command, number: signal.Signals, code: int) -> None:
    process = started(command, "stubborn")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "cancelled\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
