"""What is staged for a commit, and what is to be committed, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreError
from asyncpull.store.files import disk_errors
from asyncpull.store.tempdirs import TempDir

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.spec.digest import Digest
    from asyncpull.store.driver import Driver


@dataclass(frozen=True, slots=True)
class StagedLayer:
    """A layer that nobody sees yet: its content goes to ``diff``, its tar-split to the file ``tar_split``.

    ``directory`` is all of what will be the layer's directory; ``tar_split`` does not exist yet. ``base`` is the tree
    of the parent where the driver wants it copied into ``diff``, by whoever fills that, before anything else.
    ``is_of_image``: it belongs where layers of images are kept.
    """

    directory: Path
    diff: Path
    tar_split: Path
    base: Path | None = None
    is_of_image: bool = True

    def copy_base(self, *, in_userns: bool) -> None:
        """Begin with a copy of the parent's tree, where the driver wants one; slow.

        Raises NotInStoreError if the parent was removed meanwhile, StoreError.
        """
        if self.base is not None:
            from asyncpull.tree.copy import copy_base  # most drivers never copy

            copy_base(self.base, self.diff, in_userns=in_userns)


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer of an image to be committed; ``staged`` is None where the store is to have it already.

    Sizes are bytes, ``compression`` is the number that containers/storage gives it (0 none, 1 bzip2, 2 gzip, 3 xz,
    4 zstd), the owner sets are sorted. ``compressed_digest`` is what was fetched and verified, not what was promised.
    """

    id: str
    parent: str | None
    staged: StagedLayer | None
    diff_digest: Digest
    diff_size: int = 0
    compressed_digest: Digest | None = None
    compressed_size: int = 0
    compression: int = 0
    uidset: tuple[int, ...] = ()
    gidset: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to be committed.

    ``layers`` begin with the base layer. ``digest`` is the one that it is known by first: of the index if it was pulled
    through one. ``big_data`` is in the order of format section 6.4, and has the key ``manifest``; ``names`` begin with
    the newest and are fully normalised. ``created`` is the config's, None for now.
    """

    id: str
    digest: Digest
    names: tuple[str, ...]
    layers: tuple[NewLayer, ...]
    big_data: tuple[tuple[str, bytes], ...]
    created: str | None = None
    metadata: str = "{}"


class Staging:
    """Private room in a store: two temporary directories, whose locks keep everybody else away from them."""

    def __init__(self, driver: Driver, files_root: Path, *, for_images: bool = True) -> None:
        """Nothing is on disk before ``open``. ``for_images``: it is layers of images that are staged here."""
        self._driver, self._files_root, self._for_images = driver, files_root, for_images
        self._trees: TempDir | None = None
        self._files: TempDir | None = None

    def open(self) -> None:
        """Make both directories. Raises StoreWriteError, NoSpaceError, StoreError; ``remove`` is due all the same."""
        self._trees = TempDir.create(self._driver.homes.staging_root(for_images=self._for_images))
        self._files = TempDir.create(self._files_root)

    @property
    def lock_fds(self) -> tuple[int, int]:
        """The descriptors of both locks: a worker that inherits them keeps the directories alive."""
        trees, files = self._opened()
        return trees.lock_fd, files.lock_fd

    def new_layer(self, parent: str | None, below: StagedLayer | None = None) -> StagedLayer:
        """Make room for a layer on top of the layer ``parent``; None for a base layer.

        ``below`` is that layer where it is staged too. In a layered driver it need not be anywhere yet; in others it
        must be complete. Raises StoreWriteError, NoSpaceError, StoreError.
        """
        trees, files = self._opened()
        directory = trees.addition()
        base = None
        with disk_errors(directory):
            if parent is None:
                diff = self._driver.stage(directory, None)
            elif below is None:
                diff = self._driver.stage(directory, self._driver.directory(parent))
                base = self._driver.diff_path(parent)
            else:
                diff = self._driver.stage(directory, below.directory)
                base = below.diff
        base = base if self._driver.copies_parent else None
        return StagedLayer(directory, diff, files.addition(), base, is_of_image=self._for_images)

    def remove(self) -> None:
        """Delete what was not committed."""
        for directory in (self._trees, self._files):
            if directory is not None:
                directory.remove()
        self._trees = self._files = None

    def require_open(self) -> None:
        """Raise StoreError if it was removed, and with it what was staged."""
        self._opened()

    def _opened(self) -> tuple[TempDir, TempDir]:
        if self._trees is None or self._files is None:
            raise StoreError("the staging is closed")
        return self._trees, self._files
