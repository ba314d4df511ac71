"""What is known about blobs beyond one copy: what is in them, how they are compressed, and which registry has them.

The file is the one of containers/image (podman, skopeo, buildah), read and written by all of us at the same time: it
has no version inside, an incompatible one would get another name, and every access is one exclusive transaction of
sqlite, as theirs are. Its tables, as far as they matter here::

    DigestUncompressedPairs   anyDigest           -> uncompressedDigest     what the tar stream in a blob is
    DigestCompressors         digest              -> compressor             gzip, zstd, uncompressed …
    KnownLocations            docker, domain, digest, domain/path -> time   a repository that had it lately

Only what was verified here may be recorded. All of it is a hint: who acts on it asks the registry, and what a layer is
made from is verified again. A cache that cannot be used is as good as an empty one; no copy fails because of it.

What is to be recorded is kept until the end and written in one transaction, so a copy costs one wait for the disk.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import InvalidDigestError
from asyncpull.layer.codec import Compression
from asyncpull.log import Log
from asyncpull.spec.digest import Digest
from asyncpull.waiting import finish

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

FILE: Final = "blob-info-cache-v1.sqlite"
_SYSTEM_DIRECTORY: Final = "/var/lib/containers/cache"
_TRANSPORT: Final = "docker"
_BUSY_SECONDS: Final = 5

# How many candidates are worth a question each; containers/image has the same numbers.
_CANDIDATES: Final = 5
_CANDIDATES_ANYWHERE: Final = 2

_COMPRESSORS: Final = {
    Compression.NONE: "uncompressed",
    Compression.GZIP: "gzip",
    Compression.ZSTD: "zstd",
    Compression.BZIP2: "bzip2",
    Compression.XZ: "Xz",
}
_COMPRESSIONS: Final = {name: compression for compression, name in _COMPRESSORS.items()}

# All of containers/image's, though not all are used here: it makes none if the last one is there.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS DigestUncompressedPairs(
    anyDigest TEXT PRIMARY KEY NOT NULL, uncompressedDigest TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS DigestUncompressedPairs_index_uncompressedDigest
    ON DigestUncompressedPairs(uncompressedDigest);
CREATE TABLE IF NOT EXISTS DigestCompressors(digest TEXT PRIMARY KEY NOT NULL, compressor TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS KnownLocations(
    transport TEXT NOT NULL, scope TEXT NOT NULL, digest TEXT NOT NULL, location TEXT NOT NULL,
    time TIMESTAMP NOT NULL, PRIMARY KEY (transport, scope, digest, location));
CREATE TABLE IF NOT EXISTS DigestTOCUncompressedPairs(
    tocDigest TEXT PRIMARY KEY NOT NULL, uncompressedDigest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS DigestSpecificVariantCompressors(
    digest TEXT PRIMARY KEY NOT NULL, specificVariantCompressor TEXT NOT NULL,
    specificVariantAnnotations BLOB NOT NULL);
"""

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A blob that could be used instead of another: the same one, or one with the same tar stream in it.

    ``repository`` (``domain/path``) had it lately; None if that is not known, and the destination may have it all the
    same. ``compression`` is None where it is not known.
    """

    digest: Digest
    compression: Compression | None
    repository: str | None


def cache_path(environ: Mapping[str, str], user_id: int) -> Path | None:
    """Where podman keeps the file; None where it would not know either."""
    if user_id == 0:
        return Path(_SYSTEM_DIRECTORY, FILE)
    data = environ.get("XDG_DATA_HOME") or (f"{environ['HOME']}/.local/share" if environ.get("HOME") else "")
    return Path(data, "containers", "cache", FILE) if data else None


class BlobInfoCache:
    """The cache in the file ``path``, or one that knows nothing where that is None; an async context manager.

    What is recorded is written when the body is left, however it is left. No method raises anything.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None
        # Statements by what they are about, so that the last one counts.
        self._pending: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._pending:
                await self._run(lambda connection: None, None)
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def record_contents(self, digest: Digest, diff_id: Digest, compression: Compression) -> None:
        """Take note of what was verified here to be in a blob, and how it is compressed."""
        self._pending["contents", str(digest)] = (
            "INSERT OR REPLACE INTO DigestUncompressedPairs(anyDigest, uncompressedDigest) VALUES (?, ?)",
            (str(digest), str(diff_id)),
        )
        self._pending["compression", str(digest)] = (
            "INSERT OR REPLACE INTO DigestCompressors(digest, compressor) VALUES (?, ?)",
            (str(digest), _COMPRESSORS[compression]),
        )

    def record_location(self, digest: Digest, repository: str) -> None:
        """Take note that a ``repository`` (``domain/path``) has a blob."""
        row = (_TRANSPORT, repository.partition("/")[0], str(digest), repository, datetime.now(UTC).isoformat(" "))
        self._pending["location", str(digest), repository] = (
            "INSERT OR REPLACE INTO KnownLocations(transport, scope, digest, location, time) VALUES (?, ?, ?, ?, ?)",
            row,
        )

    async def diff_id(self, digest: Digest) -> Digest | None:
        """What is in a blob: the digest of its tar stream, its own if it is one."""
        return await self._run(lambda connection: _diff_id(connection, digest), None)

    async def locations(self, digest: Digest, domain: str) -> tuple[str, ...]:
        """The repositories at a registry that had a blob, the latest first, as ``domain/path``."""
        nothing: list[tuple[str, datetime]] = []
        found = await self._run(lambda connection: _locations(connection, digest, domain), nothing)
        return tuple(location for location, _ in found[:_CANDIDATES])

    async def candidates(self, digest: Digest, domain: str) -> tuple[Candidate, ...]:
        """What could be used at a registry instead of a blob, the most likely first: itself, then others alike.

        Of others the compression is known always.
        """
        return await self._run(lambda connection: _candidates(connection, digest, domain), ())

    async def _run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """``work`` in a thread, with everything recorded so far written before; ``otherwise`` if that cannot be."""
        if self._path is None:
            return otherwise
        async with self._lock:
            job = asyncio.ensure_future(asyncio.to_thread(self._transact, self._path, work, otherwise))
            await finish(job)
            return job.result()

    def _transact(self, path: Path, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        import sqlite3  # most commands never ask

        pending = dict(self._pending)
        try:
            if self._connection is None:
                if not pending and not path.exists():
                    return otherwise
                self._connection = _open(path)
            with _transaction(self._connection):
                for sql, values in pending.values():
                    self._connection.execute(sql, values)
                result = work(self._connection)
        except (sqlite3.Error, OSError) as error:
            _log.debug("the blob info cache cannot be used", path=str(path), reason=str(error))
            return otherwise
        for key, statement in pending.items():
            if self._pending.get(key) is statement:
                del self._pending[key]
        return result


def _open(path: Path) -> sqlite3.Connection:
    import sqlite3

    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with _transaction(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """An exclusive one, so that two never have to wait for each other."""
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _diff_id(connection: sqlite3.Connection, digest: Digest) -> Digest | None:
    row = connection.execute(
        "SELECT uncompressedDigest FROM DigestUncompressedPairs WHERE anyDigest = ?", (str(digest),)
    ).fetchone()
    if row is not None:
        return _digest(row[0])
    is_one = connection.execute(
        "SELECT 1 FROM DigestUncompressedPairs WHERE uncompressedDigest = ?", (str(digest),)
    ).fetchone()
    return digest if is_one else None


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except InvalidDigestError:
        return None


def _locations(connection: sqlite3.Connection, digest: Digest, domain: str) -> list[tuple[str, datetime]]:
    rows = connection.execute(
        "SELECT location, time FROM KnownLocations WHERE transport = ? AND scope = ? AND digest = ?",
        (_TRANSPORT, domain, str(digest)),
    ).fetchall()
    found = [(location, _time(time)) for location, time in rows if location.startswith(f"{domain}/")]
    return sorted(found, key=lambda each: (each[1], each[0]), reverse=True)


def _candidates(connection: sqlite3.Connection, digest: Digest, domain: str) -> tuple[Candidate, ...]:
    diff_id = _diff_id(connection, digest)
    rows = connection.execute(
        "SELECT anyDigest FROM DigestUncompressedPairs WHERE uncompressedDigest = ?", (str(diff_id),)
    ).fetchall()
    others = [other for other in (_digest(row[0]) for row in rows) if other not in (None, digest, diff_id)]
    itself = _of(connection, digest, domain)
    alike = [each for other in others if other for each in _of(connection, other, domain)]
    alike.sort(key=lambda each: each[0], reverse=True)
    plain = _of(connection, diff_id, domain) if diff_id not in (None, digest) and diff_id else []
    known = [candidate for _, candidate in (*alike, *plain) if candidate.compression is not None]
    ordered = [*(candidate for _, candidate in itself), *known]
    there = [each for each in ordered if each.repository is not None][:_CANDIDATES]
    anywhere = [each for each in ordered if each.repository is None]
    return (*there, *anywhere[: min(_CANDIDATES_ANYWHERE, _CANDIDATES - len(there))])


def _of(connection: sqlite3.Connection, digest: Digest, domain: str) -> list[tuple[datetime, Candidate]]:
    """A blob at each of its locations, or at none, the latest first."""
    row = connection.execute("SELECT compressor FROM DigestCompressors WHERE digest = ?", (str(digest),)).fetchone()
    compression = _COMPRESSIONS.get(row[0]) if row is not None else None
    known = [(time, Candidate(digest, compression, place)) for place, time in _locations(connection, digest, domain)]
    return known or [(datetime.min.replace(tzinfo=UTC), Candidate(digest, compression, None))]


def _time(text: object) -> datetime:
    """The time in a row, which Go writes with nine digits after the point."""
    try:
        head, _, rest = str(text).partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        zone = rest[len(digits) :] if digits else ""
        moment = datetime.fromisoformat(f"{head}.{digits[:6].ljust(6, '0')}{zone}" if digits else head)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
