"""Where the library's log lines go: to stderr, for people or as JSON. Only the command configures logging.

structlog renders them. It is imported when there is the first line to render: most commands log nothing, and to import
it takes longer than they do.
"""

from __future__ import annotations

import contextlib
import logging
import sys


class _Stderr(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at the moment: while bars are drawn, that is a proxy which knows them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
        if self.formatter is None:
            self.formatter = _formatter(self._form)
        with contextlib.suppress(OSError):  # nobody reads it
            sys.stderr.write(self.format(record) + "\n")


def configure(level: str, form: str) -> None:
    """Log from ``level`` on, in the ``form`` console or json."""
    root = logging.getLogger()
    root.handlers[:] = [_Stderr(form)]
    root.setLevel(level.upper())


def _formatter(form: str) -> logging.Formatter:
    from structlog import dev, processors, stdlib, typing

    before: list[typing.Processor] = [
        stdlib.add_log_level,
        stdlib.add_logger_name,
        stdlib.ExtraAdder(),
        processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[typing.Processor]
    if form == "json":
        rendering = [processors.format_exc_info, processors.JSONRenderer()]
    else:
        # Not the rich tracebacks: those print local variables, which may hold a secret.
        rendering = [dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=dev.plain_traceback)]
    return stdlib.ProcessorFormatter(
        foreign_pre_chain=before, processors=[stdlib.ProcessorFormatter.remove_processors_meta, *rendering]
    )
