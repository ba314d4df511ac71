"""What a copy is going to do, as data: which instances of an index are taken, and what becomes of each layer.

What need not change is passed on bit for bit. A layer is

- PASS        given on as it is; its descriptor stays
- DECOMPRESS  because the destination wants plain layers, or that was asked for
- RECOMPRESS  because a compression was asked for that it does not have, or because the source has lost it, or because
              the source keeps all layers plain and the destination wants them compressed

and a manifest is rewritten if any of its layers changes, or if the destination does not take its media type. Then the
digests of the manifest and of an index above it change, which ``preserve_digests`` forbids.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import InvalidDigestError, NoMatchingPlatformError, NotFoundError, UsageError
from asyncpull.layer.codec import Compression
from asyncpull.spec import mediatype
from asyncpull.spec.digest import Digest
from asyncpull.spec.platform import parse_platform, select_platform

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asyncpull.spec.destination import Abilities
    from asyncpull.spec.manifest import Descriptor, Index, Manifest
    from asyncpull.spec.platform import Platform
    from asyncpull.spec.reference import Reference


COMPRESSIONS = {"none": Compression.NONE, "gzip": Compression.GZIP, "zstd": Compression.ZSTD}
"""The compressions that media types can tell of, by their names there."""


class Instances(Enum):
    """Which manifests of an index are copied; the words are those of ``skopeo copy --multi-arch``."""

    SYSTEM = "system"  # the one for the platform, and no index
    ALL = "all"
    INDEX_ONLY = "index-only"  # none; the destination is thought to have them
    SOME = "some"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of an index.

    ``platforms`` and ``digests`` say which, for SOME; ``is_stripped`` drops the others from the index, which changes
    its digest, where else it lists what the destination does not have.
    """

    instances: Instances = Instances.SYSTEM
    platforms: tuple[Platform, ...] = ()
    digests: tuple[Digest, ...] = ()
    is_stripped: bool = False


class ManifestFormat(Enum):
    """What kind of manifest the destination is to get."""

    OCI = "oci"
    V2S2 = "v2s2"

    @property
    def media_type(self) -> str:
        """That of a manifest of one image."""
        return mediatype.OCI_MANIFEST if self is ManifestFormat.OCI else mediatype.DOCKER_MANIFEST

    @property
    def index_type(self) -> str:
        """That of a document that lists such manifests."""
        return mediatype.OCI_INDEX if self is ManifestFormat.OCI else mediatype.DOCKER_LIST


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What is wanted of a copy.

    ``preserve_digests`` fails rather than change a manifest or an index. ``compression`` is what all layers get that
    are moved, and NONE makes them plain; a layer that the destination has already is left as it is there, unless
    ``force_compression``. ``level`` is that of gzip or zstd. ``format`` asks for another kind of manifest. ``tags``
    are more names for it, where the destination knows several. ``takes_foreign_layers`` moves also layers whose
    manifest says that they are to be had elsewhere. ``repositories`` are where a
    registry may have the blobs already, as ``domain/path``, besides the source's. ``variants`` are compressions in
    which the index is to have an instance for each platform; where it has none, one is made. ``skips_equal`` leaves a
    name alone that stands for the same document already, to the bit, where no signatures would come to it.
    """

    selection: Selection = field(default_factory=Selection)
    preserve_digests: bool = False
    format: ManifestFormat | None = None
    compression: Compression | None = None
    level: int | None = None
    force_compression: bool = False
    tags: tuple[Reference, ...] = ()
    takes_foreign_layers: bool = False
    repositories: tuple[str, ...] = ()
    variants: tuple[Compression, ...] = ()
    skips_equal: bool = False


class Treatment(Enum):
    """What becomes of a layer."""

    PASS = "pass"
    DECOMPRESS = "decompress"
    RECOMPRESS = "recompress"


@dataclass(frozen=True, slots=True)
class LayerStep:
    """What is done with one layer; ``blob`` is as the source gives it, ``to`` the compression it gets."""

    number: int
    blob: Descriptor
    treatment: Treatment
    to: Compression | None = None


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What becomes of one manifest: ``media_type`` is what it will have."""

    manifest: Manifest
    media_type: str
    steps: tuple[LayerStep, ...]

    @property
    def is_unchanged(self) -> bool:
        """Whether the manifest is passed on bit for bit."""
        return self.media_type == self.manifest.media_type and not any(map(self.changes, self.steps))

    def changes(self, step: LayerStep) -> bool:
        """Whether the manifest will list another blob for a layer."""
        return step.to is not None or step.blob.digest != self.manifest.layers[step.number].digest


def parse_selection(text: str, *, is_stripped: bool = False) -> Selection:
    """Parse ``system``, ``all``, ``index-only``, or a list of platforms and digests. Raises UsageError.

    The list is divided by commas: ``linux/amd64,linux/arm64``; skopeo's ``sparse:`` may stand before it.
    """
    word = text.removeprefix("sparse:")
    if text in (Instances.SYSTEM.value, Instances.ALL.value, Instances.INDEX_ONLY.value):
        if is_stripped:
            raise UsageError(f"nothing is stripped with {text}", "name the platforms to keep")
        return Selection(Instances(text))
    platforms: list[Platform] = []
    digests: list[Digest] = []
    for part in filter(None, word.split(",")):
        name, equals, value = part.partition("=")
        value = value if equals and name in ("platform", "digest") else part
        if ":" in value:
            digests.append(_digest(value))
        else:
            platforms.append(parse_platform(value))
    if not platforms and not digests:
        raise UsageError(
            f"{text!r} selects nothing", "system, all, index-only, or a list such as linux/amd64,linux/arm64"
        )
    return Selection(Instances.SOME, tuple(platforms), tuple(digests), is_stripped)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigestError as error:
        raise UsageError(str(error)) from error


