"""What a pull is going to do, as data that can be printed, and what it did.

``plan_pull`` decides per layer, from the manifest, the config and a snapshot of the store:

- REUSE   the store has a layer with this ID (same diff ID on the same parents): nothing is done;
- COPY    the store has the diff ID on top of other parents: its tree is copied, nothing is fetched;
- FETCH   the blob is fetched, from where an earlier pull left off.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, TooManyLayersError
from asyncpull.spec.layerid import layer_ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor, ImageConfig, Index, Manifest
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.signature import Signature

# Overlay mounts at most this many lower directories, and a container's own layer comes on top of the image's.
MAX_LAYERS = 500


class PullPolicy(Enum):
    """When to ask the registry at all; the words are those of ``podman pull --policy``."""

    ALWAYS = "always"
    MISSING = "missing"
    NEWER = "newer"
    NEVER = "never"


class LayerAction(Enum):
    """How a layer gets into the store."""

    REUSE = "reuse"
    COPY = "copy"
    FETCH = "fetch"


class Snapshot(Protocol):
    """What the plan asks of a store, at one moment."""

    def has_layer(self, layer_id: str) -> bool:
        """Whether a complete layer has this ID."""

    def layer_with_diff_id(self, diff_id: Digest) -> str | None:
        """The ID of a complete layer that can be copied instead of fetching this diff ID, on whatever parents."""


@dataclass(frozen=True, slots=True)
class LayerStep:
    """What is done for one layer; ``number`` counts from the base layer, 0.

    ``copy_from`` is the ID of the layer whose tree is copied, for COPY. ``blob`` is the descriptor in the manifest.
    """

    number: int
    blob: Descriptor
    diff_id: Digest
    id: str
    parent: str | None
    action: LayerAction
    copy_from: str | None = None

    def with_store(self, store: Snapshot) -> LayerStep:
        """The same step as it is to be done with what ``store`` has."""
        if store.has_layer(self.id):
            return replace(self, action=LayerAction.REUSE, copy_from=None)
        other = store.layer_with_diff_id(self.diff_id)
        return replace(self, action=LayerAction.COPY if other else LayerAction.FETCH, copy_from=other)


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """A reference and the documents it stands for; ``index`` is what it was selected from, if anything.

    ``signatures`` are those by which the policy accepted it; none where it asked for none. ``names`` are what it is
    called in the store; the reference, if there are none. ``given`` are the layers as the source has them, where these
    are not the blobs that the manifest lists.
    """

    reference: Reference
    index: Index | None
    manifest: Manifest
    config: ImageConfig
    signatures: tuple[Signature, ...] = ()
    names: tuple[Reference, ...] = ()
    given: tuple[Descriptor, ...] | None = None

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The blobs to ask the source for, the base layer first."""
        return self.manifest.layers if self.given is None else self.given

    @property
    def id(self) -> str:
        """The image ID in the store: the hex part of the config's digest."""
        return self.manifest.config.digest.encoded

    @property
    def digest(self) -> Digest:
        """What the reference resolved to: the digest of the index if there is one, else of the manifest."""
        return self.index.digest if self.index else self.manifest.digest


@dataclass(frozen=True, slots=True)
class PullPlan:
    """The steps of one pull, the base layer first."""

    image: ResolvedImage
    steps: tuple[LayerStep, ...]

    def having(self, action: LayerAction) -> tuple[LayerStep, ...]:
        """The steps with this action."""
        return tuple(step for step in self.steps if step.action is action)

    @property
    def bytes_to_fetch(self) -> int:
        """The size of all blobs to fetch, each counted once, before what an earlier pull left is taken off."""
        return blob_bytes(self.having(LayerAction.FETCH))


def blob_bytes(steps: Iterable[LayerStep]) -> int:
    """The size of the blobs of ``steps``, each counted once."""
    return sum({step.blob.digest: step.blob.size for step in steps}.values())


@dataclass(frozen=True, slots=True)
class PulledLayer:
    """A layer of a pulled image. ``digest`` and ``size`` (bytes) are the blob's, ``reused`` says it was there."""

    id: str
    digest: Digest
    diff_id: Digest
    size: int
    reused: bool


@dataclass(frozen=True, slots=True)
class PulledImage:
    """What a pull came to: ``bytes_fetched`` came over the network, ``bytes_resumed`` had come in an earlier pull."""

    reference: str
    id: str
    digest: Digest
    layers: tuple[PulledLayer, ...]
    bytes_fetched: int
    bytes_resumed: int
    seconds: float


def plan_pull(image: ResolvedImage, store: Snapshot) -> PullPlan:
    """Decide for each layer. Raises DocumentError where manifest and config disagree, TooManyLayersError."""
    blobs, diff_ids = image.layers, image.config.diff_ids
    if len(blobs) != len(diff_ids):
        raise DocumentError(f"{image.reference}: the manifest lists {len(blobs)} layers, the config {len(diff_ids)}")
    if len(blobs) > MAX_LAYERS:
        raise TooManyLayersError(
            f"{image.reference} has {len(blobs)} layers; overlay mounts at most {MAX_LAYERS}",
            hint="build the image with fewer layers, or squash it",
        )
    steps: list[LayerStep] = []
    parent: str | None = None
    for number, (blob, diff_id, layer) in enumerate(zip(blobs, diff_ids, layer_ids(diff_ids), strict=True)):
        steps.append(LayerStep(number, blob, diff_id, layer, parent, LayerAction.FETCH).with_store(store))
        parent = layer
    return PullPlan(image, tuple(steps))
