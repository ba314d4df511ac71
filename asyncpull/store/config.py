"""Where a store is and how it is used: ``storage.conf``, the environment, the command line.

Which files there are is told in ``storageconf``, which options in ``driveroptions``. What is given explicitly wins over
all of them, and a root or a driver given so makes configured driver options void, additional image stores among them,
as in podman.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, StoreWriteError
from asyncpull.store.driver.choice import choose_driver
from asyncpull.store.driveroptions import check_options, checked_stores, file_options, is_true, parse_options
from asyncpull.store.storageconf import Table, read_files, table_in, texts_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYSTEM_DIRECTORIES = (Path("/etc/containers"), Path("/usr/share/containers"))

# The kernel's ID map of a process that is in no user namespace.
_FULL_ID_MAP = ["0", "0", "4294967295"]


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
        return self._is_on("ignore_chown_errors")

    @property
    def skips_mount_home(self) -> bool:
        """Whether the driver's directory is left as it is, and not bound onto itself, while something is mounted."""
        return self._is_on("skip_mount_home")

    @property
    def disables_volatile(self) -> bool:
        """Whether volatile containers are mounted like others, so that what they write is synced."""
        return self._is_on("disable-volatile")

    def require_trees(self, uid: int | None = None) -> None:
        """Raise StoreWriteError if the user ``uid`` (default: who runs this) cannot work on the files of layers.

        In a rootless store they belong to users of a user namespace: outside of it their owners are other ones, and
        some can neither be given away nor deleted. Records can be read anywhere.
        """
        if self.rootless and (os.geteuid() if uid is None else uid) != 0 and not self.ignore_chown_errors:
            raise StoreWriteError(
                "the files of layers belong to a user namespace, and this process is outside of it",
                str(self.graph_root),
                "run it inside `asyncpull unshare`",
            )

    def _is_on(self, key: str) -> bool:
        return is_true(key, self.options.get(key, ""))


@dataclass(frozen=True, slots=True)
class StoreOverrides:
    """What the caller asks for explicitly; ``options`` are ``key=value`` or ``driver.key=value``; None: nothing."""

    graph_root: Path | None = None
    run_root: Path | None = None
    driver: str | None = None
    options: tuple[str, ...] = ()
    image_root: Path | None = None
    is_transient: bool | None = None


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
    storage = table_in(read_files(environ, user, system_directories, rootless=rootless), "storage")
    graph_root, run_root = _roots(storage, environ, user, rootless, overrides)
    image_root = _image_root(storage, environ, user, overrides, graph_root)
    driver, reason = _driver(storage, environ, overrides, graph_root)
    stores: list[str] = []
    if overrides.options:
        options, stores = parse_options(overrides.options, driver)
    elif "STORAGE_OPTS" in environ:
        options, stores = parse_options(environ["STORAGE_OPTS"].split(","), driver)
    elif overrides.graph_root or overrides.driver:
        options = {}
    else:
        options, stores = file_options(storage, driver)
    check_options(options)
    additional_roots = checked_stores(stores, (graph_root, image_root))
    if driver != "overlay" and (image_root or additional_roots):
        raise ConfigurationError(
            f"the driver {driver} keeps all images in one store", "leave out imagestore, or choose the driver overlay"
        )
    return StoreConfig(
        graph_root,
        run_root,
        driver,
        rootless,
        reason,
        options,
        image_root,
        additional_roots,
        _is_transient(storage, overrides),
        options.get("mount_program", "") if driver == "overlay" else "",
    )


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


# ----------------------------------------------------------------------------------------- roots and driver


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


def _image_root(
    storage: Table, environ: Mapping[str, str], user: int, overrides: StoreOverrides, graph_root: Path
) -> Path | None:
    text = str(storage.get("imagestore") or "")
    root = overrides.image_root or (_expanded(text, environ, user) if text else None)
    if root is None:
        return None
    if not root.is_absolute() and root != overrides.image_root:
        raise ConfigurationError(f"storage.conf: {root} is not an absolute path")
    root = root.resolve()
    if root == graph_root:
        raise ConfigurationError(
            f"{root} cannot be graph root and image store at once", "leave imagestore out, or name another directory"
        )
    return root


def _is_transient(storage: Table, overrides: StoreOverrides) -> bool:
    if overrides.is_transient is not None:
        return overrides.is_transient
    value = storage.get("transient_store", False)
    if not isinstance(value, bool):
        raise ConfigurationError("storage.conf: transient_store is neither true nor false")
    return value


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
    from tempfile import gettempdir  # which brings much along for the few who have neither of these directories

    return Path(environ.get("TMPDIR") or gettempdir()) / f"storage-run-{user}" / "containers"


def _expanded(text: str, environ: Mapping[str, str], user: int) -> Path:
    variables = {**environ, "UID": str(user)}
    return Path(re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], ""), text))


def _driver(storage: Table, environ: Mapping[str, str], overrides: StoreOverrides, graph_root: Path) -> tuple[str, str]:
    """The driver and why it is this one. Raises ConfigurationError for one that we have not."""
    configured, priority = storage.get("driver"), texts_in(storage, "driver_priority")
    if not isinstance(configured, str | None):
        raise ConfigurationError("storage.conf: driver is not a text")
    wanted = (
        (overrides.driver, "asked for"),
        (environ.get("STORAGE_DRIVER"), "STORAGE_DRIVER"),
        (configured, "storage.conf"),
    )
    has_mount_program = bool(file_options(storage, "overlay")[0].get("mount_program"))
    return choose_driver(graph_root, wanted, priority, has_mount_program=has_mount_program)
