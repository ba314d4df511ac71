"""What pulls that are killed cost the registry, and what several processes at once do; by the server's log.

The registry is docker-registry behind nginx, which sends so many bytes a second per connection and logs what it sent.
What nginx has handed to the kernel counts as sent, so its send buffer is kept small (tests/support/nginx.py); for the
same reason it is paced: a pull that takes a fraction of a second loses a large part of itself by any kill. With
ASYNCPULL_TEST_FULL=1 the image has 250 MB and is killed twenty times, as is promised; else it is smaller.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command
from tests.support.docker_registry import docker_registry
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.images import image
from tests.support.nginx import Options, nginx
from tests.support.nginx import is_installed as has_nginx
from tests.support.pulls import layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.images import Image
    from tests.support.nginx import Nginx

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (has_docker_registry() and has_nginx()), reason="needs docker-registry and nginx"),
]

MB = 1_000_000
FULL = os.environ.get("ASYNCPULL_TEST_FULL") == "1"
SIZES = [150 * MB, 60 * MB, 40 * MB] if FULL else [30 * MB, 10 * MB, 2 * MB]
KILLS = 20 if FULL else 8
RATE = (4 if FULL else 2) * MB
# What a connection may lose by a kill: a batch that is not written, and what is in the buffers of the kernel.
LOST_PER_CONNECTION = 128 << 10
CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Served:
    """An image on a paced registry."""

    reference: str
    image: Image
    server: Nginx
    relative: str
    """The reference of an image that has the layers of the other, and one more."""
    relatives_own: int
    """The size of that layer."""

    @property
    def size(self) -> int:
        return sum(len(blob.data) for blob in self.image.layers)

    def sent(self) -> int:
        """Bytes of blobs, bodies only."""
        return sum(answer.body for answer in self.server.drained_answers() if "/blobs/" in answer.request)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    tars = [layer(f"d{number}", size) for number, size in enumerate(SIZES)]
    made, related = image(tars, compression="none"), image([*tars, layer("own", MB)], compression="none")
    with docker_registry(root / "registry") as registry:
        references = registry.push("a/b", "1", made), registry.push("a/b", "2", related)
        options = Options(limit_rate=RATE, blobs_from_disk=True, send_buffer=32 << 10)
        with nginx(root / "nginx", registry, options) as server:
            one, other = (reference.replace(registry.address, server.address) for reference in references)
            yield Served(one, made, server, other, len(related.layers[-1].data))


def clean(command: Command, number_of_layers: int, number_of_images: int = 1) -> None:
    """The store has the images and nothing else."""
    assert len(command("images", "--json").json()) == number_of_images
    assert [path.name for path in (command.root / "asyncpull/spool").iterdir()] == []
    assert len(command("layers", "--json").json()) == number_of_layers
    for place in ("overlay/tempdirs", "overlay-layers/tmp"):
        assert not list((command.root / place).glob("*"))


def test_what_is_received_is_not_asked_for_again_however_often_it_is_killed(served: Served, tmp_path: Path) -> None:
    command, chance = Command(tmp_path), random.Random(2026)
    before = served.sent()
    kills = 0
    # A connection has its rate, and as much again in its first second.
    whole = served.size / RATE / CONNECTIONS + 1.0
    for _ in range(KILLS):
        process = command.start("pull", "--tls-verify=false", "--quiet", served.reference)
        # The command takes a while to start; what it receives until it is killed is a KILLS-th on average.
        time.sleep(0.4 + chance.uniform(0.0, 2 * whole / KILLS))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    ended = command("pull", "--tls-verify=false", "--quiet", served.reference)
    assert ended.code == 0, ended.err
    sent = served.sent() - before
    assert kills > 0
    assert sent <= 1.02 * served.size + kills * CONNECTIONS * LOST_PER_CONNECTION, f"{kills} kills, {sent} bytes"
    print(f"{kills} kills: {sent} bytes of {served.size}, {(sent - served.size) / max(1, kills) / 1024:.0f} KiB a kill")
    clean(command, len(SIZES))


def test_ten_pulls_of_the_same_image_are_one(served: Served, tmp_path: Path) -> None:
    command = Command(tmp_path)
    before = served.sent()
    pulls = [command.start("pull", "--tls-verify=false", "--quiet", served.reference) for _ in range(10)]
    ended = [(process.communicate(), process.returncode) for process in pulls]
    assert [code for _, code in ended] == [0] * 10, ended
    assert {out for (out, _), _ in ended} == {f"{served.image.id}\n".encode()}
    assert served.sent() - before <= 1.05 * served.size
    clean(command, len(SIZES))


def test_two_pulls_that_share_layers_ask_for_each_blob_once(served: Served, tmp_path: Path) -> None:
    command = Command(tmp_path)
    before = served.sent()
    pulls = [
        command.start("pull", "--tls-verify=false", "--quiet", reference)
        for reference in (served.reference, served.relative)
    ]
    ended = [(process.communicate(), process.returncode) for process in pulls]
    assert [code for _, code in ended] == [0, 0], ended
    assert served.sent() - before <= 1.02 * (served.size + served.relatives_own)
    clean(command, len(SIZES) + 1, number_of_images=2)


def test_who_waits_for_a_pull_that_is_killed_goes_on_from_its_journal(served: Served, tmp_path: Path) -> None:
    command = Command(tmp_path)
    before = served.sent()
    first = command.start("pull", "--tls-verify=false", "--quiet", served.reference)
    journals = command.root / "asyncpull/spool"
    while sum(path.stat().st_size > 200 for path in journals.glob("*/journal")) < len(SIZES) - 1:
        assert first.poll() is None
        time.sleep(0.02)
    second = command.start("pull", "--tls-verify=false", "--json", served.relative)
    time.sleep(0.8)  # it has begun to wait; should it not have yet, it resumes all the same
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = second.communicate()
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0), err
    assert json.loads(out)[0]["bytes_resumed"] > 0
    whole = served.size + served.relatives_own
    assert served.sent() - before <= 1.02 * whole + CONNECTIONS * LOST_PER_CONNECTION
    clean(command, len(SIZES) + 1)
