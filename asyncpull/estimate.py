"""What a planned pull will cost: bytes over the network, bytes and inodes on the disk, requests that are counted.

Bytes over the network are exact: the manifest gives the size of every blob, and a journal what an earlier pull left of
it. What a compressed layer takes on the disk nobody knows before it is unpacked. It is estimated, and every figure says
on what basis:

- a layer that the store has takes nothing, and a copy takes what its original does;
- an uncompressed layer takes the size of its blob;
- a compressed one is taken to grow as those did that the store has already, all together, or where there is none, by
  ``USUAL_GROWTH``: the Debian image of the benchmark comes to 3.1 times its gzip.

No record tells how many inodes a layer has. ``BYTES_PER_INODE`` is what mke2fs makes an inode for, which is rather too
careful: the Debian image of the benchmark has one in 40 kB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass
from asyncpull.plan import LayerAction
from asyncpull.spec.mediatype import is_plain_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncpull.plan import LayerStep, PullPlan, ResolvedImage
    from asyncpull.spec.digest import Digest

USUAL_GROWTH = 3.0
BYTES_PER_INODE = 16 << 10

# A layer has a directory, its diff and a few small files beside what its archive makes.
INODES_PER_LAYER = 6


class StoredLayer(Protocol):
    """What a record of the store tells of a layer; sizes are bytes, 0 where they are not known."""

    @property
    def compressed_size(self) -> int:
        """That of the blob."""

    @property
    def diff_size(self) -> int:
        """That of the tar."""

    @property
    def compression(self) -> int:
        """0 for none."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How many bytes of tar a byte of a compressed blob becomes, and on what basis that is said."""

    factor: float
    basis: str


@dataclass(frozen=True, slots=True)
class LayerEstimate:
    """One step and its cost. ``bytes_to_resume`` of the blob are here, ``bytes_to_fetch`` are not.

    A blob that the image has twice is counted for the first. ``disk_bytes`` and ``inodes`` are exact or estimated, as
    ``basis`` says.
    """

    step: LayerStep
    bytes_to_fetch: int
    bytes_to_resume: int
    disk_bytes: int
    inodes: int
    basis: str


@dataclass(frozen=True, slots=True)
class PullEstimate:
    """A plan and its cost, the base layer first.

    ``counted_requests`` are those that count against a rate limit: GETs of manifests. HEAD and blobs do not, and the
    plan itself has made the same ones.
    """

    plan: PullPlan
    layers: tuple[LayerEstimate, ...]
    counted_requests: int

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that will come over the network."""
        return sum(layer.bytes_to_fetch for layer in self.layers)

    @property
    def bytes_to_resume(self) -> int:
        """Bytes that an earlier pull has received."""
        return sum(layer.bytes_to_resume for layer in self.layers)

    @property
    def bytes_reused(self) -> int:
        """The size of the blobs that are not needed, because the store has their layers."""
        return sum(layer.step.blob.size for layer in self.layers if layer.step.action is not LayerAction.FETCH)

    @property
    def disk_bytes(self) -> int:
        """Bytes that the image will take on the disk beyond what is there."""
        return sum(layer.disk_bytes for layer in self.layers)

    @property
    def inodes(self) -> int:
        """Inodes that the image will take beyond what is there."""
        return sum(layer.inodes for layer in self.layers)

    @property
    def spool_bytes(self) -> int:
        """Bytes that the blobs take beside the layers until the commit."""
        return self.bytes_to_fetch + self.bytes_to_resume


@dataclass(frozen=True, slots=True)
class TotalCost:
    """What several pulls cost together, with what they share counted once; as in PullEstimate."""

    bytes_to_fetch: int
    bytes_to_resume: int
    bytes_reused: int
    disk_bytes: int
    inodes: int
    counted_requests: int


def total_cost(estimates: Sequence[PullEstimate]) -> TotalCost:
    """The cost of pulling all of them, one with the other."""
    layers = [layer for estimate in estimates for layer in estimate.layers]
    blobs = {layer.step.blob.digest: layer for layer in reversed(layers) if layer.step.action is LayerAction.FETCH}
    reused = {layer.step.blob.digest: layer for layer in layers if layer.step.action is not LayerAction.FETCH}
    placed = {layer.step.id: layer for layer in layers}
    return TotalCost(
        bytes_to_fetch=sum(layer.bytes_to_fetch for layer in blobs.values()),
        bytes_to_resume=sum(layer.bytes_to_resume for layer in blobs.values()),
        bytes_reused=sum(layer.step.blob.size for layer in reused.values()),
        disk_bytes=sum(layer.disk_bytes for layer in placed.values()),
        inodes=sum(layer.inodes for layer in placed.values()),
        counted_requests=sum(estimate.counted_requests for estimate in estimates),
    )


def growth_of(layers: Iterable[StoredLayer]) -> Growth:
    """The growth of the compressed layers among ``layers``, or the usual one."""
    known = [layer for layer in layers if layer.compression and layer.compressed_size and layer.diff_size]
    compressed = sum(layer.compressed_size for layer in known)
    if not compressed:
        return Growth(USUAL_GROWTH, f"{USUAL_GROWTH} x its blob, as is usual")
    factor = sum(layer.diff_size for layer in known) / compressed
    return Growth(factor, f"{factor:.2f} x its blob, as the {len(known)} compressed layers of the store")


def estimate_pull(
    plan: PullPlan, growth: Growth, recorded: Mapping[Digest, int], copied: Mapping[str, int]
) -> PullEstimate:
    """Put a price on ``plan``.

    ``recorded`` holds how many bytes of a blob are here, ``copied`` the size of the layers to be copied by their ID.
    """
    counted: set[Digest] = set()
    layers = []
    for step in plan.steps:
        here = 0
        to_fetch = 0
        if step.action is LayerAction.FETCH and step.blob.digest not in counted:
            counted.add(step.blob.digest)
            here = min(recorded.get(step.blob.digest, 0), step.blob.size)
            to_fetch = step.blob.size - here
        disk_bytes, basis = _on_disk(step, growth, copied)
        inodes = 0 if step.action is LayerAction.REUSE else INODES_PER_LAYER + disk_bytes // BYTES_PER_INODE
        layers.append(LayerEstimate(step, to_fetch, here, disk_bytes, inodes, basis))
    return PullEstimate(plan, tuple(layers), _counted_requests(plan.image))


def _on_disk(step: LayerStep, growth: Growth, copied: Mapping[str, int]) -> tuple[int, str]:
    match step.action:
        case LayerAction.REUSE:
            return 0, "in the store"
        case LayerAction.COPY:
            return copied.get(step.copy_from or "", 0), "as the layer it is copied from"
    if is_plain_layer(step.blob.media_type):
        return step.blob.size, "its blob, which is not compressed"
    return round(step.blob.size * growth.factor), growth.basis


def _counted_requests(image: ResolvedImage) -> int:
    """The manifest; the index it was selected from; and the index in between, if it is not listed there itself."""
    if image.index is None:
        return 1
    is_listed = any(listed.digest == image.manifest.digest for listed in image.index.manifests)
    return 2 if is_listed else 3
