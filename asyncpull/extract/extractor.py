"""What each member of a layer does to the tree that is being written (format section 5.1).

That is, what it brings; what it deletes is told by ``deletions``, where the kernel is to understand it, by ``literal``
for other marks, and by ``wholetree`` where there are none. The result is podman's, entry by entry, but for what is
better on purpose.

Time goes into system calls, so there are no more of them than the result needs. A regular file costs ``openat``,
``write``, ``utimensat``, ``close``; ``fchown`` comes in only where its owner is not the one that the kernel gives it
anyway, ``fchmod`` only for bits above 0777. A directory costs ``mkdirat``, ``openat``, ``utimensat``, ``close``.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from asyncpull.errors import UnsupportedMemberError
from asyncpull.extract.directories import open_child
from asyncpull.extract.failure import explain, owner_error
from asyncpull.extract.implied import IMPLIED_MODE
from asyncpull.extract.writeback import WORTHWHILE, Writeback
from asyncpull.layer.changeset import Action, Changeset, Effect
from asyncpull.layer.header import DIRECTORY, GLOBAL_RECORDS
from asyncpull.tree.marks import harmless_name, is_whiteout
from asyncpull.tree.walk import join, remove
from asyncpull.tree.xattrs import DEFAULT_ACL, apply_xattrs, path_of

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.errors import AsyncpullError
    from asyncpull.extract.directories import Directories, Directory, Owner
    from asyncpull.layer.header import Member
    from asyncpull.tree.marks import Marks

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777
_ALL_BITS: Final = 0o7777
# What open and mknod need not keep; also what changing the owner takes away.
_SPECIAL_BITS: Final = 0o7000
# chown takes these for "as it is".
_NO_IDS: Final = frozenset((0xFFFF_FFFF, -1))
_ROOT_OWNER: Final = (0, 0)
_FILE: Final = Effect.FILE
_NOTHING: Final = memoryview(b"")


class Extractor(ABC):
    """Does what the members of one layer say, one after another. A context manager.

    Its findings: ``owners`` of all members but whiteouts, ``implied`` directories by canonical path. The process's
    umask must be 0. Its methods raise LayerError, StoreError, and OSError and ValueError that ``explain`` has an answer
    to.
    """

    def __init__(
        self, root: Path, directories: Directories, *, marks: Marks, in_userns: bool, ignore_chown_errors: bool
    ) -> None:
        self._root = root
        self._directories = directories
        self._marks = marks
        self._in_userns = in_userns
        self._ignore_chown_errors = ignore_chown_errors
        self._action = Changeset().action
        self.owners: set[Owner] = set()
        self.implied: set[bytes] = set()
        # Canonical paths of devices that were skipped, and what they would have inherited to children.
        self._skipped: set[bytes] = set()
        self._default_acls: dict[bytes, bytes] = {}
        # The member at work; if it is a file whose contents are under way, its descriptor and what is missing.
        self._member: Member | None = None
        self._file = -1
        self._left = 0
        self._writeback = Writeback()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._writeback.end()

    def begin(self, member: Member, contents: memoryview) -> None:
        """Do what ``member`` says; ``contents`` are the first of its bytes, and ``write`` is given the others."""
        self._member = member
        effect, above, name, _ = action = self._action(member)
        owner = (member.uid, member.gid)
        if effect is _FILE:
            self.owners.add(owner)
            self._make_file(member, self._parent(above), name, owner, contents)
        elif effect is Effect.DIRECTORY:
            self.owners.add(owner)
            self._directory(member, self._parent(above), name, owner)
        elif effect is Effect.WHITEOUT or effect is Effect.OPAQUE:
            self._whiteout(member, action, owner)
        elif effect is Effect.NOTHING:
            self.owners.add(_ROOT_OWNER if member.kind == GLOBAL_RECORDS else owner)
            if member.kind == DIRECTORY:
                self._root_entry(member, owner)
        else:
            self.owners.add(owner)
            self._other(member, action, owner)

    def write(self, contents: memoryview) -> None:
        """Write more contents of the file that was begun last."""
        if contents:
            written = os.write(self._file, contents)
            while written < len(contents):
                written += os.write(self._file, contents[written:])
            self._left -= written
        if not self._left:
            self._finish_file()

    def finish(self) -> None:
        """Set what would have got in the way before: default ACLs, and last of all the times of directories."""
        for path, acl in self._default_acls.items():
            try:
                directory = self._directories.get(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            apply_xattrs(directory.fd, {DEFAULT_ACL: acl}, in_userns=self._in_userns)
        self._directories.settle()

    def explain(self, error: OSError | ValueError | OverflowError) -> AsyncpullError:
        """Say what a refusal means for the member at work."""
        if not isinstance(error, OSError):
            return self._refused("a name or number that no file system can hold")
        name, position = (self._member.name, self._member.position) if self._member else (b"", 0)
        return explain(error, self._root, name, position)

    def _refused(self, message: str) -> UnsupportedMemberError:
        if self._member is None:
            return UnsupportedMemberError(message)
        return UnsupportedMemberError(message, self._member.name, self._member.position)

    # Regular files

    def _make_file(
        self, member: Member, parent: Directory, name: bytes, owner: Owner, contents: memoryview = _NOTHING
    ) -> None:
        permissions = member.mode & _PERMISSIONS
        self._bring(parent, name)
        try:
            fd = os.open(name, _CREATE, permissions, dir_fd=parent.fd)
        except FileExistsError:
            self._make_way(parent, name)
            fd = os.open(name, _CREATE, permissions, dir_fd=parent.fd)
        self._file = fd
        if owner != parent.newcomer:
            self._give(fd, owner)
        self._left = member.size
        self.write(contents)

    def _finish_file(self) -> None:
        """Close the file that was begun last; its mode, times and attributes come after what would change them."""
        member, fd = self._member, self._file
        if member is None:
            return
        if member.mode & _SPECIAL_BITS:
            os.fchmod(fd, member.mode & _ALL_BITS)
        os.utime(fd, ns=(member.atime_ns, member.mtime_ns))
        if member.xattrs:
            apply_xattrs(fd, self._harmless(member), in_userns=self._in_userns)
        self._file = -1
        if member.size >= WORTHWHILE:
            self._writeback.close(fd)
        else:
            os.close(fd)

    # Directories

    def _parent(self, path: bytes) -> Directory:
        """Return the directory of a member, which is made if the archive only implies it."""
        try:
            return self._directories.get(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._imply(path)

    def _imply(self, path: bytes) -> Directory:
        """Make the directory at ``path`` and those above it that are missing."""
        missing = []
        directory = None
        while directory is None:
            path, _, name = path.rpartition(b"/")
            missing.append(name)
            try:
                directory = self._directories.get(path)
            except (FileNotFoundError, NotADirectoryError):
                if not path:
                    raise
        for name in reversed(missing):
            directory = self._make_implied(directory, name)
        return directory

    def _make_implied(self, parent: Directory, name: bytes) -> Directory:
        path = join(parent.path, name)
        over_whiteout = self._bring(parent, name)
        try:
            os.mkdir(name, IMPLIED_MODE, dir_fd=parent.fd)
        except FileExistsError:
            info = os.lstat(name, dir_fd=parent.fd)
            if not is_whiteout(info):
                number = errno.ENOENT if stat.S_ISLNK(info.st_mode) else errno.ENOTDIR
                raise OSError(number, os.strerror(number), path) from None
            os.unlink(name, dir_fd=parent.fd)
            os.mkdir(name, IMPLIED_MODE, dir_fd=parent.fd)
            over_whiteout = True
        else:
            if not over_whiteout:
                self.implied.add(path)
        return self._enter(parent, name, _ROOT_OWNER, IMPLIED_MODE, None, is_opaque=over_whiteout)

    def _directory(self, member: Member, parent: Directory, name: bytes, owner: Owner) -> None:
        mode = member.mode & _ALL_BITS
        over_whiteout = self._bring(parent, name)
        try:
            os.mkdir(name, mode & ~stat.S_ISGID, dir_fd=parent.fd)
        except FileExistsError:
            info = os.lstat(name, dir_fd=parent.fd)
            if stat.S_ISDIR(info.st_mode):
                self._describe_again(member, join(parent.path, name), owner)
                return
            over_whiteout = is_whiteout(info)
            self._make_way(parent, name)
            os.mkdir(name, mode & ~stat.S_ISGID, dir_fd=parent.fd)
        times = (member.atime_ns, member.mtime_ns)
        directory = self._enter(parent, name, owner, mode, times, is_opaque=over_whiteout)
        if member.xattrs:
            self._give_xattrs(directory, member)

    def _enter(
        self,
        parent: Directory,
        name: bytes,
        owner: Owner,
        mode: int,
        times: tuple[int, int] | None,
        *,
        is_opaque: bool,
    ) -> Directory:
        """Open a directory just made with all of ``mode`` but its high bits, and give it what is missing."""
        fd = open_child(parent, name)
        try:
            actual: Owner | None = owner
            if owner != parent.newcomer and not self._give(fd, owner):
                actual = None
            if mode & (stat.S_ISUID | stat.S_ISGID) or parent.is_setgid:
                os.fchmod(fd, mode)
            if is_opaque:
                self._make_opaque(fd)
            return self._directories.add(join(parent.path, name), fd, actual, mode, times)
        except BaseException:
            os.close(fd)
            raise

    def _describe_again(self, member: Member, path: bytes, owner: Owner) -> None:
        """Give a directory that is there, as it was implied, what the archive has to say of it after all."""
        directory = self._directories.get(path)
        mode = member.mode & _ALL_BITS
        known = self._give(directory.fd, owner)
        os.fchmod(directory.fd, mode)
        times = (member.atime_ns, member.mtime_ns)
        self._directories.describe(directory, owner if known else None, mode, times)
        self.implied.discard(path)
        self._give_xattrs(directory, member)

    def _give_xattrs(self, directory: Directory, member: Member) -> None:
        now = self._harmless(member)
        if DEFAULT_ACL in now:
            self._default_acls[directory.path] = now.pop(DEFAULT_ACL)
        apply_xattrs(directory.fd, now, in_userns=self._in_userns)

    def _harmless(self, member: Member) -> dict[bytes, bytes]:
        """The attributes of a member, under names that are no marks."""
        named = ((harmless_name(name, self._marks), value) for name, value in member.xattrs.items())
        return {name: value for name, value in named if name is not None}

    # What is deleted, and what is there before: see ``deletions`` and those that stand on it

    @abstractmethod
    def _root_entry(self, member: Member, owner: Owner) -> None:
        """Do what the archive says of the root."""

    @abstractmethod
    def _bring(self, parent: Directory, name: bytes) -> bool:
        """Get ready for something at ``name``; tell whether a whiteout of it was there that is in no one's way."""

    def _forget_below(self, path: bytes) -> None:
        """What is at this canonical path goes with a directory above it."""
        self._forget(path)

    @abstractmethod
    def _make_opaque(self, fd: int) -> None:
        """Mark a directory as hiding what the layers below have in it."""

    @abstractmethod
    def _whiteout(self, member: Member, action: Action, owner: Owner) -> None:
        """Do what a whiteout, or an opaque entry, says."""

    # Everything else

    def _other(self, member: Member, action: Action, owner: Owner) -> None:
        effect, name = action.effect, action.name
        parent = self._parent(action.parent)
        if effect is Effect.HARD_LINK:
            self._hard_link(member, parent, name, action.target, owner)
            return
        if self._in_userns and effect in (Effect.CHARACTER_DEVICE, Effect.BLOCK_DEVICE):
            self._skip(parent, name)
            return
        self._bring(parent, name)
        try:
            _create(member, effect, parent.fd, name)
        except FileExistsError:
            self._make_way(parent, name)
            _create(member, effect, parent.fd, name)
        if owner != parent.newcomer:
            self._give_name(parent, name, owner)
        if member.mode & _SPECIAL_BITS and effect is not Effect.SYMLINK:
            os.chmod(name, member.mode & _ALL_BITS, dir_fd=parent.fd, follow_symlinks=False)
        os.utime(name, ns=(member.atime_ns, member.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)
        if member.xattrs:
            apply_xattrs(path_of(parent.fd, name), self._harmless(member), in_userns=self._in_userns)

    def _skip(self, parent: Directory, name: bytes) -> None:
        """Leave a device out, which a user namespace cannot have."""
        self._skipped.add(join(parent.path, name))

    def _hard_link(self, member: Member, parent: Directory, name: bytes, target: bytes, owner: Owner) -> None:
        """Link to what this layer has at ``target``; then the link's own metadata is applied to what both share."""
        above, _, last = target.rpartition(b"/")
        try:
            source = self._directories.get(above)
            if join(source.path, last) in self._skipped:
                self._skip(parent, name)
                return
            self._bring(parent, name)
            try:
                _link(source, last, parent, name)
            except FileExistsError:
                self._make_way(parent, name)
                source = self._directories.get(above)
                _link(source, last, parent, name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._refused("a hard link to something that is not in this layer") from error
        except PermissionError as error:
            if stat.S_ISDIR(os.lstat(last, dir_fd=source.fd).st_mode):
                raise self._refused("a hard link to a directory") from error
            raise
        info = os.lstat(name, dir_fd=parent.fd)
        if is_whiteout(info):
            raise self._refused("a hard link to something that this layer deletes")
        is_given = (info.st_uid, info.st_gid) == owner
        if not is_given:
            self._give_name(parent, name, owner)
        if not stat.S_ISLNK(info.st_mode):
            if not is_given or stat.S_IMODE(info.st_mode) != member.mode & _ALL_BITS:
                os.chmod(name, member.mode & _ALL_BITS, dir_fd=parent.fd, follow_symlinks=False)
            if (info.st_atime_ns, info.st_mtime_ns) != (member.atime_ns, member.mtime_ns):
                os.utime(name, ns=(member.atime_ns, member.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)
        if member.xattrs:
            apply_xattrs(path_of(parent.fd, name), self._harmless(member), in_userns=self._in_userns)

    def _make_way(self, parent: Directory, name: bytes) -> None:
        """Remove what is at ``name``, and what was known of it; that takes as long as making it took."""
        path = join(parent.path, name)
        info = os.lstat(name, dir_fd=parent.fd)
        if stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode):
            self._directories.forget(path)
        self._forget(path)
        remove(parent.fd, name, lambda below: self._forget_below(join(path, below)))

    def _forget(self, path: bytes) -> None:
        """What is at this canonical path goes."""
        self.implied.discard(path)
        self._default_acls.pop(path, None)

    # Owners

    def _give(self, fd: int, owner: Owner) -> bool:
        """Change the owner; tell whether that was done."""
        self._check(owner)
        try:
            os.fchown(fd, *owner)
        except OSError as error:
            self._tolerate(error, owner)
            return False
        return True

    def _give_name(self, parent: Directory, name: bytes, owner: Owner) -> None:
        self._check(owner)
        try:
            os.chown(name, *owner, dir_fd=parent.fd, follow_symlinks=False)
        except OSError as error:
            self._tolerate(error, owner)

    def _check(self, owner: Owner) -> None:
        if not _NO_IDS.isdisjoint(owner):
            raise self._refused("an owner that Linux cannot have")

    def _tolerate(self, error: OSError, owner: Owner) -> None:
        """Raise what it means that the owner cannot be changed, unless that is not to matter."""
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise error
        if not self._ignore_chown_errors:
            name = self._member.name if self._member else b""
            raise owner_error(error, *owner, os.path.join(self._root, os.fsdecode(name))) from error


def _create(member: Member, effect: Effect, directory: int, name: bytes) -> None:
    permissions = member.mode & _PERMISSIONS
    if effect is Effect.SYMLINK:
        os.symlink(member.link_name, name, dir_fd=directory)
    elif effect is Effect.FIFO:
        os.mkfifo(name, permissions, dir_fd=directory)
    else:
        kind = stat.S_IFCHR if effect is Effect.CHARACTER_DEVICE else stat.S_IFBLK
        os.mknod(name, kind | permissions, os.makedev(member.dev_major, member.dev_minor), dir_fd=directory)


def _link(source: Directory, last: bytes, parent: Directory, name: bytes) -> None:
    os.link(last, name, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
