"""A docker daemon as far as images go in and out: a simulated one, and the real one from where a peer is installed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from aiohttp import web

from asyncpull.access import Access
from asyncpull.destination.opening import open_destination
from asyncpull.source.opening import open_source
from asyncpull.spec.location import DaemonLocation
from asyncpull.spec.reference import parse_reference
from tests.support.peers import Peer, checked

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from typing import Self

    from asyncpull.spec.destination import Destination
    from asyncpull.spec.source import Source

_START_SECONDS = 120
_STOP_SECONDS = 60


class DaemonSimulator:
    """Answers as dockerd does, on a unix socket or, with ``tls`` or without, on a port of 127.0.0.1.

    ``images`` are archives by the names that they are asked for; ``asked`` is what was; ``loaded`` what was sent, which
    is an image then, unless ``answer`` says that it was an error. ``version`` is the newest of the API, None for a
    daemon that does not say. After ``breaks_at`` bytes of an image the connection is closed.
    """

    def __init__(self, socket: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._socket, self._tls = socket, tls
        self.images: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.loaded: list[bytes] = []
        self.version: str | None = "1.44"
        self.answer = b'{"stream":"Loaded image: one:v1\\n"}\n'
        self.breaks_at: int | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def host(self) -> str:
        """What ``--src-daemon-host`` and ``DOCKER_HOST`` say of it."""
        return f"unix://{self._socket}" if self._socket else f"tcp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/_ping", self._ping)
        app.router.add_get("/v{version}/images/get", self._get)
        app.router.add_get("/v{version}/images/{name:.+}/json", self._inspect)
        app.router.add_post("/v{version}/images/load", self._load)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        if self._socket is not None:
            await web.UnixSite(self._runner, str(self._socket)).start()
        else:
            await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
            self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _ping(self, request: web.Request) -> web.Response:
        self.asked.append(f"GET {request.raw_path}")
        return web.Response(text="OK", headers={"Api-Version": self.version} if self.version else {})

    async def _inspect(self, request: web.Request) -> web.Response:
        if request.match_info["name"] in self.images:
            return web.json_response({"RepoTags": []})
        return web.json_response({"message": f"No such image: {request.match_info['name']}"}, status=404)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"GET {request.raw_path}")
        data = self.images.get(request.query["names"])
        if data is None:
            return web.json_response({"message": "reference does not exist"}, status=404)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(data[: self.breaks_at])
        if self.breaks_at is not None:
            assert request.transport is not None
            request.transport.close()
        return response

    async def _load(self, request: web.Request) -> web.Response:
        self.asked.append(f"POST {request.raw_path}")
        archive = await request.read()
        self.loaded.append(archive)
        if b"error" not in self.answer:
            with tarfile.open(fileobj=io.BytesIO(archive)) as members:
                for item in json.load(members.extractfile("manifest.json") or io.BytesIO()):
                    self.images.update(dict.fromkeys(map(_familiar, item["RepoTags"]), archive))
        return web.Response(body=self.answer, content_type="application/json")


def _familiar(tag: str) -> str:
    return tag.removeprefix("docker.io/").removeprefix("library/")


_KEPT: dict[Path, dict[str, bytes]] = {}
"""The images of simulated daemons that come and go in one place."""


@asynccontextmanager
async def daemon_in(place: Path) -> AsyncIterator[Access]:
    """A simulated daemon that has the images which those had that were in this place before, or are there now."""
    with TemporaryDirectory(dir=place) as directory:
        async with DaemonSimulator(Path(directory) / "sock") as daemon:
            daemon.images = _KEPT.setdefault(place, {})
            yield Access(daemon_host=daemon.host)


@asynccontextmanager
async def loading(place: Path) -> AsyncIterator[Destination]:
    """The image a/b:1 of the daemon in that place as a destination."""
    async with daemon_in(place) as access, open_destination(DaemonLocation(parse_reference("a/b:1")), access) as opened:
        yield opened


@asynccontextmanager
async def saving(place: Path) -> AsyncIterator[Source]:
    """The image a/b:1 of the daemon in that place as a source."""
    async with daemon_in(place) as access, open_source(DaemonLocation(parse_reference("a/b:1")), access) as opened:
        yield opened


@contextmanager
def docker_daemon(peer: Peer, directory: Path, *, in_containerd: bool = False) -> Iterator[str]:
    """Run the peer's dockerd, with its things in ``directory``, where it and we see the same; yield its host.

    ``in_containerd`` says where it keeps images, as new ones do by default: there with the blobs that they came with.
    """
    socket, log, settings = directory / "sock", directory / "log", directory / "daemon.json"
    settings.write_text(json.dumps({"features": {"containerd-snapshotter": in_containerd}}))
    driver = "native" if in_containerd else "vfs"
    places = ["--data-root", directory / "root", "--exec-root", directory / "exec", "-p", directory / "pid"]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    where = ["--config-file", settings, *places, "-H", f"unix://{socket}", "--storage-driver", driver]
    command = ["dockerd", *network, *map(str, where)]
    with log.open("wb") as out:
        running = subprocess.Popen([*peer.namespace, *command], stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + _START_SECONDS
        while "API listen on" not in log.read_text():
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield f"unix://{socket}"
    finally:
        # The namespace's command becomes the daemon; its containerd is its child, and ends with it.
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def docker(peer: Peer, host: str, *arguments: str | Path) -> str:
    """Run the peer's docker command on a daemon; its standard output."""
    words = [*peer.prefix, "docker", "-H", host, *map(str, arguments)]
    return checked(subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)).stdout
