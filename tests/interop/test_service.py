"""A podman that is running all the time sees at once what asyncpull has pulled (format, 13.4, point 5)."""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.support.images import image
from tests.support.samples import base_layer, rich_image

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.stores import SharedStore

pytestmark = pytest.mark.root

START_SECONDS = 90


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _ask(path: Path, request: str) -> object:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", f"http://d/v4.0.0/libpod/{request}")
        response = connection.getresponse()
        answer: object = json.loads(response.read())
        assert response.status == 200, answer
        return answer
    finally:
        connection.close()


@contextmanager
def _service(store: SharedStore) -> Iterator[Path]:
    """Run podman's service on a store; give its socket, and end it by its process ID."""
    path = store.directory / "s"
    process = store.peer.start(*store.podman_command, "system", "service", "-t", "0", f"unix://{path}")
    try:
        _wait_for(path, process)
        yield path
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _ask(path, "images/json")
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def test_a_running_service_shows_what_we_pull(store: SharedStore, registry: Registry) -> None:
    first, second = rich_image(comment="first"), image([base_layer()], comment="second")
    with _service(store) as service:
        for wanted in (first, second):
            reference = registry.push("service/seen", wanted.id[:8], wanted)

            store.pull(reference)

            listed = _ask(service, "images/json")
            assert isinstance(listed, list)
            assert reference in [name for each in listed for name in each["Names"]]
            seen = _ask(service, f"images/{quote(reference, safe='')}/json")
            assert isinstance(seen, dict)
            assert seen["Id"] == wanted.id
            (record,) = [record for record in store.image_records() if record["id"] == wanted.id]
            sizes = record["big-data-sizes"]
            assert isinstance(sizes, dict)
            chain = store.layer_ids(wanted.id)
            diffs = [layer["diff-size"] for layer in store.layer_records() if layer["id"] in chain]
            assert seen["Size"] == sum(int(str(size)) for size in diffs) + sum(sizes.values())
    store.check()
