"""What a run is to bring in and where to, and programs that do so as one command."""

from __future__ import annotations

import os
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bench.measure import Job, measure_time
from bench.scenarios import AGAIN, LAYOUT, STORE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.images import BenchImage

OURS = "asyncpull"
ENVIRONMENT = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}


@dataclass(frozen=True, slots=True)
class Order:
    """What one run is to bring to ``directory``, which is empty.

    ``references`` are brought with the clock and ``before`` without; ``images`` are those of ``references``, and
    ``repositories`` their URLs, for whoever asks for blobs without resolving. ``entrance`` goes before every command.
    ``memory`` is how many bytes it takes to have all of it, as it comes and unpacked, in the caches.
    """

    directory: Path
    references: tuple[str, ...]
    goal: str = STORE
    before: tuple[str, ...] = ()
    images: tuple[BenchImage, ...] = ()
    repositories: tuple[str, ...] = ()
    entrance: tuple[str, ...] = ()
    cold: bool = False
    memory: int = 0


class Peer(Protocol):
    """A program that pulls images."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def goals(self) -> frozenset[str]:
        """Where it can bring images."""
        ...

    def job(self, order: Order) -> AbstractContextManager[Job]:
        """Prepare to do what is ordered, do what comes before the clock, and run daemons in the block.

        Raises RunFailedError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A program that ends when it has pulled.

    ``pull`` pulls one image and ``several``, where the program can do that, many of them at once; else it runs once for
    each. ``copy`` copies an image into a layout; ``again`` pulls twice, and tells what the second time cost. Empty is
    what it cannot do. ``{store}`` is filled in, ``{number}`` of the image, and words with ``{reference}`` once for each
    reference.
    """

    name: str
    version: str
    prefix: tuple[str, ...]
    pull: tuple[str, ...]
    several: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    @property
    def goals(self) -> frozenset[str]:
        words = ((STORE, self.pull), (LAYOUT, self.copy), (AGAIN, self.again or self.pull))
        return frozenset(goal for goal, each in words if each)

    @contextmanager
    def job(self, order: Order) -> Iterator[Job]:
        itself = order.goal == AGAIN and bool(self.again)
        if order.before and not itself:
            measure_time(self._job(order, order.before, self.pull))
        words = {STORE: self.pull, LAYOUT: self.copy, AGAIN: self.again or self.pull}[order.goal]
        yield self._job(order, order.references, words, itself=itself)

    def _job(self, order: Order, references: Sequence[str], words: Sequence[str], *, itself: bool = False) -> Job:
        if words is self.pull and self.several and len(references) > 1:
            command = fill(self.several, order.directory, references)
        else:
            each = [fill(words, order.directory, [reference], number) for number, reference in enumerate(references)]
            command = one_after_another(each)
        return job_of(order, [*self.prefix, *command], itself=itself)


def job_of(order: Order, command: Sequence[str], daemons: Sequence[int] = (), *, itself: bool = False) -> Job:
    """Return a command as the job of a run."""
    output, environment = order.directory / "output", os.environ | ENVIRONMENT
    words = [*order.entrance, *command]
    return Job(
        words,
        environment,
        output,
        daemons,
        directory=order.directory,
        itself=itself,
        cold=order.cold,
        memory=order.memory,
    )


def fill(words: Sequence[str], directory: Path, references: Sequence[str], number: int = 0) -> list[str]:
    """Return a command from its pattern."""
    filled: list[str] = []
    for word in words:
        repeated = references if "{reference}" in word else references[:1]
        filled += [
            word.replace("{store}", str(directory)).replace("{number}", str(number)).replace("{reference}", reference)
            for reference in repeated
        ]
    return filled


def one_after_another(commands: Sequence[Sequence[str]]) -> list[str]:
    """Return a command that runs all of ``commands``, up to the first that fails."""
    if len(commands) == 1:
        return list(commands[0])
    return ["sh", "-ec", "\n".join(map(shlex.join, commands))]
