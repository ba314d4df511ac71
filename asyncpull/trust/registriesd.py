"""``registries.d``: where the signatures of a registry's images are (containers-registries.d(5)).

All ``*.yaml`` files of one directory are one configuration, in which no scope may be there twice. For each value the
most specific scope counts that has it, as in containers/image; the manual says that only one scope counts at all. Keys
that are not known are warned of: what they would have said is missing then, and nothing is accepted for that.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError
from asyncpull.log import Log
from asyncpull.registry.config import configuration_homes
from asyncpull.yamlfile import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.reference import Reference
    from asyncpull.trust.policyfile import TrustOptions
    from asyncpull.trust.scopes import ImageScopes

_SYSTEM = Path("/etc/containers/registries.d")
_VENDOR = Path("/usr/share/containers/registries.d")
_SYSTEM_STORE = "file:///var/lib/containers/sigstore"
_USER_STORE = ".local/share/containers/sigstore"
_FILE_LIMIT = 4 << 20
_TEXTS = ("lookaside", "lookaside-staging", "sigstore", "sigstore-staging")
_ATTACHMENTS = "use-sigstore-attachments"

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Section:
    """What is said of one scope; URLs are empty and ``attachments`` is None where nothing is."""

    lookaside: str = ""
    staging: str = ""
    attachments: bool | None = None


@dataclass(frozen=True, slots=True)
class RegistriesDirectory:
    """What ``registries.d`` says. ``builtin`` is the URL of the lookaside store where it says nothing."""

    builtin: str
    default: Section = field(default_factory=Section)
    scopes: Mapping[str, Section] = field(default_factory=lambda: MappingProxyType({}))

    def lookaside(self, image: ImageScopes) -> str:
        """The URL below which signatures of ``image`` are read."""
        return next((each.lookaside for each in self._sections(image) if each.lookaside), self.builtin)

    def staging(self, image: ImageScopes) -> str:
        """The URL below which signatures of ``image`` are written."""
        found = (each.staging or each.lookaside for each in self._sections(image))
        return next((url for url in found if url), self.builtin)

    def uses_attachments(self, image: ImageScopes) -> bool:
        """Whether signatures of sigstore are looked for beside ``image``, and written there."""
        found = (each.attachments for each in self._sections(image))
        return next((value for value in found if value is not None), False)

    def has_signatures(self, image: ImageScopes) -> bool:
        """Whether it says where signatures of ``image`` are read; the store that is built in is said of none."""
        return self.uses_attachments(image) or any(each.lookaside for each in self._sections(image))

    def _sections(self, image: ImageScopes) -> Iterator[Section]:
        yield from (self.scopes[scope] for scope in image.scopes if scope in self.scopes)
        yield self.default


def signature_url(base: str, repository: Reference, manifest: Digest, number: int) -> str:
    """The URL of signature ``number``, from 1, of a manifest of ``repository`` in the store at ``base``."""
    parts = urlsplit(base)
    path = f"{parts.path}/{repository.path}@{manifest.algorithm}={manifest.encoded}/signature-{number}"
    return urlunsplit(parts._replace(path=path))


def signature_directory(base: str, repository: Reference, manifest: Digest) -> Path:
    """Where those files are if ``base`` is the URL of a store of files."""
    return Path(unquote(urlsplit(signature_url(base, repository, manifest, 1)).path)).parent


def load_registries_directory(options: TrustOptions, environ: Mapping[str, str], uid: int) -> RegistriesDirectory:
    """Read the directory that counts. Raises ConfigurationError, which names the file and the key.

    That is the caller's, or the first that exists: the user's, the system's, that of the distribution.
    """
    home = environ.get("HOME", "")
    builtin = _SYSTEM_STORE if uid == 0 or not home else (Path(home) / _USER_STORE).as_uri()
    usual = (*(each / "registries.d" for each in configuration_homes(environ)), _SYSTEM, _VENDOR)
    directory = options.registries_dir or next((path for path in usual if path.exists()), None)
    default: tuple[Path, Section] | None = None
    scopes: dict[str, tuple[Path, Section]] = {}
    for path in () if directory is None else _files(directory):
        for scope, section in _read(path):
            before = default if scope is None else scopes.get(scope)
            if before is not None:
                what = "default-docker" if scope is None else scope
                raise ConfigurationError(f"{path}: {what} is also in {before[0]}", "one of them has to go")
            if scope is None:
                default = path, section
            else:
                scopes[scope] = path, section
    return RegistriesDirectory(
        builtin,
        Section() if default is None else default[1],
        MappingProxyType({scope: section for scope, (_, section) in scopes.items()}),
    )


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.name.endswith(".yaml"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"{directory}: cannot be read: {error.strerror}") from error


def _read(path: Path) -> Iterator[tuple[str | None, Section]]:
    """The sections of one file; the scope is None for ``default-docker``."""
    try:
        with path.open("rb") as file:
            document = parse_yaml(path, file.read(_FILE_LIMIT))
    except FileNotFoundError:  # removed since the directory was listed
        return
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    if document is None:
        return
    top = _mapping(path, "the file", document)
    for key, value in top.items():
        if key == "default-docker":
            if value is not None:
                yield None, _section(path, key, value)
        elif key == "docker":
            for scope, inner in _mapping(path, key, {} if value is None else value).items():
                yield scope, _section(path, f"docker.{scope}", inner)
        else:
            _log.warning("unknown key ignored", file=str(path), key=key)


def _section(path: Path, where: str, value: object) -> Section:
    section = _mapping(path, where, {} if value is None else value)
    texts: dict[str, str] = {}
    attachments: bool | None = None
    for key, each in section.items():
        if key in _TEXTS and isinstance(each, str):
            texts[key] = _url(path, f"{where}.{key}", each)
        elif key == _ATTACHMENTS and isinstance(each, bool):
            attachments = each
        elif key not in (*_TEXTS, _ATTACHMENTS):
            _log.warning("unknown key ignored", file=str(path), key=f"{where}.{key}")
        elif each is not None:
            raise ConfigurationError(f"{path}: {where}.{key} has a value of another type")
    return Section(
        texts.get("lookaside") or texts.get("sigstore", ""),
        texts.get("lookaside-staging") or texts.get("sigstore-staging", ""),
        attachments,
    )


def _url(path: Path, where: str, text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {where} is no URL") from error
    if text and parts.scheme not in ("file", "http", "https"):
        raise ConfigurationError(f"{path}: {where} is no URL of file, http or https")
    return text


def _mapping(path: Path, where: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{path}: {where} is no mapping")
    return value
