"""What a fuzzer and the tests run: a parser of foreign input, and what has to hold of it whatever that input is.

A target is a function of bytes. It calls the parser, checks what is promised of the result, and lets the parser's
documented errors through, which the target lists. Any other exception is a finding.
"""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from _typeshed import TraceFunction

LENGTH: Final = 4096
"""How long an input gets, in bytes, where a target says nothing else."""
_MEMORY: Final = (4 << 20, 400)
"""Bytes that a run may have at once: so many in any case, and so many for each byte of the input."""
_STEPS: Final = (20_000, 200)
"""Lines of the project that a run may execute, counted likewise."""
_PACKAGE: Final = "/asyncpull/"


@dataclass(frozen=True, slots=True)
class Target:
    """One parser.

    ``run`` takes any bytes at all and raises nothing but ``errors``, which are the documented ones. ``seeds`` makes
    inputs that are worth changing; ``words`` are what the format is made of. ``memory`` and ``steps`` are upper bounds,
    each of a constant and a number per byte of the input.
    """

    name: str
    run: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    length: int = LENGTH
    memory: tuple[int, int] = _MEMORY
    steps: tuple[int, int] = _STEPS

    def execute(self, data: bytes) -> bool:
        """Run on ``data``; whether it was taken, and not refused by one of the documented errors."""
        try:
            self.run(data)
        except self.errors as error:
            str(error)
            return False
        return True

    def measure(self, data: bytes) -> str:
        """Run on ``data``, and say what of the bounds was exceeded; nothing, if none was."""
        self.execute(data)  # what is imported or compiled by the first run is none of this one's
        memory, steps = _peak(lambda: self.execute(data)), _lines(lambda: self.execute(data))
        for what, found, (base, each) in (("bytes", memory, self.memory), ("lines", steps, self.steps)):
            if found > base + each * len(data):
                return f"{found} {what} for {len(data)} bytes of input"
        return ""


def text_of(data: bytes) -> str:
    """Text as a command line, a header or a path gives it to Python: what is no UTF-8 comes as lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def halves(data: bytes, mark: bytes = b"\n") -> tuple[bytes, bytes]:
    """Two inputs out of one."""
    first, _, second = data.partition(mark)
    return first, second


def _peak(work: Callable[[], object]) -> int:
    """The bytes that ``work`` allocates at most at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _lines(work: Callable[[], object]) -> int:
    """How many lines of the project ``work`` executes."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> TraceFunction | None:
        nonlocal count
        if event == "line":
            count += 1
        return trace if _PACKAGE in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
