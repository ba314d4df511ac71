"""``short-name-aliases.conf``: which registry somebody chose for a short name, recorded by podman, by Buildah and here.

What is recorded wins over the aliases of ``registries.conf``. The file is written as a whole and renamed into place;
podman writes over it, so everybody reads and writes under the lock beside it (``….lock``).
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError, StoreError, StoreWriteError
from asyncpull.lockfile import LockMode, locked
from asyncpull.registry.shortnames import Alias, parse_aliases
from asyncpull.registry.toml import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpull.spec.reference import Reference

_FILE_LIMIT = 4 << 20
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def alias_file(environ: Mapping[str, str], uid: int) -> Path | None:
    """Where the choices of the user ``uid`` are recorded; None for who has no place for it."""
    if uid == 0:
        return Path("/var/cache/containers/short-name-aliases.conf")
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]) / "containers/short-name-aliases.conf"
    return Path(environ["HOME"]) / ".cache/containers/short-name-aliases.conf" if environ.get("HOME") else None


async def read_recorded(path: Path) -> dict[str, Alias]:
    """What ``path`` records, nothing if it is not there. Raises ConfigurationError that names file and key."""
    if not os.path.exists(path):
        return {}
    try:
        async with locked(_lock(path), LockMode.SHARED):
            return parse_aliases(_table(path))
    except StoreError:
        # Somebody else's file, in a directory that we may not write to.
        return parse_aliases(_table(path))


async def record_alias(path: Path, short_name: str, repository: Reference) -> None:
    """Record at ``path`` that ``short_name`` means ``repository``; everything else that it records stays.

    Missing directories are made, for their owner only. Raises ConfigurationError for a file that cannot be read,
    StoreWriteError for one that cannot be written.
    """
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        async with locked(_lock(path), LockMode.EXCLUSIVE):
            recorded = parse_aliases(_table(path))
            values = {name: "" if each.repository is None else each.repository.name for name, each in recorded.items()}
            _write(path, {**values, short_name: repository.name})
    except OSError as error:
        raise StoreWriteError(f"cannot be written: {error.strerror}", str(path)) from error


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _table(path: Path) -> Table | None:
    try:
        with path.open("rb") as file:
            return Table.from_bytes(path, file.read(_FILE_LIMIT)).table("aliases")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def _write(path: Path, values: Mapping[str, str]) -> None:
    """Replace ``path``; its mode stays, and a new file is its owner's alone, as podman makes it."""
    lines = (
        f"  {name if _BARE_KEY.fullmatch(name) else json.dumps(name)} = {json.dumps(values[name])}\n"
        for name in sorted(values)
    )
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write("[aliases]\n" + "".join(lines))
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
