"""What a signature claims: that the manifest with this digest may be called so (containers-signature(5)).

::

    {"critical": {"type": TYPE, "image": {"docker-manifest-digest": DIGEST}, "identity": {"docker-reference": NAME}},
     "optional": {"creator": TEXT, "timestamp": SECONDS, …}}

Everything in ``critical`` must be understood, so it is read strictly. ``optional`` decides nothing.
"""

from __future__ import annotations

import json
from enum import Enum

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, InvalidDigestError
from asyncpull.spec.digest import Digest
from asyncpull.spec.strictjson import StrictObject

_LIMIT = 1 << 63


class ClaimType(Enum):
    """``critical.type``, by which a claim of one kind of signature is none of the other."""

    SIMPLE = "atomic container signature"
    SIGSTORE = "cosign container image signature"


@dataclass(frozen=True, slots=True)
class Claim:
    """``digest`` is that of a manifest, ``reference`` what it is called; ``timestamp`` is seconds since 1970."""

    digest: Digest
    reference: str
    creator: str | None = None
    timestamp: int | None = None

    @classmethod
    def from_bytes(cls, raw: bytes, kind: ClaimType) -> Claim:
        """Read a claim of one kind. Raises DocumentError."""
        document = StrictObject.parse(raw)
        document.exactly("critical", "optional")
        creator = timestamp = None
        if not (kind is ClaimType.SIGSTORE and document.value("optional") is None):  # cosign writes null
            optional = document.inner("optional")
            creator = optional.text("creator") if optional.has("creator") else None
            timestamp = _whole(optional.value("timestamp")) if optional.has("timestamp") else None
        critical = document.inner("critical")
        critical.exactly("type", "image", "identity")
        if critical.text("type") != kind.value:
            raise DocumentError(f"critical.type is {critical.text('type')[:80]!r}, not {kind.value!r}")
        image, identity = critical.inner("image"), critical.inner("identity")
        image.exactly("docker-manifest-digest")
        identity.exactly("docker-reference")
        try:
            digest = Digest.parse(image.text("docker-manifest-digest"))
        except InvalidDigestError as error:
            raise DocumentError(f"critical.image: {error}") from error
        return cls(digest, identity.text("docker-reference"), creator, timestamp)

    def to_bytes(self, kind: ClaimType) -> bytes:
        """The claim as it is signed: without any space, its keys in order."""
        optional: dict[str, object] = {}
        if self.creator is not None:
            optional["creator"] = self.creator
        if self.timestamp is not None:
            optional["timestamp"] = self.timestamp
        critical = {
            "identity": {"docker-reference": self.reference},
            "image": {"docker-manifest-digest": str(self.digest)},
            "type": kind.value,
        }
        return json.dumps({"critical": critical, "optional": optional}, separators=(",", ":")).encode()


def _whole(value: object) -> int:
    """An integer of 64 bits, however it is written."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(whole, int) or isinstance(whole, bool) or not -_LIMIT <= whole < _LIMIT:
        raise DocumentError("optional.timestamp is not an integer of 64 bits")
    return whole
