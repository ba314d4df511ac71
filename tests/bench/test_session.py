"""There is one session at a time, and it can be ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.session import alone

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_session_is_refused_and_one_after_it_is_not(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(SystemExit, match="another session"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_what_a_session_has_open_is_closed_when_it_is_terminated(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom bench.session import alone\n"
        "with alone(Path(sys.argv[1])):\n"
        "    try:\n        print('here', flush=True)\n        time.sleep(60)\n"
        "    finally:\n        print('cleaned up')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "here\n"
        os.kill(session.pid, signal.SIGTERM)
        assert session.stdout.read() == "cleaned up\n"

    assert session.returncode == 143
