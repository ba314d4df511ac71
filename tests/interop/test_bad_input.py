"""Bad input, through the command: the exit code of the contract, one clear message, and a store that is what it was.

What a real registry refuses to serve comes from the simulator.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import images, tars
from tests.support.peers import REPOSITORY
from tests.support.registry_faults import flip, status, surplus, truncated
from tests.support.registry_simulator import RegistrySimulator
from tests.support.stores import SharedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


pytestmark = pytest.mark.root


def good() -> images.Image:
    return images.image([tars.tar([tars.directory("etc"), tars.file("etc/good", b"good")])])


def two_layers(**changes: object) -> images.Image:
    noise = tars.tar([tars.file("noise", images.noise(7, 300_000))])
    return images.image([tars.tar([tars.file("a", b"a")]), noise], **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Case:
    """How a registry is wrong, the exit code, and what the message says.

    ``spooled``: how many blobs may stay for the next pull, being innocent.
    """

    name: str
    code: int
    says: str
    offer: Callable[[RegistrySimulator], str]
    spooled: int = 0


def damaged(fault: Callable[..., None]) -> Callable[[RegistrySimulator], str]:
    def offer(registry: RegistrySimulator) -> str:
        target = two_layers()
        registry.on("/blobs/" + target.layers[1].digest, fault, times=None)
        return registry.add_image("bad/image", "1", target)

    return offer


def offered(target: images.Image | images.Index) -> Callable[[RegistrySimulator], str]:
    return lambda registry: registry.add_image("bad/image", "1", target)


def oversized(registry: RegistrySimulator) -> str:
    document = json.loads(two_layers().manifest.data) | {"padding": "x" * (4 << 20)}
    registry.add_manifest("bad/image", "1", json.dumps(document).encode(), images.OCI_MANIFEST)
    return f"{registry.address}/bad/image:1"


def limited(registry: RegistrySimulator) -> str:
    registry.on("/manifests/", status(429, Retry_After="3600"), times=None, method="*")
    return f"{registry.address}/bad/image:1"


CASES = [
    Case("a wrong byte", 65, "digest is sha256:", damaged(flip(1000)), spooled=1),
    Case("surplus bytes", 65, "expected", damaged(surplus()), spooled=1),
    Case("a wrong diff ID", 65, "diff ID is", offered(two_layers(diff_ids=[images.sha256(b"1")] * 2)), spooled=1),
    Case("a manifest over the limit", 65, "limit", oversized),
    Case("no such platform", 2, "linux/s390x", offered(images.index([images.image([], architecture="s390x")]))),
    Case("a path that leaves", 65, "../../etc/x", offered(images.image([tars.tar([tars.file("../../etc/x")])]))),
    Case("too many layers", 65, "at most 500", offered(images.image([tars.tar([])] * 510))),
    Case("no such image", 2, "bad/image", lambda registry: f"{registry.address}/bad/image:none"),
    Case("a rate limit", 75, "429|later|many", limited),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_refused(store: SharedStore, case: Case) -> None:
    async with RegistrySimulator() as registry:
        await pull(store, registry.add_image("good/image", "1", good()), 0)
        before = state(store)
        message = await pull(store, case.offer(registry), case.code)
    assert any(part in message for part in case.says.split("|")), message
    assert len(message.splitlines()) <= 2, message
    assert "Traceback" not in message
    assert state(store) == before
    assert len(store.spooled()) <= case.spooled
    store.check()


async def test_a_short_body(store: SharedStore) -> None:
    """A registry that has less than it promises is asked again until patience ends."""
    async with RegistrySimulator() as registry:
        await pull(store, registry.add_image("good/image", "1", good()), 0)
        before = state(store)
        message = await pull(store, damaged(truncated(100_000))(registry), (65, 69, 75))
    assert len(message.splitlines()) <= 2, message
    assert state(store) == before
    store.check()


async def test_a_full_disk(store: SharedStore) -> None:
    """The store on a small tmpfs: 73, and the store is what it was, also without the blob that did not fit."""
    content = tars.tar([tars.file(f"f{n}", images.noise(n, 3 << 20)) for n in range(12)])
    with small_disk(store.root, "24m"):
        async with RegistrySimulator() as registry:
            await pull(store, registry.add_image("good/image", "1", good()), 0)
            before = state(store)
            message = await pull(store, registry.add_image("big/image", "1", images.image([content])), 73)
        assert "No space left on device" in message
        assert state(store) == before
        # The peer may not see what is mounted here, so it checks a copy.
        copy = SharedStore(store.peer, store.directory / "copy")
        copy.directory.mkdir()
        subprocess.run(["cp", "-a", str(store.root), str(copy.root)], check=True)
    copy.check()
    assert copy.podman("images", "-q")


async def test_a_disk_without_inodes(store: SharedStore) -> None:
    content = tars.tar([tars.file(f"f{n}") for n in range(2000)])
    with small_disk(store.root, "64m,nr_inodes=1000"):
        async with RegistrySimulator() as registry:
            await pull(store, registry.add_image("good/image", "1", good()), 0)
            before = state(store)
            message = await pull(store, registry.add_image("many/image", "1", images.image([content])), 73)
        assert "No space left on device" in message
        assert state(store) == before
        assert store.leftovers() == []


async def test_a_root_that_cannot_be_written(store: SharedStore) -> None:
    with small_disk(store.root, "8m,ro"):
        async with RegistrySimulator() as registry:
            message = await pull(store, registry.add_image("good/image", "1", good()), 73)
        assert "read-only" in message
        assert list(store.root.iterdir()) == []


async def test_a_store_that_became_read_only(store: SharedStore) -> None:
    with small_disk(store.root, "24m"):
        async with RegistrySimulator() as registry:
            await pull(store, registry.add_image("good/image", "1", good()), 0)
            before = state(store)
            subprocess.run(["mount", "-o", "remount,ro", str(store.root)], check=True)
            message = await pull(store, registry.add_image("other/image", "1", two_layers()), 73)
        assert "read-only" in message
        assert state(store) == before


async def pull(store: SharedStore, reference: str, code: int | tuple[int, ...]) -> str:
    """Pull with the command; return what it wrote to stderr. The exit code is the expected one, or one of those."""
    process = await asyncio.create_subprocess_exec(
        *store.asyncpull_command,
        "pull",
        reference,
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    codes = (code,) if isinstance(code, int) else code
    assert process.returncode in codes, (process.returncode, err.decode())
    assert code == 0 or out == b""
    return err.decode().strip()


def state(store: SharedStore) -> tuple[object, ...]:
    """Records, and every file of the store, but locks, spools and the empty places for temporary things."""
    files = sorted(
        str(path.relative_to(store.root))
        for path in store.root.rglob("*")
        if "asyncpull" not in path.relative_to(store.root).parts
        and path.name not in ("tempdirs", "tmp")
        and path.suffix != ".lock"
    )
    return store.image_records(), store.layer_records(), files


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A tmpfs of its own at ``place``."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={options}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
