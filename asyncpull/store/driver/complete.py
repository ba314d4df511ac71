"""What drivers have in common whose layers are complete trees: everything but how a tree begins.

::

    <home>/<trees>/<layer ID>     the tree; nothing has to be mounted to use it
    <home>/tempdirs               staging; no program takes it for a layer

There may be several homes (see ``homes``). Since a tree is complete, nothing of one home leads to another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import MountError
from asyncpull.store.driver import MountPlan
from asyncpull.store.driver.homes import Homes
from asyncpull.store.files import disk_errors, make_directory, sync_file
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from asyncpull.store.driver import MountOptions, Parent, Trash

BASE_MODE = 0o555
"""Mode of the root of a layer without parent, until its archive says otherwise."""


class CompleteTreeDriver:
    """Layers below ``<graph root>/<name>/<trees>``, each a root file system of its own."""

    name: str
    trees: str
    copies_parent: bool
    is_layered = False
    marks = Marks.NONE

    def __init__(
        self,
        graph_root: Path,
        *,
        image_root: Path | None = None,
        additional_roots: Sequence[Path] = (),
        is_read_only: bool = False,
    ) -> None:
        self.homes = Homes.below(self.name, graph_root, image_root, additional_roots, self.trees)
        self._is_read_only = is_read_only

    def is_read_only(self, layer_id: str) -> bool:
        """Whether the layer is in a store that is only lent."""
        return self.homes.is_lent(layer_id)

    def prepare(self) -> None:
        """Make the directories if they are missing.

        Raises ConfigurationError, StoreWriteError, NoSpaceError, StoreError.
        """
        if self._is_read_only:
            return
        for home in self.homes.own:
            with disk_errors(home):
                make_directory(home, 0o700)
                make_directory(home / self.trees, 0o700)

    def connect(self, directory: Path, parent: Parent | None) -> tuple[Path, ...]:
        """Nothing: all that a tree has of its parent it has from the beginning."""
        return ()

    def directory(self, layer_id: str) -> Path:
        """``<home>/<trees>/<layer ID>``, in whichever home has it."""
        return self.homes.directory(layer_id)

    def diff_path(self, layer_id: str) -> Path:
        """The same: what a layer brings itself is in its tree, among what it has of its parent."""
        return self.directory(layer_id)

    def has(self, layer_id: str) -> bool:
        """Whether there is a tree."""
        return self.directory(layer_id).is_dir()

    def install(self, layer_id: str, directory: Path) -> None:
        """Rename a staged tree into place, which must be free, in the home that it was staged in."""
        directory.rename(self.homes.home_of(directory) / self.trees / layer_id)

    def sync(self, layer_ids: Iterable[str]) -> None:
        """Sync the directories that trees are renamed into, and out of."""
        for home in self.homes.own:
            sync_file(home / self.trees)

    def detach(self, layer_id: str, trash: Trash) -> None:
        """Move the tree into ``trash``, if there is one."""
        for home in self.homes.own:
            if (home / self.trees / layer_id).is_dir():
                trash.take_tree(home / self.trees / layer_id)

    def stack(self, layer_id: str) -> list[Path]:
        """The tree of the layer, which is complete."""
        return [self.directory(layer_id)]

    def plan_mount(self, layer_id: str, how: MountOptions) -> MountPlan:
        """The tree, where it is: writable for whoever may write there, also if only reading was meant, as in podman.

        Raises MountError for mount options, for other owners than the tree has, and for a writable tree that is lent.
        """
        if how.is_writable and (self._is_read_only or self.is_read_only(layer_id)):
            raise MountError(f"layer {layer_id} is in a store that cannot be written to", "mount it read-only")
        if how.mappings:
            raise MountError(f"the driver {self.name} mounts nothing, and so cannot show a tree with other owners")
        if set(how.words) - {"ro"}:
            raise MountError(
                f"the driver {self.name} mounts nothing, and so takes no mount options: {','.join(how.words)}",
                "leave the options out",
            )
        return MountPlan(self.directory(layer_id), (), None, None, (), is_in_place=True)
