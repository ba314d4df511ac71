"""Bars on a terminal: one row per layer with its download and its extraction, and a total below them.

A thread of rich draws eight frames a second. The event loop only changes the board, under a lock that a frame holds
while it reads the numbers; so a terminal that is slow or stopped never stops a pull.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncpull.cli.complaint import single_line
from asyncpull.cli.formats import human_duration, human_part, human_size, short_id
from asyncpull.cli.progress.board import Board, LayerRow, PullRow, Rate, rows_that_fit

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

    from asyncpull.progress import Event

_FRAMES_PER_SECOND = 8
_NARROW = 76  # below this there is no room for words beside the bars
_STATE_STYLES = {"done": "green", "failed": "red", "committing": "cyan", "mounted": "green"}


class Bars:
    """A reporter that draws; a context manager, because the terminal has to be left as it was."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._board = Board()
        self._rate = Rate()
        self._lock = threading.Lock()
        self._live = Live(
            console=self._console,
            get_renderable=self.frame,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
        )

    def report(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            self._board.take(event)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def frame(self) -> RenderableType:
        """What the terminal shows at this moment."""
        with self._lock:
            pulls = list(self._board.pulls.values())
            rate = self._rate.sample(time.monotonic(), self._board.received)
            room = self._console.size.height - len(pulls) - 2
            heads = [_heading(pull) for pull in pulls]
            table = _table([row for pull in pulls for row in pull.rows.values()], pulls, room, self._console.size.width)
            foot = _footing(pulls, rate)
        return Group(*heads, *([table] if table.row_count else []), *([foot] if foot else []))


def _heading(pull: PullRow) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(single_line(pull.reference), style="bold")
    text.append(f"  {pull.state}", style=_STATE_STYLES.get(pull.state, "dim"))
    if pull.seconds is not None:
        text.append(f" in {human_duration(pull.seconds)}", style="dim")
    if pull.layers:
        noun = "blobs" if pull.is_copy else "layers"
        text.append(f", {pull.done}/{pull.layers} {noun}", style="dim")
        if pull.reused:
            text.append(f", {pull.reused} were here", style="dim")
        if pull.queued and not pull.is_over:
            text.append(f", {len(pull.queued)} queued", style="dim")
    return text


def _table(rows: list[LayerRow], pulls: list[PullRow], room: int, width: int) -> Table:
    table = Table.grid(padding=(0, 1), expand=False)
    wide = width >= _NARROW
    bar = max(4, (min(width, 120) - (50 if wide else 34)) // 2)
    verb = ("copy" if any(pull.is_copy for pull in pulls) else "extract") if wide else None
    for row in rows_that_fit(rows, room):
        name = Text(short_id(row.digest), style="red" if row.trouble else "none")
        table.add_row(*_cells(name, row.fetched, row.extracted, row.size, bar, verb))
    size = sum(pull.size for pull in pulls)
    if rows:
        fetched, extracted = (sum(_part(pull, what) for pull in pulls) for what in ("fetched", "extracted"))
        table.add_row(*_cells(Text("total", style="bold"), fetched, extracted, size, bar, verb))
    return table


def _part(pull: PullRow, what: str) -> int:
    """Of a pull that is done everything is here, also layers that another pull fetched for it."""
    if pull.state in ("done", "mounted"):
        return pull.size
    return pull.fetched if what == "fetched" else pull.extracted


def _cells(name: Text, fetched: int, extracted: int, size: int, bar: int, verb: str | None) -> list[RenderableType]:
    """The cells of a row; ``verb`` says what the second bar shows, where there is room for words."""
    sizes = human_size(size) if fetched >= size else human_part(fetched, size)
    percent = 100 if size == 0 else extracted * 100 // size
    cells: list[RenderableType] = [
        name,
        _bar(fetched, size, bar, "blue"),
        Text(sizes.rjust(14), no_wrap=True),
        _bar(extracted, size, bar, "green"),
        Text(f"{percent:3}%", style="green" if percent == 100 else "none"),
    ]
    if verb:
        cells.insert(3, Text(verb, style="dim"))
        cells.insert(1, Text("fetch", style="dim"))
    return cells


def _bar(part: int, whole: int, width: int, colour: str) -> ProgressBar:
    return ProgressBar(
        total=max(whole, 1),
        completed=part if whole else 1,
        width=width,
        complete_style=colour,
        finished_style=colour,
    )


def _footing(pulls: list[PullRow], rate: float) -> Text | None:
    """Speed and time left, or what is wrong at the moment."""
    running = [pull for pull in pulls if not pull.is_over]
    for row in (row for pull in running for row in pull.rows.values() if row.trouble):
        trouble = f"{short_id(row.digest)}: {single_line(row.trouble or '')}; trying again"
        return Text(trouble, style="red", no_wrap=True, overflow="ellipsis")
    left = sum(pull.size - pull.fetched for pull in running)
    if left <= 0 or rate <= 0:
        return None
    return Text(f"{human_size(rate)}/s, {human_duration(left / rate)} left", style="dim")
