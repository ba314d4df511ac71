"""X.509 certificates of whoever signs: chains to the authorities of a policy, and whose a certificate is.

A certificate that says what it is for must be for signing code, and all count at one moment: for Fulcio that at which
the log saw the signature, because its certificates live for minutes, and for one's own authorities now.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from asyncpull.errors import ConfigurationError, DocumentError, IntegrityError
from asyncpull.trust.material import read_material

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
    from cryptography.x509.verification import Policy as VerificationPolicy

    from asyncpull.trust.policy import Authorities, Fulcio, Material

# Where Fulcio writes who vouches for the user: the bare text first, since 2022 a DER string.
_ISSUER, _ISSUER_DER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_UTF8_STRING = 0x0C
_FOREIGN = (
    ValueError,
    TypeError,
    VerificationError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.UnsupportedGeneralNameType,
)


def fulcio_key(fulcio: Fulcio, certificate: str, chain: str | None, seconds: int) -> CertificatePublicKeyTypes:
    """The key of a certificate that ``fulcio`` gave the policy's user; ``seconds`` since 1970 is when it was used.

    ``certificate`` and ``chain`` are PEM from a signature. Raises DocumentError, IntegrityError, ConfigurationError.
    """
    leaf = _leaf(certificate)
    _require_chain(leaf, _sent_with(chain), _loaded(fulcio.authority), _moment(seconds))
    issuer = _issuer(leaf)
    if issuer != fulcio.issuer:
        raise IntegrityError(f"the certificate is one of a user of {issuer!r}, not of {fulcio.issuer!r}")
    _require_email(leaf, fulcio.email)
    return leaf.public_key()


def authorities_key(authorities: Authorities, certificate: str, chain: str | None) -> CertificatePublicKeyTypes:
    """The key of a certificate that is valid now and the policy's ``authorities`` gave to whom it names.

    Raises DocumentError, IntegrityError, ConfigurationError.
    """
    leaf = _leaf(certificate)
    known = [] if authorities.intermediates is None else _loaded(authorities.intermediates)
    _require_chain(leaf, [*known, *_sent_with(chain)], _loaded(authorities.roots), datetime.now(UTC))
    if authorities.email is not None:
        _require_email(leaf, authorities.email)
    if authorities.hostname is not None and not _is_of_host(_names(leaf), authorities.hostname):
        raise IntegrityError(f"the certificate is not one of the host {authorities.hostname!r}")
    return leaf.public_key()


def _loaded(material: Material) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for origin, raw in read_material(material):
        try:
            found += x509.load_pem_x509_certificates(raw)
        except _FOREIGN as error:
            raise ConfigurationError(f"{origin}: no certificates in PEM: {error}") from error
    return found


def _leaf(pem: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except _FOREIGN as error:
        raise DocumentError(f"the certificate of the signature cannot be read: {error}") from error
    if len(found) != 1:
        raise DocumentError(f"the signature comes with {len(found)} certificates of its own, not one")
    return found[0]


def _sent_with(chain: str | None) -> list[x509.Certificate]:
    """The certificates between, that came with a signature; the last one is the root, which nobody need believe."""
    if not chain:
        return []
    try:
        return x509.load_pem_x509_certificates(chain.encode())[:-1]
    except _FOREIGN as error:
        raise DocumentError(f"the chain of certificates cannot be read: {error}") from error


def _moment(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise DocumentError(f"{seconds} is no time") from error


def _require_chain(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], moment: datetime
) -> None:
    """Want a chain from ``leaf`` to one of ``roots``, all of it valid at ``moment`` and good for signing code."""
    by_authority = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _require_authority)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_certifying)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_code_signing)
    )
    by_signer = ExtensionPolicy.permit_all().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_code_signing
    )
    try:
        chain = (
            PolicyBuilder()
            .store(Store(list(roots)))
            .time(moment)
            .extension_policies(ca_policy=by_authority, ee_policy=by_signer)
            .build_client_verifier()
            .verify(leaf, list(between))
            .chain
        )
    except _FOREIGN as error:
        raise IntegrityError(f"the certificate is not one of the policy's authorities: {error}") from error
    for certificate in chain:
        if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
            raise IntegrityError(f"a certificate was not valid at {moment:%Y-%m-%d %H:%M:%S} UTC")


def _require_authority(
    _policy: VerificationPolicy, _certificate: x509.Certificate, basic: x509.BasicConstraints
) -> None:
    if not basic.ca:
        raise ValueError("a certificate in the chain is not one of an authority")


def _require_certifying(
    _policy: VerificationPolicy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("a key in the chain is not one for certificates")


def _require_code_signing(
    _policy: VerificationPolicy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None
) -> None:
    wanted = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is not None and not wanted & set(usage):
        raise ValueError("a certificate in the chain is not one for signing code")


def _issuer(leaf: x509.Certificate) -> str:
    """Who vouches for the user, as Fulcio wrote it down."""
    found: set[str] = set()
    try:
        for extension in leaf.extensions:
            if isinstance(extension.value, x509.UnrecognizedExtension):
                if extension.oid == _ISSUER:
                    found.add(extension.value.value.decode())
                elif extension.oid == _ISSUER_DER:
                    found.add(_der_text(extension.value.value))
    except (ValueError, x509.DuplicateExtension) as error:
        raise DocumentError(f"the issuer in the certificate cannot be read: {error}") from error
    if len(found) != 1:
        raise IntegrityError(f"the certificate names {len(found)} issuers, not one")
    return found.pop()


def _der_text(value: bytes) -> str:
    """The text of one UTF8String in DER of less than 128 bytes, or with a length of its own."""
    if len(value) < 2 or value[0] != _UTF8_STRING:
        raise ValueError("not a UTF8String")
    size = value[1] & 0x7F if value[1] & 0x80 else 0
    length = int.from_bytes(value[2 : 2 + size]) if size else value[1]
    text = value[2 + size :]
    if len(text) != length:
        raise ValueError("a UTF8String of another length")
    return text.decode()


def _names(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise DocumentError(f"the names in the certificate cannot be read: {error}") from error


def _require_email(leaf: x509.Certificate, email: str) -> None:
    found = _names(leaf).get_values_for_type(x509.RFC822Name)
    if email not in found:
        raise IntegrityError(f"the certificate is not one of {email}; it is one of {', '.join(found) or 'nobody'}")


def _is_of_host(names: x509.SubjectAlternativeName, host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        wanted = host.lower().removesuffix(".").split(".")
        return any(_fits(name.lower().split("."), wanted) for name in names.get_values_for_type(x509.DNSName))
    return address in names.get_values_for_type(x509.IPAddress)


def _fits(pattern: list[str], host: list[str]) -> bool:
    """Whether the labels of a name are those of ``host``; the first one may be ``*``."""
    if len(pattern) != len(host) or not all(host):
        return False
    return pattern[1:] == host[1:] and pattern[0] in ("*", host[0])
