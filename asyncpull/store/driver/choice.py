"""Which driver a store is opened with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError
from asyncpull.store.driver.overlay import OverlayDriver

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.driver import Driver


def open_driver(config: StoreConfig) -> Driver:
    """The driver that ``config`` names; nothing on disk is touched. Raises ConfigurationError if there is none such."""
    if config.driver != "overlay":
        raise ConfigurationError(f"there is no driver {config.driver!r}")
    return OverlayDriver(config.graph_root, config.mount_options, rootless=config.rootless)
