"""The workers of a store: what they may touch, and starting one before the rest of a pull is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import NotInStoreError, StoreError
from asyncpull.extract.confinement import Reach
from asyncpull.extract.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpull.spec.reference import Reference
    from asyncpull.store.store import Store


def workers_of(store: Store, limit: int | None = None) -> WorkerPool:
    """Workers, ``limit`` of them at most, that may touch what is staged and stored in ``store``."""
    reach = Reach(tuple(map(str, store.staging_roots)), tuple(map(str, store.content_roots)))
    return WorkerPool(reach, limit)


async def prepare_for(references: Iterable[str | Reference], store: Store, workers: WorkerPool) -> None:
    """Start a worker if ``store`` lacks one of the images, so that it is up when the first bytes are.

    Takes images.lock, shared. Raises WorkerError.
    """
    try:
        for reference in references:
            await store.image(str(reference))
    except NotInStoreError:
        workers.prepare(1)
    except StoreError:
        pass  # it fits several, or whoever pulls is told
