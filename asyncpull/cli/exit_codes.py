"""What the exit code of the command says, for every class of error.

The numbers are those of ``sysexits.h`` where it has a fitting one, 2 for an object that does not exist (as skopeo),
and 128 + signal number where a signal ended the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncpull.errors import (
    AuthenticationError,
    DocumentError,
    IntegrityError,
    LayerError,
    ManifestRejectedError,
    MountError,
    NoMatchingPlatformError,
    NoSpaceError,
    NotFoundError,
    NotInStoreError,
    PolicyError,
    StoreWriteError,
    TemporaryError,
    UnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DONE: Final = 0
FAILED: Final = 1
NOT_FOUND: Final = 2
USAGE: Final = 64
REFUSED_CONTENT: Final = 65
UNAVAILABLE: Final = 69
CANNOT_WRITE: Final = 73
TEMPORARY: Final = 75
NO_PERMISSION: Final = 77
INTERRUPTED: Final = 130
TERMINATED: Final = 143

# The first class that fits decides; no class here is a base of a later one.
_BY_ERROR: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (UsageError, USAGE),
    (NotFoundError, NOT_FOUND),
    (NoMatchingPlatformError, NOT_FOUND),
    (NotInStoreError, NOT_FOUND),
    (DocumentError, REFUSED_CONTENT),
    (IntegrityError, REFUSED_CONTENT),
    (LayerError, REFUSED_CONTENT),
    (PolicyError, REFUSED_CONTENT),
    (ManifestRejectedError, REFUSED_CONTENT),
    (UnavailableError, UNAVAILABLE),
    (StoreWriteError, CANNOT_WRITE),
    (NoSpaceError, CANNOT_WRITE),
    (TemporaryError, TEMPORARY),
    (AuthenticationError, NO_PERMISSION),
)


def exit_code_of(error: BaseException) -> int:
    """The exit code that tells a caller what kind of failure ``error`` is."""
    if isinstance(error, MountError) and isinstance(error.__cause__, OSError):
        # The kernel refused: a namespace, a capability or a file system is missing. Other errors of mounting are about
        # the state of the store, such as that nothing is mounted.
        return NO_PERMISSION
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)


def common_exit_code(codes: Iterable[int]) -> int:
    """The exit code of a command that did several things: the code its failures share, else 1; 0 without any."""
    failures = {code for code in codes if code != DONE}
    return failures.pop() if len(failures) == 1 else FAILED if failures else DONE
