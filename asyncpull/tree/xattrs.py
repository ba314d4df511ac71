"""Extended attributes: which ones a layer keeps, how the overlay marks are spelled, how they are set.

============================  ======================================================================================
name                          rule
============================  ======================================================================================
``security.selinux``          never taken from an archive or another layer: the label belongs to the machine
``trusted.overlay.*``,        where overlay would take them for its own: set under a name that it hands on, or left out
``user.overlay.*`` and more   (``marks.harmless_name``), or a layer could show another content than its archive has;
                              never adopted from a layer below
``trusted.SGI_ACL_*``         not read: XFS shows its ACLs a second time under these names
``system.posix_acl_default``  set after everything else is there, or what is made in the directory would inherit it
everything else               set after the owner, which would clear ``security.capability``
============================  ======================================================================================
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SELINUX: Final = b"security.selinux"
DEFAULT_ACL: Final = b"system.posix_acl_default"
_NOT_READ: Final = frozenset((SELINUX, b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"))
_OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")

Target = int | bytes
"""A descriptor, or a path whose last component is not followed."""


def path_of(directory: int, name: bytes) -> bytes:
    """Return a path to ``name`` in an open directory, for calls that take no directory descriptor."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def apply_xattrs(target: Target, xattrs: Mapping[bytes, bytes], *, in_userns: bool) -> None:
    """Set what the archive lists, but for SELinux labels (format 5.1).

    What the file system does not have is left out, and so is what a user namespace does not permit.
    Raises OSError otherwise; EINVAL and ERANGE are the archive's fault, E2BIG the file system's.
    """
    for name, value in xattrs.items():
        if name == SELINUX:
            continue
        try:
            _set(target, name, value)
        except OSError as error:
            if error.errno == errno.ENOTSUP or (in_userns and error.errno == errno.EPERM):
                continue
            raise _explained(error, name, value) from error


def read_xattrs(target: Target) -> dict[bytes, bytes]:
    """Read the attributes that make up a file; a file system without any has none."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    found = {os.fsencode(name) for name in names} - _NOT_READ
    return {name: _get(target, name) for name in found}


def adopted(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Keep those that a directory takes over from the same directory of a layer below."""
    return {name: value for name, value in xattrs.items() if not name.startswith(_OVERLAY)}


def replace_xattrs(target: Target, wanted: Mapping[bytes, bytes], *, in_userns: bool) -> None:
    """Make the attributes those ``wanted``, but for overlay's own."""
    present = adopted(read_xattrs(target))
    for name in present.keys() - wanted.keys():
        os.removexattr(target, name, follow_symlinks=isinstance(target, int))
    changed = {name: value for name, value in wanted.items() if present.get(name) != value}
    apply_xattrs(target, changed, in_userns=in_userns)


def _explained(error: OSError, name: bytes, value: bytes) -> OSError:
    """Say more in ``error``: the kernel has ENOSPC for a value that just does not fit beside the inode."""
    text = name.decode("utf-8", "backslashreplace")
    if error.errno in (errno.ENOSPC, errno.E2BIG):
        return OSError(errno.E2BIG, f"no room for extended attribute {text!r} of {len(value)} bytes")
    return OSError(error.errno, f"extended attribute {text!r}: {error.strerror}")


def _set(target: Target, name: bytes, value: bytes) -> None:
    os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))


def _get(target: Target, name: bytes) -> bytes:
    return os.getxattr(target, name, follow_symlinks=isinstance(target, int))
