"""Apply a layer: its tar stream in, a tree and a tar-split out, in one pass.

Who reads the stream (``read_layer``) and who makes the tree (a ``Maker``) may be one process or two (``partner``).
"""

from __future__ import annotations

import errno
import math
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass
from asyncpull.extract.deletions import DeletingExtractor
from asyncpull.extract.directories import Directories
from asyncpull.extract.literal import LiteralExtractor
from asyncpull.extract.wholetree import WholeTreeExtractor
from asyncpull.layer.ceilings import BOUNDLESS, Ceilings
from asyncpull.layer.split import SplitWriter
from asyncpull.layer.stream import TarStream
from asyncpull.tree.confine import Root
from asyncpull.tree.failure import store_error
from asyncpull.tree.marks import Marks
from asyncpull.tree.xattrs import DEFAULT_ACL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from asyncpull.errors import AsyncpullError
    from asyncpull.extract.directories import Owner
    from asyncpull.extract.extractor import Extractor
    from asyncpull.layer.header import Member
    from asyncpull.tree.confine import Opener

_UINT32 = 0xFFFF_FFFF

_EXTRACTORS: dict[Marks, type[Extractor]] = {
    Marks.TRUSTED: DeletingExtractor,
    Marks.USER: DeletingExtractor,
    Marks.AUFS: LiteralExtractor,
    Marks.NONE: WholeTreeExtractor,
}


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How the tree is to be read later.

    ``marks`` are those of the store's driver. ``in_userns``: in a user namespace devices are skipped, and attributes
    that are not permitted left out. ``ignore_chown_errors``: what cannot be given to its owner stays ours. Layers with
    more members, or that take longer, than ``ceilings`` allow are refused.
    """

    marks: Marks
    in_userns: bool = False
    ignore_chown_errors: bool = False
    ceilings: Ceilings = BOUNDLESS


@dataclass(frozen=True, slots=True)
class Applied:
    """What is known of a layer when all of it was applied.

    ``diff_size`` is the length of the tar stream in bytes; ``uidset`` and ``gidset`` are the sorted owners of all
    members but whiteouts (format 2.1); ``implied`` the canonical paths of directories without a member, from the top
    down; ``entries`` how many members there were.
    """

    diff_size: int
    uidset: tuple[int, ...]
    gidset: tuple[int, ...]
    implied: tuple[bytes, ...]
    entries: int


def apply_layer(
    chunks: Iterable[bytes],
    root: Path,
    split_sink: Callable[[bytes], object],
    options: ApplyOptions,
    *,
    opener: Opener | None = None,
) -> Applied:
    """Apply the tar stream in ``chunks`` to the directory ``root``; its tar-split goes to ``split_sink``.

    That directory is empty, or for Marks.NONE the tree of the layer below. The process's umask is 0 during the call. Of
    ``root`` itself mode and owner are changed for Marks.NONE only, if the archive has an entry for it. ``opener`` is
    how directories are opened, where the kernel is not to be asked what it can. After an error the tree is of no use,
    and the caller removes it.

    Raises LayerError for what the archive is to blame for, StoreError for the rest; what ``chunks`` and ``split_sink``
    raise goes through.
    """
    with tree_maker(root, options, opener) as maker:
        return read_layer(chunks, maker, split_sink, options.ceilings)


class Maker(Protocol):
    """Does what the members of a layer say; see ``Extractor``, which does it here and now."""

    owners: set[Owner]
    implied: set[bytes]

    def begin(self, member: Member, contents: memoryview) -> None:
        """Do what ``member`` says, and write the first of its ``contents``, which may be all or nothing of them."""

    def write(self, contents: memoryview) -> None:
        """Write more contents of the file that was begun last."""

    def finish(self) -> None:
        """Do what has to be done last; the findings are complete then."""

    def explain(self, error: OSError | ValueError | OverflowError) -> AsyncpullError:
        """Say what a refusal means for the member at work."""


def read_layer(
    chunks: Iterable[bytes], maker: Maker, split_sink: Callable[[bytes], object], ceilings: Ceilings
) -> Applied:
    """Read the tar stream in ``chunks`` for ``maker``. Raises as ``apply_layer``."""
    split = SplitWriter(split_sink)
    stream = TarStream(split)
    diff_size = entries = 0
    judge = Judge(ceilings)
    for chunk in chunks:
        diff_size += len(chunk)
        judge.look_at_the_clock()
        for member, contents in stream.feed(chunk):
            try:
                if member is None:
                    maker.write(contents)
                    continue
                entries += 1
                if entries == judge.due:
                    judge.admit(entries)
                maker.begin(member, contents)
            except (OSError, ValueError, OverflowError) as error:
                raise maker.explain(error) from error
    stream.close()
    split.close()
    try:
        maker.finish()
    except OSError as error:
        raise maker.explain(error) from error
    return Applied(
        diff_size=diff_size,
        uidset=_id_set(uid for uid, _ in maker.owners),
        gidset=_id_set(gid for _, gid in maker.owners),
        implied=tuple(sorted(maker.implied)),
        entries=entries,
    )


class Judge:
    """Holds the members of a layer against ceilings, and the processor time of this process since now.

    ``due`` is the number of the next member to be judged, counted from one.
    """

    # Looking at the clock costs a system call, which a member in 64 can afford.
    _SELDOM = 64

    def __init__(self, ceilings: Ceilings) -> None:
        self._ceilings = ceilings
        self._first_too_many = math.inf if ceilings.members is None else ceilings.members + 1
        self._began = time.process_time()
        self.due = min(self._SELDOM, self._first_too_many)

    def admit(self, number: int) -> None:
        """Judge before the member that is due. Raises CeilingError."""
        if number >= self._first_too_many:
            self._ceilings.check_members(number)
        self.look_at_the_clock()
        self.due = min(number + self._SELDOM, self._first_too_many)

    def look_at_the_clock(self) -> None:
        """Judge the time. Raises CeilingError."""
        self._ceilings.check_seconds(time.process_time() - self._began)


def _id_set(ids: Iterable[int]) -> tuple[int, ...]:
    """Cut IDs to 32 bits, as the Go writers do: others could not read the store's records any more."""
    return tuple(sorted({each & _UINT32 for each in ids}))


@contextmanager
def tree_maker(root: Path, options: ApplyOptions, opener: Opener | None = None) -> Iterator[Extractor]:
    """Who makes the tree at ``root`` in this process, whose umask is 0 meanwhile. Raises StoreError."""
    try:
        confined = Root(root, opener)
    except OSError as error:
        raise store_error(error, root) from error
    with _no_umask(), confined, Directories(confined) as directories:
        _drop_default_acl(confined, root)
        extractor = _EXTRACTORS[options.marks](
            root,
            directories,
            marks=options.marks,
            in_userns=options.in_userns,
            ignore_chown_errors=options.ignore_chown_errors,
        )
        with extractor:
            yield extractor


def _drop_default_acl(confined: Root, root: Path) -> None:
    """Everything below would inherit it, and the layer would not be what it is elsewhere."""
    try:
        os.removexattr(confined.fd, DEFAULT_ACL)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise store_error(error, root) from error


@contextmanager
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
