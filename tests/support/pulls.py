"""A store, a registry that speaks real HTTP and a puller between them; and what a pull must not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncpull
from asyncpull.errors import AsyncpullError
from asyncpull.limits import Limits
from asyncpull.progress import Event, PullFailed
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.spec.platform import parse_platform
from asyncpull.store.config import StoreConfig
from asyncpull.store.store import Store
from tests.support import images, tars
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

PACKAGE = Path(asyncpull.__file__).parent

PATIENCE = 200.0
"""Seconds after which something is taken for hung: longer than a busy machine with a slow disk makes anything last."""

HURRY = RetryPolicy(attempts=2, first_seconds=0.001)
AMD64 = parse_platform("linux/amd64")


def layer(name: str, size: int = 100_000) -> bytes:
    """An uncompressed layer with one directory and one file that no compressor makes smaller."""
    content = images.noise(sum(name.encode()), size)
    return tars.tar([tars.directory(name), tars.file(f"{name}/file", content)])


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


class Bench:
    """A store, a registry and a puller between them."""

    def __init__(self, root: Path, registry: RegistrySimulator, store: Store, puller: Puller, heard: Heard) -> None:
        self.root, self.registry, self.store, self.puller, self.heard = root, registry, store, puller, heard

    def offer(self, target: images.Image | images.Index, tag: str = "1") -> str:
        return self.registry.add_image("a/b", tag, target)

    def sent(self) -> int:
        return self.registry.sent("/blobs/")

    async def listed(self) -> tuple[object, ...]:
        """Everything the store lists, and every file outside of the spool."""
        files = sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if "asyncpull" not in path.relative_to(self.root).parts
            and not path.name.endswith(".lock")
            and path.name not in ("tempdirs", "tmp")  # made once and kept, empty
        )
        return (
            await self.store.images(),
            await self.store.layers(),
            await self.store.containers(),
            files,
        )

    @property
    def spools(self) -> list[str]:
        return sorted(path.name for path in self.store.spool_root.iterdir())

    @asynccontextmanager
    async def untouched(self, error: type[BaseException], *, spools: int = 0) -> AsyncIterator[list[AsyncpullError]]:
        """The body raises ``error``; the store lists what it did before, and so many spools are left to resume."""
        before = await self.listed()
        caught: list[AsyncpullError] = []
        with pytest.raises(error) as info:
            yield caught
        if isinstance(info.value, AsyncpullError):
            caught.append(info.value)
        assert await self.listed() == before
        assert len(self.spools) == spools
        assert self.heard.of(PullFailed)


@asynccontextmanager
async def bench_at(root: Path, driver: str = "overlay", **more: Any) -> AsyncIterator[Bench]:
    """A bench in ``root``; ``more`` are fields of its StoreConfig."""
    heard = Heard()
    config = StoreConfig(root / "graph", root / "run", driver, **more)
    access = RegistryAccess(tls_verify=False)
    async with (
        RegistrySimulator() as registry,
        Store.open(config) as store,
        Puller(store, platform=AMD64, access=access, reporter=heard, retry=HURRY, limits=Limits(workers=2)) as puller,
    ):
        yield Bench(root / "graph", registry, store, puller, heard)


class Steps:
    """Counts the steps of all tasks that run code of the package, as a task factory; a step ends at an await."""

    def __init__(self) -> None:
        self.taken = 0
        self._limit, self._action = -1, lambda: False

    def at(self, limit: int, action: Callable[[], bool]) -> None:
        """Call ``action`` when that many steps are taken."""
        self._limit, self._action = limit, action
        if limit == self.taken:
            action()

    def task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        code = getattr(coroutine, "cr_code", None)
        is_ours = code is not None and str(PACKAGE) in code.co_filename
        return asyncio.Task(Counted(coroutine, self) if is_ours else coroutine, loop=loop, **options)

    def take(self) -> None:
        self.taken += 1
        if self.taken == self._limit:
            asyncio.get_running_loop().call_soon(self._action)


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are counted."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self._coroutine, self._steps = coroutine, steps

    def send(self, value: Any) -> Any:
        self._steps.take()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def open_fds() -> list[str]:
    """What the descriptors of this process are open on, those of epoll and its like aside."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(name for name in found if not name.startswith("/proc"))


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found
