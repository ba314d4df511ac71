"""The overlay driver: one directory per layer, stacked by the kernel's overlay file system.

::

    overlay/.has-mount-program        "true" if the layers have the marks of a FUSE program, which then mounts them
    overlay/l/<link>                  -> ../<layer ID>/diff; short names, because mount data is limited
    overlay/<layer ID>/diff           the content
                       link           the name in l
                       lower          l/<link of the parent>:l/<link of its parent>:…
                       lower-layers   <parent ID>:<ID of its parent>:…    since containers-storage 1.64
                       work, merged   for mounting
                       empty          only without parent: a mount needs a lower directory
    overlay/tempdirs                  staging; any other directory here counts as damage (format, section 1.1)

There can be more than one such home: one apart for layers of images, and those of additional image stores, in which
nothing is ever changed. Names in ``lower`` are looked for in the ``l`` of all of them.

A staged layer is the complete directory. Only ``lower``, ``lower-layers`` and the mode and owner of ``diff`` depend on
the parent; ``connect`` writes them ahead of the commit, and again in it for the rare layer whose parent was replaced.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import MountError, StoreCorruptError
from asyncpull.store.driver import MountPlan
from asyncpull.store.driver.homes import Homes
from asyncpull.store.driver.program import choose_program
from asyncpull.store.files import disk_errors, make_directory, read_if_there, sync_file, write_new
from asyncpull.store.idmapped import unmap
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncpull.store.driver import MountOptions, Parent, Trash

BASE_MODE = 0o555
_LINK_LENGTH = 26


class OverlayDriver:
    """Layers below ``<graph root>/overlay``, mounted by the kernel, or by ``mount_program``.

    ``options`` are added to every mount. What a store has of marks, and who mounts it, is known after ``prepare``.
    """

    name = "overlay"
    is_layered = True
    copies_parent = False

    def __init__(
        self,
        graph_root: Path,
        options: Sequence[str] = (),
        *,
        rootless: bool = False,
        run_root: Path | None = None,
        image_root: Path | None = None,
        additional_roots: Sequence[Path] = (),
        is_read_only: bool = False,
        mount_program: str = "",
    ) -> None:
        self.homes = Homes.below(self.name, graph_root, image_root, additional_roots)
        self._run_home = (run_root or graph_root) / "overlay"
        self._is_read_only = is_read_only
        self.marks = Marks.USER if rootless else Marks.TRUSTED
        # The kernel refuses metacopy together with the extended attributes that users may set.
        self._options = tuple(option for option in options if not (rootless and option.startswith("metacopy")))
        self._required = ("userxattr",) if rootless else ()
        self.mount_program = mount_program

    def prepare(self) -> None:
        """Make the directories if they are missing, and find out who mounts.

        Raises ConfigurationError if the marks of the store and its configuration do not go together,
        StoreWriteError, NoSpaceError, StoreError.
        """
        with disk_errors(self.homes.main):
            if not self._is_read_only:
                for home in self.homes.own:
                    make_directory(home, 0o755)
                    make_directory(home / "l", 0o755)
        self.mount_program = choose_program(self.homes.all, self.mount_program, is_writable=not self._is_read_only)
        if self.mount_program:
            self.marks, self._required = Marks.AUFS, ()

    def stage(self, directory: Path, parent: Path | None) -> Path:
        """Make the future directory of a layer, complete but for what ``connect`` adds. Raises OSError."""
        make_directory(directory, 0o700)
        for name in ("diff", "work", "merged", *(("empty",) if parent is None else ())):
            make_directory(directory / name, 0o700)
        write_new(directory / "link", new_link().encode(), 0o644)
        return directory / "diff"

    def connect(self, directory: Path, parent: Parent | None) -> list[Path]:
        """Write ``lower`` and ``lower-layers``, and give ``diff`` mode and owner of the parent's, where they differ.

        Raises OSError, StoreCorruptError.
        """
        changed: list[Path] = []
        if parent is not None:
            for name, content in self._names_below(parent).items():
                path = directory / name
                if read_if_there(path) != content:
                    write_new(path, content, 0o644)
                    changed.append(path)
        diff = directory / "diff"
        if _take_root_metadata(diff, parent.directory / "diff" if parent else None):
            changed.append(diff)
        return changed

    def directory(self, layer_id: str) -> Path:
        """``overlay/<layer ID>``, in whichever home has it: the own one first, then the others in their order."""
        return self.homes.directory(layer_id)

    def is_read_only(self, layer_id: str) -> bool:
        """Whether the layer is in a store that is only lent."""
        return self.homes.is_lent(layer_id)

    def diff_path(self, layer_id: str) -> Path:
        """``overlay/<layer ID>/diff``."""
        return self.directory(layer_id) / "diff"

    def has(self, layer_id: str) -> bool:
        """Whether the layer can be built upon: its directory has a ``link``."""
        return (self.directory(layer_id) / "link").is_file()

    def install(self, layer_id: str, directory: Path) -> None:
        """Rename a staged directory into place, then make its link. The place must be free: see ``detach``.

        In this order, because a link that a crash left alone could be found by nobody. The place is in the home that
        the layer was staged in.
        """
        link = (directory / "link").read_text()
        home = self.homes.home_of(directory)
        directory.rename(home / layer_id)
        (home / "l" / link).symlink_to(f"../{layer_id}/diff")

    def sync(self, layer_ids: Iterable[str]) -> None:
        """Sync every directory that something was renamed into: without this btrfs loses recorded layers (issue 4)."""
        for layer_id in layer_ids:
            sync_file(self.directory(layer_id))
        for home in self.homes.own:  # also without any layer: then something was moved out
            sync_file(home / "l")
            sync_file(home)

    def detach(self, layer_id: str, trash: Trash) -> None:
        """Drop the link of a layer and move its directory into ``trash``; whatever is missing is missing."""
        for home in self.homes.own:
            link = read_if_there(home / layer_id / "link").decode("ascii", "replace")
            if is_link_name(link):
                (home / "l" / link).unlink(missing_ok=True)
            unmap(home / layer_id / "mapped")
            if (home / layer_id).is_dir():
                trash.take_tree(home / layer_id)

    def stack(self, layer_id: str) -> list[Path]:
        """``diff``, older contents below it, then the same of every layer below. Raises StoreCorruptError."""
        directory = self.directory(layer_id)
        with disk_errors(directory):
            trees = [directory / "diff", *_rotated(directory)]
            for lower in self._ids_below(directory):
                below = self.directory(lower)
                if not (below / "diff").is_dir():
                    raise StoreCorruptError(f"layer {lower} below it is missing", str(directory))
                trees += [below / "diff", *_rotated(below)]
        return trees

    def plan_mount(self, layer_id: str, how: MountOptions) -> MountPlan:
        """The layer over all its parents; read-only, its own content is but the uppermost of the lower directories.

        A layer outside of the own home is mounted in the run root. Raises StoreCorruptError if a parent is missing,
        MountError if the layer is to be writable and cannot be.
        """
        directory = self.directory(layer_id)
        place = (
            directory if directory.parent == self.homes.main and not self._is_read_only else self._run_home / layer_id
        )
        if how.is_writable and place != directory:
            raise MountError(f"layer {layer_id} is in a store that cannot be written to", "mount it read-only")
        own, *lowers = self.stack(layer_id)
        lowers = lowers or [directory / "empty"]
        with disk_errors(directory):
            for path in (place.parent, place, place / "merged"):
                make_directory(path, 0o700)
        if not how.is_writable:
            lowers.insert(0, own)
        words = [*(how.words or self._options), *self._required]
        words += [] if how.is_writable or "ro" in words else ["ro"]
        words += ["volatile"] if how.volatile and "volatile" not in words else []
        return MountPlan(
            target=place / "merged",
            lowers=tuple(lowers),
            upper=own if how.is_writable else None,
            work=directory / "work" if how.is_writable else None,
            options=tuple(words),
            context=how.context,
            mappings=how.mappings,
            program=self.mount_program,
        )

    def _names_below(self, parent: Parent) -> dict[str, bytes]:
        """What ``lower`` and ``lower-layers`` hold in a child of ``parent``."""
        link = (parent.directory / "link").read_text()
        if not is_link_name(link):
            raise StoreCorruptError(f"{link!r} is not the name of a link", str(parent.directory / "link"))
        lower = read_if_there(parent.directory / "lower").decode()
        ids = [parent.id, *self._ids_below(parent.directory)]
        links = [f"l/{link}", *filter(None, [lower])]
        return {"lower": ":".join(links).encode(), "lower-layers": ":".join(ids).encode()}

    def _ids_below(self, directory: Path) -> list[str]:
        """The IDs of all layers below one, the nearest first."""
        ids = read_if_there(directory / "lower-layers").decode()
        if ids:
            return ids.split(":")
        # Written by a version before 1.64, or a base layer.
        lower = read_if_there(directory / "lower").decode()
        return [self._id_behind(link) for link in lower.split(":") if link]

    def _id_behind(self, link: str) -> str:
        """The layer that a name in ``l`` leads to, in whichever home has it. Raises FileNotFoundError."""
        for home in self.homes.all:
            if (home / link).is_symlink():
                return Path(os.readlink(home / link)).parent.name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(self.homes.main / link))


def _rotated(directory: Path) -> Iterator[Path]:
    """Older contents of a layer with ID mappings, ``diff1`` and so on, each a lower directory below ``diff``."""
    number = 1
    while (directory / f"diff{number}").is_dir():
        yield directory / f"diff{number}"
        number += 1


def _take_root_metadata(diff: Path, parent_diff: Path | None) -> bool:
    """Give the root of a layer mode and owner of its parent's, else 0555 and root; True if that changed it."""
    mode, uid, gid = BASE_MODE, 0, 0
    if parent_diff is not None:
        wanted = parent_diff.lstat()
        mode, uid, gid = stat.S_IMODE(wanted.st_mode), wanted.st_uid, wanted.st_gid
    status = diff.lstat()
    if parent_diff is None and os.geteuid() != 0:
        uid, gid = status.st_uid, status.st_gid  # nobody is root here, and nothing can be given away
    if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, uid, gid):
        return False
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(diff, uid, gid, follow_symlinks=False)
    diff.chmod(mode)
    return True


def new_link() -> str:
    """A name in ``l`` that nobody has."""
    return base64.b32encode(os.urandom(17)).decode()[:_LINK_LENGTH]


def is_link_name(text: str) -> bool:
    """Whether ``text`` can be a name in ``l``."""
    return len(text) == _LINK_LENGTH and text.isalnum() and text.isascii()
