"""asyncpull as a library, in a process of its own: ``python -m bench.embedded ROOT RUNROOT [OPTION…] REFERENCE…``.

It pulls once, all references at once. ``--again`` pulls a second time, and prints what that cost as the JSON of a
Usage; ``--trace`` mounts what was pulled, too, and prints what happened when. The rest are limits that the command has
no options for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

import asyncpull
from bench.measure import Usage
from bench.timeline import Moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.progress import Event

_REPOSITORY = Path(__file__).resolve().parent.parent
EMBEDDED = ("env", f"PYTHONPATH={_REPOSITORY}", sys.executable, "-m", "bench.embedded")
"""Starts this, wherever the harness was started."""
TRACE = (*EMBEDDED, "--trace")
_TOLD = {"FetchAdvanced", "FetchServed", "ExtractAdvanced", "LayerQueued"}
"""Events that say how far something is; when it began and ended is enough."""


class Recorder:
    """A reporter that notes when each event came, by a clock that began when it was made."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._began = time.perf_counter()

    def report(self, event: Event) -> None:
        """Take one event."""
        kind = type(event).__name__
        if kind in _TOLD and not (kind == "ExtractAdvanced" and self._is_first(event)):
            return
        self.note(kind, event.pull, getattr(event, "digest", ""))

    def note(self, kind: str, pull: int = 0, digest: str = "") -> None:
        """Note something that no event tells."""
        self.moments.append(Moment(time.perf_counter() - self._began, kind, pull, digest))

    def _is_first(self, event: Event) -> bool:
        return bool(getattr(event, "position", 0)) and not any(each.kind == "ExtractAdvanced" for each in self.moments)


async def _pull(options: argparse.Namespace) -> str:
    usual = asyncpull.Limits()
    limits = asyncpull.Limits(
        workers=options.workers,
        connections=options.connections or usual.connections,
        connections_per_registry=options.connections or usual.connections_per_registry,
    )
    access = asyncpull.RegistryAccess(tls_verify=False)
    recorder = Recorder()
    store = asyncpull.Store.open(root=options.root, run_root=options.run_root)
    async with store as opened, asyncpull.Puller(opened, access=access, limits=limits, reporter=recorder) as puller:
        await asyncio.gather(*map(puller.pull, options.references))
        if options.trace:
            recorder.note("MountStarted")
            async with puller.mounted(options.references[0], when=asyncpull.PullPolicy.NEVER):
                recorder.note("MountCompleted")
            return json.dumps([asdict(moment) for moment in recorder.moments])
        if options.again:
            before, started = _spent(), time.perf_counter()
            await asyncio.gather(*map(puller.pull, options.references))
            wall, after = time.perf_counter() - started, _spent()
            return json.dumps(asdict(Usage(wall, after[0] - before[0], after[1] - before[1])))
    return ""


def _spent() -> tuple[float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Pull, and print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.embedded")
    parser.add_argument("root", type=Path)
    parser.add_argument("run_root", type=Path)
    parser.add_argument("references", nargs="+")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--connections", type=int)
    parser.add_argument("--workers", type=int)
    print(uvloop.run(_pull(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
