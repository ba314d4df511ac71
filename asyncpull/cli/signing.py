"""The options that say what a copy does about signatures, and what they come to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from asyncpull.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncpull.trust.signing import Signer, Signing

    Decorated = TypeVar("Decorated", bound=Callable[..., object])

_FILE = click.Path(dir_okay=False)
_LINE_LIMIT = 1 << 16

_OPTIONS = (
    click.option("--remove-signatures", is_flag=True, help="Leave the signatures behind that the source has."),
    click.option("--sign-by", metavar="FINGERPRINT", help="Sign by a key of the user's gpg, and its agent."),
    click.option("--sign-by-key", metavar="FILE", type=_FILE, help="Sign by a secret key of OpenPGP in a file."),
    click.option(
        "--sign-by-sigstore-private-key", metavar="FILE", type=_FILE, help="Sign by a private key of cosign's kind."
    ),
    click.option(
        "--sign-passphrase-file", metavar="FILE", type=_FILE, help="The passphrase of the key: the first line there."
    ),
    click.option("--sign-identity", metavar="REF", help="The name to sign, instead of that of the destination."),
)


def signing_options(command: Decorated) -> Decorated:
    """Give a verb the options about signatures; their values arrive under their names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


async def wanted_signing(values: Mapping[str, object], passphrase: str | None) -> Signing:
    """What the options ask for; keys are read and opened, so that it is told at once if they cannot be.

    Raises UsageError, InvalidReferenceError, ConfigurationError.
    """
    from asyncpull.spec.reference import parse_reference
    from asyncpull.trust.signing import GpgSigner, KeyFileSigner, Signing, SigstoreSigner

    signers: list[Signer] = []
    if fingerprint := _text(values, "sign_by"):
        signers.append(GpgSigner(fingerprint, passphrase))
    if path := _text(values, "sign_by_key"):
        signers.append(await KeyFileSigner.load(Path(path), passphrase))
    if path := _text(values, "sign_by_sigstore_private_key"):
        signers.append(await SigstoreSigner.load(Path(path), passphrase or ""))
    identity = _text(values, "sign_identity")
    if identity is not None and not signers:
        raise UsageError("--sign-identity wants a key to sign by")
    return Signing(
        tuple(signers),
        None if identity is None else parse_reference(identity),
        removes=values.get("remove_signatures") is True,
    )


def wanted_passphrase(values: Mapping[str, object]) -> str | None:
    """The passphrase in the file that is named; a key of cosign's kind has one always, so that it is asked for.

    Raises UsageError where several keys would share one, or nobody can be asked; ConfigurationError. To be called
    outside of an event loop.
    """
    keys = [name for name in ("sign_by", "sign_by_key", "sign_by_sigstore_private_key") if _text(values, name)]
    path = _text(values, "sign_passphrase_file")
    if path is not None:
        if len(keys) != 1:
            raise UsageError("--sign-passphrase-file wants exactly one key to sign by")
        try:
            with open(path, "rb") as file:
                return file.readline(_LINE_LIMIT).rstrip(b"\r\n").decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: the passphrase cannot be read") from error
    if "sign_by_sigstore_private_key" not in keys:
        return None
    if not sys.stdin.isatty():
        raise UsageError("the key has a passphrase, and nobody is there to be asked", "--sign-passphrase-file has it")
    answer: str = click.prompt("Passphrase of the key", hide_input=True, err=True, default="", show_default=False)
    return answer


def _text(values: Mapping[str, object], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) and value else None
