"""Layers applied to directories of a test, by either way of opening directories, and by two partners."""

from __future__ import annotations

import os
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AsyncpullError
from asyncpull.extract.apply import Applied, ApplyOptions, apply_layer, read_layer
from asyncpull.extract.partner import DistantMaker, make_for_another
from asyncpull.extract.protocol import MakeJob, open_memory
from asyncpull.tree.confine import Opener, has_openat2, open_by_kernel, open_by_steps
from asyncpull.tree.marks import Marks
from tests.support.tars import Entry, tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_NOBODY = 0xFFFF_FFFF

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in ((1, 7, _NOBODY), (2, 7, 77), (4, 5, _NOBODY), (16, 5, _NOBODY), (32, 0, _NOBODY))
)
"""A POSIX ACL as an attribute holds it: user::rwx, user:77:rwx, group::r-x, mask::r-x, other::---."""


def marks_of(rootless: bool) -> Marks:
    return Marks.USER if rootless else Marks.TRUSTED


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was applied."""

    diff: Path
    applied: Applied
    tar_split: bytes

    def info(self, name: str | bytes) -> os.stat_result:
        """What is at ``name``, not followed."""
        return os.lstat(os.path.join(os.fsencode(self.diff), os.fsencode(name)))

    def xattrs(self, name: str) -> dict[str, bytes]:
        path = self.diff / name
        return {
            each: os.getxattr(path, each, follow_symlinks=False) for each in os.listxattr(path, follow_symlinks=False)
        }

    def names(self) -> set[str]:
        """Everything below the root."""
        return {os.path.relpath(path, self.diff) for path in self.diff.rglob("*")}


def apply_apart(
    chunks: Iterable[bytes], root: Path, split_sink: Callable[[bytes], object], options: ApplyOptions
) -> Applied:
    """Apply a layer by two partners, who are threads here and talk to each other as processes do."""
    memory, (ours, theirs) = open_memory(), socket.socketpair()
    job = MakeJob(str(root), options.marks, options.in_userns, options.ignore_chown_errors, ceilings=options.ceilings)
    maker = threading.Thread(target=make_for_another, args=(job, memory, theirs.fileno(), as_it_is))
    maker.start()
    try:
        with DistantMaker(memory, ours.fileno()) as distant:
            return read_layer(chunks, distant, split_sink, options.ceilings)
    finally:
        ours.close()
        maker.join()
        theirs.close()
        os.close(memory)


def as_it_is(error: Exception) -> AsyncpullError:
    """What the one who makes the tree says of an error."""
    assert isinstance(error, AsyncpullError), error
    return error


@dataclass(slots=True)
class Layers:
    """Applies layers, each to a new directory below ``home``, where nothing else may change."""

    home: Path
    opener: Opener | None = None
    apart: bool = False
    count: int = field(default=0)

    def new_diff(self) -> Path:
        self.count += 1
        diff = self.home / str(self.count) / "diff"
        diff.mkdir(parents=True)
        return diff

    def apply(
        self,
        layer: Iterable[Entry] | bytes,
        *,
        rootless: bool = False,
        ignore_chown_errors: bool = False,
        piece: int = 1 << 20,
        diff: Path | None = None,
        marks: Marks | None = None,
    ) -> Layer:
        """Apply an archive, or one made of entries, fed in pieces of that many bytes."""
        data = layer if isinstance(layer, bytes) else tar(layer)
        diff = diff or self.new_diff()
        split: list[bytes] = []
        pieces = (data[at : at + piece] for at in range(0, len(data), piece))
        options = ApplyOptions(marks or marks_of(rootless), in_userns=rootless, ignore_chown_errors=ignore_chown_errors)
        if self.apart:
            applied = apply_apart(pieces, diff, split.append, options)
        else:
            applied = apply_layer(pieces, diff, split.append, options, opener=self.opener)
        return Layer(diff, applied, b"".join(split))


@pytest.fixture(params=[False, True], ids=["alone", "partners"])
def layers(request: pytest.FixtureRequest, tmp_path: Path) -> Layers:
    return Layers(tmp_path, apart=request.param)


@pytest.fixture(params=[open_by_kernel, open_by_steps], ids=["openat2", "steps"])
def layers_by_either_opener(request: pytest.FixtureRequest, tmp_path: Path) -> Layers:
    if request.param is open_by_kernel and not has_openat2():
        pytest.skip("no openat2 here")
    return Layers(tmp_path, request.param)
