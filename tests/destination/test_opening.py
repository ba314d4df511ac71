"""Destinations from locations."""

from __future__ import annotations

import pytest

from asyncpull.destination.opening import open_destination
from asyncpull.errors import UsageError
from asyncpull.spec.location import parse_location


@pytest.mark.parametrize("text", ["tarball:a.tar", "sif:a.sif"])
async def test_what_cannot_be_written_is_told_before_anything_is_made(text: str) -> None:
    with pytest.raises(UsageError, match="nothing can be written"):
        async with open_destination(parse_location(text)):
            pass
