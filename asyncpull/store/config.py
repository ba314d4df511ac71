"""Where a store is and how it is used: ``storage.conf``, the environment, the command line.

The files are those of containers-storage 1.64 (format, section 11.1): the one that ``CONTAINERS_STORAGE_CONF`` names
and no other; else the first of the user's, ``/etc/containers`` and ``/usr/share/containers``, then drop-ins, then
``CONTAINERS_STORAGE_CONF_OVERRIDE``. No file at all is usual. What is given explicitly wins over all of them, and a
root or a driver given so makes configured driver options void, as in podman.
"""

from __future__ import annotations

import os
import pwd
import re
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError
from asyncpull.log import Log
from asyncpull.store.driver.choice import choose_driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_log = Log(__name__)

SYSTEM_DIRECTORIES = (Path("/etc/containers"), Path("/usr/share/containers"))

# The kernel's ID map of a process that is in no user namespace.
_FULL_ID_MAP = ["0", "0", "4294967295"]

_LATER = "leave it out, or choose another store with --root"
_REFUSED_OPTIONS = {
    "mount_program": "stores that need a FUSE mount program cannot be used yet",
    "force_mask": "stores with force_mask cannot be used",
    "use_composefs": "stores with composefs cannot be used",
}
_OPTION_PREFIX = re.compile(r"(?:overlay2?|storage)\.")

Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """A store that can be opened: absolute roots, a driver we have, and its options as text, without prefix.

    ``reason`` says why this driver. ``rootless`` is whether root of the whole machine is somebody else. Images and
    their layers are kept below ``image_root`` where there is one, and looked for, read-only, in the graph roots
    ``additional_roots`` too. ``is_transient`` puts the records of containers into the run root. ``mount_program`` is
    the FUSE program that mounts, "" for the kernel.
    """

    graph_root: Path
    run_root: Path
    driver: str = "overlay"
    rootless: bool = False
    reason: str = "built in"
    options: Mapping[str, str] = field(default_factory=dict)
    image_root: Path | None = None
    additional_roots: tuple[Path, ...] = ()
    is_transient: bool = False
    mount_program: str = ""

    @property
    def mount_options(self) -> tuple[str, ...]:
        """The configured ``mountopt``, in the words of mount(8)."""
        return tuple(filter(None, self.options.get("mountopt", "").split(",")))

    @property
    def is_synced(self) -> bool:
        """Whether a commit survives a power cut: unless ``sync`` is ``none``."""
        return self.options.get("sync", "filesystem") != "none"

    @property
    def is_read_only(self) -> bool:
        """Whether the graph root is on a file system that nobody can write to."""
        try:
            return bool(os.statvfs(self.graph_root).f_flag & os.ST_RDONLY)
        except OSError:
            return False

    @property
    def ignore_chown_errors(self) -> bool:
        """Whether files may belong to somebody else than the archive says, where it cannot be helped."""
        return self.options.get("ignore_chown_errors", "").lower() in ("true", "1", "yes")


@dataclass(frozen=True, slots=True)
class StoreOverrides:
    """What the caller asks for explicitly; ``options`` are ``key=value`` or ``driver.key=value``."""

    graph_root: Path | None = None
    run_root: Path | None = None
    driver: str | None = None
    options: tuple[str, ...] = ()


def load_config(
    environ: Mapping[str, str] | None = None,
    uid: int | None = None,
    overrides: StoreOverrides | None = None,
    *,
    system_directories: Sequence[Path] = SYSTEM_DIRECTORIES,
) -> StoreConfig:
    """The configuration for the user ``uid`` (default: who runs this). Raises ConfigurationError.

    In a user namespace the real user is told by ``_CONTAINERS_ROOTLESS_UID``, as podman does it.
    """
    environ = os.environ if environ is None else environ
    overrides = overrides or StoreOverrides()
    rootless = _is_rootless(environ, uid)
    user = _real_uid(environ, uid)
    table = _merged_files(environ, user, rootless, system_directories)
    storage = _table(table, "storage")
    _refuse_split_stores(storage)
    graph_root, run_root = _roots(storage, environ, user, rootless, overrides)
    driver, reason = _driver(storage, environ, overrides, graph_root)
    if overrides.options:
        options = _parse_options(overrides.options)
    elif "STORAGE_OPTS" in environ:
        options = _parse_options(environ["STORAGE_OPTS"].split(","))
    elif overrides.graph_root or overrides.driver:
        options = {}
    else:
        options = _file_options(storage, driver)
    _refuse_options(options)
    return StoreConfig(graph_root, run_root, driver, rootless, reason, options)


# ----------------------------------------------------------------------------------------------- who we are


def _is_rootless(environ: Mapping[str, str], uid: int | None) -> bool:
    """As containers/storage decides: not root, or root of a user namespace only."""
    if (os.geteuid() if uid is None else uid) != 0 or environ.get("_CONTAINERS_USERNS_CONFIGURED"):
        return True
    try:
        return Path("/proc/self/uid_map").read_text().split() != _FULL_ID_MAP
    except OSError:
        return False


def _real_uid(environ: Mapping[str, str], uid: int | None) -> int:
    text = environ.get("_CONTAINERS_ROOTLESS_UID", "")
    if text.isdecimal():
        return int(text)
    return os.geteuid() if uid is None else uid


