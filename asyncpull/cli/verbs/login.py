"""``asyncpull login`` and ``asyncpull logout``: credentials kept where podman keeps them, and forgotten."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.complaint import complain
from asyncpull.cli.opening import registry_access
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.errors import AuthenticationError, ConfigurationError, UsageError

if TYPE_CHECKING:
    from asyncpull.cli.settings import Settings
    from asyncpull.registry.client import RegistryClient
    from asyncpull.registry.credentials import Credentials
    from asyncpull.registry.logins import Logins

_PASSWORD_LIMIT = 64 << 10

_REGISTRY = click.argument("registry", required=False)
_COMPAT_AUTH_FILE = click.option(
    "--compat-auth-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Docker's config.json, written as Docker reads it, instead of an auth.json.",
)


@click.command("login")
@_REGISTRY
@click.option("-u", "--username", metavar="NAME", help="The user name at the registry.")
@click.option("-p", "--password", metavar="TEXT", help="The password; other users of this machine can see it.")
@click.option("--password-stdin", is_flag=True, help="Take the password from stdin.")
@click.option("--get-login", is_flag=True, help="Print the user name that is logged in.")
@click.option("-v", "--verbose", is_flag=True, help="Say where the login is kept.")
@_COMPAT_AUTH_FILE
@global_options
@click.pass_obj
def login(
    session: Session,
    /,
    registry: str | None,
    username: str | None,
    password: str | None,
    password_stdin: bool,
    get_login: bool,
    verbose: bool,
    compat_auth_file: str | None,
) -> int:
    """Log in to REGISTRY, or to a namespace or repository in it; without one, to the first that is searched.

    The registry is asked whether the credentials are good before they are kept. What is missing is asked for on a
    terminal.
    """
    settings = session.settings
    if password_stdin:
        if password is not None:
            raise UsageError("--password-stdin and --password are two passwords")
        if not username:
            raise UsageError("--password-stdin needs --username")
        password = _password_from_stdin()
    attempt = _Login(settings, registry, compat_auth_file, username or "", password or "", verbose)
    if get_login:
        return run(settings, attempt.show)
    code = run(settings, attempt.prepare)
    if code != exit_codes.DONE or attempt.is_done:
        return code
    attempt.ask()  # outside of the event loop: an interrupt ends the waiting for a person
    return run(settings, attempt.perform)


@click.command("logout")
@_REGISTRY
@click.option("-a", "--all", "every", is_flag=True, help="Forget all logins.")
@_COMPAT_AUTH_FILE
@global_options
@click.pass_obj
def logout(session: Session, /, registry: str | None, every: bool, compat_auth_file: str | None) -> int:
    """Forget the login to REGISTRY, or to a namespace or repository in it."""
    settings = session.settings
    if every and registry is not None:
        raise UsageError("--all takes no registry")
    for path in (settings.auth_file, compat_auth_file):
        if path is not None and not os.path.exists(path):
            raise ConfigurationError(f"{path}: no such file with credentials")

    async def work() -> int:
        async with _client(settings) as client:
            logins = await _logins(client, settings, compat_auth_file)
            if every:
                await logins.forget_all()
                _say(settings, "Removed login credentials for all registries")
                return exit_codes.DONE
            key = await _key(client, registry)
            if await logins.forget(key):
                _say(settings, f"Removed login credentials for {key}")
                return exit_codes.DONE
            return await _not_logged_in(client, logins, key, settings)

    return run(settings, work)


class _Login:
    """One login: what was given and found out so far."""

    def __init__(
        self,
        settings: Settings,
        registry: str | None,
        docker_file: str | None,
        username: str,
        password: str,
        verbose: bool,
    ) -> None:
        self._settings, self._registry, self._docker_file = settings, registry, docker_file
        self._username, self._password, self._verbose = username, password, verbose
        self._known = ""
        self.is_done = False

    async def show(self) -> int:
        """Print who is logged in."""
        async with _client(self._settings) as client:
            key, found = await self._existing(client)
        if found is None or not found.username:
            complain(f"not logged into {key}")
            return exit_codes.NOT_FOUND
        if self._settings.json:
            write_json({"registry": key, "username": found.username})
        else:
            write_lines([found.username])
        return exit_codes.DONE

    async def prepare(self) -> int:
        """Find out what is there already; where nothing else is given, that may be good enough."""
        async with _client(self._settings) as client:
            key, found = await self._existing(client)
            if found is None:
                return exit_codes.DONE
            if found.identity_token is not None:
                raise UsageError(f"the login to {key} is an identity token", "log out first, to replace it")
            self._known = found.username
            if not self._username and not self._password and found.username and found.password:
                _say(self._settings, f"Authenticating with existing credentials for {key}")
                try:
                    await client.check_login(_registry(key), found)
                except AuthenticationError:
                    _say(self._settings, "Existing credentials are invalid, please enter valid username and password")
                else:
                    _say(self._settings, f"Existing credentials are valid. Already logged in to {_registry(key)}")
                    self.is_done = True
        return exit_codes.DONE

    def ask(self) -> None:
        """Ask the person at the terminal for what was not given. Raises UsageError where there is none."""
        if self._username and self._password:
            return
        if not sys.stdin.isatty():
            raise UsageError(
                "no user name or no password is given, and there is no terminal to ask at",
                "give --username, and the password with --password-stdin",
            )
        if not self._username:
            text = f"Username ({self._known})" if self._known else "Username"
            asked: str = click.prompt(text, default=self._known or None, show_default=False, err=True)
            self._username = asked.strip()
        if not self._password:
            self._password = getpass.getpass("Password: ", sys.stderr)

    async def perform(self) -> int:
        """Have the registry check the credentials, and keep them."""
        from asyncpull.registry.credentials import Credentials

        async with _client(self._settings) as client:
            key = await _key(client, self._registry)
            logins = await _logins(client, self._settings, self._docker_file)
            try:
                await client.check_login(_registry(key), Credentials(self._username, self._password))
            except AuthenticationError as error:
                raise AuthenticationError(f'logging into "{key}": {error.message}', error.hint) from error
            where = await logins.keep(key, self._username, self._password)
        if self._settings.json:
            write_json({"registry": key, "username": self._username, "kept_in": where})
        if self._verbose:
            _say(self._settings, f"Used:  {where}")
        _say(self._settings, "Login Succeeded!")
        return exit_codes.DONE

    async def _existing(self, client: RegistryClient) -> tuple[str, Credentials | None]:
        key = await _key(client, self._registry)
        found = await (await _logins(client, self._settings, self._docker_file)).keyring.lookup(key)
        return key, None if found is None else found.credentials


async def _not_logged_in(client: RegistryClient, logins: Logins, key: str, settings: Settings) -> int:
    """Say that there was nothing to forget, or who else has it."""
    found = await logins.keyring.lookup(key)
    if found is not None and found.credentials.username and found.credentials.password:
        try:
            await client.check_login(_registry(key), found.credentials)
        except AuthenticationError:
            pass
        else:
            _say(
                settings,
                f"Not logged into {key} with current tool. Existing credentials were established via docker login."
                " Please use docker logout instead.",
            )
            return exit_codes.DONE
    complain(f"not logged into {key}")
    return exit_codes.NOT_FOUND


def _client(settings: Settings) -> RegistryClient:
    from asyncpull.registry.client import RegistryClient

    return RegistryClient(registry_access(settings))


async def _logins(client: RegistryClient, settings: Settings, docker_file: str | None) -> Logins:
    from asyncpull.registry.logins import Logins

    return Logins.choose(
        os.environ,
        None if settings.auth_file is None else Path(settings.auth_file),
        None if docker_file is None else Path(docker_file),
        (await client.registries()).credential_helpers,
    )


async def _key(client: RegistryClient, registry: str | None) -> str:
    from asyncpull.registry.logins import login_key

    if registry is not None:
        return login_key(registry)
    searched = (await client.registries()).conf.search
    if not searched:
        raise UsageError("no registry is given, and none is searched by registries.conf", "name the registry")
    return searched[0]


def _registry(key: str) -> str:
    return key.partition("/")[0]


def _password_from_stdin() -> str:
    """The password, its lines joined as podman joins them. Raises UsageError."""
    raw = sys.stdin.buffer.read(_PASSWORD_LIMIT + 1)
    if len(raw) > _PASSWORD_LIMIT:
        raise UsageError(f"the password on stdin has more than {_PASSWORD_LIMIT} bytes")
    try:
        return "".join(line.removesuffix("\r") for line in raw.decode().split("\n"))
    except UnicodeDecodeError:
        # Not as its cause, which has the password.
        raise UsageError("the password on stdin is not UTF-8") from None


def _say(settings: Settings, text: str) -> None:
    if not settings.json and not settings.quiet:
        write_lines([text])
