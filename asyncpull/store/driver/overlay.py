"""The overlay driver: one directory per layer, stacked by the kernel's overlay file system.

::

    overlay/.has-mount-program        "true" if a FUSE program wrote its own kind of whiteouts here: we refuse then
    overlay/l/<link>                  -> ../<layer ID>/diff; short names, because mount data is limited
    overlay/<layer ID>/diff           the content
                       link           the name in l
                       lower          l/<link of the parent>:l/<link of its parent>:…
                       lower-layers   <parent ID>:<ID of its parent>:…    since containers-storage 1.64
                       work, merged   for mounting
                       empty          only without parent: a mount needs a lower directory
    overlay/tempdirs                  staging; any other directory here counts as damage (format, section 1.1)

A staged layer is the complete directory. Only ``lower``, ``lower-layers`` and the mode and owner of ``diff`` depend on
the parent; ``connect`` writes them ahead of the commit, and again in it for the rare layer whose parent was replaced.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError, StoreCorruptError
from asyncpull.store.driver import MountPlan
from asyncpull.store.files import disk_errors, make_directory, read_if_there, sync_file, write_new
from asyncpull.store.idmapped import unmap
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncpull.store.driver import MountOptions, Parent, Trash

BASE_MODE = 0o555
_LINK_LENGTH = 26


class OverlayDriver:
    """Layers below ``<graph root>/overlay``, mounted by the kernel. ``options`` are added to every mount."""

    name = "overlay"
    is_layered = True
    copies_parent = False

    def __init__(self, graph_root: Path, options: Sequence[str] = (), *, rootless: bool = False) -> None:
        self.home = graph_root / "overlay"
        self.marks = Marks.USER if rootless else Marks.TRUSTED
        # The kernel refuses metacopy together with the extended attributes that users may set.
        self._options = tuple(option for option in options if not (rootless and option.startswith("metacopy")))
        self._required = ("userxattr",) if rootless else ()

    @property
    def staging_root(self) -> Path:
        """Temporary directories on the same file system, which other programs leave alone."""
        return self.home / "tempdirs"

    def prepare(self) -> None:
        """Make the directories if they are missing; refuse a store with a FUSE program's marks.

        Raises ConfigurationError, StoreWriteError, NoSpaceError, StoreError.
        """
        marker = self.home / ".has-mount-program"
        with disk_errors(self.home):
            make_directory(self.home, 0o755)
            make_directory(self.home / "l", 0o755)
            content = read_if_there(marker).strip()
            if not content:
                # Where the file is missing podman walks the whole tree to find out.
                write_new(marker, b"false", 0o600)
        if content == b"true":
            raise ConfigurationError(
                f"{self.home}: this store was written with a FUSE mount program, whose marks the kernel does not know",
                "choose another store with --root",
            )

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
            for name, content in _names_below(parent, self.home).items():
                path = directory / name
                if read_if_there(path) != content:
                    write_new(path, content, 0o644)
                    changed.append(path)
        diff = directory / "diff"
        if _take_root_metadata(diff, parent.directory / "diff" if parent else None):
            changed.append(diff)
        return changed

    def directory(self, layer_id: str) -> Path:
        """``overlay/<layer ID>``."""
        return self.home / layer_id

    def diff_path(self, layer_id: str) -> Path:
        """``overlay/<layer ID>/diff``."""
        return self.home / layer_id / "diff"

    def has(self, layer_id: str) -> bool:
        """Whether the layer can be built upon: its directory has a ``link``."""
        return (self.home / layer_id / "link").is_file()

    def install(self, layer_id: str, directory: Path) -> None:
        """Rename a staged directory into place, then make its link. The place must be free: see ``detach``.

        In this order, because a link that a crash left alone could be found by nobody.
        """
        link = (directory / "link").read_text()
        directory.rename(self.home / layer_id)
        (self.home / "l" / link).symlink_to(f"../{layer_id}/diff")

    def sync(self, layer_ids: Iterable[str]) -> None:
        """Sync every directory that something was renamed into: without this btrfs loses recorded layers (issue 4)."""
        for layer_id in layer_ids:
            sync_file(self.home / layer_id)
        sync_file(self.home / "l")
        sync_file(self.home)

    def detach(self, layer_id: str, trash: Trash) -> None:
        """Drop the link of a layer and move its directory into ``trash``; whatever is missing is missing."""
        link = read_if_there(self.home / layer_id / "link").decode("ascii", "replace")
        if is_link_name(link):
            (self.home / "l" / link).unlink(missing_ok=True)
        unmap(self.home / layer_id / "mapped")
        if (self.home / layer_id).is_dir():
            trash.take_tree(self.home / layer_id)

    def plan_mount(self, layer_id: str, how: MountOptions) -> MountPlan:
        """The layer over all its parents; read-only, its own content is but the uppermost of the lower directories.

        Raises StoreCorruptError if a parent is missing.
        """
        directory = self.home / layer_id
        with disk_errors(directory):
            lowers = list(_rotated(directory))
            for lower in _ids_below(directory, self.home):
                if not (self.home / lower / "diff").is_dir():
                    raise StoreCorruptError(f"layer {lower} below it is missing", str(directory))
                lowers += [self.home / lower / "diff", *_rotated(self.home / lower)]
            lowers = lowers or [directory / "empty"]
            make_directory(directory / "merged", 0o700)
        if not how.is_writable:
            lowers.insert(0, directory / "diff")
        words = [*(how.words or self._options), *self._required]
        words += [] if how.is_writable or "ro" in words else ["ro"]
        words += ["volatile"] if how.volatile and "volatile" not in words else []
        return MountPlan(
            target=directory / "merged",
            lowers=tuple(lowers),
            upper=directory / "diff" if how.is_writable else None,
            work=directory / "work" if how.is_writable else None,
            options=tuple(words),
            context=how.context,
            mappings=how.mappings,
        )


def _names_below(parent: Parent, home: Path) -> dict[str, bytes]:
    """What ``lower`` and ``lower-layers`` hold in a child of ``parent``."""
    link = (parent.directory / "link").read_text()
    if not is_link_name(link):
        raise StoreCorruptError(f"{link!r} is not the name of a link", str(parent.directory / "link"))
    lower = read_if_there(parent.directory / "lower").decode()
    ids = [parent.id, *_ids_below(parent.directory, home)]
    return {"lower": ":".join([f"l/{link}", *filter(None, [lower])]).encode(), "lower-layers": ":".join(ids).encode()}


def _ids_below(directory: Path, home: Path) -> list[str]:
    """The IDs of all layers below one, the nearest first."""
    ids = read_if_there(directory / "lower-layers").decode()
    if ids:
        return ids.split(":")
    # Written by a version before 1.64, or a base layer.
    lower = read_if_there(directory / "lower").decode()
    return [Path(os.readlink(home / link)).parent.name for link in lower.split(":") if link]


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
