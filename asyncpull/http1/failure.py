"""What goes wrong with a connection or an exchange, as errors of this package.

``subject`` is the URL that was asked for and ``proxy`` that of the proxy, both as they may be told (``urls.redact``).
"""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from asyncpull.errors import AuthenticationError, SourceError, TemporaryError, UnavailableError
from asyncpull.http1.connection import BodyCutError
from asyncpull.http1.head import NotHttpError
from asyncpull.http1.pool import ProxyRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TLS_HINT = "if this registry is to be trusted without a valid certificate, mark it insecure or say --tls-verify=false"


def refused_by_proxy(subject: str, proxy: str, status: int) -> SourceError:
    """What it means that a proxy did not open a tunnel, or did not take a request."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return AuthenticationError(
            f"{subject}: the proxy {proxy} wants a user name and a password, or others",
            "give them in the proxy's URL: http://user:password@host:port",
        )
    if status == HTTPStatus.FORBIDDEN:
        return UnavailableError(f"{subject}: the proxy {proxy} does not allow this")
    return UnavailableError(f"{subject}: the proxy {proxy} answers {status}", temporary=status >= 500)


@contextmanager
def connecting(subject: str, proxy: str | None) -> Iterator[None]:
    """Turn what is raised while a connection is made into our errors."""
    try:
        yield
    except ProxyRefusedError as error:
        raise refused_by_proxy(subject, proxy or subject, error.status) from error
    except (OSError, NotHttpError, ValueError) as error:
        raise _not_connected(subject, error, proxy) from error


def _not_connected(subject: str, error: Exception, proxy: str | None) -> SourceError:
    whom = "cannot connect" if proxy is None else f"cannot connect to proxy {proxy}"
    match error:
        case ssl.SSLError():
            return _no_tls(subject, error)
        case TimeoutError():
            return TemporaryError(f"{subject}: no connection in time")
        case socket.gaierror() if proxy is None:
            return UnavailableError(
                f"{subject}: the host name cannot be resolved", temporary=error.errno != socket.EAI_NONAME
            )
        case socket.gaierror():
            return UnavailableError(f"{subject}: {whom}: the host name cannot be resolved", temporary=True)
        case OSError():
            reason = error.strerror or "the connection was lost"
            return UnavailableError(f"{subject}: {whom}: {reason}", temporary=True)
        case NotHttpError():
            return UnavailableError(f"{subject}: {whom}: its answer is not HTTP", temporary=True)
        case _:
            return UnavailableError(f"{subject}: the request cannot be made ({type(error).__name__})")


@contextmanager
def exchanging(subject: str) -> Iterator[None]:
    """Turn what is raised while a request is sent and answered into our errors."""
    try:
        yield
    except (OSError, NotHttpError, BodyCutError, ValueError) as error:
        raise _not_answered(subject, error) from error


def _not_answered(subject: str, error: Exception) -> SourceError:
    match error:
        case TimeoutError():
            return TemporaryError(f"{subject}: nothing was received in time")
        case NotHttpError():
            return UnavailableError(f"{subject}: the answer is not HTTP", temporary=True)
        case BodyCutError():
            return UnavailableError(f"{subject}: the body ended too early", temporary=True)
        case OSError(__cause__=ssl.SSLError() as reason):  # whoever wants a certificate of ours says so only here
            return _no_tls(subject, reason)
        case OSError():
            return UnavailableError(f"{subject}: the connection was lost", temporary=True)
        case _:
            return UnavailableError(f"{subject}: the request cannot be made ({type(error).__name__})")


def _no_tls(subject: str, error: ssl.SSLError) -> SourceError:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or "not valid for this host"
        return UnavailableError(f"{subject}: the TLS certificate is refused: {reason}", _TLS_HINT)
    reason = error.reason or "handshake failed"
    return UnavailableError(f"{subject}: no TLS connection: {reason}", "is it a registry that speaks https?")
