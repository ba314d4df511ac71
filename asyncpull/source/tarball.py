"""Root file systems in tar files as a source: ``tarball:``, an image with a layer per file that is made here.

Config and manifest are those that skopeo makes, byte for byte where the time zone is UTC: the image is as old as the
youngest file, and for the platform that this runs on. A layer is the file as it is, read where it lies, unless it is
compressed by bzip2 or xz: image-spec has no media types for those, so they are uncompressed. What is no file, such as
stdin, is received into a scratch file.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, LayerError, NotFoundError
from asyncpull.layer.codec import Compression, Inflater, detect
from asyncpull.layer.header import BLOCK, parse_header
from asyncpull.memberindex import Reception, received
from asyncpull.scratch import open_scratch, write_scratch
from asyncpull.source.local import PIECE, FileRange, LocalSource, reading
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.platform import host_platform
from asyncpull.spec.source import SourceDocument
from asyncpull.waiting import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpull.spec.location import TarballLocation

STDIN: Final = "-"
_NS: Final = 1_000_000_000
_MEDIA_TYPES: Final = {
    Compression.NONE: mediatype.OCI_LAYER,
    Compression.GZIP: mediatype.OCI_LAYER_GZIP,
    Compression.ZSTD: mediatype.OCI_LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True)
class _Layer:
    """A file: as it is transferred, of what it is the compressed form, and when it was written, in ns since 1970."""

    fd: int
    size: int
    media_type: str
    digest: Digest
    diff_id: Digest
    written_ns: int


class TarballSource(LocalSource):
    """An image of tar files that stay open as long as this is used. Implements asyncpull.spec.source.Source."""

    def __init__(self, name: str, layers: Sequence[_Layer], scratch: int) -> None:
        """Make config and manifest, the former in the empty file ``scratch``; blocks."""
        self._name = name
        config = _config(layers)
        write_scratch(scratch, config)
        self._manifest = _manifest(config, layers)
        self._blobs = {layer.digest: (layer.fd, layer.size) for layer in layers}
        self._blobs[Digest.of(config)] = (scratch, len(config))

    @property
    def name(self) -> str:
        """The location, in full."""
        return self._name

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The manifest of the image; there is no other."""
        made = Digest.of(self._manifest)
        if digest not in (None, made):
            raise NotFoundError(f"{self._name}: has no manifest {digest}")
        return SourceDocument(self._manifest, mediatype.OCI_MANIFEST, made, is_made=True)

    def open_file(self, digest: Digest) -> FileRange:
        """Where the config or a layer is."""
        if digest not in self._blobs:
            raise NotFoundError(f"{self._name}: has no blob {digest}")
        fd, size = self._blobs[digest]
        with reading(self._name):
            return FileRange(os.dup(fd), 0, size, f"{self._name}: {digest}")


@asynccontextmanager
async def open_tarball(location: TarballLocation) -> AsyncIterator[TarballSource]:
    """The image of the files that ``location`` names, all read once before the body runs.

    Raises NotFoundError, SourceError, DocumentError for what is no tar, NoSpaceError, StoreWriteError.
    """
    async with AsyncExitStack() as opened:
        layers = []
        for path in location.paths:
            named = "/dev/stdin" if path == STDIN else path
            fd = await opened.enter_async_context(received(named, uncompress=False))
            stop = threading.Event()
            layer = await in_thread(lambda fd=fd, path=named, stop=stop: _read(path, fd, stop), stop.set)  # type: ignore[misc]
            if layer.fd != fd:
                opened.callback(os.close, layer.fd)
            layers.append(layer)
        scratch = open_scratch()
        opened.callback(os.close, scratch)
        yield await in_thread(lambda: TarballSource(str(location), layers, scratch))


def _read(path: str, fd: int, stop: threading.Event) -> _Layer:
    """Hash what is in ``fd``, as it is and uncompressed, until ``stop`` is set; blocks.

    Raises DocumentError, SourceError, NoSpaceError.
    """
    with reading(path):
        status = os.fstat(fd)
        compression = detect(os.pread(fd, 6, 0))
        has_own_time = stat.S_ISREG(status.st_mode) and status.st_nlink > 0
        written_ns = status.st_mtime_ns if has_own_time else time.time_ns()
        if compression not in _MEDIA_TYPES:
            with Reception(path) as reception:
                for at in range(0, status.st_size, PIECE):
                    reception.feed(os.pread(fd, PIECE, at))
                    if stop.is_set():
                        break
                else:
                    reception.close()
                diff_id, size = _hashed(path, reception.fd, stop)[1:]
                return _Layer(os.dup(reception.fd), size, mediatype.OCI_LAYER, diff_id, diff_id, written_ns)
        digest, diff_id, size = _hashed(path, fd, stop)
        return _Layer(fd, size, _MEDIA_TYPES[compression], digest, diff_id, written_ns)


def _hashed(path: str, fd: int, stop: threading.Event) -> tuple[Digest, Digest, int]:
    """Digest and diff ID of a file, and its size. Raises DocumentError, OSError."""
    raw, plain = Digest.of(b"").hasher(), Digest.of(b"").hasher()
    inflater, head, at = Inflater(), b"", 0
    try:
        while (data := os.pread(fd, PIECE, at)) and not stop.is_set():
            at += len(data)
            raw.update(data)
            for piece in inflater.feed(data):
                plain.update(piece)
                if len(head) < BLOCK:
                    head += piece[: BLOCK - len(head)]
        if not stop.is_set():
            inflater.close()
            if head.strip(b"\0"):
                parse_header(head.ljust(BLOCK, b"\0"), 0)
    except LayerError as error:
        raise DocumentError(f"{path}: is not a tar file: {error}") from error
    return Digest("sha256", raw.hexdigest()), Digest("sha256", plain.hexdigest()), at


def _config(layers: Sequence[_Layer]) -> bytes:
    platform = host_platform()
    return orjson.dumps(
        {
            "created": _time(max(layer.written_ns for layer in layers)),
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
            "history": [
                {
                    "created": _time(layer.written_ns),
                    "created_by": f"/bin/sh -c #(nop) ADD file:{layer.diff_id.encoded} in /",
                    "comment": "imported from tarball",
                }
                for layer in layers
            ],
        }
    )


def _manifest(config: bytes, layers: Sequence[_Layer]) -> bytes:
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {
                "mediaType": mediatype.OCI_CONFIG,
                "digest": str(Digest.of(config)),
                "size": len(config),
            },
            "layers": [
                {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size} for layer in layers
            ],
        }
    )


def _time(time_ns: int) -> str:
    """RFC 3339, with as many digits of the second as it takes."""
    seconds, fraction = divmod(time_ns, _NS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return whole + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"
