"""Connections by where they lead to, kept for a while when they have nothing to do.

How many there are at a time is whoever asks' decision.
"""

from __future__ import annotations

import asyncio
from dataclasses import field
from functools import partial
from socket import SOCK_STREAM
from typing import TYPE_CHECKING, Final, cast

from aiohappyeyeballs import start_connection

from asyncpull.dataclass import dataclass
from asyncpull.http1.connection import Connection
from asyncpull.http1.head import request_head

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Coroutine

    from aiohappyeyeballs import AddrInfoType

_KEPT_SECONDS: Final = 15.0  # without an exchange: servers close theirs after some more, a few after less
_NAME_SECONDS: Final = 10.0  # that the addresses of a name are believed: one blob may open ten connections at once
_EYEBALLS_SECONDS: Final = 0.25  # until the next address is tried beside the first (RFC 8305 §5)


class ProxyRefusedError(Exception):
    """A proxy answered ``status`` to the wish for a tunnel."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answers {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What comes after the connection to a proxy: a tunnel to a host, and TLS in it.

    ``authority`` is the host with its port, ``fields`` are headers for the proxy's eyes.
    """

    host: str
    authority: str
    context: ssl.SSLContext
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # a password among them


@dataclass(frozen=True, slots=True)
class Route:
    """Where a connection leads to: a host, by TLS if there is a ``context``, perhaps on through a tunnel.

    With the path of a ``unix_socket`` the host is only what it is called.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    tunnel: Tunnel | None = None
    unix_socket: str | None = None


class Pool:
    """Connections of one event loop. ``connect_seconds`` limits how long one takes to be made, TLS included."""

    def __init__(self, connect_seconds: float) -> None:
        self._limit = connect_seconds
        self._kept: dict[Route, list[tuple[Connection, asyncio.TimerHandle]]] = {}
        self._is_closed = False
        self._names: dict[tuple[str, int], tuple[float, asyncio.Future[list[AddrInfoType]]]] = {}

    def take(self, route: Route) -> Connection | None:
        """A connection that was kept, the one that was used last; None if there is none that is still good."""
        kept = self._kept.get(route, [])
        while kept:
            connection, timer = kept.pop()
            timer.cancel()
            if connection.is_idle:
                return connection
            connection.close()
        return None

    def give_back(self, route: Route, connection: Connection) -> None:
        """Keep a connection for the next exchange, or close it where none can follow."""
        if self._is_closed or not connection.is_idle:
            connection.close()
            return
        timer = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._expire, route, connection)
        self._kept.setdefault(route, []).append((connection, timer))

    async def connect(self, route: Route) -> Connection:
        """A new connection.

        Raises OSError (socket.gaierror for a name without addresses, ssl.SSLError for TLS that fails, TimeoutError),
        ProxyRefusedError, and what the first exchange with a proxy raises.
        """
        async with asyncio.timeout(self._limit):
            loop = asyncio.get_running_loop()
            if route.unix_socket is not None:
                _, connection = await loop.create_unix_connection(Connection, route.unix_socket)
                return connection
            opened = await start_connection(
                await self._addresses(route.host, route.port), happy_eyeballs_delay=_EYEBALLS_SECONDS, interleave=1
            )
            connection = await _begin(opened, route)
            if route.tunnel is not None:
                try:
                    await _dig(connection, route.tunnel)
                except BaseException:
                    connection.close()
                    raise
            return connection

    async def aclose(self) -> None:
        """Close what is kept, and what is given back from now on."""
        self._is_closed = True
        for _, asking in self._names.values():
            asking.cancel()
        kept, self._kept = self._kept, {}
        for connections in kept.values():
            for connection, timer in connections:
                timer.cancel()
                connection.close()
        await asyncio.sleep(0)  # in which the loop closes the sockets

    def _expire(self, route: Route, connection: Connection) -> None:
        self._kept[route] = [each for each in self._kept[route] if each[0] is not connection]
        connection.close()

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """The addresses of a host, asked for once by all who want them within some seconds."""
        loop = asyncio.get_running_loop()
        until, asking = self._names.get((host, port), (0.0, None))
        if asking is None or until < loop.time():
            found = cast("Coroutine[None, None, list[AddrInfoType]]", loop.getaddrinfo(host, port, type=SOCK_STREAM))
            asking = asyncio.ensure_future(found)
            asking.add_done_callback(partial(self._has_answered, (host, port)))
            self._names[host, port] = loop.time() + _NAME_SECONDS, asking
        await asyncio.wait((asking,))
        return asking.result()

    def _has_answered(self, asked: tuple[str, int], asking: asyncio.Future[list[AddrInfoType]]) -> None:
        """Forget a failure; whoever asked may have gone."""
        if asking.cancelled() or asking.exception() is not None:
            self._names.pop(asked, None)


async def _begin(opened: socket.socket, route: Route) -> Connection:
    """The connection over a socket that is connected."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, sock=opened, ssl=route.context, server_hostname=_tls_name(route.host) if route.context else None
        )
    except BaseException:
        opened.close()
        raise
    return connection


async def _dig(connection: Connection, tunnel: Tunnel) -> None:
    """Have the proxy at the other side connect us with whom we want, and begin TLS there."""
    request = request_head("CONNECT", tunnel.authority, {"Host": tunnel.authority, **dict(tunnel.fields)})
    answer = await connection.send("CONNECT", request)
    if not 200 <= answer.status < 300:
        raise ProxyRefusedError(answer.status)
    await connection.start_tls(tunnel.context, _tls_name(tunnel.host))


def _tls_name(host: str) -> str:
    """The name that a certificate is to be for: without the dot that makes it absolute (RFC 6066 §3)."""
    return host.removesuffix(".")
