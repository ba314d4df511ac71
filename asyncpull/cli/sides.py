"""The two sides of a copy: options that begin with ``--src-`` and ``--dest-``, and the access that they describe.

Where a side says nothing of its own, the global options hold for it. A verb that has one place only has the options
without a beginning, and of those that are global nothing besides. How often is retried is said once, for both sides.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from asyncpull.cli.opening import registry_access, store_config, wanted_retry
from asyncpull.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncpull.access import Access
    from asyncpull.cli.settings import Settings
    from asyncpull.registry.credentials import Credentials

    Decorated = TypeVar("Decorated", bound=Callable[..., object])

SOURCE: Final = "src"
DESTINATION: Final = "dest"
ONLY: Final = ""

_DIRECTORY = click.Path(file_okay=False)
_FILE = click.Path(dir_okay=False)


def side_options(side: str) -> Callable[[Decorated], Decorated]:
    """Give a verb the options of one side, ``src`` or ``dest``; their values arrive as ``src_…`` and ``dest_…``."""
    prefix = _prefix(side)
    own = (
        click.option(
            f"{prefix}tls-verify",
            metavar="[=true|false]",
            type=click.BOOL,
            help="Whether the registry or daemon must have a valid certificate.",
        ),
        click.option(f"{prefix}authfile", metavar="FILE", type=_FILE, help="Credentials, as podman login writes them."),
        click.option(f"{prefix}cert-dir", metavar="DIR", type=_DIRECTORY, help="*.crt, *.cert and *.key files."),
    )
    options = (
        *(own if side else ()),
        click.option(f"{prefix}creds", metavar="USER[:PASSWORD]", help="Credentials for the registry."),
        click.option(f"{prefix}username", metavar="USER", help="User name for the registry."),
        click.option(f"{prefix}password", metavar="PASSWORD", help="Password for the registry."),
        click.option(f"{prefix}no-creds", is_flag=True, help="Without credentials."),
        click.option(f"{prefix}registry-token", metavar="TOKEN", help="A bearer token for the registry."),
        click.option(f"{prefix}daemon-host", metavar="URL", help="Where the docker daemon is (docker-daemon:)."),
        click.option(
            f"{prefix}shared-blob-dir", metavar="DIR", type=_DIRECTORY, help="Where layouts have their blobs (oci:)."
        ),
    )

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def side_access(side: str, values: Mapping[str, object], settings: Settings) -> Access:
    """How the ``side`` is reached whose options have these ``values``. Raises UsageError."""
    from asyncpull.access import Access

    def name_of(option: str) -> str:
        return f"{side}_{option}" if side else option

    def text(name: str) -> str | None:
        value = values.get(name_of(name))
        return value if isinstance(value, str) else None

    def path(name: str) -> Path | None:
        value = text(name)
        return None if value is None else Path(value)

    own, times, delay = values.get(name_of("tls_verify")), values.get("retry_times"), values.get("retry_delay")
    registry = registry_access(settings)
    registry = replace(
        registry,
        tls_verify=own if isinstance(own, bool) else registry.tls_verify,
        authfile=path("authfile") or registry.authfile,
        cert_dir=path("cert_dir") or registry.cert_dir,
        credentials=_credentials(side, text("creds"), text("username"), text("password")),
        token=text("registry_token"),
        is_anonymous=values.get(name_of("no_creds")) is True,
    )
    if registry.is_anonymous and (registry.credentials or registry.token):
        raise UsageError(f"{_prefix(side)}no-creds excludes other options that name credentials")
    return Access(
        registry=registry,
        retry=wanted_retry(times if isinstance(times, int) else None, delay if isinstance(delay, float) else None),
        daemon_host=text("daemon_host"),
        shared_blobs=path("shared_blob_dir"),
        store=store_config(settings),
    )


def _prefix(side: str) -> str:
    return f"--{side}-" if side else "--"


def _credentials(side: str, both: str | None, username: str | None, password: str | None) -> Credentials | None:
    from asyncpull.registry.credentials import Credentials

    if both is not None:
        if username is not None or password is not None:
            raise UsageError(f"{_prefix(side)}creds excludes {_prefix(side)}username and {_prefix(side)}password")
        username, colon, password = both.partition(":")
        if not colon:
            password = click.prompt("Password", hide_input=True, err=True)
    if username is None and password is None:
        return None
    if not username or password is None:
        raise UsageError(f"{_prefix(side)}username and {_prefix(side)}password belong together")
    return Credentials(username, password)
