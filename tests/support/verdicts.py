"""Requirements of every kind that a policy can have, each with signatures that meet it, and with some that do not.

The signatures are files, as a lookaside store has them; ours and the library in Go are to come to the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.policies import ACCEPT, REJECT
from tests.support.signers import (
    BUNDLE,
    CERTIFICATE,
    NOW,
    SIGNATURE,
    SIGSTORE,
    SIMPLE,
    Authority,
    PgpKey,
    claim,
    encode,
    log_entry,
    public_pem,
    raw_sign,
    sigstore_keys,
)

if TYPE_CHECKING:
    from pathlib import Path


Requirements = tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """An image in a repository called ``name``, and what has to come of it: a reason, or None where it is accepted."""

    name: str
    requirements: Requirements
    signatures: tuple[bytes, ...] = ()
    reason: str | None = None

    def lay(self, folder: Path, digest: str) -> None:
        """Put the signatures into the lookaside store in ``folder``."""
        place = folder / f"lookaside/verdicts/{self.name}@{digest.replace(':', '=')}"
        place.mkdir(parents=True)
        for number, raw in enumerate(self.signatures, 1):
            (place / f"signature-{number}").write_bytes(raw)


class Cases:
    """Makes the cases for one image of the repositories ``REGISTRY/verdicts/NAME``; keys are files in ``folder``."""

    def __init__(self, folder: Path, registry: str, digest: str) -> None:
        self._folder, self._registry, self._digest = folder, registry, digest
        self._pgp, self._other, self._revoked = PgpKey(), PgpKey(), PgpKey()
        for name, raw in (("pgp", self._pgp.public), ("other", self._other.public), ("revoked", self._revoked.revoked)):
            (folder / f"{name}.gpg").write_bytes(raw)
        self._key, self._foreign = sigstore_keys()["P-256"], sigstore_keys()["P-384"]
        self._log, self._root = ec.generate_private_key(ec.SECP256R1()), Authority("root")
        for name, key in (("key", self._key), ("foreign", self._foreign), ("log", self._log)):
            (folder / f"{name}.pem").write_bytes(public_pem(key))
        (folder / "root.pem").write_bytes(self._root.pem)

    def write(self, rules: dict[str, object]) -> None:
        """Write ``policy.json``, and ``registries.d`` with the lookaside store; nothing else is accepted."""
        document = {"default": [REJECT], "transports": {"docker": rules}}
        (self._folder / "policy.json").write_text(json.dumps(document))
        section = {"lookaside": f"file://{self._folder}/lookaside"}
        (self._folder / "registries.d").mkdir()
        (self._folder / "registries.d/x.yaml").write_text(json.dumps({"docker": {self._registry: section}}))

    def all(self) -> list[Case]:
        """All of them; their signatures and the policy are in place."""
        cases = [
            Case("anything", (ACCEPT,)),
            Case("nothing", (REJECT,), (self._simple("nothing"),), "everything is rejected"),
            Case("anything-and-nothing", (ACCEPT, REJECT), (), "everything is rejected"),
            Case(
                "base-layer",
                ({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}},),
                (self._simple("base-layer"),),
                "signedBaseLayer is implemented by nobody",
            ),
            *self._of_openpgp(),
            *self._of_keys(),
            *self._of_logs(),
            *self._of_certificates(),
            *self._of_identities(),
        ]
        assert len({case.name for case in cases}) == len(cases)
        for case in cases:
            case.lay(self._folder, self._digest)
        self.write({f"{self._registry}/verdicts/{case.name}": case.requirements for case in cases})
        return cases

    def _of_openpgp(self) -> list[Case]:
        path, other, revoked = (f"{self._folder}/{name}.gpg" for name in ("pgp", "other", "revoked"))
        none = "a signature is required, and there is none of that kind"
        return [
            Case("signed", (self._signed_by(keyPath=path),), (self._simple("signed"),)),
            Case("signed-paths", (self._signed_by(keyPaths=[other, path]),), (self._simple("signed-paths"),)),
            Case("signed-data", (self._signed_by(keyData=encode(self._pgp.public)),), (self._simple("signed-data"),)),
            Case("signed-twice", (self._signed_by(keyPath=path),), (b"\x90", self._simple("signed-twice"))),
            Case("signed-not", (self._signed_by(keyPath=path),), (), none),
            Case("signed-otherwise", (self._signed_by(keyPath=path),), (self._attached("signed-otherwise"),), none),
            Case(
                "signed-by-other",
                (self._signed_by(keyPath=other),),
                (self._simple("signed-by-other"),),
                "not signed by one of the policy's keys",
            ),
            Case(
                "signed-by-one-of-two",
                (self._signed_by(keyPath=path), self._signed_by(keyPath=other)),
                (self._simple("signed-by-one-of-two"),),
                "not signed by one of the policy's keys",
            ),
            Case(
                "signed-by-revoked",
                (self._signed_by(keyPath=revoked),),
                (self._simple("signed-by-revoked", key=self._revoked),),
                "",
            ),
            Case(
                "signed-by-x509",
                ({"type": "signedBy", "keyType": "X509Certificates", "keyPath": path},),
                (self._simple("signed-by-x509"),),
                "the keyType X509Certificates is implemented by nobody",
            ),
            Case(
                "signed-no-key",
                (self._signed_by(keyPath="/none"),),
                (self._simple("signed-no-key"),),
                "/none: the key cannot be read",
            ),
            Case(
                "signed-another-manifest",
                (self._signed_by(keyPath=path),),
                (self._simple("signed-another-manifest", digest="sha256:" + "0" * 64),),
                "the signature is for another manifest",
            ),
            Case(
                "signed-as-sigstore",
                (self._signed_by(keyPath=path),),
                (self._simple("signed-as-sigstore", kind=SIGSTORE),),
                "is no claim about an image",
            ),
        ]

    def _of_keys(self) -> list[Case]:
        path, foreign = f"{self._folder}/key.pem", f"{self._folder}/foreign.pem"
        data, more = encode(public_pem(self._key)), encode(public_pem(self._foreign))
        changed = self._attached("key-changed").replace(b'"payload": "', b'"payload": "IA==', 1)
        return [
            Case("key", (_sigstore(keyPath=path),), (self._attached("key"),)),
            Case("key-paths", (_sigstore(keyPaths=[foreign, path]),), (self._attached("key-paths"),)),
            Case("key-data", (_sigstore(keyData=data),), (self._attached("key-data"),)),
            Case("key-datas", (_sigstore(keyDatas=[more, data]),), (self._attached("key-datas"),)),
            Case(
                "both",
                (self._signed_by(keyPath=f"{self._folder}/pgp.gpg"), _sigstore(keyPath=path)),
                (self._attached("both"), self._simple("both")),
            ),
            Case(
                "key-not",
                (_sigstore(keyPath=path),),
                (self._simple("key-not"),),
                "a signature is required, and there is none of that kind",
            ),
            Case("key-other", (_sigstore(keyPath=foreign),), (self._attached("key-other"),), "not signed by the key"),
            Case("key-changed", (_sigstore(keyPath=path),), (changed,), ""),
            Case(
                "key-no-file", (_sigstore(keyPath="/none"),), (self._attached("key-no-file"),), "/none: the key cannot"
            ),
        ]

    def _of_logs(self) -> list[Case]:
        path, log, other = (f"{self._folder}/{name}.pem" for name in ("key", "log", "foreign"))
        return [
            Case("log", (_sigstore(keyPath=path, rekorPublicKeyPath=log),), (self._attached("log", log=self._log),)),
            Case(
                "log-data",
                (_sigstore(keyPath=path, rekorPublicKeyData=encode(public_pem(self._log))),),
                (self._attached("log-data", log=self._log),),
            ),
            Case(
                "log-not",
                (_sigstore(keyPath=path, rekorPublicKeyPath=log),),
                (self._attached("log-not"),),
                f"the signature has no {BUNDLE}",
            ),
            Case(
                "log-other",
                (_sigstore(keyPath=path, rekorPublicKeyPaths=[log]),),
                (self._attached("log-other", log=ec.generate_private_key(ec.SECP256R1())),),
                "not signed by a log of the policy",
            ),
            Case(
                "log-of-other-kind",
                (_sigstore(keyPath=path, rekorPublicKeyPath=other),),
                (self._attached("log-of-other-kind", log=self._log),),
                "not signed by a log of the policy",
            ),
        ]

    def _of_certificates(self) -> list[Case]:
        fulcio = {"caPath": f"{self._folder}/root.pem", "oidcIssuer": "https://issuer.example"}
        mine = {"fulcio": fulcio | {"subjectEmail": "a@b.example"}, "rekorPublicKeyPath": f"{self._folder}/log.pem"}
        pki = {"caRootsPath": f"{self._folder}/root.pem"}
        hour = timedelta(hours=1)
        own = self._root.issue(self._key)
        expired = self._root.issue(self._key, begins=NOW - 3 * hour, ends=NOW - hour)
        strange = Authority("root").issue(self._key)

        def logged(name: str, certificate: bytes, when: timedelta = timedelta()) -> bytes:
            return self._attached(name, certificate=certificate, log=self._log, when=when)

        return [
            Case("fulcio", (_sigstore(**mine),), (logged("fulcio", own),)),
            Case("fulcio-then", (_sigstore(**mine),), (logged("fulcio-then", expired, -2 * hour),)),
            Case("fulcio-late", (_sigstore(**mine),), (logged("fulcio-late", expired),), "authorities"),
            Case("fulcio-strange", (_sigstore(**mine),), (logged("fulcio-strange", strange),), "authorities"),
            Case(
                "fulcio-no-log",
                (_sigstore(**mine),),
                (self._attached("fulcio-no-log", certificate=own),),
                f"the signature has no {BUNDLE}",
            ),
            Case(
                "fulcio-issuer",
                (_sigstore(**mine | {"fulcio": fulcio | {"subjectEmail": "a@b.example", "oidcIssuer": "https://x"}}),),
                (logged("fulcio-issuer", own),),
                "one of a user of 'https://issuer.example', not of 'https://x'",
            ),
            Case(
                "fulcio-email",
                (_sigstore(**mine | {"fulcio": fulcio | {"subjectEmail": "x@y.example"}}),),
                (logged("fulcio-email", own),),
                "not one of x@y.example; it is one of a@b.example",
            ),
            Case(
                "pki",
                (_sigstore(pki=pki | {"subjectEmail": "a@b.example"}),),
                (self._attached("pki", certificate=own),),
            ),
            Case(
                "pki-host",
                (_sigstore(pki=pki | {"subjectHostname": "signer.example"}),),
                (self._attached("pki-host", certificate=own),),
            ),
            Case(
                "pki-other-host",
                (_sigstore(pki=pki | {"subjectHostname": "other.example"}),),
                (self._attached("pki-other-host", certificate=own),),
                "not one of the host 'other.example'",
            ),
            Case(
                "pki-expired",
                (_sigstore(pki=pki | {"subjectEmail": "a@b.example"}),),
                (self._attached("pki-expired", certificate=expired),),
                "authorities",
            ),
            Case(
                "pki-strange",
                (_sigstore(pki=pki | {"subjectEmail": "a@b.example"}),),
                (self._attached("pki-strange", certificate=strange),),
                "authorities",
            ),
            Case(
                "pki-none",
                (_sigstore(pki=pki | {"subjectEmail": "a@b.example"}),),
                (self._attached("pki-none"),),
                f"the signature has no {CERTIFICATE}",
            ),
        ]

    def _of_identities(self) -> list[Case]:
        """Each kind, met and not met, by signatures of both kinds in turn."""
        here = f"{self._registry}/verdicts"
        wanted: list[tuple[dict[str, str], str, str]] = [
            ({"type": "matchExact"}, f"{here}/NAME:1", f"{here}/NAME:2"),
            ({"type": "matchRepoDigestOrExact"}, f"{here}/NAME:1", f"{here}/NAME"),
            ({"type": "matchRepository"}, f"{here}/NAME:other", f"{here}/other:1"),
            ({"type": "exactReference", "dockerReference": "a.example/b:1"}, "a.example/b:1", "a.example/b:2"),
            ({"type": "exactRepository", "dockerRepository": "a.example/b"}, "a.example/b:9", f"{here}/NAME:1"),
            (
                {"type": "remapIdentity", "prefix": here, "signedPrefix": "vendor.example/x"},
                "vendor.example/x/NAME:1",
                f"{here}/NAME:1",
            ),
        ]
        found: list[Case] = []
        for number, (identity, good, bad) in enumerate(wanted):
            for is_met, signed in ((True, good), (False, bad)):
                name = f"{identity['type'].lower()}-{'met' if is_met else 'not'}"
                called = signed.replace("NAME", name)
                if number % 2:
                    requirement = self._signed_by(keyPath=f"{self._folder}/pgp.gpg")
                    signature = self._simple(name, called=called)
                else:
                    requirement = _sigstore(keyPath=f"{self._folder}/key.pem")
                    signature = self._attached(name, called=called)
                reason = None if is_met else f"the signature is for the name '{called}', which is not accepted here"
                found.append(Case(name, (requirement | {"signedIdentity": identity},), (signature,), reason))
        return found

    def _signed_by(self, **keys: object) -> dict[str, object]:
        return {"type": "signedBy", "keyType": "GPGKeys", **keys}

    def _simple(
        self,
        name: str,
        *,
        key: PgpKey | None = None,
        called: str | None = None,
        digest: str | None = None,
        kind: str = SIMPLE,
    ) -> bytes:
        called = called or f"{self._registry}/verdicts/{name}:1"
        return (key or self._pgp).sign(claim(kind, digest or self._digest, called))

    def _attached(
        self,
        name: str,
        *,
        called: str | None = None,
        certificate: bytes | None = None,
        log: ec.EllipticCurvePrivateKey | None = None,
        when: timedelta = timedelta(),
    ) -> bytes:
        """A signature of sigstore as a file."""
        payload = claim(SIGSTORE, self._digest, called or f"{self._registry}/verdicts/{name}:1")
        raw = raw_sign(self._key, payload)
        annotations = {SIGNATURE: encode(raw)}
        if certificate is not None:
            annotations[CERTIFICATE] = certificate.decode()
        if log is not None:
            proof: bytes = certificate or public_pem(self._key)
            annotations[BUNDLE] = log_entry(log, proof, raw, payload, NOW + when)
        document = {
            "mimeType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "payload": encode(payload),
            "annotations": annotations,
        }
        return b"\0sigstore-json\n" + json.dumps(document).encode()


def _sigstore(**fields: object) -> dict[str, object]:
    return {"type": "sigstoreSigned", **fields}
