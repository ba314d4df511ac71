"""A program that uses a store as hard as it can, beside others that do the same: pulls, containers, mounts, removals.

Run as ``python -m tests.support.stress GRAPH_ROOT RUN_ROOT SECONDS SEED REFERENCE…``. It writes one JSON document: how
often it did what, how often it met what was to be expected where several use one store (something is in use, or
somebody else has removed it), and every other error with its traceback. It removes what it made, its containers.

Images of the stress have a file ``which`` that holds the reference, so a mount can be seen to be the right one.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from asyncpull.errors import InUseError, NotInStoreError
from asyncpull.limits import Limits
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.store.store import Store

_ROUNDS_PER_OPENING = 25
_MOST_CONTAINERS = 2


class _Stress:
    def __init__(self, store: Store, puller: Puller, references: list[str], chance: random.Random) -> None:
        self._store, self._puller, self._references, self._chance = store, puller, references, chance
        self.containers: list[tuple[str, str]] = []

    async def pull(self) -> None:
        reference = self._chance.choice(self._references)
        await self._puller.pull(reference)

    async def create(self) -> None:
        if len(self.containers) >= _MOST_CONTAINERS:
            await self.remove_container()
        reference = self._chance.choice(self._references)
        container = await self._store.create_container(reference)
        self.containers.append((container.id, reference))

    async def mount(self) -> None:
        if not self.containers:
            await self.create()
        container, reference = self._chance.choice(self.containers)
        async with self._store.mounted(container) as path:
            await asyncio.to_thread(_use, path, reference)

    async def mount_image(self) -> None:
        reference = self._chance.choice(self._references)
        async with self._store.mounted(await self._store.image(reference)) as path:
            await asyncio.to_thread(_read, path, reference)

    async def remove_container(self) -> None:
        if self.containers:
            container, _ = self.containers.pop(self._chance.randrange(len(self.containers)))
            await self._store.remove_container(container)

    async def remove_image(self) -> None:
        await self._store.remove_image(self._chance.choice(self._references))

    async def look(self) -> None:
        snapshot = await self._store.snapshot()
        for image in snapshot.images.values():
            layer = image.layer
            while layer is not None:
                layer = snapshot.layers[layer].parent
        await self._store.status()


def _read(path: Path, reference: str) -> None:
    found = (path / "which").read_text()
    if found != reference:
        raise AssertionError(f"{reference} has the content of {found}")


def _use(path: Path, reference: str) -> None:
    _read(path, reference)
    (path / "written").write_text(reference)
    (path / "etc/base").unlink(missing_ok=True)


async def _round(stress: _Stress, chance: random.Random, told: Counter[str], errors: list[str]) -> None:
    steps = (
        [stress.pull] * 3
        + [stress.create] * 3
        + [stress.mount] * 3
        + [stress.mount_image] * 2
        + [stress.remove_container] * 2
        + [stress.remove_image] * 2
        + [stress.look]
    )
    step = chance.choice(steps)
    name = step.__name__
    try:
        await step()
        told[name] += 1
    except (InUseError, NotInStoreError) as error:
        if name in ("pull", "remove_container", "look"):
            errors.append(f"{name}: {traceback.format_exc()}")  # nobody else touches our containers
        told[f"{name}: {type(error).__name__}"] += 1
    except Exception:
        errors.append(f"{name}: {traceback.format_exc()}")


async def _main(root: Path, run_root: Path, seconds: float, seed: int, references: list[str]) -> None:
    chance = random.Random(seed)
    told: Counter[str] = Counter()
    errors: list[str] = []
    containers: list[tuple[str, str]] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not errors:
        async with (
            Store.open(root=root, run_root=run_root) as store,
            Puller(store, access=RegistryAccess(tls_verify=False), limits=Limits(workers=1)) as puller,
        ):
            stress = _Stress(store, puller, references, chance)
            stress.containers = containers
            for _ in range(_ROUNDS_PER_OPENING):
                await _round(stress, chance, told, errors)
                if time.monotonic() > ends:
                    break
    async with Store.open(root=root, run_root=run_root) as store:
        for container, _ in containers:
            await store.remove_container(container)
    print(json.dumps({"told": told, "errors": errors}))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))
