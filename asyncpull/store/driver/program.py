"""Who mounts the layers of an overlay store: the kernel, or a FUSE program; a store is one or the other for good.

The two write different marks for what is deleted: the kernel devices and extended attributes, programs the files
``.wh.<name>`` of an archive. ``.has-mount-program`` says which marks a store has. It is written once, when the store
begins, and never changed here: podman changes it whenever it is called with the option ``mount_program``, and then
shows deleted files again to whoever mounts without the program (format, section 5.5).

A store with a program's marks is used with fuse-overlayfs where no program is configured, as podman does it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError
from asyncpull.log import Log
from asyncpull.store.files import disk_errors, read_if_there, write_new
from asyncpull.tree.marks import AUFS_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_log = Log(__name__)

MARKER = ".has-mount-program"
_USUAL_PROGRAM = "fuse-overlayfs"
_NO_LAYERS = {"l", "staging", "tempdirs"}
_PROGRAM_ATTRIBUTES = ("user.fuseoverlayfs.", "user.containers.")


def choose_program(homes: Iterable[Path], configured: str, *, is_writable: bool = True) -> str:
    """The program that mounts the layers in ``homes``, a path; or "" for the kernel.

    The first home is the store's own: it gets its marker here if it has none. Raises ConfigurationError where homes
    and ``configured`` do not go together, or the program is missing; StoreWriteError, NoSpaceError, StoreError.
    """
    if configured and not os.access(configured, os.X_OK):
        raise ConfigurationError(
            f"mount_program = {configured}: there is no such program", "install it, or leave the option out"
        )
    own, *others = homes
    uses_program = _marked(own)
    if uses_program is None:
        uses_program = _has_program_marks(own) or (bool(configured) and not any(_layers(own)))
        if is_writable:
            with disk_errors(own):
                write_new(own / MARKER, b"true" if uses_program else b"false", 0o600)
    if configured and not uses_program:
        raise ConfigurationError(
            f"mount_program = {configured}: {own} was written for the kernel's overlay, whose marks must not be mixed "
            "with those of programs",
            "leave mount_program out for this store, or begin another one with --root",
        )
    for home in others:
        if _marked(home) not in (None, uses_program):
            raise ConfigurationError(
                f"{home} and {own} have different marks: one was written with a FUSE mount program, one without",
                "use only stores of one kind together",
            )
    return (configured or _usual_program(own)) if uses_program else ""


def _usual_program(home: Path) -> str:
    from shutil import which  # here, for it brings three compressions along

    program = which(_USUAL_PROGRAM)
    if program is None:
        raise ConfigurationError(
            f"{home}: this store was written with a FUSE mount program, whose marks the kernel does not know",
            f"install {_USUAL_PROGRAM}, or choose another store with --root",
        )
    _log.debug("the store was written with a mount program", program=program, home=str(home))
    return program


def _marked(home: Path) -> bool | None:
    """What the marker says, None without one."""
    with disk_errors(home):
        return {b"true": True, b"false": False}.get(read_if_there(home / MARKER).strip())


def _layers(home: Path) -> Iterator[Path]:
    return (path for path in home.iterdir() if path.is_dir() and path.name not in _NO_LAYERS)


def _has_program_marks(home: Path) -> bool:
    """Whether a program's marks are in the trees of a store older than the marker. It looks at every file, once."""
    with disk_errors(home):
        for layer in _layers(home):
            for directory, directories, files in os.walk(os.fsencode(layer / "diff")):
                names = os.listxattr(directory, follow_symlinks=False)
                if any(name.startswith(_PROGRAM_ATTRIBUTES) for name in names):
                    return True
                if any(name.startswith(AUFS_PREFIX) for name in (*directories, *files)):
                    return True
    return False
