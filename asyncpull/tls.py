"""Which certificates a registry is trusted by and shown, as certs.d and hosts.toml name them, and the TLS context."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """``authorities`` are trusted beside the system's; ``clients`` are certificates with their keys, all PEM."""

    authorities: tuple[Path, ...] = ()
    clients: tuple[tuple[Path, Path], ...] = ()

    def without_clients(self) -> TlsFiles:
        """For somebody who is to be trusted likewise, but is not to learn who we are."""
        return TlsFiles(self.authorities)


def make_context(files: TlsFiles, *, verify: bool) -> ssl.SSLContext:
    """The context for connections to whom ``files`` are meant for; it reads them, and to ``verify`` the system's too.

    Of several client certificates with keys of one kind (RSA, EC …) the last is shown. Raises ConfigurationError that
    names the file.
    """
    if verify:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's authorities takes 20 ms
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    if files.authorities:
        # As Go does it: whatever is in such a file is trusted, be it no root or without the marks of a good one.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for path in files.authorities:
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise ConfigurationError(f"{path}: holds no certificates in PEM form") from error
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    for certificate, key in files.clients:
        _load_client(context, certificate, key)
    return context


def _load_client(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def is_encrypted() -> NoReturn:
        # Without this OpenSSL would ask on the terminal.
        raise ConfigurationError(f"{key}: the key is encrypted", "decrypt it: there is no way to give its password")

    for path in (certificate, key):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key, password=is_encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(f"{key}: is not the key of {certificate}") from error
        raise ConfigurationError(f"{certificate}, {key}: not a certificate and its key in PEM form") from error
