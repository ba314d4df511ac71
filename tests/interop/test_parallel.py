"""Six pulls of ours and six of podman's at once into one store (format, 13.4, point 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.images import Image, image, noise
from tests.support.peers import TIMEOUT, CommandError
from tests.support.samples import base_layer, odd_layer
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    import subprocess

    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

EACH = 6


def _own_layer(number: int) -> bytes:
    names = [f"own-{number}/{name}" for name in range(60)]
    return tar([directory(f"own-{number}"), *(file(name, noise(number, 20_000)) for name in names)])


@pytest.fixture
def images(registry: Registry) -> list[tuple[Image, str]]:
    """Twelve images, with their references, upon the same two layers."""
    base = [base_layer(), odd_layer()]
    made = [image([*base, _own_layer(number)]) for number in range(2 * EACH)]
    return [(each, registry.push("parallel/many", str(number), each)) for number, each in enumerate(made)]


def _finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for all of them, also where one fails, and return what each printed."""
    said = [process.communicate(timeout=TIMEOUT) for process in processes]
    failed = [
        f"{process.args!r} ended with {process.returncode}: {err[-3000:]}"
        for process, (_, err) in zip(processes, said, strict=True)
        if process.returncode != 0
    ]
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

    told = _finish(running)

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

    assert set(_finish([*ours, *theirs])) == {wanted.id}

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
