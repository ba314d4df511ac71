"""What a bundle of sigstore claims: a statement of in-toto, by which cosign signs images.

::

    {"_type": TYPE, "predicateType": TYPE, "predicate": {…},
     "subject": [{"digest": {ALGORITHM: HEX}, "name": NAME, "annotations": {KEY: TEXT}}…]}

Bundles hold attestations as well (where an image comes from, what is in it), which are no signatures: they are told by
the type of the predicate.

A subject need not have a name, and ``cosign sign`` gives it none. Such a signature meets no ``signedIdentity``: whoever
sends the image of one repository as that of another could send its signature too. What names an image is the
annotation ``docker-reference``, as containers-signature(5) has it (``cosign sign -a docker-reference=NAME``), or the
name that ``cosign attest`` gives.
"""

from __future__ import annotations

from asyncpull.errors import DocumentError, InvalidDigestError
from asyncpull.spec.digest import Digest
from asyncpull.spec.strictjson import StrictObject
from asyncpull.trust.claim import Claim

_TYPES = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
SIGNED_IMAGE = "https://sigstore.dev/cosign/sign/v1"
"""The type of the predicate of a signature."""
_NAME = "docker-reference"


def claims_of(statement: bytes) -> tuple[Claim, ...]:
    """What is claimed of each subject; the name is empty where it has none. Raises DocumentError."""
    document = StrictObject.parse(statement)
    for key, known in (("_type", _TYPES), ("predicateType", (SIGNED_IMAGE,))):
        if document.text(key) not in known:
            raise DocumentError(f"{key} is {document.text(key)[:80]!r}, not {known[0]!r}")
    claims = tuple(_claim(StrictObject.of(item, where)) for item, where in document.array("subject"))
    if not claims:
        raise DocumentError("it has no subject")
    return claims


def _claim(subject: StrictObject) -> Claim:
    digest = subject.inner("digest")
    if len(digest.values) != 1:
        raise DocumentError(f"{digest.where} has {len(digest.values)} digests, not one")
    (algorithm,) = digest.values
    try:
        found = Digest.parse(f"{algorithm}:{digest.text(algorithm)}")
    except InvalidDigestError as error:
        raise DocumentError(f"{digest.where}: {error}") from error
    name = subject.text("name") if subject.has("name") else ""
    annotations = subject.inner("annotations") if subject.has("annotations") else None
    if annotations is not None and annotations.has(_NAME):
        name = annotations.text(_NAME)
    return Claim(found, name)
