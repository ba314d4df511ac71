"""Which member of a tar file lies where, so that an archive of an image is read without being unpacked.

What lies on a disk as a plain tar is read where it lies. What is compressed, or comes through a pipe, is first received
into a file without a name, which nobody else sees and no crash leaves behind.

Nothing here is ever made by the name of a member; names are only looked up. Still an archive is refused that could be
read in two ways or was made to hurt somebody who unpacks it:

- names that are absolute or lead out of the archive by ``..``; other names are compared as cleaned paths (``./a//b``);
- two members of one name, unless both are directories: some readers take the first, others the last;
- what is neither a file nor a directory; of links whoever opens the archive says whether they are known there;
- sparse files, whose bytes are not those that lie in the archive;
- more headers than ``MEMBERS``; a stream of more bytes than the limit.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import stat
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass
from asyncpull.errors import (
    DocumentError,
    DocumentTooLargeError,
    LayerError,
    MalformedLayerError,
    NotFoundError,
    SourceError,
)
from asyncpull.layer.codec import Inflater, detect
from asyncpull.layer.header import (
    BLOCK,
    DIRECTORY,
    GLOBAL_RECORDS,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    HARD_LINK,
    OLD_REGULAR,
    RECORDS,
    REGULAR,
    SYMLINK,
    Member,
    parse_header,
)
from asyncpull.layer.pax import apply_records, is_sparse, parse_records
from asyncpull.scratch import open_scratch, write_scratch
from asyncpull.waiting import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

MEMBERS: Final = 100_000
"""How many members an archive of images may have, extension headers counted."""

STREAM_LIMIT: Final = 1 << 40
"""How many bytes are received at most of an archive that does not lie on a disk as it is, in bytes."""

_PIECE: Final = 1 << 20
_EXTENSION_LIMIT: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the bytes of a member are: ``size`` of them, from ``offset`` on in the file of ``fd``."""

    fd: int
    offset: int
    size: int

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Up to ``length`` bytes of it, from its byte ``start`` on; blocks. Raises OSError."""
        left = max(self.size - start, 0)
        return os.pread(self.fd, left if length is None else min(length, left), self.offset + start)


@dataclass(frozen=True, slots=True)
class MemberIndex:
    """The members of the archive at ``path``, by cleaned name; good while it is open.

    ``links`` lead from names to names; whether there is a file at the end of one is seen when it is followed.
    """

    path: str
    files: Mapping[str, Extent]
    links: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name, or a link that leads to one."""
        return self._at(name) is not None

    def extent(self, name: str) -> Extent:
        """Where the file ``name`` lies. Raises DocumentError if there is none."""
        extent = self._at(name)
        if extent is None:
            raise DocumentError(f"{self.path}: the archive has no file {name!r}")
        return extent

    def document(self, name: str, limit: int) -> bytes:
        """A small file, whole; blocks.

        Raises DocumentError, SourceError, and DocumentTooLargeError where it is larger than ``limit`` bytes.
        """
        extent = self.extent(name)
        if extent.size > limit:
            raise DocumentTooLargeError(f"{self.path}: {name} has {extent.size} bytes, the limit is {limit}")
        with _reading(self.path):
            data = extent.read()
        if len(data) != extent.size:
            raise DocumentError(f"{self.path}: the archive ends in {name!r}")
        return data

    def _at(self, name: str) -> Extent | None:
        name = posixpath.normpath(name)
        # A link to a link may be one of a circle; nobody writes them.
        return self.files.get(self.links.get(name, name))


@asynccontextmanager
async def open_members(
    path: str, *, follow_links: bool = False, limit: int = STREAM_LIMIT
) -> AsyncIterator[MemberIndex]:
    """Open the tar file at ``path``, plain or compressed, on a disk or a pipe such as ``/dev/stdin``.

    An archive with links is refused unless ``follow_links``. At most ``limit`` bytes are received of what is not read
    where it lies. Raises NotFoundError where nothing is there, SourceError where it cannot be read, NoSpaceError, and
    DocumentError for what is no such archive; errors name the path.
    """
    async with received(path, limit=limit) as fd:
        yield await in_thread(lambda: index_members(path, fd, follow_links=follow_links))


