"""What a check found, as values."""

from __future__ import annotations

from enum import Enum

from asyncpull.dataclass import dataclass


class Damage(Enum):
    """What is wrong; the value is its name in JSON.

    There is none for a layer that cannot be mounted. podman tries that with each layer of its own; what can go wrong,
    by its code, is a directory or a name in ``l`` that is missing, a ``lower`` that leads nowhere or names too many,
    and an answer of the kernel to sound files: that its version, a mount option or the file system will not do. The
    first ones are found here by looking, and the last is no damage of a layer: it is the same for all layers, and
    podman's repair would remove every image for it.
    """

    # Records
    RECORDS_UNREADABLE = "records-unreadable"
    """A record file that nobody can read."""
    DUPLICATE_ID = "duplicate-id"
    """Two records of one ID; only the first counts."""
    DUPLICATE_NAME = "duplicate-name"
    """A name that two records have."""
    PARENT_MISSING = "parent-missing"
    """A layer on a parent without a record, or one that is above itself."""
    LAYER_INCOMPLETE = "layer-incomplete"
    """A layer whose maker died; the next program that changes layers removes it."""
    LAYER_UNREFERENCED = "layer-unreferenced"
    """A layer that no image and no container needs, older than allowed."""
    IMAGE_LAYER_MISSING = "image-layer-missing"
    """An image on a layer without a record."""
    IMAGE_LAYERS_WRONG = "image-layers-wrong"
    """An image whose config names other diff IDs than its layers have."""
    CONTAINER_IMAGE_MISSING = "container-image-missing"
    """A container of an image without a record."""
    CONTAINER_LAYER_MISSING = "container-layer-missing"
    """A container whose own layer has no record."""
    MOUNT_COUNT_STALE = "mount-count-stale"
    """A layer that is counted as mounted, and is not."""
    # Files of layers
    TREE_MISSING = "tree-missing"
    """A layer without the directory of its content."""
    LINK_MISSING = "link-missing"
    """A layer whose ``link`` file is missing or names nothing."""
    SHORT_NAME_MISSING = "short-name-missing"
    """A symbolic link in ``l`` that is missing or leads elsewhere."""
    LOWER_WRONG = "lower-wrong"
    """``lower`` or ``lower-layers`` that do not name the layer's parents in their order."""
    DIRECTORY_MISSING = "directory-missing"
    """``work``, ``merged`` or ``empty`` is missing."""
    TOO_MANY_LAYERS = "too-many-layers"
    """A layer on more layers than anybody mounts."""
    TAR_SPLIT_MISSING = "tar-split-missing"
    """A layer of an image that cannot be rebuilt, for its tar-split is missing."""
    # Content of layers
    TAR_SPLIT_UNREADABLE = "tar-split-unreadable"
    """A tar-split that is none, or whose members break the rules of layers."""
    DIFF_DIGEST_WRONG = "diff-digest-wrong"
    """The rebuilt tar has another digest than the record."""
    DIFF_SIZE_WRONG = "diff-size-wrong"
    """The rebuilt tar has another length than the record."""
    CONTENT_MISSING = "content-missing"
    """Something of the archive is not in the tree."""
    CONTENT_UNEXPECTED = "content-unexpected"
    """Something in the tree is not in the archive."""
    CONTENT_MODIFIED = "content-modified"
    """A file's bytes, type, owner, size, mode, time, attributes, target, device or hard links are others."""
    # Big data
    DATA_MISSING = "data-missing"
    """An item of big data that a record names is not there, or cannot be read."""
    DATA_SIZE_WRONG = "data-size-wrong"
    """An item of big data is longer or shorter than recorded."""
    DATA_DIGEST_WRONG = "data-digest-wrong"
    """An item of big data is not what its digest says."""
    MANIFEST_MISSING = "manifest-missing"
    """An image whose record names no manifest."""
    # What nobody accounts for; all but trees is harmless, and only garbage collection speaks of it
    STRAY_TREE = "stray-tree"
    """A directory of a layer without a record."""
    STRAY_SHORT_NAME = "stray-short-name"
    """A symbolic link in ``l`` that leads to no layer."""
    STRAY_LAYER_DATA = "stray-layer-data"
    """A tar-split or big data of a layer without a record."""
    STRAY_IMAGE_DATA = "stray-image-data"
    """Big data of an image without a record."""
    STRAY_CONTAINER_DATA = "stray-container-data"
    """The directory of a container without a record."""
    ABANDONED = "abandoned"
    """What a program that died left among temporary things: a directory, a lock, half a file."""


DAMAGE_OF_CONTENT = frozenset(
    (
        Damage.TAR_SPLIT_UNREADABLE,
        Damage.DIFF_DIGEST_WRONG,
        Damage.DIFF_SIZE_WRONG,
        Damage.CONTENT_MISSING,
        Damage.CONTENT_UNEXPECTED,
        Damage.CONTENT_MODIFIED,
    )
)
"""What only reading all of a layer tells."""


class Subject(Enum):
    """What a finding is about."""

    LAYER = "layer"
    IMAGE = "image"
    CONTAINER = "container"
    STORE = "store"


class Remedy(Enum):
    """What a repair does about a finding."""

    REMAKE = "remake"
    """What is missing or wrong is made anew from what is there."""
    REMOVE = "remove"
    """The subject is removed, with the layers and images that stand on it; containers only if that is forced."""
    FORCE = "force"
    """The container is removed, if that is forced."""
    NONE = "none"
    """Nobody but a person can do anything."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with ``id`` ("" for the store as a whole).

    ``path`` is the file it was seen at, as text for people, ``message`` what is wrong with it. ``is_repaired`` is only
    ever true in the report of a repair.
    """

    damage: Damage
    subject: Subject
    id: str
    path: str
    message: str
    remedy: Remedy
    is_repaired: bool = False

    @property
    def is_repairable(self) -> bool:
        """Whether a repair can end it, perhaps only by force."""
        return self.remedy is not Remedy.NONE

    def __str__(self) -> str:
        what = f"{self.subject.value} {self.id}".strip()
        return f"{what}: {self.message}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and all that was found, in the order layers, images, containers, the store."""

    findings: tuple[Finding, ...]
    is_full: bool
    layers: int
    images: int
    containers: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, or not any more."""
        return all(finding.is_repaired for finding in self.findings)
