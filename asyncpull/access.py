"""How the places are reached that locations name: what has to be known besides the location."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.registry.config import RegistryAccess

if TYPE_CHECKING:
    from asyncpull.retry import RetryPolicy
    from asyncpull.spec.location import StorageLocation
    from asyncpull.store.config import StoreConfig


@dataclass(frozen=True, slots=True)
class Access:
    """What one side of a copy needs.

    ``registry`` says how registries are trusted and where credentials are; its ``tls_verify`` and ``cert_dir`` are for
    a daemon too. ``retry`` says how patient to be with them. ``daemon_host`` is where a docker daemon is, ``unix:///PATH``
    or ``tcp://HOST:PORT``; None is what the environment says. ``shared_blobs`` is where image layouts have their blobs
    instead of in ``blobs``. ``store`` is the store that a location means which names none; None is that of the
    configuration files.
    """

    registry: RegistryAccess = field(default_factory=RegistryAccess)
    retry: RetryPolicy | None = None
    daemon_host: str | None = None
    shared_blobs: Path | None = None
    store: StoreConfig | None = None

    def store_at(self, location: StorageLocation) -> StoreConfig:
        """The store that ``location`` means. Raises ConfigurationError."""
        from asyncpull.store.config import StoreOverrides, load_config

        if not (location.graph_root or location.run_root or location.driver or location.options):
            return self.store or load_config()
        overrides = StoreOverrides(
            graph_root=Path(location.graph_root) if location.graph_root else None,
            run_root=Path(location.run_root) if location.run_root else None,
            driver=location.driver or None,
            options=location.options,
        )
        return load_config(overrides=overrides)
