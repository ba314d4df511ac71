"""``certs.d``: which certificates belong to which registry (containers-certs.d(5)).

Below each of the directories stands one per registry, named ``host[:port]`` exactly as references spell it; only the
first that exists counts. In it, ``*.crt`` are authorities to trust beside the system's, and ``NAME.cert`` with
``NAME.key`` are what the registry is shown; one without the other is an error once the registry is asked. A
directory that was named by ``--cert-dir`` counts for every registry, and alone.

The directories are listed once; the certificates themselves are read where connections are made.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError
from asyncpull.tls import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SYSTEM_DIRECTORIES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


@dataclass(frozen=True, slots=True)
class CertificateDirectory:
    """One registry's directory, by the ``names`` of the files in it."""

    path: Path
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> CertificateDirectory:
        """List ``path``; one that is not there or may not be read has no certificates. Raises ConfigurationError."""
        try:
            return cls(path, tuple(sorted(each.name for each in path.iterdir())))
        except (FileNotFoundError, PermissionError):
            return cls(path, ())
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error

    def tls_files(self) -> TlsFiles:
        """The certificates of the directory. Raises ConfigurationError for half a pair."""
        clients = []
        for name in self.names:
            stem, dot, kind = name.rpartition(".")
            if dot and kind == "cert":
                if f"{stem}.key" not in self.names:
                    raise ConfigurationError(
                        f"{self.path}: {name} has no {stem}.key",
                        "a client certificate needs its key; a certificate authority is named *.crt",
                    )
                clients.append((self.path / name, self.path / f"{stem}.key"))
            elif dot and kind == "key" and f"{stem}.cert" not in self.names:
                raise ConfigurationError(f"{self.path}: {name} has no {stem}.cert", "a key needs its certificate")
        return TlsFiles(tuple(self.path / name for name in self.names if name.endswith(".crt")), tuple(clients))


@dataclass(frozen=True, slots=True)
class Certificates:
    """The directories of all registries by ``host[:port]``, or the one that counts for ``every`` registry."""

    registries: Mapping[str, CertificateDirectory] = field(default_factory=lambda: MappingProxyType({}))
    every: CertificateDirectory | None = None

    @classmethod
    def read(cls, directories: Sequence[Path], cert_dir: Path | None = None) -> Certificates:
        """List ``directories``, of which the first that has a registry wins; or ``cert_dir`` alone."""
        if cert_dir is not None:
            return cls(every=CertificateDirectory.read(cert_dir))
        found: dict[str, CertificateDirectory] = {}
        for directory in directories:
            for path in _subdirectories(directory):
                if path.name not in found:
                    found[path.name] = CertificateDirectory.read(path)
        return cls(MappingProxyType(found))

    def for_registry(self, domain: str) -> TlsFiles:
        """The certificates for ``host[:port]``. Raises ConfigurationError for half a pair."""
        directory = self.every or self.registries.get(domain)
        return TlsFiles() if directory is None else directory.tls_files()


def _subdirectories(directory: Path) -> Iterable[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ()
    except OSError as error:
        raise ConfigurationError(f"{directory}: cannot be read: {error.strerror}") from error
