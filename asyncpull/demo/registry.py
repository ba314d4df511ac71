"""A registry on loopback that can only be read: the pulling half of the distribution API, over real HTTP.

Manifests by tag and digest, blobs whole or by range, the list of tags, and the errors in the specified form. Blobs
may be paced, so that a person can watch them arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from asyncpull.demo.image import Document, ServedImage

_PIECE = 64 << 10


class DemoRegistry:
    """Serves ``images`` on a free port of 127.0.0.1; an async context manager.

    ``bytes_per_second`` bounds all blobs together; None sends them as fast as they are taken.
    """

    def __init__(self, images: Iterable[ServedImage], *, bytes_per_second: float | None = None) -> None:
        self._images = {image.repository: image for image in images}
        self._rate = bytes_per_second
        self._next_piece_at = 0.0
        self._runner: web.AppRunner | None = None
        self.domain = ""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.add_routes(
            [
                web.get("/v2/", self._base),
                web.get("/v2/{name:.+}/tags/list", self._tags),
                web.get("/v2/{name:.+}/manifests/{reference}", self._manifest),
                web.get("/v2/{name:.+}/blobs/{digest}", self._blob),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.domain = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _base(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    async def _tags(self, request: web.Request) -> web.StreamResponse:
        image = self._images.get(request.match_info["name"])
        if image is None:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        return web.json_response({"name": image.repository, "tags": sorted(image.tags)})

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        image = self._images.get(request.match_info["name"])
        if image is None:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        reference = request.match_info["reference"]
        document: Document | None = image.tags.get(reference) or image.documents.get(reference)
        if document is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return web.Response(
            body=document.raw,
            headers={"Content-Type": document.media_type, "Docker-Content-Digest": str(document.digest)},
        )

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        image = self._images.get(request.match_info["name"])
        digest = request.match_info["digest"]
        blob = image.blobs.get(digest) if image else None
        if blob is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        try:
            wanted = request.http_range
            start, end, _ = wanted.indices(len(blob))
        except ValueError:
            wanted, start, end = slice(None), 0, len(blob)  # a Range nobody understands is to be ignored
        headers = {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        if (wanted.start, wanted.stop) == (None, None):
            return await self._send(request, 200, blob, headers)
        if start >= end:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(blob)}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(blob)}"
        return await self._send(request, 206, blob[start:end], headers)

    async def _send(
        self, request: web.Request, status: int, body: bytes, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = len(body)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # who asked has gone
            if request.method != "HEAD":
                for position in range(0, len(body), _PIECE):
                    await self._pace(min(_PIECE, len(body) - position))
                    await response.write(body[position : position + _PIECE])
            await response.write_eof()
        return response

    async def _pace(self, size: int) -> None:
        """Wait until ``size`` more bytes may go out; all connections share one rate."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        at = max(now, self._next_piece_at)
        self._next_piece_at = at + size / self._rate
        await asyncio.sleep(at - now)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)
