"""How often a registry may still be asked, as its answers say.

::

    RateLimit-Limit: 100;w=21600            Docker Hub: a number of pulls, and the window in seconds
    RateLimit-Remaining: 76;w=21600
    X-RateLimit-Limit: 5000                 others, without a window
    X-RateLimit-Remaining: 4999

Docker Hub says nothing to those whom it does not limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

_VALUE = re.compile(r"\s*([0-9]{1,12})\s*(?:[;,].*)?", re.DOTALL)
_WINDOW = re.compile(r";\s*w\s*=\s*([0-9]{1,12})")
# The end is near when so small a part of the limit is left.
_SCARCE = 0.05


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``remaining`` requests of ``limit`` in ``window_seconds``; None is what was not said."""

    remaining: int
    limit: int | None = None
    window_seconds: int | None = None

    @property
    def is_scarce(self) -> bool:
        """Whether little or nothing is left."""
        return self.remaining <= (self.limit or 0) * _SCARCE


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """What the headers of one answer say; None where they say nothing that makes sense."""
    for prefix in ("RateLimit", "X-RateLimit"):
        remaining, window = _value(headers.get(f"{prefix}-Remaining", ""))
        limit, other_window = _value(headers.get(f"{prefix}-Limit", ""))
        if remaining is not None:
            return RateLimit(remaining, limit, window or other_window)
    return None


def _value(text: str) -> tuple[int | None, int | None]:
    """A number, and the window behind it."""
    found, window = _VALUE.fullmatch(text), _WINDOW.search(text)
    return (int(found[1]) if found else None), (int(window[1]) if window else None)
