"""What the library logs, through structlog bound to the standard library's loggers named after its modules.

It never configures logging. structlog is imported when something is first logged that somebody wants to hear: to import
it costs as much as to pull a small image, because it brings its pretty printing along.
"""

from __future__ import annotations

import logging


class Log:
    """The log of one module. Events are short phrases, what they are about goes into fields; never a secret."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **fields: object) -> None:
        """For whoever looks for a defect."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """For whoever wants to know what was done."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """For whoever should know: something was put right, or will go wrong."""
        self._log(logging.WARNING, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, object]) -> None:
        if logging.getLogger(self._name).isEnabledFor(level):
            import structlog

            logger = structlog.stdlib.get_logger(self._name)
            if not structlog.is_configured():
                # Left alone, structlog prints to stdout; until somebody configures it, records go to logging.
                logger = structlog.wrap_logger(
                    logging.getLogger(self._name),
                    processors=[structlog.stdlib.render_to_log_kwargs],
                    wrapper_class=structlog.stdlib.BoundLogger,
                )
            logger.log(level, event, **fields)
