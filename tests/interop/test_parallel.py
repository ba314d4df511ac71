"""Six pulls of ours and six of podman's at once into one store (format, 13.4, point 6)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncpull.store.tempdirs import remove_abandoned
from tests.support.images import Image, image, noise
from tests.support.peers import TIMEOUT, CommandError, checked
from tests.support.samples import base_layer, odd_layer
from tests.support.stores import LOST_STAGING
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

EACH = 6
# Podman is held up before each lock that it takes, so that what else happens in that moment does happen.
SLOW_LOCKS = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fcntl", "-e", "inject=fcntl:delay_enter=500")


def _own_layer(number: int) -> bytes:
    names = [f"own-{number}/{name}" for name in range(60)]
    return tar([directory(f"own-{number}"), *(file(name, noise(number, 20_000)) for name in names)])


@pytest.fixture
def images(registry: Registry) -> list[tuple[Image, str]]:
    """Twelve images, with their references, upon the same two layers."""
    base = [base_layer(), odd_layer()]
    made = [image([*base, _own_layer(number)]) for number in range(2 * EACH)]
    return [(each, registry.push("parallel/many", str(number), each)) for number, each in enumerate(made)]


def _finish(processes: Sequence[subprocess.Popen[str]], podmans: Sequence[subprocess.Popen[str]] = ()) -> list[str]:
    """Wait for all of them, also where one fails, and return what each printed.

    One of those that are among ``podmans`` may have tripped over another: then its pull is done again.
    """
    said = [process.communicate(timeout=TIMEOUT) for process in processes]
    failed = []
    for number, (process, (_, err)) in enumerate(zip(processes, said, strict=True)):
        if process.returncode == 0:
            continue
        if process in podmans and LOST_STAGING.search(err):
            again = subprocess.run(process.args, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            said[number] = checked(again).stdout, again.stderr
        else:
            failed.append(f"{process.args!r} ended with {process.returncode}: {err[-3000:]}")
    if failed:
        raise CommandError("\n".join(failed))
    return [out.strip() for out, _ in said]


def test_different_images_that_share_layers(store: SharedStore, images: list[tuple[Image, str]]) -> None:
    running = []
    for number, (_, reference) in enumerate(images):
        if number % 2:
            running.append(store.start_asyncpull("pull", reference))
        else:
            command = (*store.podman_command, "pull", "-q", "--tls-verify=false", reference)
            running.append(store.peer.start(*command))

    told = _finish(running, running[::2])

    assert told == [each.id for each, _ in images]
    assert {record["id"] for record in store.image_records()} == {each.id for each, _ in images}
    assert len(store.layer_records()) == 2 + len(images)
    store.check()
    assert store.spooled() == []


def test_the_same_image(store: SharedStore, images: list[tuple[Image, str]]) -> None:
    (wanted, reference), *_ = images
    ours = [store.start_asyncpull("pull", reference) for _ in range(EACH)]
    command = (*store.podman_command, "pull", "-q", "--tls-verify=false", reference)
    theirs = [store.peer.start(*command) for _ in range(EACH)]

    assert set(_finish([*ours, *theirs], theirs)) == {wanted.id}

    (record,) = store.image_records()
    assert record["names"] == [reference]
    assert len(store.layer_records()) == 3
    store.check()
    assert store.spooled() == []


def test_many_references_in_one_command(
    store: SharedStore, registry: Registry, images: list[tuple[Image, str]]
) -> None:
    before = len(registry.requests())

    told = store.asyncpull("pull", *(reference for _, reference in images))

    assert told.split() == [each.id for each, _ in images]
    asked = [line for line in registry.requests()[before:] if line.startswith("GET") and "/blobs/" in line]
    shared = images[0][0].layers[:2]
    assert [sum(layer.digest in line for line in asked) for layer in shared] == [1, 1]
    store.check()


def test_a_podman_that_is_slow_to_lock_what_it_made(store: SharedStore, images: list[tuple[Image, str]]) -> None:
    """It does not look whether its lock file is still there when it has locked it: so it must be."""
    if store.peer.name == "debian":
        pytest.skip("that podman has no temporary directories")
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (wanted, reference), *_ = images
    places = (store.root / "overlay" / "tempdirs", store.root / "overlay-layers" / "tmp")
    slow = replace(store.peer, prefix=(*SLOW_LOCKS, *store.peer.prefix))
    process = slow.start(*store.podman_command, "pull", "-q", "--tls-verify=false", reference)

    while process.poll() is None:
        for each in places:
            remove_abandoned(each)

    assert _finish([process]) == [wanted.id]
    store.check()
