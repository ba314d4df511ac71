"""Which certificates a registry is trusted by and shown, as files: what ``certs.d`` and ``hosts.toml`` come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """``authorities`` are trusted beside the system's; ``clients`` are certificates with their keys, all PEM."""

    authorities: tuple[Path, ...] = ()
    clients: tuple[tuple[Path, Path], ...] = ()
