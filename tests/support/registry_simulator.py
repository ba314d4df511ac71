"""A registry inside the test, which does what a real one won't: a fault script over raw HTTP/1.1 on loopback.

::

    async with RegistrySimulator() as registry:
        digest = registry.add_blob(data)
        registry.add_manifest("a/b", "latest", raw, OCI_MANIFEST)
        registry.on("/blobs/", cut(1000))                  # the next request whose path contains it
        registry.on("/blobs/", flip(7), times=None)        # every one
        …  registry.address, registry.requests

The faults are in registry_faults.py, what becomes of pushes in registry_uploads.py. Nothing of asyncpull is used here,
so that a mistake of ours cannot hide itself in its own simulator.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from tests.support.images import Index
from tests.support.registry_faults import Reply
from tests.support.registry_uploads import Uploads, etag

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

    from tests.support.images import Image
    from tests.support.registry_faults import Fault

_PIECE = 64 << 10
_HEAD_LIMIT = 64 << 10
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_TAGS = re.compile(r"/v2/(?P<repository>.+)/tags/list")
_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs)/(?P<name>[^/]+)")


@dataclass(slots=True)
class Request:
    """One request as it came, and what became of it; names of headers are lower case. ``sent`` counts body bytes."""

    method: str
    target: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query)


@dataclass(slots=True)
class Rule:
    """A fault for requests by ``method`` whose target contains ``part``: spare ``skip``, then meet ``times``."""

    part: str
    fault: Fault
    times: int | None
    skip: int
    method: str

    def applies(self, request: Request) -> bool:
        if self.times == 0 or self.part not in request.target or self.method not in ("*", request.method):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True, slots=True)
class Basic:
    """The registry wants this user name and password itself."""

    user: str
    password: str

    def challenge(self, address: str) -> str:
        return 'Basic realm="simulator"'


@dataclass(frozen=True, slots=True)
class Bearer:
    """The registry wants a token from ``realm`` (its own ``/token``), which wants a user if there is one here.

    ``key`` is what the token is called in the answer; ``template`` is the challenge, with {realm}, {service} and
    {scope}.
    """

    user: str | None = None
    password: str = ""
    realm: str | None = None
    service: str = "simulator"
    key: str = "token"
    expires_in: int | None = 300
    scope: str = "repository:a/b:pull"
    template: str = 'Bearer realm="{realm}",service="{service}",scope="{scope}"'

    def challenge(self, address: str) -> str:
        realm = self.realm or f"http://{address}/token"
        return self.template.format(realm=realm, service=self.service, scope=self.scope)


class RegistrySimulator:
    """The registry; ``address`` is ``127.0.0.1:PORT``, ``requests`` what came so far, ``protection`` who may enter."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.protection: Basic | Bearer | None = None
        self.tokens: set[str] = set()
        self.tags_per_page = 100
        self.address = ""
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.uploads = Uploads(self._blobs, self._manifests)
        self.stall_bodies: asyncio.Event | None = None
        """Bodies are read when it is set; ``body_came`` tells that one is on its way."""
        self.body_came = asyncio.Event()
        self._breaks: list[tuple[str, int, int]] = []
        self._rules: list[Rule] = []
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._came = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=_HEAD_LIMIT)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def add_blob(self, data: bytes) -> str:
        """Offer a blob, in every repository; return its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return digest

    def add_manifest(self, repository: str, tag: str, raw: bytes, media_type: str) -> str:
        """Offer a manifest or an index under its digest and a tag; return its digest."""
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        for name in (tag, digest):
            self._manifests[repository, name] = raw, media_type
        return digest

    def add_image(self, repository: str, tag: str, target: Image | Index) -> str:
        """Offer an image or an index with all that belongs to it; return its reference by tag."""
        for each in target.images if isinstance(target, Index) else (target,):
            for blob in each.blobs:
                self.add_blob(blob.data)
            self.add_manifest(repository, each.manifest.digest, each.manifest.data, each.manifest.media_type)
        self.add_manifest(repository, tag, target.manifest.data, target.manifest.media_type)
        return f"{self.address}/{repository}:{tag}"

    def on(self, part: str, *faults: Fault, times: int | None = 1, skip: int = 0, method: str = "GET") -> None:
        """Apply ``faults`` to the next ``times`` requests (None: to all) whose target contains ``part``.

        The first ``skip`` of them are spared.
        """
        for fault in faults:
            self._rules.append(Rule(part, fault, times, skip, method))

    def break_body(self, method: str, at: int, *, kept: int | None = None) -> None:
        """Break the connection of the next request by ``method`` with a body, after ``at`` bytes of that.

        ``kept`` of them are kept in the upload; all, where it is not given.
        """
        self._breaks.append((method, at, at if kept is None else kept))

    def heal(self) -> None:
        """Forget all faults."""
        self._rules.clear()
        self._breaks.clear()

    def blob(self, digest: str) -> bytes | None:
        """The blob that was added or pushed."""
        return self._blobs.get(digest)

    def manifest(self, repository: str, name: str) -> tuple[bytes, str] | None:
        """What a tag or a digest stands for, with its media type."""
        return self._manifests.get((repository, name))

    def asked(self, part: str) -> list[Request]:
        """The requests so far whose target contains ``part``."""
        return [request for request in self.requests if part in request.target]

    def sent(self, part: str = "") -> int:
        """How many body bytes were sent in answer to those."""
        return sum(request.sent for request in self.asked(part))

    async def until_asked(self, part: str, times: int = 1) -> None:
        """Wait until so many requests came whose target contains ``part``."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.asked(part)) >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass  # the client is gone, or spoke no HTTP
        except asyncio.CancelledError:
            pass  # the simulator ends; asyncio's server would log that its handler was cancelled
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if not first.isalpha():
            # A TLS handshake; answered as Go's server does.
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            return False
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        request = Request(method, target, {name.lower(): value for name, value in headers.items()})
        length = int(request.headers.get("content-length", "0"))
        broken = next((each for each in self._breaks if length and each[0] == method), None)
        if broken is not None:
            self._breaks.remove(broken)
            part = await reader.readexactly(min(broken[1], length))
            self.uploads.arrived(request, part[: broken[2]])
            self.requests.append(request)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if length and self.stall_bodies is not None:
            self.body_came.set()
            await self.stall_bodies.wait()
        request.body = await reader.readexactly(length)
        reply = self._reply(request)
        self.requests.append(request)
        for rule in [*self._rules]:
            if rule.applies(request):
                rule.fault(reply)
        async with self._came:
            self._came.notify_all()
        return await self._send(request, reply, reader, writer)

    def _reply(self, request: Request) -> Reply:
        if request.path == "/token":
            return self._token(request)
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.path == "/v2/":
            return Reply(200, {"Content-Type": "application/json"}, b"{}")
        changed = self.uploads.reply(request)
        if changed is not None:
            return changed
        if (listed := _TAGS.fullmatch(request.path)) is not None:
            return self._tags(request, listed["repository"])
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _error(404, "NOT_FOUND", "no such page")
        if found["kind"] == "blobs":
            blob = self._blobs.get(found["name"])
            if blob is None:
                return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            asked = _RANGE.fullmatch(request.headers.get("range", ""))
            part = (int(asked[1]), int(asked[2]) + 1 if asked[2] else None) if asked else None
            return Reply(200, {"Content-Type": "application/octet-stream"}, blob, part)
        manifest = self._manifests.get((found["repository"], found["name"]))
        if manifest is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        raw, media_type = manifest
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        return Reply(200, {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": etag(raw)}, raw)

    def _tags(self, request: Request, repository: str) -> Reply:
        """A page of tags, with a relative link to the next one."""
        tags = [name for at, name in self._manifests if at == repository and ":" not in name]
        if not tags:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        query = dict(request.query)
        first = tags.index(query["last"]) + 1 if "last" in query else 0
        size = min(int(query.get("n", "100")), self.tags_per_page)
        page = tags[first : first + size]
        reply = Reply(
            200, {"Content-Type": "application/json"}, json.dumps({"name": repository, "tags": page}).encode()
        )
        if first + size < len(tags):
            reply.headers["Link"] = f'<{request.path}?n={size}&last={page[-1]}>; rel="next"'
        return reply

    def _refused(self, request: Request) -> Reply | None:
        shown = request.headers.get("authorization", "")
        if self.protection is None:
            return None
        if isinstance(self.protection, Basic):
            if shown == _basic(self.protection.user, self.protection.password):
                return None
        elif shown.removeprefix("Bearer ") in self.tokens:
            return None
        reply = _error(401, "UNAUTHORIZED", "authentication required")
        reply.headers["WWW-Authenticate"] = self.protection.challenge(self.address)
        return reply

    def _token(self, request: Request) -> Reply:
        protection = self.protection if isinstance(self.protection, Bearer) else Bearer()
        shown = request.headers.get("authorization", "")
        if protection.user is not None and shown != _basic(protection.user, protection.password):
            return Reply(401, {}, b'{"details":"incorrect username or password"}')
        token = f"token-{len(self.tokens)}"
        self.tokens.add(token)
        answer: dict[str, object] = {protection.key: token}
        if protection.expires_in is not None:
            answer["expires_in"] = protection.expires_in
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    async def _send(
        self, request: Request, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send the reply; true if the connection may be used again."""
        head, body = _rendered(reply)
        request.status = reply.status
        if reply.stop_in_head:
            writer.write(head[: len(head) // 2])
            await writer.drain()
            if not await _pause(reply, reader, writer):
                return False
            head = head[len(head) // 2 :]
        writer.write(head)
        if request.method == "HEAD":
            await writer.drain()
            return True
        stop = len(body) if reply.stop_at is None or reply.stop_in_head else min(reply.stop_at, len(body))
        await _write(request, reply, body[:stop], writer)
        if reply.stop_at is not None and not reply.stop_in_head:
            if not await _pause(reply, reader, writer):
                return False
            await _write(request, reply, body[stop:], writer)
        if reply.framing == "chunked":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return reply.framing != "close"


def _rendered(reply: Reply) -> tuple[bytes, memoryview]:
    """The head and the body as they go over the wire, before chunking."""
    body = memoryview(reply.body)
    headers = dict(reply.headers)
    if reply.range is not None and reply.status == 200:
        start, end = reply.range[0], min(reply.range[1] or len(body), len(body))
        if start >= len(body):
            reply.status = 416
            headers.setdefault("Content-Range", f"bytes */{len(body)}")
            body = body[:0]
        else:
            reply.status = 206
            headers.setdefault("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
            body = body[start:end]
    if reply.framing == "length":
        headers.setdefault("Content-Length", str(len(body)))
    elif reply.framing == "chunked":
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return f"HTTP/1.1 {reply.status} Simulated\r\n{lines}\r\n".encode("latin-1"), body


async def _write(request: Request, reply: Reply, body: memoryview, writer: asyncio.StreamWriter) -> None:
    for position in range(0, len(body), _PIECE):
        piece = body[position : position + _PIECE]
        if reply.framing == "chunked":
            writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        else:
            writer.write(piece)
        request.sent += len(piece)
        await writer.drain()
    await writer.drain()


async def _pause(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Do what the reply says about the middle of it; true if it goes on."""
    if reply.then == "go on":
        return reply.gate is None or await _opened(reply.gate, reader)
    if reply.then == "stall":
        await reader.read()  # until the client gives up
    elif reply.then == "reset":
        # Without lingering, close sends RST instead of FIN.
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    return False


async def _opened(gate: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Wait for the gate; false if the client leaves before that."""
    opened, left = asyncio.ensure_future(gate.wait()), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((opened, left), return_when=asyncio.FIRST_COMPLETED)
        return gate.is_set()
    finally:
        opened.cancel()
        left.cancel()
        await asyncio.gather(opened, left, return_exceptions=True)


def _error(code: int, name: str, message: str) -> Reply:
    body = json.dumps({"errors": [{"code": name, "message": message}]}).encode()
    return Reply(code, {"Content-Type": "application/json"}, body)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
