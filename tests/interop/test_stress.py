"""Eight processes of ours and two of podman's on one store, all doing everything, for as long as it is let.

Some seconds usually, ten minutes with ASYNCPULL_TEST_FULL=1. All errors but the expected ones, that something is in use
or that somebody else has removed it, fail the test; at the end the store is sound and nothing is left behind.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.store import Store
from tests.support.images import image, noise
from tests.support.peers import REPOSITORY, TIMEOUT
from tests.support.samples import base_layer
from tests.support.stores import LOST_STAGING, mounted_below
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

FULL = os.environ.get("ASYNCPULL_TEST_FULL") == "1"
SECONDS = 600 if FULL else 8
OURS, THEIRS = 8, 2
IMAGES = 10

EXPECTED_OF_PODMAN = (
    "image is in use",
    "image used by",
    "is being used by",
    "image not known",
    "layer not known",
    "no such image",
    "unable to find a name and tag match",
    "no image with that",
    "failed to find image",
    "identifier is not an image",
    "identifier is not a layer, image, or container",
    "device or resource busy",
    "trying to reuse blob",
    "faccessat",
)
"""What podman says when it meets what others are doing: an image goes that it lists, commits or describes (its
driver looks at the tree without a lock), a layer that it has looked at and then reuses; an image is mounted by somebody
else."""

DRIVER_LOOKS = re.compile(r"^Error: stat \S+/[0-9a-f]{64}: no such file or directory$", re.MULTILINE)
"""The same, said by a podman that describes the image it is to make a container of; what it is told under the locks of
the store, it says otherwise ("creating container storage: …")."""


@pytest.fixture
def references(registry: Registry) -> list[str]:
    """Images that share all layers but the last ones, each with its reference in ``which``."""
    shared = [base_layer(), _some_files(0)]
    made = []
    for number in range(IMAGES):
        reference = f"{registry.address}/stress/image:{number}"
        own = tar([file("which", reference.encode()), file("own", noise(number, 300_000))])
        layers = [*shared[: 1 + number % 2], *([_some_files(1)] if number % 3 else []), own]
        made.append(registry.push("stress/image", str(number), image(layers)))
        assert made[-1] == reference
    return made


def _some_files(number: int) -> bytes:
    names = [f"files-{number}/{each}" for each in range(100)]
    return tar([directory(f"files-{number}"), *(file(name, noise(number, 2_000)) for name in names)])


class Podman(threading.Thread):
    """A loop of podman's commands, one process after the other."""

    def __init__(self, store: SharedStore, references: list[str], number: int) -> None:
        super().__init__(name=f"podman {number}", daemon=True)
        self._store, self._references = store, references
        self._chance, self._number = random.Random(1000 + number), number
        self.told: Counter[str] = Counter()
        self.errors: list[str] = []

    def run(self) -> None:
        """Pull, create, mount, read, remove, until the time is over."""
        ends = time.monotonic() + SECONDS
        name = f"podman-{self._number}"
        while time.monotonic() < ends and not self.errors:
            reference = self._chance.choice(self._references)
            self._podman("pull", "-q", "--tls-verify=false", reference)
            if self._podman("create", "--pull=never", "--network=none", "--name", name, reference, "sh") is not None:
                point = self._podman("mount", name, is_ours=True)
                if point is not None:
                    inside = Path(point.strip())
                    if self._store.peer.run("cat", inside / "which") != reference:
                        self.errors.append(f"{reference} is not what podman mounted")
                    self._podman("umount", name, is_ours=True)
                self._podman("rm", name, is_ours=True)
            if self._chance.random() < 0.5:
                self._podman("rmi", reference)
            self._podman("images", "-a", "-q")

    def _podman(self, verb: str, *arguments: str, is_ours: bool = False) -> str | None:
        """Run it; None if it failed, as may be expected unless it ``is_ours``: about what nobody else touches."""
        for _ in range(2):
            process = self._store.peer.start(*self._store.podman_command, verb, *arguments)
            out, err = process.communicate(timeout=TIMEOUT)
            if process.returncode == 0 or not LOST_STAGING.search(err):
                break
        if process.returncode == 0:
            self.told[verb] += 1
            return out
        is_expected = any(text in err for text in EXPECTED_OF_PODMAN) or DRIVER_LOOKS.search(err)
        if is_ours or not is_expected:
            self.errors.append(f"podman {verb} {' '.join(arguments)}: {err}")
        self.told[f"{verb}: refused"] += 1
        return None


def _locks_below(root: Path) -> list[str]:
    """The lines of the kernel's list of locks that are about files below ``root``."""
    inodes = {str(path.stat().st_ino) for path in root.rglob("*lock*") if path.is_file()}
    lines = Path("/proc/locks").read_text().splitlines()
    return [line for line in lines if line.split()[-3].rpartition(":")[2] in inodes]


@pytest.mark.timeout(SECONDS + 2 * TIMEOUT)
async def test_everybody_does_everything_at_once(store: SharedStore, references: list[str]) -> None:
    program = (sys.executable, "-m", "tests.support.stress", str(store.root), str(store.run_root), str(SECONDS))
    ours = [
        subprocess.Popen(
            [*program, str(number), *references],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(OURS)
    ]
    theirs = [Podman(store, references, number) for number in range(THEIRS)]
    for thread in theirs:
        thread.start()
    told: Counter[str] = Counter()
    errors: list[str] = []
    try:
        for process in ours:
            out, err = process.communicate(timeout=SECONDS + TIMEOUT)
            if process.returncode:
                errors.append(err)
                continue
            result = json.loads(out)
            told.update(result["told"])
            errors += result["errors"]
        for thread in theirs:
            thread.join()
            told.update({f"podman {what}": count for what, count in thread.told.items()})
            errors += thread.errors
    finally:
        for process in ours:
            process.kill()
    print(json.dumps(told, indent=1, sort_keys=True))  # what the run was worth, for who runs it with -s

    assert not errors, "\n".join(errors)
    for what in ("pull", "create", "mount", "remove_container", "podman pull"):
        assert told[what] > 0
    async with Store.open(root=store.root, run_root=store.run_root) as opened:
        assert await opened.mounts() == []
        assert await opened.containers() == []
        report = await opened.check()
        assert report.findings == ()
    # The bind of the driver's home onto itself belongs to whoever mounts; podman's may stay.
    assert [point for point in mounted_below(store.directory) if not point.endswith("/root/overlay")] == []
    assert _locks_below(store.directory) == []
    assert store.spooled() == []
    store.check()
