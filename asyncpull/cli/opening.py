"""The settings turned into what the library wants: a store, access to registries, a platform, a place to look."""

from __future__ import annotations

import math
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli.formats import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import TypeVar

    from asyncpull.cli.settings import Settings
    from asyncpull.extract.pool import WorkerPool
    from asyncpull.limits import Limits
    from asyncpull.registry.config import RegistryAccess
    from asyncpull.retry import RetryPolicy
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.reference import Reference
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


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def run_with_store(settings: Settings, work: Callable[[Store], Awaitable[int]]) -> int:
    """Run ``work`` on the store and return its exit code."""
    from asyncpull.cli.running import run

    async def with_store() -> int:
        async with open_store(settings) as store:
            return await work(store)

    return run(settings, with_store)


@asynccontextmanager
async def workers_for(references: Iterable[str | Reference], store: Store, policy: str) -> AsyncIterator[WorkerPool]:
    """Workers for pulls of ``references``, of which one starts now if an image is missing.

    To be entered before the rest of a pull is imported: to start a worker is to start another Python, for which there
    is a core meanwhile.
    """
    from asyncpull.workers import prepare_for, workers_of

    async with workers_of(store) as workers:
        if policy != "never":
            await prepare_for(references, store, workers)
        yield workers


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


_CEILINGS = f"{__name__}.ceilings"


def _ceiling(measure: str, metavar: str, parse: Callable[[str], float], text: str) -> Callable[[Decorated], Decorated]:
    """The option for one of the ceilings of a layer, which ``wanted_limits`` finds in the context."""

    def note(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        try:
            ceiling = parse(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is no number") from error
        if not 0 <= ceiling < math.inf:
            raise click.BadParameter(f"{value!r} is no ceiling")
        context.meta.setdefault(_CEILINGS, {})[measure] = ceiling or None

    option = f"--max-layer-{measure}"
    return click.option(option, metavar=metavar, expose_value=False, callback=note, help=text)


def _size_or_none(text: str) -> int:
    return 0 if text == "0" else parse_size(text)


_LIMIT_OPTIONS = (
    click.option(
        "--max-parallel-downloads",
        "--image-parallel-copies",
        metavar="N",
        type=click.IntRange(min=1),
        help="Blobs fetched at once.",
    ),
    click.option(
        "--bandwidth",
        metavar="RATE",
        callback=lambda _context, _parameter, text: None if text is None else parse_size(text),
        help="At most so many bytes a second, such as 50M or 10MiB, over all downloads.",
    ),
    _ceiling("size", "SIZE", _size_or_none, "Refuse layers of more bytes when uncompressed, such as 2TiB (1TiB)."),
    _ceiling("ratio", "N", float, "Refuse layers, beyond 4 GiB, that become more than N times their blob (500)."),
    _ceiling("members", "N", int, "Refuse layers with more members (10000000)."),
    _ceiling("seconds", "N", float, "Refuse layers that take more processor time (3600); 0 is no ceiling, as above."),
)


def limit_options(command: Decorated) -> Decorated:
    """Give a verb the options that bound its downloads and what layers become."""
    for option in reversed(_LIMIT_OPTIONS):
        command = option(command)
    return command


def wanted_limits(max_parallel_downloads: int | None, bandwidth: int | None) -> Limits:
    """The limits that the options ask for."""
    from asyncpull.layer.ceilings import USUAL
    from asyncpull.limits import Limits

    ceilings = replace(USUAL, **click.get_current_context().meta.get(_CEILINGS, {}))
    limits = Limits(bandwidth=bandwidth, ceilings=ceilings)
    return limits if max_parallel_downloads is None else replace(limits, max_parallel_downloads=max_parallel_downloads)


_RETRY_TIMES = click.option(
    "--retry-times",
    "--retry",
    metavar="N",
    type=click.IntRange(min=0),
    help="How often a failed request is repeated (4).",
)
_RETRY_DELAY = click.option(
    "--retry-delay",
    metavar="TIME",
    callback=lambda _context, _parameter, text: None if text is None else parse_duration(text),
    help="How long to wait before each time, such as 2s; else ever longer.",
)


def retry_options(command: Decorated) -> Decorated:
    """Give a verb the options that say how patient it is; their values arrive as ``retry_times``, ``retry_delay``."""
    return _RETRY_TIMES(_RETRY_DELAY(command))


def wanted_retry(times: int | None, delay: float | None) -> RetryPolicy:
    """The patience that the options ask for."""
    from asyncpull.retry import RetryPolicy

    policy = RetryPolicy(fixed_seconds=delay)
    return policy if times is None else replace(policy, attempts=times + 1)


_BLOB_INFO_OPTION = click.option(
    "--blob-info-cache",
    envvar="ASYNCPULL_BLOB_INFO_CACHE",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What is known about blobs; podman's, if not given.",
)


def blob_info_option(command: Decorated) -> Decorated:
    """Give a verb the option that says where it is remembered who has which blob."""
    return _BLOB_INFO_OPTION(command)


def wanted_blob_info(chosen: Path | None) -> Path | None:
    """The file that was chosen, or podman's; None where podman would have none."""
    from asyncpull.copying.blobinfo import cache_path
    from asyncpull.registry.credentials import user_id

    return chosen or cache_path(os.environ, user_id(os.environ))


def wanted_platform(values: Mapping[str, object]) -> Platform | None:
    """The platform that options with these ``values`` ask for; None where they ask for nothing. Raises UsageError."""
    from asyncpull.spec.platform import host_platform, parse_platform

    def text(name: str) -> str:
        return value if isinstance(value := values.get(name), str) else ""

    platform, variant = text("platform"), text("override_variant")
    system, architecture = text("override_os"), text("override_arch")
    if not any((platform, variant, system, architecture)):
        return None
    wanted = parse_platform(platform) if platform else host_platform()
    if system or architecture:
        wanted = parse_platform(f"{system or wanted.os}/{architecture or wanted.architecture}")
    return replace(wanted, variant=variant) if variant else wanted