def selected(index: Index, selection: Selection, platform: Platform) -> tuple[Descriptor, ...]:
    """The manifests of ``index`` to be copied, in its order, each once.

    Raises NoMatchingPlatformError, NotFoundError for a digest that it does not list.
    """
    if selection.instances is Instances.ALL:
        return tuple({descriptor.digest: descriptor for descriptor in index.manifests}.values())
    if selection.instances is Instances.INDEX_ONLY:
        return ()
    if selection.instances is Instances.SYSTEM:
        return (select_platform(index.manifests, platform),)
    wanted = {select_platform(index.manifests, each).digest for each in selection.platforms}
    listed = {descriptor.digest: descriptor for descriptor in index.manifests}
    for digest in selection.digests:
        if digest not in listed:
            raise NotFoundError(f"index {index.digest} lists no manifest {digest}")
        wanted.add(digest)
    if not wanted:
        raise NoMatchingPlatformError(f"nothing is selected of index {index.digest}")
    return tuple(descriptor for digest, descriptor in listed.items() if digest in wanted)


def plan_copy(
    manifest: Manifest,
    given: Sequence[Descriptor],
    abilities: Abilities,
    options: CopyOptions,
    there: Collection[Digest] = (),
    *,
    is_made: bool = False,
) -> CopyPlan:
    """Decide for one manifest; ``given`` are its layers as the source has them, which may be plain by now.

    ``there`` are the digests of the manifest's layers that the destination has already as they are to be. A manifest
    that ``is_made`` by the source has no digest worth keeping, unless digests are to be preserved.
    Raises UsageError for what cannot be had together, and where digests are to be preserved and cannot be.
    """
    is_free = is_made and not options.preserve_digests
    steps = tuple(
        LayerStep(number, before, Treatment.PASS)
        if before.digest in there
        else _step(number, blob, before, abilities, options, is_free)
        for number, (before, blob) in enumerate(zip(manifest.layers, given, strict=True))
    )
    media_type = _media_type(manifest, steps, abilities, options, is_free)
    plan = CopyPlan(manifest, media_type, steps)
    if options.preserve_digests and not plan.is_unchanged:
        raise UsageError(
            f"manifest {manifest.digest} cannot be copied as it is: {_reason(plan)}",
            "copy it without --preserve-digests, or to another kind of destination",
        )
    return plan


def _step(
    number: int, blob: Descriptor, before: Descriptor, abilities: Abilities, options: CopyOptions, is_free: bool
) -> LayerStep:
    has, had = compression_of(blob), compression_of(before)
    if has is None or is_left(blob, abilities, options):  # of an artifact: no tar, as far as anybody knows
        return LayerStep(number, blob, Treatment.PASS)
    wanted = Compression.NONE if abilities.wants_plain_layers else options.compression
    if wanted is None and has is Compression.NONE:
        wanted = had  # the source has it plain although its manifest says otherwise
        if had is Compression.NONE and is_free and abilities.wants_compressed_layers:
            wanted = Compression.GZIP  # what every reader can undo
    if wanted is None or wanted is has:
        return LayerStep(number, blob, Treatment.PASS)
    if wanted is Compression.NONE:
        return LayerStep(number, blob, Treatment.DECOMPRESS, wanted)
    return LayerStep(number, blob, Treatment.RECOMPRESS, wanted)


def is_left(blob: Descriptor, abilities: Abilities, options: CopyOptions) -> bool:
    """Whether a layer is not moved, because its URLs say where it is, and that is good enough for the destination."""
    return bool(blob.urls) and not options.takes_foreign_layers and not abilities.wants_plain_layers


def _media_type(
    manifest: Manifest, steps: Sequence[LayerStep], abilities: Abilities, options: CopyOptions, is_free: bool
) -> str:
    """What the manifest is to be: what is asked for, or what it is, or what the destination wants."""
    takes = [each for each in abilities.media_types if mediatype.is_manifest(each)]
    if options.format is not None:
        wanted = options.format.media_type
        if takes and wanted not in takes:
            raise UsageError(f"the destination does not take manifests of format {options.format.value}")
    else:
        is_taken = not takes or (manifest.media_type in takes and not is_free)
        wanted = manifest.media_type if is_taken else takes[0]
    has_zstd = any((compression_of(step.blob) if step.to is None else step.to) is Compression.ZSTD for step in steps)
    changes = wanted != manifest.media_type or any(step.treatment is not Treatment.PASS for step in steps)
    if has_zstd and changes and wanted == mediatype.DOCKER_MANIFEST:
        if options.format is not None or (takes and mediatype.OCI_MANIFEST not in takes):
            raise UsageError("a manifest of format v2s2 has no layers compressed by zstd", "use --format oci, or gzip")
        return mediatype.OCI_MANIFEST
    return wanted


def _reason(plan: CopyPlan) -> str:
    if plan.media_type != plan.manifest.media_type:
        return f"it would become {plan.media_type}"
    return "its layers would be compressed otherwise"


def compression_of(layer: Descriptor) -> Compression | None:
    """The compression that a layer's media type tells of; None for what is no layer."""
    return COMPRESSIONS.get(mediatype.compression_of(layer.media_type) or "")
