"""The whole tree of errors, split by who must act.

::

    AsyncpullError                     everything this package raises on purpose
    ├── UsageError                     the caller: what was asked for cannot be meant
    │   ├── InvalidReferenceError        a reference that breaks the grammar
    │   └── ConfigurationError           a configuration file or value that cannot be used
    ├── DocumentError                  the publisher: bytes that break the specification
    │   ├── InvalidDigestError           not ``algorithm:encoded``
    │   └── DocumentTooLargeError        a manifest, config or token over its limit
    ├── IntegrityError                 the transport or the publisher: bytes that are not the promised ones
    │   ├── DigestMismatchError          blob or document
    │   ├── SizeMismatchError            too short, too long
    │   └── DiffIDMismatchError          the uncompressed layer is not what the config says
    ├── SourceError                    the source: the bytes could not be obtained
    │   ├── NotFoundError                no such repository, tag, manifest or blob
    │   ├── NoMatchingPlatformError      an index without an instance for the platform
    │   ├── ManifestRejectedError        a registry that takes no manifest of this kind; another kind it may take
    │   ├── AuthenticationError          401 or 403 after everything was tried
    │   ├── UnavailableError             no connection, TLS failure, 5xx
    │   └── TemporaryError               rate limit, timeout: the same request may succeed later
    ├── LayerError                     the publisher: a malformed or hostile layer (member + byte position)
    │   ├── MalformedLayerError          not a tar, gzip or zstd stream
    │   ├── UnsupportedMemberError       a member that cannot be stored and rebuilt faithfully
    │   ├── CeilingError                 more than a layer may become: bytes, ratio, members, seconds
    │   └── TooManyLayersError           more layers than overlay can mount
    ├── StoreError                     the administrator: the store (path)
    │   ├── StoreWriteError              no permission, read-only, cannot write
    │   ├── NoSpaceError                 out of bytes or inodes
    │   ├── StoreCorruptError            records that nobody can read
    │   ├── NotInStoreError              no such image, layer or container
    │   └── InUseError                   what is to be removed is needed by something else
    ├── PolicyError                    the policy refuses the image (every reason)
    ├── MountError                     the kernel or the namespace: it cannot be mounted here
    └── WorkerError                    a worker process died or answered nonsense

Every error carries ``hint``, the next step for a person, apart from its message. All of them pickle, because
worker processes send them home: a subclass passes exactly its own positional parameters to ``super().__init__``
chain through ``args``.
"""

from __future__ import annotations

__all__ = [
    "AsyncpullError",
    "AuthenticationError",
    "CeilingError",
    "ConfigurationError",
    "DiffIDMismatchError",
    "DigestMismatchError",
    "DocumentError",
    "DocumentTooLargeError",
    "InUseError",
    "IntegrityError",
    "InvalidDigestError",
    "InvalidReferenceError",
    "LayerError",
    "MalformedLayerError",
    "ManifestRejectedError",
    "MountError",
    "NoMatchingPlatformError",
    "NoSpaceError",
    "NotFoundError",
    "NotInStoreError",
    "PolicyError",
    "SizeMismatchError",
    "SourceError",
    "StoreCorruptError",
    "StoreError",
    "StoreWriteError",
    "TemporaryError",
    "TooManyLayersError",
    "UnavailableError",
    "UnsupportedMemberError",
    "UsageError",
    "WorkerError",
]


