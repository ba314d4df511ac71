"""An authority of our own, and the certificates of servers and clients that it signs, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, both in PEM files."""

    path: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signed itself and signs others. ``path`` is what its users have to trust."""

    path: Path
    key: Path

    def server(self, name: str = "server") -> Certificate:
        """Sign a certificate for 127.0.0.1 and localhost; ``name`` is that of its files."""
        return self._sign(name, "127.0.0.1", ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])

    def client(self, name: str = "client") -> Certificate:
        """Sign a certificate with which a client shows that it is ``name``, which is that of its files too."""
        return self._sign(name, name, ["-addext", "extendedKeyUsage=clientAuth"])

    def _sign(self, name: str, subject: str, extensions: Sequence[str]) -> Certificate:
        signed = Certificate(self.path.parent / f"{name}.crt", self.path.parent / f"{name}.key")
        signer = ["-CA", str(self.path), "-CAkey", str(self.key), "-addext", "basicConstraints=critical,CA:FALSE"]
        _request(signed.path, signed.key, subject, [*signer, *extensions])
        return signed


def make_authority(directory: Path) -> Authority:
    """Make an authority; its files, and those of what it signs, are in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority(directory / "ca.crt", directory / "ca.key")
    # Python from 3.13 on verifies by the letter of RFC 5280, which wants to be told what the key may be used for.
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _request(authority.path, authority.key, f"authority of {directory.name}", usage)
    return authority


def _request(path: Path, key: Path, subject: str, words: Sequence[str]) -> None:
    command = ["openssl", "req", "-x509", *_NEW_KEY, "-subj", f"/CN={subject}", *words]
    subprocess.run([*command, "-keyout", str(key), "-out", str(path)], check=True, capture_output=True)
