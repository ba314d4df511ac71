"""``storage.conf``: which files there are, what they say together, and which of their keys nobody knows.

The files are those of containers-storage 1.64 (format, section 11.1): the one that ``CONTAINERS_STORAGE_CONF`` names
and no other; else the first of the user's, ``/etc/containers`` and ``/usr/share/containers``, then drop-ins, then
``CONTAINERS_STORAGE_CONF_OVERRIDE``. No file at all is usual.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError
from asyncpull.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_log = Log(__name__)

Table = dict[str, object]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys by table. Those of older versions are among them, and of what concerns others than us.
_KNOWN: Mapping[str, frozenset[str]] = {
    "": frozenset({"storage"}),
    "storage": _words(
        "driver driver_priority runroot graphroot imagestore rootless_storage_path transient_store options"
    ),
    "storage.options": _words(
        "additionalimagestores additionallayerstores imagestore pull_options size inodes ignore_chown_errors"
        " force_mask use_composefs skip_mount_home mount_program mountopt sync disable-volatile remap-uids remap-gids"
        " remap-user remap-group root-auto-userns-user auto-userns-min-size auto-userns-max-size ostree_repos"
        " overlay btrfs vfs zfs aufs thinpool"
    ),
    "storage.options.overlay": _words(
        "ignore_chown_errors mountopt mount_program size inodes skip_mount_home use_composefs force_mask sync"
    ),
    "storage.options.vfs": frozenset({"ignore_chown_errors", "sync"}),
    "storage.options.btrfs": frozenset({"min_space", "size"}),
    "storage.options.zfs": frozenset({"fsname", "mountopt", "size"}),
    "storage.options.pull_options": _words(
        "enable_partial_images use_hard_links convert_images ostree_repos insecure_allow_unpredictable_image_contents"
    ),
}

_reported: set[tuple[str, tuple[str, ...]]] = set()


def read_files(environ: Mapping[str, str], user: int, system_directories: Sequence[Path], *, rootless: bool) -> Table:
    """What all files say together, later ones over earlier ones. Raises ConfigurationError.

    Keys that nobody knows are told of once for every file, and have no effect.
    """
    explicit = environ.get("CONTAINERS_STORAGE_CONF")
    merged: Table = {}
    if explicit:
        merged = _read(Path(explicit))
    else:
        directories = [*_user_directory(environ, rootless), *system_directories]
        main = next((path for path in (d / "storage.conf" for d in directories) if _is_there(path)), None)
        if main is not None:
            merged = _read(main)
        for path in _drop_ins(directories, user, rootless):
            merged = _merge(merged, _read(path))
    override = environ.get("CONTAINERS_STORAGE_CONF_OVERRIDE")
    return _merge(merged, _read(Path(override))) if override else merged


def table_in(table: Table, key: str) -> Table:
    """The table at ``key``, an empty one if there is none. Raises ConfigurationError."""
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"storage.conf: {key!r} is not a table")
    return value


def texts_in(table: Table, key: str) -> list[str]:
    """The list of texts at ``key``, an empty one if there is none. Raises ConfigurationError."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigurationError(f"storage.conf: {key!r} is not a list of texts")
    return [each for each in value if each]


def unknown_keys(table: Table, place: str = "") -> list[str]:
    """The keys of a parsed file that are in no version of its format, spelled out."""
    known = _KNOWN.get(place)
    if known is None:
        return []
    unknown = []
    for key, value in table.items():
        name = f"{place}.{key}" if place else key
        if key not in known:
            unknown.append(name)
        elif isinstance(value, dict):
            unknown += unknown_keys(value, name)
    return unknown


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # whether it is there, nobody tells us; to go on without it would be a guess
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _user_directory(environ: Mapping[str, str], rootless: bool) -> Iterator[Path]:
    if environ.get("XDG_CONFIG_HOME"):
        yield Path(environ["XDG_CONFIG_HOME"]) / "containers"
    elif rootless and environ.get("HOME"):
        yield Path(environ["HOME"]) / ".config/containers"


def _drop_ins(directories: Sequence[Path], user: int, rootless: bool) -> list[Path]:
    """All drop-ins by file name; of two with the same name the one in the more specific place."""
    names = ["storage.conf.d"]
    names += ["storage.rootless.conf.d", f"storage.rootless.conf.d/{user}"] if rootless else ["storage.rootful.conf.d"]
    found: dict[str, Path] = {}
    for directory in reversed(directories):
        for name in names:
            for path in sorted((directory / name).glob("*.conf")):
                found[path.name] = path
    return [found[name] for name in sorted(found)]


def _read(path: Path) -> Table:
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    unknown = tuple(unknown_keys(table))
    if unknown and (str(path), unknown) not in _reported:
        _reported.add((str(path), unknown))
        _log.warning("unknown keys have no effect", file=str(path), keys=", ".join(unknown))
    return table


def _merge(below: Table, above: Table) -> Table:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
