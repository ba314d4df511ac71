"""What a driver does: keep the trees of layers on disk. All drivers are used through this protocol.

Records and locks are none of a driver's business. Its methods that change ``homes`` need the layer lock, held
exclusively by the caller; those that work in a staging directory need nothing. None of them waits for anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass
from asyncpull.store.idmap import NO_MAPPINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from asyncpull.store.driver.homes import Homes
    from asyncpull.store.idmap import IDMappings
    from asyncpull.tree.marks import Marks


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a layer is wanted.

    ``words`` of mount(8) replace the configured mount options; ``ro`` among them wins over ``writable``. ``context`` is
    the SELinux label or "". ``volatile``: no sync is ever needed. ``mappings`` give the files of the layers below it
    other owners in what is mounted.
    """

    writable: bool = False
    words: tuple[str, ...] = ()
    context: str = ""
    volatile: bool = False
    mappings: IDMappings = NO_MAPPINGS

    @property
    def is_writable(self) -> bool:
        """Whether writing goes to the layer."""
        return self.writable and "ro" not in self.words


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount, as data: ``lowers`` from the nearest to the base; ``upper`` and ``work`` only if it is writable.

    ``options`` are mount options in the words of mount(8), ``context`` the SELinux label or "". ``mappings`` are for
    the trees of other layers than the one that is mounted, which is the one that ``target`` belongs to. Where the tree
    ``is_in_place`` nothing is mounted: ``target`` is a complete tree already. ``program`` is the FUSE program that
    mounts it, "" for the kernel.
    """

    target: Path
    lowers: tuple[Path, ...]
    upper: Path | None
    work: Path | None
    options: tuple[str, ...]
    context: str = ""
    mappings: IDMappings = NO_MAPPINGS
    is_in_place: bool = False
    program: str = ""

    @property
    def is_writable(self) -> bool:
        """Whether writing goes to ``upper``."""
        return self.upper is not None


@dataclass(frozen=True, slots=True)
class Parent:
    """What a layer is stacked on: its ID, and where its directory is now, in a staging directory or in its place."""

    id: str
    directory: Path


class Trash(Protocol):
    """Where trees go that are to be deleted later."""

    def take_tree(self, path: Path) -> None:
        """Move ``path`` in; nothing happens if it is not there."""


class Driver(Protocol):
    """The trees of layers in ``homes``.

    Is it layered, then a layer's tree holds what the layer changes, and ``marks`` say what it deletes; a mount stacks
    the trees. Is it not, then each layer's tree is complete, made from a copy of its parent's, and ``marks`` is NONE.
    ``copies_parent`` tells who makes that copy: whoever fills a staged tree, before anything else; or, if False,
    ``stage`` does.
    """

    name: str
    homes: Homes
    marks: Marks
    is_layered: bool
    copies_parent: bool

    def prepare(self) -> None:
        """Make the own homes if they are missing. Raises ConfigurationError where the store is not one we can use."""

    def stage(self, directory: Path, parent: Path | None) -> Path:
        """Make ``directory`` what the directory of a layer will be, and return where its content belongs.

        ``parent`` is the directory of the parent's tree, staged and complete or in its place; a layered driver does not
        mind if it is not there yet. None makes a base layer. Raises OSError.
        """

    def connect(self, directory: Path, parent: Parent | None) -> Sequence[Path]:
        """Write into a staged layer what depends on its parent; the paths that had to be changed."""

    def directory(self, layer_id: str) -> Path:
        """The directory of a layer."""

    def is_read_only(self, layer_id: str) -> bool:
        """Whether a layer is in a store that is only lent."""

    def diff_path(self, layer_id: str) -> Path:
        """Where the content of a layer is: what it brings itself is found below this path by name in every driver."""

    def has(self, layer_id: str) -> bool:
        """Whether the tree of a layer is there."""

    def install(self, layer_id: str, directory: Path) -> None:
        """Make a staged and connected directory the tree of ``layer_id``. Raises OSError."""

    def sync(self, layer_ids: Iterable[str]) -> None:
        """Have the names of installed layers on the disk, and that detached ones are gone. Raises OSError."""

    def detach(self, layer_id: str, trash: Trash) -> None:
        """Move the tree of a layer into ``trash``; also one that nobody recorded, or half of one. Raises OSError."""

    def stack(self, layer_id: str) -> list[Path]:
        """The trees that make up a layer, its own first, then those that it lies upon, the nearest first.

        Raises StoreCorruptError if one is missing.
        """

    def plan_mount(self, layer_id: str, how: MountOptions) -> MountPlan:
        """How a layer is mounted. Raises StoreCorruptError if its parents cannot be followed."""
