"""Where a driver keeps trees: in its directory of the graph root, in one apart for images, in those of other stores.

::

    <root>/<driver>/<trees>/<layer ID>    the directory of a layer; <trees> is nothing for overlay
    <root>/<driver>/tempdirs              staging, on the same file system; no program takes it for a layer

A layer is looked for in the own homes first, then in those that are lent, in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Homes:
    """``main`` is beside the records of containers; ``images``, for layers of images, may be the same.

    ``lent`` are of stores where nothing is ever changed. ``trees`` is the name of the directory of layers in each.
    """

    main: Path
    images: Path
    lent: tuple[Path, ...]
    trees: str = ""

    @classmethod
    def below(
        cls, driver: str, graph_root: Path, image_root: Path | None, additional_roots: Sequence[Path], trees: str = ""
    ) -> Homes:
        """Those of ``driver`` in these roots."""
        lent = tuple(root / driver for root in additional_roots)
        return cls(graph_root / driver, (image_root or graph_root) / driver, lent, trees)

    @property
    def own(self) -> tuple[Path, ...]:
        """Where layers are made: one home or two."""
        return tuple(dict.fromkeys((self.main, self.images)))

    @property
    def all(self) -> tuple[Path, ...]:
        """Where layers are looked for, in this order."""
        return (*self.own, *self.lent)

    @property
    def staging_roots(self) -> tuple[Path, ...]:
        """Where the own homes have their temporary directories, which other programs leave alone."""
        return tuple(home / "tempdirs" for home in self.own)

    def staging_root(self, *, for_images: bool) -> Path:
        """Where layers are staged: those of images, or any other."""
        return (self.images if for_images else self.main) / "tempdirs"

    def directory(self, layer_id: str) -> Path:
        """The directory of a layer, in whichever home has it; in ``main`` if none has."""
        for home in self.all:
            directory = home.joinpath(self.trees, layer_id)
            if directory.is_dir():
                return directory
        return self.main.joinpath(self.trees, layer_id)

    def is_lent(self, layer_id: str) -> bool:
        """Whether the layer is in a store that is only lent."""
        directory = self.directory(layer_id)
        return any(directory.parent == home / self.trees for home in self.lent)

    def home_of(self, staged: Path) -> Path:
        """The home that a directory was staged in, and is to be put into."""
        return self.images if staged.is_relative_to(self.images) else self.main
