"""The decision: an image, its signatures and the requirements of one rule, and a verdict with every reason.

All requirements must be met, and one signature that meets it is enough for each. Every one of them is looked at, also
after the first that is not met, so that whoever reads the verdict sees all that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, DocumentError, IntegrityError, PolicyError
from asyncpull.spec.schema1 import document_digest
from asyncpull.spec.signature import BUNDLE_TYPE, SIGSTORE_TYPE, SigstoreSignature, SimpleSignature
from asyncpull.trust.claim import Claim, ClaimType
from asyncpull.trust.material import read_material
from asyncpull.trust.policy import AcceptAnything, Reject, Requirement, SignedBaseLayer, SignedBy, SigstoreSigned
from asyncpull.trust.statement import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpull.spec.digest import Digest
    from asyncpull.spec.signature import Signature
    from asyncpull.trust.identity import SignedIdentity
    from asyncpull.trust.openpgp import Keyring
    from asyncpull.trust.policy import Rule
    from asyncpull.trust.scopes import ImageScopes

S = TypeVar("S")

_REFUSALS = (DocumentError, IntegrityError, ConfigurationError)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one requirement comes to: ``reasons`` say why it is met, or everything why it is not."""

    requirement: Requirement
    is_met: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether ``image`` may be used. ``origin`` is the policy, ``scope`` the rule of it that counts.

    ``digest`` is that of the manifest that was judged, and of no other.
    """

    image: str
    digest: Digest
    origin: str
    scope: str
    signatures: int
    findings: tuple[Finding, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether all requirements are met."""
        return bool(self.findings) and all(finding.is_met for finding in self.findings)

    def require(self) -> None:
        """Raise PolicyError, with every reason, unless the image is accepted."""
        if not self.is_accepted:
            reasons = [reason for finding in self.findings if not finding.is_met for reason in finding.reasons]
            raise PolicyError(
                self.image,
                tuple(dict.fromkeys(reasons)) or ("no requirement accepts it",),
                f"refused by {self.scope} of {self.origin}; asyncpull verify explains it",
            )


def judge(origin: str, rule: Rule, image: ImageScopes, manifest: bytes, signatures: Sequence[Signature]) -> Verdict:
    """Judge ``manifest``, the exact bytes of one that is called ``image``, by ``rule`` of the policy at ``origin``.

    Reads the keys that the rule names, and works on the processor: call it in a thread.
    """
    findings = tuple(_finding(requirement, image, manifest, signatures) for requirement in rule.requirements)
    return Verdict(image.name, document_digest(manifest), origin, rule.scope, len(signatures), findings)


def _finding(requirement: Requirement, image: ImageScopes, manifest: bytes, signatures: Sequence[Signature]) -> Finding:
    match requirement:
        case AcceptAnything():
            return Finding(requirement, True, ("everything is accepted",))
        case Reject():
            return Finding(requirement, False, ("everything is rejected",))
        case SignedBaseLayer():
            return Finding(requirement, False, ("signedBaseLayer is implemented by nobody",))
        case SignedBy():
            simple = [each for each in signatures if isinstance(each, SimpleSignature)]
            keyring = _OnceOpened(requirement)
            return _signed(requirement, simple, lambda each: _by_openpgp(each, keyring, image, manifest))
        case SigstoreSigned():
            attached = [each for each in signatures if isinstance(each, SigstoreSignature)]
            sigstore = [each for each in attached if each.media_type in (SIGSTORE_TYPE, BUNDLE_TYPE)]
            return _signed(requirement, sigstore, lambda each: _by_sigstore(each, requirement, image, manifest))


def _signed(requirement: Requirement, signatures: Sequence[S], verify: Callable[[S], str]) -> Finding:
    """Want one signature that ``verify`` has something to say for."""
    reasons: list[str] = []
    for number, signature in enumerate(signatures, 1):
        try:
            return Finding(requirement, True, (verify(signature),))
        except _REFUSALS as error:
            reasons.append(str(error) if len(signatures) == 1 else f"signature {number}: {error}")
    return Finding(requirement, False, tuple(reasons) or ("a signature is required, and there is none of that kind",))


@dataclass(slots=True)
class _OnceOpened:
    """The keyring of a requirement, read for the first signature and used for all; it may be that of a distribution."""

    requirement: SignedBy
    _keyring: Keyring | None = None

    def keyring(self) -> Keyring:
        """Read it, if it was not. Raises ConfigurationError."""
        if self.requirement.key_type != "GPGKeys":
            raise ConfigurationError(f"the keyType {self.requirement.key_type} is implemented by nobody")
        if self._keyring is None:
            from asyncpull.trust.openpgp import Keyring  # pysequoia takes time to load, which most policies need not

            self._keyring = Keyring(read_material(self.requirement.keys))
        if len(self._keyring) == 0:
            raise ConfigurationError("there are no public keys in the policy's keyrings")
        return self._keyring


def _by_openpgp(signature: SimpleSignature, opened: _OnceOpened, image: ImageScopes, manifest: bytes) -> str:
    content, fingerprint = opened.keyring().opened(signature.message)
    _require_claim(content, ClaimType.SIMPLE, opened.requirement.identity, image, manifest)
    return f"signed by the key {fingerprint}"


def _by_sigstore(signature: SigstoreSignature, requirement: SigstoreSigned, image: ImageScopes, manifest: bytes) -> str:
    from asyncpull.trust.sigstore import verified_payload  # as for cryptography

    content = verified_payload(signature, requirement)
    if signature.media_type == BUNDLE_TYPE:
        _require_statement(content, requirement.identity, image, manifest)
    else:
        _require_claim(content, ClaimType.SIGSTORE, requirement.identity, image, manifest)
    return "signed with sigstore by whom the policy names"


def _require_claim(
    content: bytes, kind: ClaimType, identity: SignedIdentity, image: ImageScopes, manifest: bytes
) -> None:
    """Want what was signed to be about this manifest under this name. Raises DocumentError, IntegrityError."""
    try:
        claim = Claim.from_bytes(content, kind)
    except DocumentError as error:
        raise DocumentError(f"what was signed is no claim about an image: {error}") from error
    _require_one((claim,), identity, image, manifest)


def _require_statement(content: bytes, identity: SignedIdentity, image: ImageScopes, manifest: bytes) -> None:
    """The same of what is signed in a bundle."""
    try:
        claims = claims_of(content)
    except DocumentError as error:
        raise DocumentError(f"what was signed is no statement that signs an image: {error}") from error
    _require_one(claims, identity, image, manifest)


def _require_one(claims: Sequence[Claim], identity: SignedIdentity, image: ImageScopes, manifest: bytes) -> None:
    about = [each for each in claims if document_digest(manifest, each.digest.algorithm) == each.digest]
    if not about:
        raise IntegrityError(f"the signature is for another manifest, {claims[0].digest}")
    if not any(identity.accepts(image.intended, each.reference) for each in about):
        names = " and ".join(repr(each.reference) for each in about)
        raise IntegrityError(f"the signature is for the name {names}, which is not accepted here")
