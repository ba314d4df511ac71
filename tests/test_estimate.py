"""The cost of a plan: exact where it can be known, and with its basis where not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from asyncpull.estimate import (
    BYTES_PER_INODE,
    INODES_PER_LAYER,
    USUAL_GROWTH,
    Growth,
    estimate_pull,
    growth_of,
    total_cost,
)
from asyncpull.plan import LayerAction, LayerStep, PullPlan, ResolvedImage
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor, ImageConfig, Index, Manifest
from asyncpull.spec.platform import Platform
from asyncpull.spec.reference import parse_reference


@dataclass
class Stored:
    compressed_size: int
    diff_size: int
    compression: int = 2


def step(name: str, action: LayerAction, size: int, media_type: str = mediatype.OCI_LAYER_GZIP) -> LayerStep:
    digest = Digest.of(name.encode())
    copied = "original" if action is LayerAction.COPY else None
    return LayerStep(0, Descriptor(media_type, digest, size), digest, f"id of {name}", None, action, copied)


def plan(*steps: LayerStep, index: Index | None = None) -> PullPlan:
    config = ImageConfig(b"{}", Digest.of(b"{}"), (), None, Platform("linux", "amd64"))
    manifest = Manifest(b"", mediatype.OCI_MANIFEST, Digest.of(b"m"), Descriptor("c", config.digest, 2), ())
    return PullPlan(ResolvedImage(parse_reference("q.io/a"), index, manifest, config), steps)


TWICE = Growth(2.0, "twice")


def test_growth_is_that_of_all_compressed_layers_of_the_store() -> None:
    growth = growth_of([Stored(100, 300), Stored(900, 1700), Stored(50, 50, 0), Stored(0, 70), Stored(70, 0)])
    assert growth == Growth(2.0, "2.00 x its blob, as the 2 compressed layers of the store")


@pytest.mark.parametrize("stored", [[], [Stored(0, 70)], [Stored(70, 70, 0)]])
def test_growth_without_such_layers_is_the_usual_one(stored: list[Stored]) -> None:
    assert growth_of(stored).factor == USUAL_GROWTH
    assert "usual" in growth_of(stored).basis


@pytest.mark.parametrize(
    ("layer", "costs"),
    [
        (step("a", LayerAction.REUSE, 1 << 20), (0, 0, 0, 0, "in the store")),
        (step("a", LayerAction.COPY, 1 << 20), (0, 0, 777, INODES_PER_LAYER, "as the layer it is copied from")),
        (
            step("a", LayerAction.FETCH, 1 << 20),
            (1 << 20, 0, 2 << 20, INODES_PER_LAYER + (2 << 20) // BYTES_PER_INODE, "twice"),
        ),
        (
            step("a", LayerAction.FETCH, 1 << 20, mediatype.OCI_LAYER),
            (1 << 20, 0, 1 << 20, INODES_PER_LAYER + (1 << 20) // BYTES_PER_INODE, "its blob, which is not compressed"),
        ),
    ],
)
def test_a_layer(layer: LayerStep, costs: tuple[object, ...]) -> None:
    (cost,) = estimate_pull(plan(layer), TWICE, {}, {"original": 777}).layers
    assert (cost.bytes_to_fetch, cost.bytes_to_resume, cost.disk_bytes, cost.inodes, cost.basis) == costs


def test_what_is_here_is_resumed_and_a_blob_is_counted_once() -> None:
    again = step("a", LayerAction.FETCH, 1000)
    cost = estimate_pull(plan(again, again), TWICE, {again.blob.digest: 300}, {})
    assert (cost.bytes_to_fetch, cost.bytes_to_resume, cost.spool_bytes) == (700, 300, 1000)
    assert cost.disk_bytes == 4000  # but unpacked twice


def test_a_journal_that_says_too_much_is_not_believed() -> None:
    layer = step("a", LayerAction.FETCH, 1000)
    assert estimate_pull(plan(layer), TWICE, {layer.blob.digest: 3000}, {}).bytes_to_fetch == 0


def test_requests_that_are_counted() -> None:
    manifest = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"m"), 1)
    listed = Index(b"", mediatype.OCI_INDEX, Digest.of(b"i"), (manifest,))
    nested = Index(b"", mediatype.OCI_INDEX, Digest.of(b"i"), (Descriptor(mediatype.OCI_INDEX, Digest.of(b"j"), 1),))
    counts = [estimate_pull(plan(index=index), TWICE, {}, {}).counted_requests for index in (None, listed, nested)]
    assert counts == [1, 2, 3]


def test_what_images_share_is_counted_once() -> None:
    base, own = step("base", LayerAction.FETCH, 1000), step("own", LayerAction.FETCH, 10)
    had = step("had", LayerAction.REUSE, 500)
    total = total_cost([estimate_pull(plan(*steps), TWICE, {}, {}) for steps in ((had, base), (had, base, own))])
    assert (total.bytes_to_fetch, total.bytes_reused, total.disk_bytes) == (1010, 500, 2020)
    assert total.inodes == 2 * INODES_PER_LAYER
    assert total.counted_requests == 2
