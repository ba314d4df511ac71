"""Pulls hostile images into a store, one after another, and tells as lines of JSON how each ended.

A program of its own, so that it can be run by anybody: ``python -m tests.support.hostile_pulls`` with a directory for
the store, its driver, the address of the registry, and the directory that the attacks aim at. What every attack is
looked at for: the error, or the tree of the last layer and what a check of the store says; what else has changed in the
store, and outside; how much memory the worst worker had so far.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.cli.exit_codes import exit_code_of
from asyncpull.errors import AsyncpullError
from asyncpull.limits import Limits
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.store.config import StoreOverrides, load_config
from asyncpull.store.store import Store
from asyncpull.trust.policyfile import TrustOptions
from tests.support.hostile_layers import ATTACKS

if TYPE_CHECKING:
    from asyncpull.plan import PulledImage

# What every pull touches, whatever comes of it: places for what is on its way, and locks.
_PASSING = frozenset({"tempdirs", "tmp", "staging"})


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(path: bytes) -> list[object]:
    """Everything that can be told of a file without changing it, but for when it was read."""
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    what: object = info.st_rdev
    if kind == stat.S_IFREG:
        what = digest_of(Path(os.fsdecode(path)))
    elif kind == stat.S_IFLNK:
        what = os.readlink(path).hex()
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)
    }
    times = [] if kind == stat.S_IFDIR else [info.st_mtime_ns, info.st_ctime_ns, info.st_nlink]
    return [info.st_mode, info.st_uid, info.st_gid, info.st_ino, times, what, xattrs]


def listing(root: Path) -> dict[str, list[object]]:
    """All that is below ``root``, and itself."""
    found: dict[str, list[object]] = {}
    pending = [os.fsencode(root)]
    while pending:
        path = pending.pop()
        found[os.fsdecode(path)] = described(path)
        if stat.S_ISDIR(os.lstat(path).st_mode):
            pending += [path + b"/" + os.fsencode(name) for name in os.listdir(path)]
    return found


def store_of(root: Path) -> dict[str, list[object]]:
    """What there is in a store for good. Records are compared by what they say."""
    kept: dict[str, list[object]] = {}
    for path, entry in listing(root).items():
        parts = Path(path).relative_to(root).parts
        if "asyncpull" in parts[:1] or _PASSING & set(parts[1:2]) or path.endswith(".lock"):
            continue
        is_record = len(parts) == 2 and parts[1].endswith(".json")
        kept[path] = [digest_of(Path(path))] if is_record else entry
    return kept


def outside_of(directory: Path) -> dict[str, list[object]]:
    """The directory that nobody may touch, times of directories included."""
    found = listing(directory)
    for path, entry in found.items():
        info = os.lstat(path)
        entry.append([info.st_mtime_ns, info.st_ctime_ns, info.st_nlink])
    return found


def differences(before: dict[str, list[object]], after: dict[str, list[object]]) -> list[str]:
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def tree_of(diff: Path) -> dict[str, str]:
    """The kind of everything below a layer's root. Nothing recurses: some trees are deep."""
    found: dict[str, str] = {}
    pending = [(os.open(diff, os.O_RDONLY), "")]
    while pending:
        fd, above = pending.pop()
        for name in os.listdir(fd):
            info = os.lstat(name, dir_fd=fd)
            path = f"{above}{name}"
            found[path] = _kind(info, name, fd)
            if stat.S_ISDIR(info.st_mode):
                pending.append((os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), f"{path}/"))
        os.close(fd)
    return found


def _kind(info: os.stat_result, name: str, fd: int) -> str:
    device = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    match stat.S_IFMT(info.st_mode):
        case stat.S_IFREG:
            return f"file of {info.st_size}"
        case stat.S_IFDIR:
            return "directory"
        case stat.S_IFLNK:
            return f"link {os.readlink(name, dir_fd=fd)}"
        case stat.S_IFCHR:
            return "whiteout" if device == "0:0" else f"character {device}"
        case stat.S_IFBLK:
            return f"block {device}"
    return "FIFO"


def workers_peak() -> int:
    """The most memory that any process below this one has had so far, in KiB."""
    peak, pending = 0, _children(os.getpid())
    while pending:
        process = pending.pop()
        with suppress(OSError):  # it may have ended
            status = Path(f"/proc/{process}/status").read_text()
            peak = max(peak, int((re.search(r"VmHWM:\s+([0-9]+)", status) or ["", "0"])[1]))
            pending += _children(process)
    return peak


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


class Range:
    """The store, its registry and what is outside, for one attack after another."""

    def __init__(self, store: Store, root: Path, registry: str, outside: Path) -> None:
        self._store, self._root, self._registry, self._outside = store, root, registry, outside

    def puller(self, limits: Limits) -> Puller:
        access, trust = RegistryAccess(tls_verify=False), TrustOptions(accepts_anything=True)
        return Puller(self._store, access=access, limits=limits, trust=trust)

    async def attack(self, puller: Puller, number: int, name: str) -> dict[str, object]:
        """Pull one image; what came of it, after which the store is to be what it was."""
        before, canary = store_of(self._root), outside_of(self._outside)
        outcome: dict[str, object] = {"name": name}
        try:
            image = await puller.pull(f"{self._registry}/attack/n{number}:1")
        except AsyncpullError as error:
            outcome |= {"error": type(error).__name__, "says": str(error), "code": exit_code_of(error)}
        else:
            outcome |= await self._looked_at(image)
        outcome["changed"] = differences(before, store_of(self._root))
        outcome["touched"] = differences(canary, outside_of(self._outside))
        outcome["peak"] = workers_peak()
        return outcome

    async def _looked_at(self, image: PulledImage) -> dict[str, object]:
        """The tree of the last layer, and the findings of a check; the image is removed again."""
        tree = tree_of(self._store.diff_path(image.layers[-1].id))
        report = await self._store.check()
        await self._store.remove_image(image.id)
        return {"tree": tree, "findings": [str(finding) for finding in report.findings]}


async def main(root: Path, driver: str, registry: str, outside: Path) -> None:
    config = load_config(overrides=StoreOverrides(graph_root=root, run_root=root.with_name("run"), driver=driver))
    async with Store.open(config) as store:
        grounds = Range(store, root, registry, outside)
        async with grounds.puller(Limits(workers=3)) as puller:
            await puller.pull(f"{registry}/attack/base:1")
            for number, attack in enumerate(ATTACKS):
                if attack.ceilings is None:
                    outcome = await grounds.attack(puller, number, attack.name)
                else:
                    async with grounds.puller(Limits(workers=1, ceilings=attack.ceilings)) as limited:
                        outcome = await grounds.attack(limited, number, attack.name)
                print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])))
