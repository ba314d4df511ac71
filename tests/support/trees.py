"""Listing of a directory tree with everything that two extractions of one layer must have in common."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """What one name of a tree is. ``mode`` includes the type; ``content`` is a SHA-256, empty but for regular files."""

    mode: int
    uid: int
    gid: int
    links: int
    size: int
    mtime_ns: int
    device: int
    target: bytes
    content: str
    xattrs: tuple[tuple[str, bytes], ...]

    def __repr__(self) -> str:
        extra = "".join(f" {name}={value!r}" for name, value in self.xattrs)
        arrow = f" -> {os.fsdecode(self.target)}" if self.target else ""
        return (
            f"<{stat.filemode(self.mode)} {self.uid}:{self.gid} x{self.links} {self.size} B @{self.mtime_ns}"
            f" dev {self.device:#x}{arrow} {self.content[:8]}{extra}>"
        )


def list_tree(root: Path, *, content: bool = True) -> dict[str, TreeEntry]:
    """List everything below ``root`` by relative path; ``root`` itself is ``"."``.

    Directory sizes are left at 0, because file systems choose them; times of access are left out.
    """
    base = os.fspath(root)
    return {os.path.relpath(path, base): _entry(path, content=content) for path in _walk(base)}


def differences(ours: dict[str, TreeEntry], theirs: dict[str, TreeEntry]) -> list[str]:
    """Tell entry by entry where two listings differ, sorted by path."""
    return [
        f"{path}: ours {ours.get(path)}, theirs {theirs.get(path)}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


def _walk(path: str) -> Iterator[str]:
    yield path
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry.path


def _entry(path: str, *, content: bool) -> TreeEntry:
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return TreeEntry(
        mode=info.st_mode,
        uid=info.st_uid,
        gid=info.st_gid,
        links=info.st_nlink,
        size=0 if kind == stat.S_IFDIR else info.st_size,
        mtime_ns=info.st_mtime_ns,
        device=info.st_rdev,
        target=os.readlink(os.fsencode(path)) if kind == stat.S_IFLNK else b"",
        content=_sha256(path) if content and kind == stat.S_IFREG else "",
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
    )


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
