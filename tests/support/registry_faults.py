"""What a registry can do wrong: changes to a Reply before it is sent, for ``RegistrySimulator.on``.

Several may apply to one request, in the order in which they were added.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import asyncio


@dataclass(slots=True)
class Reply:
    """What is going to be sent. ``range`` is what was asked for; it is honoured if the status is still 200.

    After ``stop_at`` bytes of the body, the connection is reset or closed, nothing follows for ever, or ``gate`` is
    waited for. ``stop_in_head`` does so in the middle of the headers.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    range: tuple[int, int | None] | None = None
    framing: Literal["length", "chunked", "close"] = "length"
    stop_at: int | None = None
    stop_in_head: bool = False
    then: Literal["reset", "close", "stall", "go on"] = "go on"
    gate: asyncio.Event | None = None


Fault: TypeAlias = Callable[[Reply], None]


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with another status; ``Retry_After="1"`` is a header."""

    def change(reply: Reply) -> None:
        reply.status, reply.body = code, body
        reply.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return change


def error(code: int, name: str, message: str, **headers: str) -> Fault:
    """Answer with an error as the distribution-spec has it."""
    return status(code, json.dumps({"errors": [{"code": name, "message": message}]}).encode(), **headers)


def header(name: str, value: str | None) -> Fault:
    """Set a header, or leave it out; what would be computed is not computed then."""

    def change(reply: Reply) -> None:
        reply.headers[name] = value if value is not None else ""

    return change


def redirect(location: str, code: int = 307) -> Fault:
    """Send the client elsewhere."""
    return status(code, Location=location)


def replaced(body: bytes) -> Fault:
    """Send another body."""

    def change(reply: Reply) -> None:
        reply.body = body

    return change


def flip(at: int) -> Fault:
    """Change the byte at this offset of the blob."""

    def change(reply: Reply) -> None:
        changed = bytearray(reply.body)
        changed[at] ^= 0xFF
        reply.body = bytes(changed)

    return change


def surplus(data: bytes = b"surplus") -> Fault:
    """Send more than there is."""

    def change(reply: Reply) -> None:
        reply.body += data

    return change


def truncated(size: int) -> Fault:
    """Have less than there is."""

    def change(reply: Reply) -> None:
        reply.body = reply.body[:size]

    return change


def without_ranges(reply: Reply) -> None:
    """Send everything with 200, whatever range was asked for."""
    reply.range = None


def chunked(reply: Reply) -> None:
    """Tell no length, send chunks."""
    reply.framing = "chunked"


def until_close(reply: Reply) -> None:
    """Tell no length, close at the end."""
    reply.framing = "close"


def cut(at: int, *, reset: bool = False) -> Fault:
    """Close the connection after so many bytes of the body."""

    def change(reply: Reply) -> None:
        reply.stop_at, reply.then = at, "reset" if reset else "close"

    return change


def stall(at: int = 0) -> Fault:
    """Send nothing more after so many bytes of the body, but keep the connection."""

    def change(reply: Reply) -> None:
        reply.stop_at, reply.then = at, "stall"

    return change


def hold(gate: asyncio.Event, at: int = 0) -> Fault:
    """Send the headers and so many bytes of the body, and the rest when the gate is opened."""

    def change(reply: Reply) -> None:
        reply.stop_at, reply.then, reply.gate = at, "go on", gate

    return change


def hold_head(gate: asyncio.Event) -> Fault:
    """Send nothing but a part of the headers until the gate is opened."""

    def change(reply: Reply) -> None:
        reply.stop_in_head, reply.then, reply.gate = True, "go on", gate

    return change


def slow_head(reply: Reply) -> None:
    """Begin the headers and never end them, a few bytes at a time."""
    reply.stop_in_head, reply.then = True, "stall"


def drop(reply: Reply) -> None:
    """Close the connection without an answer."""
    reply.stop_in_head, reply.then = True, "reset"
