"""Registries that are pushed to: one that stands for a directory, and clients that trust it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.destination.registry import RegistryDestination
from asyncpull.http import HttpTimeouts
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.reference import Reference, parse_reference
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HASTY = RetryPolicy(attempts=4, first_seconds=0.0)

# What is in the registry of a directory, and how many use it now.
_registries: dict[Path, tuple[RegistrySimulator, int]] = {}


def client_of(
    home: Path, *, access: RegistryAccess | None = None, timeouts: HttpTimeouts | None = None
) -> RegistryClient:
    """A client that trusts everybody, and knows no credentials but those below ``home``."""
    return RegistryClient(
        access or RegistryAccess(tls_verify=False),
        timeouts=timeouts or HttpTimeouts(connect=5, headers=5, idle=5, verdict=5),
        retry=HASTY,
        environ={"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")},
    )


@asynccontextmanager
async def registry_of(directory: Path) -> AsyncIterator[RegistrySimulator]:
    """The registry of a directory. It runs while somebody is here, and holds for ever what was pushed."""
    registry, users = _registries.get(directory, (RegistrySimulator(), 0))
    if users == 0:
        await registry.__aenter__()
    _registries[directory] = registry, users + 1
    try:
        yield registry
    finally:
        _, users = _registries[directory]
        _registries[directory] = registry, users - 1
        if users == 1:
            await registry.__aexit__(None, None, None)


def in_registry(registry: RegistrySimulator) -> Reference:
    """The reference that tests push to."""
    return parse_reference(f"{registry.address}/a/b:t")


@asynccontextmanager
async def pushing(directory: Path) -> AsyncIterator[RegistryDestination]:
    """A destination in the registry of ``directory``."""
    async with (
        registry_of(directory) as registry,
        client_of(directory) as client,
        RegistryDestination(client, in_registry(registry)) as destination,
    ):
        yield destination


@asynccontextmanager
async def pulling(directory: Path) -> AsyncIterator[RegistrySource]:
    """A source of the same name."""
    async with registry_of(directory) as registry, client_of(directory) as client:
        yield RegistrySource(client, in_registry(registry))