# ----------------------------------------------------------------------------------------------- the files


def _merged_files(environ: Mapping[str, str], user: int, rootless: bool, system_directories: Sequence[Path]) -> Table:
    explicit = environ.get("CONTAINERS_STORAGE_CONF")
    merged: Table = {}
    if explicit:
        merged = _read(Path(explicit))
    else:
        directories = [*_user_directory(environ, rootless), *system_directories]
        main = next((path for path in (d / "storage.conf" for d in directories) if path.is_file()), None)
        if main is not None:
            merged = _read(main)
        for path in _drop_ins(directories, user, rootless):
            merged = _merge(merged, _read(path))
    override = environ.get("CONTAINERS_STORAGE_CONF_OVERRIDE")
    return _merge(merged, _read(Path(override))) if override else merged


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
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _merge(below: Table, above: Table) -> Table:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _table(table: Table, key: str) -> Table:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"storage.conf: {key!r} is not a table")
    return value


# ----------------------------------------------------------------------------------------- roots and driver


def _refuse_split_stores(storage: Table) -> None:
    if storage.get("imagestore"):
        raise ConfigurationError("storage.conf: a separate imagestore cannot be used yet", "choose a store with --root")
    if storage.get("transient_store"):
        raise ConfigurationError("storage.conf: transient_store cannot be used yet", "set transient_store = false")
    if _table(storage, "options").get("additionalimagestores"):
        _log.info("additional image stores are not looked at yet")


def _roots(
    storage: Table, environ: Mapping[str, str], user: int, rootless: bool, overrides: StoreOverrides
) -> tuple[Path, Path]:
    default_graph, default_run = _default_roots(environ, user, rootless)
    graph_text = str(storage.get("graphroot") or "")
    if rootless and storage.get("rootless_storage_path"):
        graph_text = str(storage["rootless_storage_path"])
    run_text = str(storage.get("runroot") or "")
    graph = overrides.graph_root or (_expanded(graph_text, environ, user) if graph_text else default_graph)
    run = overrides.run_root or (_expanded(run_text, environ, user) if run_text else default_run)
    for path in (graph, run):
        if not path.is_absolute() and path not in (overrides.graph_root, overrides.run_root):
            raise ConfigurationError(f"storage.conf: {path} is not an absolute path")
    # As podman does: mount points are compared by their paths, which must not go through links.
    graph, run = graph.resolve(), run.resolve()
    if graph == run:
        raise ConfigurationError(
            f"{graph} cannot be graph root and run root at once", "give --runroot another directory"
        )
    return graph, run


def _default_roots(environ: Mapping[str, str], user: int, rootless: bool) -> tuple[Path, Path]:
    if not rootless or user == 0:
        return Path("/var/lib/containers/storage"), Path("/run/containers/storage")
    home = Path(environ.get("HOME") or pwd.getpwuid(user).pw_dir)
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    return data / "containers/storage", _run_directory(environ, user)


def _run_directory(environ: Mapping[str, str], user: int) -> Path:
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "containers"
    runtime = Path(f"/run/user/{user}")
    if os.access(runtime, os.W_OK):
        return runtime / "containers"
    return Path(environ.get("TMPDIR") or tempfile.gettempdir()) / f"storage-run-{user}" / "containers"


def _expanded(text: str, environ: Mapping[str, str], user: int) -> Path:
    variables = {**environ, "UID": str(user)}
    return Path(re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], ""), text))


def _driver(storage: Table, environ: Mapping[str, str], overrides: StoreOverrides, graph_root: Path) -> tuple[str, str]:
    """The driver and why it is this one. Raises ConfigurationError for one that we have not."""
    configured, priority = storage.get("driver"), storage.get("driver_priority") or []
    if not isinstance(configured, str | None) or not isinstance(priority, list):
        raise ConfigurationError("storage.conf: driver must be a text, driver_priority a list of texts")
    wanted = (
        (overrides.driver, "asked for"),
        (environ.get("STORAGE_DRIVER"), "STORAGE_DRIVER"),
        (configured, "storage.conf"),
    )
    has_mount_program = bool(_file_options(storage, "overlay").get("mount_program"))
    return choose_driver(graph_root, wanted, [str(name) for name in priority], has_mount_program=has_mount_program)


# ------------------------------------------------------------------------------------------------- options


def _parse_options(texts: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in filter(None, (text.strip() for text in texts)):
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"the storage option {text!r} is not KEY=VALUE")
        options[_OPTION_PREFIX.sub("", key)] = value
    return options


def _file_options(storage: Table, driver: str) -> dict[str, str]:
    """Options of the file as text; those of the driver's own table win."""
    general = _table(storage, "options")
    own = _table(general, driver)
    merged = {**general, **own}
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in merged.items()
        if isinstance(value, str | int)
    }


def _refuse_options(options: Mapping[str, str]) -> None:
    for key, why in _REFUSED_OPTIONS.items():
        if options.get(key, "").lower() not in ("", "false", "0"):
            raise ConfigurationError(f"{key} = {options[key]}: {why}", _LATER)
    if options.get("imagestore"):
        _log.info("additional image stores are not looked at yet")
    if options.get("sync", "filesystem") not in ("none", "filesystem"):
        raise ConfigurationError(f"sync = {options['sync']}: neither none nor filesystem")
