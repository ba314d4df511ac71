"""Deleting images where they are; each place has tests of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.deletion import delete_image
from asyncpull.errors import NotFoundError, UsageError
from asyncpull.spec.location import parse_location
from tests.support.images import image, write_layout

if TYPE_CHECKING:
    from pathlib import Path

BUILT = image([b""], compression="none")


@pytest.mark.parametrize("shares", [False, True])
async def test_a_layout_keeps_blobs_that_are_shared(tmp_path: Path, shares: bool) -> None:
    write_layout(tmp_path / "layout", {"t": BUILT})
    before = sorted(path.name for path in (tmp_path / "layout").rglob("*"))
    access = Access(shared_blobs=tmp_path / "layout" / "blobs" if shares else None)
    assert await delete_image(parse_location(f"oci:{tmp_path}/layout:t"), access) == (BUILT.manifest.digest,)
    assert (sorted(path.name for path in (tmp_path / "layout").rglob("*")) == before) is shares
    with pytest.raises(NotFoundError):
        await delete_image(parse_location(f"oci:{tmp_path}/layout:t"), access)


@pytest.mark.parametrize(
    "text", ["dir:/d", "oci-archive:/f:x", "docker-archive:/f", "docker-daemon:a:b", "tarball:/f", "sif:/f"]
)
async def test_other_transports_have_nothing_to_delete(text: str) -> None:
    with pytest.raises(UsageError):
        await delete_image(parse_location(text))
    with pytest.raises(UsageError):
        await delete_image(parse_location(text), only_tag=True)
