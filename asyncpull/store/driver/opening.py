"""The driver that a store's configuration names, over the store's places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError
from asyncpull.store.driver.btrfs import BtrfsDriver
from asyncpull.store.driver.choice import unknown_driver
from asyncpull.store.driver.overlay import OverlayDriver
from asyncpull.store.driver.vfs import VfsDriver

if TYPE_CHECKING:
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.driver import Driver


def open_driver(config: StoreConfig) -> Driver:
    """The driver that ``config`` names; nothing on disk is touched. Raises ConfigurationError if there is none such."""
    if config.driver != "overlay" and config.mount_options:
        raise ConfigurationError(
            f"mountopt = {','.join(config.mount_options)}: the driver {config.driver} mounts nothing",
            "leave the option out, or choose the driver overlay",
        )
    match config.driver:
        case "overlay":
            return OverlayDriver(
                config.graph_root,
                config.mount_options,
                rootless=config.rootless,
                run_root=config.run_root,
                image_root=config.image_root,
                additional_roots=config.additional_roots,
                is_read_only=config.is_read_only,
                mount_program=config.mount_program,
            )
        case "vfs":
            return VfsDriver(
                config.graph_root,
                image_root=config.image_root,
                additional_roots=config.additional_roots,
                is_read_only=config.is_read_only,
            )
        case "btrfs":
            if config.image_root or config.additional_roots:
                raise ConfigurationError(
                    "the driver btrfs makes layers as snapshots, which cannot be of trees in other stores",
                    "leave imagestore and additionalimagestores out, or choose another driver",
                )
            return BtrfsDriver(config.graph_root, is_read_only=config.is_read_only)
    raise unknown_driver(config.driver, config.reason)
