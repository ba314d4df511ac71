"""Signing an image: a claim that its manifest may be called by a name, signed by somebody's key.

A signer is made before anything is copied, so that a wrong passphrase is told at once. Signatures are of the manifest
as it will be at the destination, under the name that it gets there.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Protocol

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, UsageError
from asyncpull.spec.digest import Digest
from asyncpull.spec.signature import SIGSTORE_SIGNATURE, SIGSTORE_TYPE, SigstoreSignature, SimpleSignature
from asyncpull.trust.claim import Claim, ClaimType
from asyncpull.trust.material import read_key_file

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.spec.reference import Reference
    from asyncpull.spec.signature import Signature
    from asyncpull.trust.cosignkey import PrivateKey
    from asyncpull.trust.openpgp import SecretKey

_CREATOR = "asyncpull"


@dataclass(frozen=True, slots=True)
class Signing:
    """What a copy is to do about signatures.

    ``signers`` sign what is copied; ``identity`` is the name that they sign, that of the destination if not given.
    ``removes`` leaves the signatures behind that the source has.
    """

    signers: tuple[Signer, ...] = ()
    identity: Reference | None = None
    removes: bool = False


class Signer(Protocol):
    """Somebody's key."""

    async def sign(self, manifest: bytes, reference: Reference) -> Signature:
        """Sign that ``manifest`` may be called ``reference``, which has a tag or a digest.

        Raises UsageError for a name without either, ConfigurationError if the key cannot sign.
        """


class KeyFileSigner:
    """A secret key of OpenPGP in a file."""

    def __init__(self, key: SecretKey) -> None:
        self._key = key

    @classmethod
    async def load(cls, path: Path, passphrase: str | None = None) -> KeyFileSigner:
        """Read and open the key. Raises ConfigurationError."""

        def load() -> SecretKey:
            from asyncpull.trust.openpgp import SecretKey

            return SecretKey(str(path), read_key_file(str(path)), passphrase)

        return cls(await asyncio.to_thread(load))

    async def sign(self, manifest: bytes, reference: Reference) -> Signature:
        """Sign in OpenPGP."""
        claim = _claim(manifest, reference, ClaimType.SIMPLE)
        return SimpleSignature(await asyncio.to_thread(self._key.signed, claim))


class GpgSigner:
    """A secret key of the user's gpg, whose agent asks for the passphrase if it is not given here."""

    def __init__(self, fingerprint: str, passphrase: str | None = None) -> None:
        self._fingerprint, self._passphrase = fingerprint, passphrase

    async def sign(self, manifest: bytes, reference: Reference) -> Signature:
        """Sign in OpenPGP, by running gpg. A passphrase goes through a pipe and is in nobody's arguments."""
        claim = _claim(manifest, reference, ClaimType.SIMPLE)
        options = ["--batch", "--quiet", "--no-armor", "--local-user", self._fingerprint, "--sign", "--output", "-"]
        given = b""
        if self._passphrase is not None:
            # gpg reads the first line of what it signs for it.
            options = ["--pinentry-mode", "loopback", "--passphrase-fd", "0", *options]
            given = self._passphrase.encode() + b"\n"
        try:
            process = await asyncio.create_subprocess_exec(
                "gpg",
                *options,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ConfigurationError("gpg cannot be run", "install it, or sign by a key in a file") from error
        try:
            out, said = await process.communicate(given + claim)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0 or not out:
            reason = said.decode(errors="replace").strip().splitlines()
            raise ConfigurationError(f"gpg did not sign: {reason[-1] if reason else process.returncode}")
        return SimpleSignature(out)


class SigstoreSigner:
    """A private key of cosign's kind."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    @classmethod
    async def load(cls, path: Path, passphrase: str) -> SigstoreSigner:
        """Read and decrypt the key. Raises ConfigurationError."""

        def load() -> PrivateKey:
            from asyncpull.trust.cosignkey import load_private_key

            return load_private_key(str(path), read_key_file(str(path)), passphrase.encode())

        return cls(await asyncio.to_thread(load))

    async def sign(self, manifest: bytes, reference: Reference) -> Signature:
        """Sign as sigstore does, without any log."""
        from asyncpull.trust.cosignkey import raw_signature

        payload = _claim(manifest, reference, ClaimType.SIGSTORE)
        made = base64.b64encode(await asyncio.to_thread(raw_signature, self._key, payload)).decode()
        return SigstoreSignature(SIGSTORE_TYPE, payload, {SIGSTORE_SIGNATURE: made})


def _claim(manifest: bytes, reference: Reference, kind: ClaimType) -> bytes:
    if reference.tag is None and reference.digest is None:
        raise UsageError(f"{reference} has neither a tag nor a digest, so it cannot be signed")
    return Claim(Digest.of(manifest), str(reference), _CREATOR, int(time.time())).to_bytes(kind)
