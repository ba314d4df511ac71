"""Options of drivers, as text: from ``storage.conf``, from ``STORAGE_OPTS``, from the command line.

What containers-storage knows and we cannot do right is refused here, by name and with a way out; what only others
mind is told of in the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError
from asyncpull.log import Log
from asyncpull.store.storageconf import table_in, texts_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpull.store.storageconf import Table

_log = Log(__name__)

_REFUSED = {
    "force_mask": "files would get other modes than their archive says, which only a mount program can undo",
    "use_composefs": "layers would be kept in a form that cannot be read yet",
}
_BOOLEANS = {"ignore_chown_errors", "skip_mount_home", "use_composefs", "disable-volatile"}
_WAY_OUT = "leave it out, or choose another store with --root"
_TRUE, _FALSE = {"1", "t", "true"}, {"", "0", "f", "false"}
_STORES = ("imagestore", "additionalimagestore")
_KNOWN = {
    *(*_BOOLEANS, *_STORES, "additionallayerstore", "override_kernel_check"),
    *("mountopt", "mount_program", "force_mask", "size", "inodes", "sync", "min_space"),
}
_DRIVERS = {"overlay", "overlay2", "vfs", "btrfs", "zfs", "aufs"}
# Pulls are whole and verified, and nothing is converted: what these ask for beyond that is not done.
_PULL_OPTIONS = ("enable_partial_images", "convert_images", "use_hard_links")


def parse_options(texts: Sequence[str], driver: str) -> tuple[dict[str, str], list[str]]:
    """Options from ``KEY=VALUE`` or ``DRIVER.KEY=VALUE``, and the additional image stores among them, in their order.

    Those of other drivers than ``driver`` are left out. Raises ConfigurationError for a key that nobody knows.
    """
    options: dict[str, str] = {}
    stores: list[str] = []
    for text in filter(None, (text.strip() for text in texts)):
        key, equals, value = text.partition("=")
        before, _, name = key.rpartition(".")
        if not equals:
            raise ConfigurationError(f"the storage option {text!r} is not KEY=VALUE")
        if before in _DRIVERS and canonical(before) != driver:
            continue
        if before not in _DRIVERS | {"", "storage"} or name.lower() not in _KNOWN:
            raise ConfigurationError(f"the storage option {key!r} is not known", "see containers-storage.conf(5)")
        if name.lower() in _STORES:
            stores += filter(None, value.split(","))
        else:
            options[name.lower()] = value
    return options, stores


def file_options(storage: Table, driver: str) -> tuple[dict[str, str], list[str]]:
    """The same from the table ``[storage]`` of the files; options in the driver's own table win."""
    general = table_in(storage, "options")
    own = table_in(general, driver)
    options = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in {**general, **own}.items()
        if isinstance(value, str | int) and key in _KNOWN - set(_STORES)
    }
    for key in filter(table_in(general, "pull_options").get, _PULL_OPTIONS):
        if is_true("pull_options." + key, str(table_in(general, "pull_options")[key])):
            _log.info("an option of pulls is not needed here, and has no effect", option=key)
    if texts_in(general, "additionallayerstores"):
        _log.info("additional layer stores are not looked at")
    return options, texts_in(general, "additionalimagestores")


def check_options(options: Mapping[str, str]) -> None:
    """Refuse what cannot be done. Raises ConfigurationError."""
    for key in _BOOLEANS & options.keys():
        is_true(key, options[key])
    for key, why in _REFUSED.items():
        if options.get(key, "").lower() not in _FALSE:
            raise ConfigurationError(f"{key} = {options[key]}: {why}", _WAY_OUT)
    if options.get("sync", "filesystem") not in ("none", "filesystem"):
        raise ConfigurationError(f"sync = {options['sync']}: neither none nor filesystem")
    for key in ("size", "inodes"):
        if options.get(key):
            _log.warning("the room of containers is not limited by asyncpull", option=f"{key}={options[key]}")


def checked_stores(texts: Sequence[str], own: Sequence[Path | None]) -> tuple[Path, ...]:
    """The graph roots of additional image stores, without those that are our ``own``. Raises ConfigurationError."""
    roots = []
    for text in texts:
        path = Path(text)
        if not path.is_absolute() or not path.is_dir():
            raise ConfigurationError(
                f"the additional image store {text} is not the absolute path of a directory",
                "correct additionalimagestores in storage.conf, or the option imagestore",
            )
        roots.append(path.resolve())
    return tuple(root for root in dict.fromkeys(roots) if root not in own)


def canonical(driver: str) -> str:
    """The name of a driver, which may have two."""
    return "overlay" if driver == "overlay2" else driver


def is_true(key: str, text: str) -> bool:
    """A truth value as Go parses them. Raises ConfigurationError."""
    if text.lower() in _TRUE:
        return True
    if text.lower() not in _FALSE:
        raise ConfigurationError(f"{key} = {text}: neither true nor false")
    return False
