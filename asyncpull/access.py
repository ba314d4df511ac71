"""How the places are reached that locations name: what has to be known besides the location."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncpull.registry.config import RegistryAccess

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.retry import RetryPolicy
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
