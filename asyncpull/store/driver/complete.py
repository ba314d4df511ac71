"""What drivers have in common whose layers are complete trees: everything but how a tree begins.

::

    <home>/<trees>/<layer ID>     the tree; nothing has to be mounted to use it
    <home>/tempdirs               staging; no program takes it for a layer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import MountError
from asyncpull.store.driver import MountPlan
from asyncpull.store.files import disk_errors, make_directory, sync_file
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Iterable
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

    def __init__(self, graph_root: Path) -> None:
        self.home = graph_root / self.name

    @property
    def staging_root(self) -> Path:
        """Temporary directories on the same file system, which other programs leave alone."""
        return self.home / "tempdirs"

    @property
    def image_staging_root(self) -> Path:
        """The same: images have no place of their own."""
        return self.staging_root

    def is_read_only(self, layer_id: str) -> bool:
        """No: there is but one home."""
        return False

    def prepare(self) -> None:
        """Make the directories if they are missing.

        Raises ConfigurationError, StoreWriteError, NoSpaceError, StoreError.
        """
        with disk_errors(self.home):
            make_directory(self.home, 0o700)
            make_directory(self.home / self.trees, 0o700)

    def connect(self, directory: Path, parent: Parent | None) -> tuple[Path, ...]:
        """Nothing: all that a tree has of its parent it has from the beginning."""
        return ()

    def directory(self, layer_id: str) -> Path:
        """``<home>/<trees>/<layer ID>``."""
        return self.home / self.trees / layer_id

    def diff_path(self, layer_id: str) -> Path:
        """The same: what a layer brings itself is in its tree, among what it has of its parent."""
        return self.directory(layer_id)

    def has(self, layer_id: str) -> bool:
        """Whether there is a tree."""
        return self.directory(layer_id).is_dir()

    def install(self, layer_id: str, directory: Path) -> None:
        """Rename a staged tree into place, which must be free."""
        directory.rename(self.directory(layer_id))

    def sync(self, layer_ids: Iterable[str]) -> None:
        """Sync the directory that the trees were renamed into."""
        sync_file(self.home / self.trees)

    def detach(self, layer_id: str, trash: Trash) -> None:
        """Move the tree into ``trash``, if there is one."""
        if self.has(layer_id):
            trash.take_tree(self.directory(layer_id))

    def plan_mount(self, layer_id: str, how: MountOptions) -> MountPlan:
        """The tree, where it is: writable for whoever may write there, also if only reading was meant, as in podman.

        Raises MountError for mount options, and for other owners than the tree has.
        """
        if how.mappings:
            raise MountError(f"the driver {self.name} mounts nothing, and so cannot show a tree with other owners")
        if set(how.words) - {"ro"}:
            raise MountError(
                f"the driver {self.name} mounts nothing, and so takes no mount options: {','.join(how.words)}",
                "leave the options out",
            )
        return MountPlan(self.directory(layer_id), (), None, None, (), is_in_place=True)
