"""Who waits for a lock on a file, as the kernel tells it in /proc/locks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess


def waiters(path: Path) -> int:
    """Return how many requests for a lock on ``path`` are blocked at this moment."""
    info = path.stat()
    file = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(" -> " in line and f" {file} " in line for line in lines)


def wait_for_waiter(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Return when somebody waits for the lock; raise AssertionError when ``process`` has ended without waiting."""
    deadline = time.monotonic() + seconds
    while waiters(path) == 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"nobody waited for {path}; exit code {process.poll()}")
        time.sleep(0.01)
