"""A bad link: what passes through arrives late, connections break off, and now and then a request is refused with 429.

``python -m bench.proxy HOST:PORT …`` listens on a free port of the loopback interface, prints its address, and ends
when it is terminated. What happens to the nth connection, or the nth request, is the same in every run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from asyncio import Queue, StreamReader, StreamWriter
    from collections.abc import Iterator

_PIECE = 64 << 10
_PIECES_ON_THE_WAY = 128
"""So a connection holds up to 8 MiB that are on their way: 160 MB/s at 50 ms."""
_END = b"\r\n\r\n"
_REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Faults:
    """``round_trip`` is in seconds: half of it is added each way, and one more when a connection is made.

    One of ``cut_one_in`` connections is reset once it has passed on between ``cut_from`` and ``cut_to`` bytes to the
    client; one of ``refuse_one_in`` requests is answered with 429. 0 is never.
    """

    round_trip: float = 0.0
    cut_one_in: int = 0
    cut_from: int = 512 << 10
    cut_to: int = 8 << 20
    refuse_one_in: int = 0

    def cut_after(self, connection: int) -> int | None:
        """After how many bytes the connection of this number is reset, if it is."""
        chance = random.Random(connection)
        if not self.cut_one_in or chance.randrange(self.cut_one_in):
            return None
        return chance.randrange(self.cut_from, self.cut_to)

    def refuses(self, request: int) -> bool:
        """Whether the request of this number, from 1 on, is refused."""
        return bool(self.refuse_one_in) and request % self.refuse_one_in == 0


class Proxy:
    """Passes on what clients and a server say to each other, with faults; requests must have no body."""

    def __init__(self, host: str, port: int, faults: Faults) -> None:
        self._host, self._port, self._faults = host, port, faults
        self._connections = self._requests = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Take a client's connection."""
        left = self._faults.cut_after(self._connections)
        self._connections += 1
        await asyncio.sleep(self._faults.round_trip)
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        up: Queue[_Piece] = asyncio.Queue(_PIECES_ON_THE_WAY)
        down: Queue[_Piece] = asyncio.Queue(_PIECES_ON_THE_WAY)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_requests(reader, up, down))
                group.create_task(self._read(server_reader, down))
                group.create_task(self._write(up, server_writer, None))
                group.create_task(self._write(down, writer, left))
        except* _Cut:
            _reset(writer)
        except* (OSError, _Over):
            pass  # either side has gone
        finally:
            for each in (writer, server_writer):
                each.close()

    async def _read_requests(self, reader: StreamReader, up: Queue[_Piece], down: Queue[_Piece]) -> None:
        """Pass on what the client says; whoever tries TLS first is answered by the server, which knows no TLS."""
        said = b""
        while data := await reader.read(_PIECE):
            said += data
            if not self._faults.refuse_one_in or not said[:1].isalpha():
                await up.put(self._piece(said))
                said = b""
            while (end := said.find(_END)) >= 0:
                head, said = said[: end + len(_END)], said[end + len(_END) :]
                await self._take_request(head, up, down)
        await up.put(self._piece(b""))

    async def _take_request(self, head: bytes, up: Queue[_Piece], down: Queue[_Piece]) -> None:
        self._requests += 1
        if self._faults.refuses(self._requests):
            # As long as the server's answer would take: half of it up, half of it down.
            await asyncio.sleep(self._faults.round_trip / 2)
            await down.put(self._piece(_REFUSAL))
        else:
            await up.put(self._piece(head))

    async def _read(self, reader: StreamReader, onward: Queue[_Piece]) -> None:
        while data := await reader.read(_PIECE):
            await onward.put(self._piece(data))
        await onward.put(self._piece(b""))

    def _piece(self, data: bytes) -> _Piece:
        return _Piece(data, asyncio.get_running_loop().time() + self._faults.round_trip / 2)

    async def _write(self, pieces: Queue[_Piece], writer: StreamWriter, left: int | None) -> None:
        clock = asyncio.get_running_loop().time
        while (piece := await pieces.get()).data:
            if (wait := piece.due - clock()) > 0:
                await asyncio.sleep(wait)
            if left is not None and (left := left - len(piece.data)) <= 0:
                writer.write(piece.data[:left] if left else piece.data)
                await writer.drain()
                raise _Cut
            writer.write(piece.data)
            await writer.drain()
        raise _Over


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes, none at the end, and when they are there by the loop's clock."""

    data: bytes
    due: float


class _Over(Exception):
    """The connection ends."""


class _Cut(Exception):
    """The connection is to be reset."""


def _reset(writer: StreamWriter) -> None:
    own = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that a close sends RST
    writer.transport.abort()


@contextmanager
def proxy(address: str, faults: Faults) -> Iterator[str]:
    """Run a proxy before ``address`` in a process of its own for the time of the block; gives its address."""
    words = [f"--{name.replace('_', '-')}={getattr(faults, name)}" for name in Faults.__dataclass_fields__]
    command = [sys.executable, "-m", "bench.proxy", address, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            own = process.stdout.readline().strip()
            if not own:
                raise RuntimeError("the proxy did not start")
            yield own
        finally:
            process.terminate()


async def _main(host: str, port: int, faults: Faults) -> None:
    own = Proxy(host, port, faults)

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await own.serve(reader, writer)

    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    async with await asyncio.start_server(serve, sock=listening) as server:
        print(f"127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await server.serve_forever()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m bench.proxy")
    parser.add_argument("address", help="HOST:PORT of the server behind")
    for name, default in Faults().__class__.__dataclass_fields__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default.default), default=default.default)
    options = vars(parser.parse_args())
    host, _, port = options.pop("address").rpartition(":")
    uvloop.run(_main(host, int(port), Faults(**options)))


if __name__ == "__main__":
    main()
