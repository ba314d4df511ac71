"""Digests: ``algorithm:encoded`` of bytes as they were transferred (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DigestMismatchError, InvalidDigestError

if TYPE_CHECKING:
    from hashlib import _Hash

# The registered algorithms, which are all that anybody can verify, with the length of their hex form.
_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
_LOWER_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest that can be verified: a registered algorithm and lower-case hex of its exact length.

    Raises InvalidDigestError when made of anything else.
    """

    algorithm: str
    encoded: str

    def __post_init__(self) -> None:
        length = _HEX_LENGTH.get(self.algorithm)
        if length is None:
            known = ", ".join(_HEX_LENGTH)
            raise InvalidDigestError(f"digest algorithm {self.algorithm!r} is not one of {known}")
        if len(self.encoded) != length or not _LOWER_HEX.fullmatch(self.encoded):
            raise InvalidDigestError(f"{self.encoded[:140]!r} is not {length} lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``algorithm:encoded``. Raises InvalidDigestError."""
        algorithm, separator, encoded = text.partition(":")
        if not separator:
            raise InvalidDigestError(f"digest {text[:140]!r} has no colon")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> _Hash:
        """A new, empty hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def verify_bytes(subject: str, data: bytes, expected: Digest) -> None:
    """Raise DigestMismatchError unless ``data`` has the ``expected`` digest; ``subject`` names it in the message."""
    actual = Digest.of(data, expected.algorithm)
    if actual != expected:
        raise DigestMismatchError(subject, str(expected), str(actual))
