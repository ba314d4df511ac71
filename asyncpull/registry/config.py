"""Which endpoints the requests for a repository go to, in which order, and how far each is trusted.

``Registries`` is everything that the configuration says, read once (``load_registries``) and never changed; what it
answers is computed without touching a file again.

An endpoint is tried by https. One that is marked insecure is asked without verifying its certificate, and by plain http
where https is not spoken at all, which is what containers/image does; so are all endpoints where ``tls_verify`` is
False, and none where it is True.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, PolicyError
from asyncpull.registry.aliasfile import alias_file, read_recorded
from asyncpull.registry.certificates import SYSTEM_DIRECTORIES, Certificates
from asyncpull.registry.credentials import AUTH_FILES
from asyncpull.registry.endpoint import Endpoint
from asyncpull.registry.hosts import HostsDirectory
from asyncpull.registry.registriesconf import Location, RegistriesConf
from asyncpull.registry.shortnames import Candidates, ShortNameMode, candidates
from asyncpull.tls import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncpull.registry.credentials import Credentials
    from asyncpull.registry.hosts import HostRule, HostsFile
    from asyncpull.registry.registriesconf import RegistryRule
    from asyncpull.registry.shortnames import Alias
    from asyncpull.spec.reference import Reference

# Where the registry of a domain really lives, if not at the domain.
_HOSTS = {"docker.io": "registry-1.docker.io"}

_SYSTEM = Path("/etc/containers")
_VENDOR = Path("/usr/share/containers")
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """What the caller says about registries.

    ``insecure`` holds domains as references spell them, with their port. The paths are what is read instead of the
    usual places: ``authfile`` holds credentials, ``cert_dir`` certificates as below ``certs.d`` but for every registry,
    ``registries_conf`` and ``registries_conf_dir`` are containers-registries.conf(5), and ``hosts_dir`` is
    containerd's directory of ``hosts.toml`` files, which is only read where it is given. ``credentials`` are for every
    registry that a reference names and for no mirror of it; so is ``token``, which is sent as it is and asked for
    nowhere. With ``is_anonymous`` nobody's credentials are sent anywhere.
    """

    tls_verify: bool | None = None
    insecure: frozenset[str] = frozenset()
    authfile: Path | None = None
    cert_dir: Path | None = None
    registries_conf: Path | None = None
    registries_conf_dir: Path | None = None
    hosts_dir: Path | None = None
    credentials: Credentials | None = None
    token: str | None = field(default=None, repr=False)
    is_anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Registries:
    """What the caller and all files say about registries.

    ``files`` are those that were read, in their order; ``hosts`` is None where nobody named a directory of them.
    ``recorded`` is what somebody chose for short names, and ``record_file`` where the next choice goes, if anywhere.
    """

    access: RegistryAccess = field(default_factory=RegistryAccess)
    conf: RegistriesConf = field(default_factory=RegistriesConf)
    certificates: Certificates = field(default_factory=Certificates)
    hosts: HostsDirectory | None = None
    recorded: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))
    record_file: Path | None = None
    files: tuple[Path, ...] = ()

    @property
    def credential_helpers(self) -> tuple[str, ...]:
        """Where credentials are looked for: names of helpers, and ``containers-auth.json`` for the files."""
        return self.conf.credential_helpers or (AUTH_FILES,)

    @property
    def short_name_mode(self) -> ShortNameMode:
        """What becomes of a short name that could mean several registries."""
        return self.conf.short_name_mode or ShortNameMode.PERMISSIVE

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where the requests for ``reference`` go, in the order to be tried.

        Those that do not resolve tags are only asked for what is verified by its digest. podman leaves mirrors for
        digests alone where the reference is a tag; here blobs may come from them. Raises PolicyError if the registry is
        blocked, ConfigurationError where the files cannot be followed.
        """
        rule = self.conf.rule_for(reference.name)
        if rule is not None and rule.blocked:
            raise _blocked(reference, (rule,))
        hosts = None if self.hosts is None else self.hosts.for_registry(reference.domain)
        if hosts is not None:
            said = rule is not None and rule.insecure
            return self._of_hosts(reference, hosts, registry_insecure=said)
        locations = (Location(reference),) if rule is None else rule.locations(reference)
        # A mirror, or the place that a registry really is at, may be blocked by a table of its own.
        rules = [self.conf.rule_for(location.repository.name) for location in locations]
        blocking = tuple(each for each in rules if each is not None and each.blocked)
        if len(blocking) == len(locations):
            raise _blocked(reference, blocking)
        return tuple(
            self._at(reference, location)
            for location, each in zip(locations, rules, strict=True)
            if each is None or not each.blocked
        )

    def itself(self, reference: Reference) -> Endpoint:
        """The registry that ``reference`` names, and no other place that stands for it. Raises PolicyError."""
        rule = self.conf.rule_for(reference.name)
        if rule is not None and rule.blocked:
            raise _blocked(reference, (rule,))
        return self._at(reference, Location(reference, rule is not None and rule.insecure, is_mirror=False))

    def home(self, reference: Reference) -> Endpoint:
        """Where the repository of ``reference`` is changed: at the registry itself, which has no other location then.

        Where hosts.toml has something for the registry, its server says how that is reached. Raises PolicyError if the
        registry is blocked, ConfigurationError where the files cannot be followed.
        """
        itself = self.itself(reference)
        hosts = None if self.hosts is None else self.hosts.for_registry(reference.domain)
        if hosts is None:
            return itself
        server = hosts.rules[-1]
        if server.scheme == "http" and self.access.tls_verify:
            raise ConfigurationError(f"{hosts.path}: the server of {reference.domain} is to be spoken to by plain http")
        return self._at_host(reference, server, registry_insecure=itself.insecure)

    def rule_of(self, reference: Reference) -> str:
        """What decides the endpoints of ``reference``, for people. Raises ConfigurationError."""
        hosts = None if self.hosts is None else self.hosts.for_registry(reference.domain)
        rule = self.conf.rule_for(reference.name)
        if hosts is not None and (rule is None or not rule.blocked):
            return str(hosts.path)
        return "none" if rule is None else f"[[registry]] {rule.prefix} of {rule.path}"

    def candidates(self, text: str) -> Candidates:
        """What ``text``, a reference or a short name, may mean. Raises InvalidReferenceError."""
        aliases = {**self.conf.aliases, **self.recorded}
        return candidates(text, aliases, self.conf.search, self.short_name_mode, self.conf.search_path)

    def _at(self, reference: Reference, location: Location) -> Endpoint:
        repository = location.repository
        is_elsewhere = location.is_mirror and repository.domain != reference.domain
        return Endpoint(
            host=_host_of(repository.domain),
            repository=repository.path,
            account=repository.name,
            is_mirror=location.is_mirror,
            insecure=self._is_insecure(repository.domain, said=location.insecure),
            namespace=reference.domain if is_elsewhere and repository.path == reference.path else None,
            resolves_tags=location.resolves_tags,
            is_named=repository.domain == reference.domain,
            tls=self.certificates.for_registry(repository.domain),
        )

    def _of_hosts(self, reference: Reference, hosts: HostsFile, *, registry_insecure: bool) -> tuple[Endpoint, ...]:
        endpoints = tuple(
            self._at_host(reference, rule, registry_insecure=registry_insecure)
            for rule in hosts.rules
            # Whoever wants valid certificates does not want plain http; a host may be there for pushing alone.
            if (rule.pulls or rule.resolves) and not (rule.scheme == "http" and self.access.tls_verify)
        )
        if not endpoints:
            raise ConfigurationError(f"{hosts.path}: no host is left to be asked for {reference}")
        return endpoints

    def _at_host(self, reference: Reference, rule: HostRule, *, registry_insecure: bool) -> Endpoint:
        host = _host_of(rule.host or reference.domain)
        is_registry = host == _host_of(reference.domain)
        domain = reference.domain if is_registry else host
        said = rule.skip_verify if rule.skip_verify is not None else is_registry and registry_insecure
        insecure = self._is_insecure(domain, said=said)
        # Where certificates do not count, https is worth a try at a host of http; a host of https stays one.
        scheme = None if not rule.scheme or (rule.scheme == "http" and rule.skip_verify) else rule.scheme
        return Endpoint(
            host=host,
            repository=reference.path,
            account=f"{domain}/{reference.path}",
            is_mirror=not is_registry,
            insecure=insecure,
            scheme=scheme,
            prefix=rule.path,
            namespace=None if is_registry else reference.domain,
            resolves_tags=rule.resolves,
            serves_blobs=rule.pulls,
            is_named=is_registry,
            tls=rule.tls if rule.tls != TlsFiles() else self.certificates.for_registry(domain),
            headers=rule.headers,
        )

    def _is_insecure(self, domain: str, *, said: bool) -> bool:
        if self.access.tls_verify is not None:
            return not self.access.tls_verify
        return said or domain in self.access.insecure


