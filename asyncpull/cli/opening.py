"""The settings turned into what the library wants: a store, access to registries, a platform, a place to look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli.formats import parse_size

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeVar

    from asyncpull.access import Access
    from asyncpull.cli.settings import Settings
    from asyncpull.limits import Limits
    from asyncpull.registry.config import RegistryAccess
    from asyncpull.spec.platform import Platform
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.store import Store
    from asyncpull.trust.policyfile import TrustOptions

    Decorated = TypeVar("Decorated", bound=Callable[..., object])


def store_config(settings: Settings) -> StoreConfig:
    """The store that options, environment and storage.conf name, in this order."""
    from asyncpull.store.config import StoreOverrides, load_config

    overrides = StoreOverrides(
        graph_root=None if settings.root is None else Path(settings.root),
        run_root=None if settings.run_root is None else Path(settings.run_root),
        driver=settings.storage_driver,
        options=settings.storage_options,
        image_root=None if settings.image_store is None else Path(settings.image_store),
        is_transient=settings.transient_store,
    )
    return load_config(overrides=overrides)


def open_store(settings: Settings) -> AbstractAsyncContextManager[Store]:
    """Open that store."""
    from asyncpull.store.store import Store

    return Store.open(store_config(settings))


def registry_access(settings: Settings) -> RegistryAccess:
    """How registries are asked. The environment names the file with credentials where no option does."""
    from asyncpull.registry.config import RegistryAccess

    return RegistryAccess(
        tls_verify=settings.tls_verify,
        authfile=_path(settings.auth_file),
        cert_dir=_path(settings.cert_dir),
        registries_conf=_path(settings.registries_conf),
        registries_conf_dir=_path(settings.registries_conf_dir),
        hosts_dir=_path(settings.hosts_dir),
    )


def trust_options(settings: Settings) -> TrustOptions:
    """Which policy decides about images."""
    from asyncpull.trust.policyfile import TrustOptions

    return TrustOptions(_path(settings.policy), settings.insecure_policy, _path(settings.registries_d))


def access_to(settings: Settings) -> Access:
    """How the place of any location is reached, by the global options alone."""
    from asyncpull.access import Access

    return Access(registry_access(settings), store=store_config(settings))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def run_with_store(settings: Settings, work: Callable[[Store], Awaitable[int]]) -> int:
    """Run ``work`` on the store and return its exit code."""
    from asyncpull.cli.running import run

    async def with_store() -> int:
        async with open_store(settings) as store:
            return await work(store)

    return run(settings, with_store)


_PLATFORM_OPTIONS = (
    click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="The instance to choose from an index."),
    click.option("--override-os", metavar="OS", help="The operating system, instead of this machine's."),
    click.option("--override-arch", metavar="ARCH", help="The architecture, instead of this machine's."),
    click.option("--override-variant", metavar="VARIANT", help="The variant, instead of this machine's."),
)


def platform_options(command: Decorated) -> Decorated:
    """Give a verb the options that choose a platform."""
    for option in reversed(_PLATFORM_OPTIONS):
        command = option(command)
    return command


_POLICY_OPTION = click.option(
    "--pull",
    "pull_policy",  # --policy is the file that says what is trusted
    type=click.Choice(["always", "missing", "newer", "never"]),
    default="always",
    help="When to ask the registry at all.",
)


def policy_option(command: Decorated) -> Decorated:
    """Give a verb the option that says when what the store has will do."""
    return _POLICY_OPTION(command)


_LIMIT_OPTIONS = (
    click.option("--max-parallel-downloads", metavar="N", type=click.IntRange(min=1), help="Blobs fetched at once."),
    click.option(
        "--bandwidth",
        metavar="RATE",
        callback=lambda _context, _parameter, text: None if text is None else parse_size(text),
        help="At most so many bytes a second, such as 50M or 10MiB, over all downloads.",
    ),
)


def limit_options(command: Decorated) -> Decorated:
    """Give a verb the options that bound its downloads."""
    for option in reversed(_LIMIT_OPTIONS):
        command = option(command)
    return command


def wanted_limits(max_parallel_downloads: int | None, bandwidth: int | None) -> Limits:
    """The limits that the options ask for."""
    from asyncpull.limits import Limits

    limits = Limits(bandwidth=bandwidth)
    return limits if max_parallel_downloads is None else replace(limits, max_parallel_downloads=max_parallel_downloads)


def wanted_platform(
    platform: str | None, override_os: str | None, override_arch: str | None, override_variant: str | None
) -> Platform | None:
    """The platform that the options ask for; None where they ask for nothing. Raises UsageError."""
    from asyncpull.spec.platform import host_platform, parse_platform

    if not any((platform, override_os, override_arch, override_variant)):
        return None
    wanted = parse_platform(platform) if platform else host_platform()
    if override_os or override_arch:
        wanted = parse_platform(f"{override_os or wanted.os}/{override_arch or wanted.architecture}")
    return replace(wanted, variant=override_variant) if override_variant else wanted
