"""What a registry wants people to know beside its answers: ``Warning`` headers (distribution-spec 1.1, "Warnings").

Only code 299 from the agent ``-`` counts; the text is shown as that of errors is, for it goes to a terminal too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull.registry.refusal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOTICE = re.compile(r'(?:^|,)\s*299 - "((?:[^"\\]|\\.)*)"')
# So many of one answer are heard.
_NOTICES = 10


def parse_notices(values: Sequence[str]) -> tuple[str, ...]:
    """The texts of the Warning headers of one answer, on one line each; what is no warning of the registry is none."""
    texts = (re.sub(r"\\(.)", r"\1", found) for value in values for found in _NOTICE.findall(value))
    return tuple(text for text in map(printable, texts) if text)[:_NOTICES]