async def load_registries(access: RegistryAccess, environ: Mapping[str, str], uid: int) -> Registries:
    """Read everything that ``access`` names, or what is in the usual places of the user ``uid``.

    ``registries.conf`` is, in this order: ``access``'s, that of CONTAINERS_REGISTRIES_CONF or REGISTRIES_CONFIG_PATH,
    the user's, ``/etc/containers/registries.conf``, and what the distribution left in ``/usr/share/containers``. Files
    in ``registries.conf.d`` of the system and then of the user are merged into it, by their names; only the user's,
    where ``registries.conf`` is the user's too. What is wrong in there is raised as a ConfigurationError that names
    file and key; what is wrong with one registry in ``certs.d`` or ``hosts_dir``, once that is asked for.
    """
    record_file = alias_file(environ, uid)
    recorded = {} if record_file is None else await read_recorded(record_file)
    registries = await asyncio.to_thread(_load, access, environ)
    files = registries.files if record_file is None or not recorded else (*registries.files, record_file)
    return replace(registries, recorded=MappingProxyType(recorded), record_file=record_file, files=files)


def _load(access: RegistryAccess, environ: Mapping[str, str]) -> Registries:
    main, directories = _registries_conf_paths(access, environ)
    conf = RegistriesConf()
    files: list[Path] = []
    drop_ins = (path for directory in directories for path in _drop_ins(directory))
    for path, is_drop_in in ((main, False), *((path, True) for path in drop_ins)):
        raw = None if path is None else _read(path)
        if path is not None and raw is not None:
            conf = conf.updated(RegistriesConf.from_bytes(path, raw, is_drop_in=is_drop_in))
            files.append(path)
        elif path is not None and not is_drop_in:
            raise ConfigurationError(f"{path}: no such file with registries")
    usual = (*(home / "certs.d" for home in configuration_homes(environ)), *SYSTEM_DIRECTORIES)
    return Registries(
        access=access,
        conf=conf,
        certificates=Certificates.read(usual, access.cert_dir),
        hosts=None if access.hosts_dir is None else HostsDirectory.read(access.hosts_dir),
        files=tuple(files),
    )


