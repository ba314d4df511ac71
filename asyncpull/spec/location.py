"""Locations: a transport and what it needs to find an image (containers-transports(5)).

::

    docker://REFERENCE
    oci:PATH[:NAME | :@N]            oci-archive:FILE[:NAME | :@N]
    dir:PATH
    docker-archive:FILE[:REFERENCE | :@N]
    docker-daemon:REFERENCE | docker-daemon:ALGORITHM:HEX
    containers-storage:[[[DRIVER@]ROOT[+RUNROOT][:OPTIONS]]]NAME-OR-ID
    tarball:FILE[:FILE…]             sif:FILE

``N`` counts from zero. A path ends at its first colon, so that none may have one. What has no transport is a reference;
``docker:dind`` is one too, a tag of the repository called docker.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import InvalidDigestError, InvalidReferenceError
from asyncpull.spec.digest import Digest
from asyncpull.spec.reference import Reference, is_tag, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

# What image-spec lets the name of an image in a layout be (annotations.md, org.opencontainers.image.ref.name).
_NAME = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*")
_NUMBER = re.compile(r"@[0-9]{1,9}")
_SPECIFIER = re.compile(
    r"\[(?:(?P<driver>[a-z0-9]+)@)?(?P<root>[^\]+:]*)(?:\+(?P<run>[^\]:]*))?(?::(?P<opts>[^\]]*))?\]"
)


@dataclass(frozen=True, slots=True)
class RegistryLocation:
    """``docker://``: what ``text`` means, which may be a short name, is said by registries.conf."""

    transport: ClassVar[str] = "docker"
    text: str

    @property
    def reference(self) -> Reference:
        """The reference, by itself alone: a short name is one of docker.io. Raises InvalidReferenceError."""
        return parse_reference(self.text)

    def __str__(self) -> str:
        return f"docker://{self.text}"


@dataclass(frozen=True, slots=True)
class LayoutLocation:
    """``oci:``: an image layout, and the image in it that has ``name`` or is entry ``number`` of its index."""

    transport: ClassVar[str] = "oci"
    path: str
    name: str | None = None
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}{_choice(self.name, self.number)}"


@dataclass(frozen=True, slots=True)
class LayoutArchiveLocation:
    """``oci-archive:``: an image layout in a tar file."""

    transport: ClassVar[str] = "oci-archive"
    path: str
    name: str | None = None
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}{_choice(self.name, self.number)}"


@dataclass(frozen=True, slots=True)
class DirectoryLocation:
    """``dir:``: a flat directory with the files of one image."""

    transport: ClassVar[str] = "dir"
    path: str

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}"


@dataclass(frozen=True, slots=True)
class DockerArchiveLocation:
    """``docker-archive:``: what ``docker save`` writes, and the image in it with a tag or at ``number``."""

    transport: ClassVar[str] = "docker-archive"
    path: str
    reference: Reference | None = None
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}{_choice(self.reference, self.number)}"


@dataclass(frozen=True, slots=True)
class DaemonLocation:
    """``docker-daemon:``: an image of a running dockerd, by its name or by its ID."""

    transport: ClassVar[str] = "docker-daemon"
    reference: Reference | None = None
    id: Digest | None = None

    def __str__(self) -> str:
        return f"{self.transport}:{self.id or self.reference}"


@dataclass(frozen=True, slots=True)
class StorageLocation:
    """``containers-storage:``: ``name`` is a reference or an ID in a store; in that of the settings, where empty."""

    transport: ClassVar[str] = "containers-storage"
    name: str
    driver: str = ""
    graph_root: str = ""
    run_root: str = ""
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.driver}@" * bool(self.driver) + self.graph_root + f"+{self.run_root}" * bool(self.run_root)
        options = f":{','.join(self.options)}" if self.options else ""
        return f"{self.transport}:{f'[{where}{options}]' if where or options else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class TarballLocation:
    """``tarball:``: root file systems in tar files, one layer each; ``-`` is stdin. A source only."""

    transport: ClassVar[str] = "tarball"
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.transport}:{':'.join(self.paths)}"


@dataclass(frozen=True, slots=True)
class SifLocation:
    """``sif:``: a Singularity image file. A source only."""

    transport: ClassVar[str] = "sif"
    path: str

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}"


Location = (
    RegistryLocation
    | LayoutLocation
    | LayoutArchiveLocation
    | DirectoryLocation
    | DockerArchiveLocation
    | DaemonLocation
    | StorageLocation
    | TarballLocation
    | SifLocation
)