class AsyncpullError(Exception):
    """Everything this package raises on purpose."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(AsyncpullError):
    """What was asked for cannot be meant."""


class InvalidReferenceError(UsageError):
    """A reference that breaks the grammar of distribution/reference."""


class ConfigurationError(UsageError):
    """A configuration file or value that cannot be used; the message names file and key."""


class DocumentError(AsyncpullError):
    """A manifest, index, config or answer that breaks its specification."""


class InvalidDigestError(DocumentError):
    """Text that is not ``algorithm:encoded`` of an algorithm we can verify."""


class DocumentTooLargeError(DocumentError):
    """A document over the limit that every reader of it sets."""


class IntegrityError(AsyncpullError):
    """Bytes that are not the promised ones; never retried as they are."""


class DigestMismatchError(IntegrityError):
    """``subject`` should have ``expected`` and has ``actual`` (digests as text)."""

    def __init__(self, subject: str, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(f"{subject}: digest is {actual}, expected {expected}", hint)
        self.args = (subject, expected, actual, hint)
        self.subject, self.expected, self.actual = subject, expected, actual


class SizeMismatchError(IntegrityError):
    """``subject`` should have ``expected`` bytes and has ``actual`` (or more, if reading stopped there)."""

    def __init__(self, subject: str, expected: int, actual: int, hint: str | None = None) -> None:
        super().__init__(f"{subject}: {actual} bytes, expected {expected}", hint)
        self.args = (subject, expected, actual, hint)
        self.subject, self.expected, self.actual = subject, expected, actual


class DiffIDMismatchError(IntegrityError):
    """The uncompressed layer ``subject`` does not have the diff ID that the image config lists."""

    def __init__(self, subject: str, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(f"{subject}: diff ID is {actual}, the image config says {expected}", hint)
        self.args = (subject, expected, actual, hint)
        self.subject, self.expected, self.actual = subject, expected, actual


class SourceError(AsyncpullError):
    """Bytes could not be obtained.

    ``temporary`` tells whether the same request may succeed later; ``retry_after`` is the number of seconds
    the source asked us to wait, where it did.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        temporary: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, temporary, retry_after)
        self.temporary, self.retry_after = temporary, retry_after


class NotFoundError(SourceError):
    """No such repository, tag, manifest or blob at the source."""


class NoMatchingPlatformError(SourceError):
    """The index has no instance for the wanted platform; the message lists those it has."""


class ManifestRejectedError(SourceError):
    """The registry takes no manifest of this kind; one of another media type it may take."""


class AuthenticationError(SourceError):
    """Refused (401, 403) after everything that could be tried was."""


class UnavailableError(SourceError):
    """The source does not answer as a registry does: no connection, TLS failure, 5xx."""


class TemporaryError(SourceError):
    """Rate limit or timeout: the same request may succeed later."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        temporary: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint, temporary, retry_after)


class LayerError(AsyncpullError):
    """A malformed or hostile layer.

    ``member`` is the name in the archive as raw bytes, if one was reached; ``position`` the offset of its
    header in the uncompressed stream, in bytes.
    """

    def __init__(
        self,
        message: str,
        member: bytes | None = None,
        position: int | None = None,
        hint: str | None = None,
    ) -> None:
        text = message
        if member is not None:
            text += f" (member {member.decode('utf-8', 'backslashreplace')!r})"
        if position is not None:
            text += f" at byte {position}"
        super().__init__(text, hint)
        self.args = (message, member, position, hint)
        self.member, self.position = member, position


class MalformedLayerError(LayerError):
    """Not a tar stream, or not one of the compressions a layer may have."""


class UnsupportedMemberError(LayerError):
    """A member that cannot be stored and rebuilt faithfully, and is refused for that."""


class CeilingError(LayerError):
    """A layer that becomes more than it may: ``measure`` is size, ratio, members or seconds."""

    def __init__(self, measure: str, what: str) -> None:
        hint = f"if the image is to be trusted, raise that ceiling with --max-layer-{measure}"
        super().__init__(f"the layer {what}, which is the ceiling of {measure}", hint=hint)
        self.args = (measure, what)
        self.measure, self.what = measure, what


class TooManyLayersError(LayerError):
    """More layers than overlay can mount."""


class StoreError(AsyncpullError):
    """The store, at ``path``, cannot do what was asked."""

    def __init__(self, message: str, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(message if path is None else f"{path}: {message}", hint)
        self.args = (message, path, hint)
        self.path = path


class StoreWriteError(StoreError):
    """No permission, read-only, or the file system cannot hold what must be written."""


class NoSpaceError(StoreError):
    """Out of bytes, inodes or quota."""


class StoreCorruptError(StoreError):
    """A record that nobody can read; nothing was changed."""


class NotInStoreError(StoreError):
    """No such image, layer or container in the store."""


class InUseError(StoreError):
    """What is to be removed is needed by something else."""


class PolicyError(AsyncpullError):
    """The policy refuses the image; ``reasons`` holds all of them."""

    def __init__(self, subject: str, reasons: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(f"{subject}: " + ("; ".join(reasons) or "refused by policy"), hint)
        self.args = (subject, reasons, hint)
        self.subject, self.reasons = subject, reasons


class MountError(AsyncpullError):
    """It cannot be mounted here; the hint says what would help."""


class WorkerError(AsyncpullError):
    """A worker process died or answered nonsense."""
