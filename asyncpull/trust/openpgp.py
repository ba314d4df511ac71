"""OpenPGP by Sequoia: the only importer of pysequoia. Keyrings, and messages signed by their keys.

Sequoia verifies as of the time at which a signature was made. Whether its key may still be used is asked here besides:
a key that was revoked or has expired since then is refused, as gpg refuses it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncpull.errors import ConfigurationError, DocumentError, IntegrityError
from asyncpull.trust.openpgpmessage import plain_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pysequoia
    from pysequoia.packet import Packet, Tag

# What pysequoia raises is a RuntimeError with a stack of frames in its text, or a ValueError.
_FOREIGN = (RuntimeError, ValueError, TypeError, OSError)


class Keyring:
    """The certificates that count; ``origins`` tell where each keyring's bytes came from. Raises ConfigurationError."""

    def __init__(self, keyrings: Sequence[tuple[str, bytes]]) -> None:
        import pysequoia

        self._certificates: list[pysequoia.Cert] = []
        self._known: frozenset[str] | None = None  # the fingerprints of all keys, for messages
        for origin, raw in keyrings:
            try:
                self._certificates += pysequoia.Cert.split_bytes(raw)
            except _FOREIGN as error:
                raise ConfigurationError(f"{origin}: no keyring of OpenPGP: {_first_line(error)}") from error

    def __len__(self) -> int:
        return len(self._certificates)

    def opened(self, message: bytes) -> tuple[bytes, str]:
        """What ``message`` holds, and the fingerprint of the certificate that signed it.

        Raises DocumentError for what is no signed message, IntegrityError for one that is not signed by one of the
        keys, or by one that may not be used any more.
        """
        import pysequoia

        message = plain_message(message)
        try:
            found = pysequoia.verify(bytes=message, store=lambda _wanted: self._certificates)
        except _FOREIGN as error:
            text = _first_line(error)
            if "no valid signatures" in text:
                raise IntegrityError(self._why_not(message)) from error
            raise DocumentError(f"no signed message of OpenPGP: {text}") from error
        content, signatures = found.bytes, found.valid_sigs
        if content is None or len(signatures) != 1:
            raise IntegrityError(f"the message has {len(signatures)} valid signatures, not one")
        certificate, key = str(signatures[0].certificate), str(signatures[0].signing_key)
        self._require_usable(certificate, key)
        data: bytes = content
        return data, certificate

    def _why_not(self, message: bytes) -> str:
        """Why a message is not validly signed, as far as the signature says so itself, of which nothing is verified."""
        from pysequoia.packet import PacketPile, Tag

        try:
            (signature,) = [packet for packet in PacketPile.from_bytes(message) if packet.tag == Tag.Signature]
        except _FOREIGN:
            return "the signature is not valid"
        key = signature.issuer_fingerprint or signature.issuer_key_id or "a key that it does not name"
        if self._known is None:
            self._known = frozenset(found for each in self._certificates for found in _keys_of(each))
        now = time.time()
        created, expires = signature.signature_created, signature.signature_expiration_time
        if not any(found.endswith(key) for found in self._known):
            return f"not signed by one of the policy's keys, but by {key}"
        if expires is not None and expires.timestamp() <= now:
            return f"the signature by the key {key} has expired"
        if created is not None and created.timestamp() > now:
            return f"the signature by the key {key} was not made yet, by the clock here"
        return f"the signature by the key {key} is not valid, or the key was not valid then"

    def _require_usable(self, fingerprint: str, key: str) -> None:
        """Raise IntegrityError if the certificate or its signing ``key`` was revoked or has expired by now."""
        # A certificate may be there several times, and what any copy says against it counts.
        copies = [each for each in self._certificates if each.fingerprint == fingerprint]
        if not copies:
            raise IntegrityError(f"the key {fingerprint} is none of the policy's")
        now = time.time()
        for certificate in copies:
            if certificate.is_revoked:
                raise IntegrityError(f"the key {fingerprint} was revoked")
            if certificate.expiration is not None and certificate.expiration.timestamp() <= now:
                raise IntegrityError(f"the key {fingerprint} has expired")
            if key != fingerprint:
                _require_usable_subkey(certificate, key, now)


class SecretKey:
    """A secret key of OpenPGP, opened with its passphrase. Raises ConfigurationError if that cannot be done."""

    def __init__(self, origin: str, raw: bytes, passphrase: str | None) -> None:
        import pysequoia

        try:
            self._signer = pysequoia.Tsk.from_bytes(raw).signer(passphrase)
        except _FOREIGN as error:
            raise ConfigurationError(f"{origin}: no secret key that can sign: {_first_line(error)}") from error
        self._origin = origin

    def signed(self, content: bytes) -> bytes:
        """A message that holds ``content``, signed. Raises ConfigurationError for a key that cannot sign."""
        import pysequoia

        try:
            message: bytes = pysequoia.sign(self._signer, content, mode=pysequoia.SignatureMode.INLINE, armor=False)
        except _FOREIGN as error:
            raise ConfigurationError(f"{self._origin}: cannot sign: {_first_line(error)}") from error
        return message


def _require_usable_subkey(certificate: pysequoia.Cert, key: str, now: float) -> None:
    from pysequoia.packet import SignatureType, Tag

    made: float | None = None
    binding: tuple[float, float | None] | None = None  # the latest counts: when it was made, and for how long
    for tag, packet in _packets_of(certificate):
        if tag != Tag.Signature:
            is_it = tag == Tag.PublicSubkey and packet.fingerprint == key
            made = packet.key_created.timestamp() if is_it and packet.key_created else None
        elif made is not None and packet.signature_type == SignatureType.SubkeyRevocation:
            raise IntegrityError(f"the key {key} was revoked")
        elif made is not None and packet.signature_type == SignatureType.SubkeyBinding and packet.signature_created:
            bound, period = packet.signature_created.timestamp(), packet.key_validity_period
            expires = made + period.total_seconds() if period is not None else None
            if binding is None or bound >= binding[0]:
                binding = bound, expires
    if binding is not None and binding[1] is not None and binding[1] <= now:
        raise IntegrityError(f"the key {key} has expired")


def _keys_of(certificate: pysequoia.Cert) -> Iterator[str]:
    """The fingerprints of a certificate's keys."""
    from pysequoia.packet import Tag

    for tag, packet in _packets_of(certificate):
        if tag in (Tag.PublicKey, Tag.PublicSubkey) and packet.fingerprint is not None:
            yield packet.fingerprint


def _packets_of(certificate: pysequoia.Cert) -> Iterator[tuple[Tag | None, Packet]]:
    """The packets of a certificate, with None for tags that pysequoia raises an error about."""
    from pysequoia.packet import PacketPile

    for packet in PacketPile.from_bytes(bytes(certificate)):
        try:
            tag = packet.tag
        except _FOREIGN:
            tag = None
        yield tag, packet


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