def parse_location(text: str) -> Location:
    """Parse what a user named; without a transport it is a reference. Raises InvalidReferenceError."""
    if "\0" in text:  # no path has one
        raise InvalidReferenceError(f"{text!r} has a NUL in it")
    transport, colon, rest = text.partition(":")
    if not colon or transport not in _PARSERS:
        if colon and transport in ("ostree", "atomic"):
            raise InvalidReferenceError(f"{text!r}: the transport {transport} is not supported any more")
        parse_reference(text)
        return RegistryLocation(text)
    if not rest:
        raise InvalidReferenceError(f"{text!r} names nothing", f"say what after {transport}:")
    if transport == "docker" and not rest.startswith("//"):  # there is a repository of that name
        parse_reference(text)
        return RegistryLocation(text)
    return _PARSERS[transport](text, rest)


def _registry(_text: str, rest: str) -> RegistryLocation:
    parse_reference(rest[2:])
    return RegistryLocation(rest[2:])


def _layout(text: str, rest: str) -> LayoutLocation:
    return LayoutLocation(*_named(text, rest))


def _layout_archive(text: str, rest: str) -> LayoutArchiveLocation:
    return LayoutArchiveLocation(*_named(text, rest))


def _directory(_text: str, rest: str) -> DirectoryLocation:
    return DirectoryLocation(rest)


def _docker_archive(text: str, rest: str) -> DockerArchiveLocation:
    path, chosen, number = _chosen(text, rest)
    if chosen is None:
        return DockerArchiveLocation(path, None, number)
    reference = parse_reference(chosen)
    if reference.digest is not None:
        raise InvalidReferenceError(f"{text!r}: an archive names images by tags, not by digests")
    return DockerArchiveLocation(path, reference)


def _daemon(text: str, rest: str) -> DaemonLocation:
    if re.match(r"(?:sha256|sha384|sha512):", rest):
        try:
            return DaemonLocation(id=Digest.parse(rest))
        except InvalidDigestError as error:
            raise InvalidReferenceError(f"{text!r}: {error}") from error
    reference = parse_reference(rest)
    if reference.digest is not None and reference.tag is not None:
        raise InvalidReferenceError(f"{text!r}: a tag and a digest exclude each other here")
    return DaemonLocation(reference)


def _storage(text: str, rest: str) -> StorageLocation:
    if not rest.startswith("["):
        return StorageLocation(rest)
    match = _SPECIFIER.match(rest)
    if match is None or not (match["root"] or match["opts"]):
        raise InvalidReferenceError(f"{text!r}: the form is [[DRIVER@]ROOT[+RUNROOT][:OPTIONS]]NAME")
    for path in (match["root"], match["run"]):
        if path and not path.startswith("/"):
            raise InvalidReferenceError(f"{text!r}: {path} is not an absolute path")
    options = tuple(option for option in (match["opts"] or "").split(",") if option)
    name = rest[match.end() :]
    return StorageLocation(name, match["driver"] or "", match["root"] or "", match["run"] or "", options)


def _tarball(text: str, rest: str) -> TarballLocation:
    paths = tuple(rest.split(":"))
    if not all(paths):
        raise InvalidReferenceError(f"{text!r}: a file name is empty")
    return TarballLocation(paths)


def _sif(_text: str, rest: str) -> SifLocation:
    return SifLocation(rest)


_PARSERS: dict[str, Callable[[str, str], Location]] = {
    "docker": _registry,
    "oci": _layout,
    "oci-archive": _layout_archive,
    "dir": _directory,
    "docker-archive": _docker_archive,
    "docker-daemon": _daemon,
    "containers-storage": _storage,
    "tarball": _tarball,
    "sif": _sif,
}


def _named(text: str, rest: str) -> tuple[str, str | None, int | None]:
    path, name, number = _chosen(text, rest)
    if name is not None and not (_NAME.fullmatch(name) or is_tag(name)):
        raise InvalidReferenceError(f"{text!r}: {name!r} cannot be the name of an image in a layout")
    return path, name, number


def _chosen(text: str, rest: str) -> tuple[str, str | None, int | None]:
    """A path, and what is chosen there by name or by number."""
    path, colon, choice = rest.partition(":")
    if not path:
        raise InvalidReferenceError(f"{text!r} has no path")
    if colon and not choice:
        raise InvalidReferenceError(f"{text!r}: nothing is chosen after the colon")
    if choice.startswith("@"):
        if not _NUMBER.fullmatch(choice):
            raise InvalidReferenceError(f"{text!r}: {choice!r} is not @ and a number, which counts from 0")
        return path, None, int(choice[1:])
    return path, choice or None, None


def _choice(name: object, number: int | None) -> str:
    return f":@{number}" if number is not None else f":{name}" if name is not None else ""