def _registries_conf_paths(access: RegistryAccess, environ: Mapping[str, str]) -> tuple[Path | None, Sequence[Path]]:
    """The one file, None if there is none, and the directories of drop-ins, in order."""
    variable = environ.get("CONTAINERS_REGISTRIES_CONF", environ.get("REGISTRIES_CONFIG_PATH"))
    homes = configuration_homes(environ)
    main, directories = access.registries_conf or (Path(variable) if variable else None), (_SYSTEM, *reversed(homes))
    if main is None:
        usual = (home / "registries.conf" for home in (*homes, _SYSTEM, _VENDOR))
        main = next((path for path in usual if os.path.exists(path)), None)
        if main is not None and main.parent in homes:
            directories = tuple(reversed(homes))
    if access.registries_conf_dir is not None:
        return main, (access.registries_conf_dir,)
    return main, tuple(directory / "registries.conf.d" for directory in directories)


def configuration_homes(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The user's directories for what ``/etc/containers`` holds for the system, the more important first.

    podman 5 knows ``~/.config`` alone, podman 6 XDG_CONFIG_HOME in its place; both are looked into.
    """
    xdg, home = environ.get("XDG_CONFIG_HOME"), environ.get("HOME")
    homes = (*((Path(xdg),) if xdg else ()), *((Path(home, ".config"),) if home else ()))
    return tuple(dict.fromkeys(each / "containers" for each in homes))


def _drop_ins(directory: Path) -> Iterator[Path]:
    try:
        names = sorted(path for path in directory.iterdir() if path.name.endswith(".conf") and not path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return iter(())
    except OSError as error:
        raise ConfigurationError(f"{directory}: cannot be read: {error.strerror}") from error
    return iter(names)


def _read(path: Path) -> bytes | None:
    """The content of ``path``, None if there is no such file. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            return file.read(_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def _host_of(domain: str) -> str:
    return _HOSTS.get(domain, domain)


def _blocked(reference: Reference, rules: Sequence[RegistryRule]) -> PolicyError:
    reasons = tuple(f"registry {rule.prefix} is blocked by {rule.path}" for rule in rules)
    return PolicyError(
        str(reference), reasons, "blocked = true stands there; whoever administers this machine wants it"
    )