@asynccontextmanager
async def received(path: str, *, limit: int = STREAM_LIMIT, uncompress: bool = True) -> AsyncIterator[int]:
    """A descriptor of the bytes at ``path``, which can be read anywhere and closes with the context.

    Raises as ``open_members``.
    """
    fd = await _in_daemon_thread(lambda stop: _receive(path, limit, stop, uncompress=uncompress))
    try:
        yield fd
    finally:
        os.close(fd)


def index_members(path: str, fd: int, *, follow_links: bool = False) -> MemberIndex:
    """Index the plain tar in ``fd``, which messages call ``path``; reads headers only, and blocks.

    Raises DocumentError, SourceError.
    """
    files: dict[str, Extent] = {}
    links: dict[str, str] = {}
    directories: set[str] = set()
    with _reading(path):
        try:
            size = os.fstat(fd).st_size
            for member in _walk(fd, size):
                name = _clean(path, member.name)
                if member.kind == DIRECTORY:
                    directories.add(name)
                    continue
                if name in files or name in links:
                    raise DocumentError(f"{path}: the archive has two members {name!r}")
                if member.kind == REGULAR:
                    files[name] = Extent(fd, member.position + BLOCK, member.size)
                elif member.kind in (SYMLINK, HARD_LINK) and follow_links:
                    links[name] = _target(path, name, member)
                else:
                    raise DocumentError(f"{path}: {name!r} is neither a file nor a directory", _UNPACKED)
        except LayerError as error:
            raise DocumentError(f"{path}: is not a tar archive of an image: {error}") from error
    both = sorted(directories & (files.keys() | links.keys()))
    if both:
        raise DocumentError(f"{path}: {both[0]!r} is a directory and something else in the archive")
    return MemberIndex(path, files, links)


_UNPACKED: Final = "an archive of an image holds files and directories only"


def _walk(fd: int, size: int) -> Iterator[Member]:
    """The members of a tar of ``size`` bytes, extension headers applied; contents are passed over.

    Raises LayerError, OSError.
    """
    at = headers = 0
    records: dict[bytes, bytes] = {}
    long_name = long_link = b""
    while at < size:
        block = os.pread(fd, BLOCK, at)
        if len(block) < BLOCK:
            raise MalformedLayerError("it ends in a header", None, at)
        if block == _ZEROS:
            return
        headers += 1
        if headers > MEMBERS:
            raise MalformedLayerError(f"it has more than {MEMBERS} members", None, at)
        member = parse_header(block, at)
        kind = member.kind
        if kind in (RECORDS, GLOBAL_RECORDS, GNU_LONG_NAME, GNU_LONG_LINK):
            if not 0 <= member.size <= _EXTENSION_LIMIT:
                raise MalformedLayerError("an extension header of a bad size", None, at)
            data = os.pread(fd, member.size, at + BLOCK)
            if kind == GNU_LONG_NAME:
                long_name = data.partition(b"\0")[0]
            elif kind == GNU_LONG_LINK:
                long_link = data.partition(b"\0")[0]
            elif kind == RECORDS:
                records = parse_records(data, at)
            else:  # a global header: means nothing, and what came before it is forgotten, as in layer.stream
                records, long_name, long_link = {}, b"", b""
            at += BLOCK + member.size + -member.size % BLOCK
            continue
        apply_records(member, records, at)
        member.name, member.link_name = long_name or member.name, long_link or member.link_name
        if is_sparse(records):
            raise MalformedLayerError("a sparse file", member.name, at)
        if kind == OLD_REGULAR:
            member.kind = DIRECTORY if member.name.endswith(b"/") else REGULAR
        if member.kind != REGULAR:
            member.size = 0
        if not 0 <= member.size <= size - at - BLOCK:
            raise MalformedLayerError("it ends in contents", member.name, at)
        yield member
        at += BLOCK + member.size + -member.size % BLOCK
        records, long_name, long_link = {}, b"", b""


