"""Layer IDs of containers/storage: ``hex(diff ID)`` for a base layer, else a hash over the parent's ID and the diff ID.

This is not the chain ID of image-spec (config.md, "Layer ChainID"), which hashes digests with their algorithm and a
blank between them. The two never mix.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpull.spec.digest import Digest


def layer_id(parent: str | None, diff_id: Digest) -> str:
    """The ID of the layer with ``diff_id`` on top of the layer ``parent``: 64 hex digits."""
    if parent is None:
        return diff_id.encoded
    return hashlib.sha256(f"{parent}+{diff_id.encoded}".encode()).hexdigest()


def layer_ids(diff_ids: Iterable[Digest]) -> tuple[str, ...]:
    """The IDs of a stack of layers, the base layer first."""
    ids: list[str] = []
    parent: str | None = None
    for diff_id in diff_ids:
        parent = layer_id(parent, diff_id)
        ids.append(parent)
    return tuple(ids)