def _clean(path: str, name: bytes) -> str:
    """The name of a member as it is looked up. Raises DocumentError."""
    text = name.decode(errors="backslashreplace")
    if not text or text.startswith("/") or ".." in text.split("/"):
        raise DocumentError(f"{path}: a member is called {text!r}, which leads out of the archive")
    return posixpath.normpath(text)


def _target(path: str, name: str, member: Member) -> str:
    """The name that a link leads to; a hard link's is a member's, a symbolic one's begins where the link lies."""
    text = member.link_name.decode(errors="backslashreplace")
    base = posixpath.dirname(name) if member.kind == SYMLINK else ""
    target = posixpath.normpath(posixpath.join(base, text))
    if not text or target == ".." or target.startswith(("/", "../")):
        raise DocumentError(f"{path}: the link {name!r} leads out of the archive, to {text!r}")
    return target


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Give errors of reading ``path`` their name and their kind."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


async def _in_daemon_thread(receive: Callable[[threading.Event], int]) -> int:
    """Have a daemon thread open a descriptor, which may take for ever where nobody writes into a pipe.

    Not a thread of an executor: a cancelled wait, or the end of the process, must not have to wait for it.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()
    opened: asyncio.Future[int] = loop.create_future()

    def deliver(fd: int, error: BaseException | None) -> None:
        if opened.done():  # whoever waited has gone
            if fd >= 0:
                os.close(fd)
        elif error is None:
            opened.set_result(fd)
        else:
            opened.set_exception(error)

    def run() -> None:
        fd, failure = -1, None
        try:
            fd = receive(stop)
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(deliver, fd, failure)
        except RuntimeError:  # the loop is closed
            if fd >= 0:
                os.close(fd)

    threading.Thread(target=run, name="archive", daemon=True).start()
    try:
        return await opened
    finally:
        stop.set()


def _receive(path: str, limit: int, stop: threading.Event, *, uncompress: bool) -> int:
    """Open ``path``; if it can be read as it is its own descriptor, else that of a file with what comes out of it."""
    with _reading(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kind = os.fstat(fd).st_mode
            if stat.S_ISDIR(kind):
                raise SourceError(f"{path}: is a directory, not an archive")
            if stat.S_ISREG(kind) and not (uncompress and detect(os.pread(fd, 6, 0))):
                return os.dup(fd)
            return _spooled(path, fd, limit, stop, uncompress=uncompress)
        finally:
            os.close(fd)


def _spooled(path: str, fd: int, limit: int, stop: threading.Event, *, uncompress: bool) -> int:
    """Receive what comes out of ``fd``, until ``stop`` is set. Raises as Reception, and OSError."""
    with Reception(path, limit, uncompress=uncompress) as reception:
        while (data := os.read(fd, _PIECE)) and not stop.is_set():
            reception.feed(data)
        if not stop.is_set():
            reception.close()
        return os.dup(reception.fd)


class Reception:
    """What ``path`` names while it is received into a scratch file, uncompressed if that is said; methods block.

    A context manager, with the end of which ``fd``, the file, is closed. More than ``limit`` bytes are refused.
    """

    def __init__(self, path: str, limit: int = STREAM_LIMIT, *, uncompress: bool = True) -> None:
        self.fd = open_scratch()
        self.size = 0
        self._path, self._limit = path, limit
        self._inflater = Inflater() if uncompress else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises DocumentError, DocumentTooLargeError, NoSpaceError, StoreWriteError."""
        try:
            for piece in (data,) if self._inflater is None else self._inflater.feed(data):
                self.size += len(piece)
                if self.size > self._limit:
                    raise DocumentTooLargeError(f"{self._path}: has more than {self._limit} bytes, which is the limit")
                write_scratch(self.fd, piece)
        except LayerError as error:
            raise DocumentError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """There are no more bytes. Raises DocumentError if that cannot be."""
        try:
            if self._inflater is not None:
                self._inflater.close()
        except LayerError as error:
            raise DocumentError(f"{self._path}: {error}") from error
