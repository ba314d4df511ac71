"""Policies as text: those that are refused as a whole, and those that are not; for us and for the library in Go."""

from __future__ import annotations

import json

ACCEPT: dict[str, object] = {"type": "insecureAcceptAnything"}
REJECT: dict[str, object] = {"type": "reject"}
SIGNED: dict[str, object] = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
SIGSTORE: dict[str, object] = {"type": "sigstoreSigned", "keyPath": "/k"}
FULCIO: dict[str, object] = {"caPath": "/ca", "oidcIssuer": "https://issuer", "subjectEmail": "a@b"}
PKI: dict[str, object] = {"caRootsPath": "/ca", "subjectEmail": "a@b"}


def policy(*requirements: object, **transports: object) -> str:
    """A policy of these requirements by default, and more for transports (``oci_archive`` is ``oci-archive``)."""
    named = {name.replace("_", "-"): scopes for name, scopes in transports.items()}
    return json.dumps({"default": list(requirements)} | ({"transports": named} if named else {}))


def scoped(transport: str, scope: str) -> str:
    """A policy that has ``scope`` for ``transport``."""
    return policy(ACCEPT, **{transport: {scope: [REJECT]}})


def identity(**kind: str) -> str:
    """A policy with a signedIdentity."""
    return policy(SIGNED | {"signedIdentity": kind})


_HEX = "0123456789abcdef" * 4

GOOD = [
    policy(ACCEPT),
    policy(REJECT),
    policy(ACCEPT, REJECT),
    policy(SIGNED),
    policy(SIGNED | {"keyType": "X509Certificates"}),
    policy({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"]}),
    policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAAA"}),
    policy({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}),
    policy(SIGSTORE),
    policy({"type": "sigstoreSigned", "keyPaths": ["/a"]}),
    policy({"type": "sigstoreSigned", "keyData": "AAAA", "rekorPublicKeyData": "AA\nAA"}),
    policy({"type": "sigstoreSigned", "keyDatas": ["AAAA", "BBBB"], "rekorPublicKeyPaths": ["/r"]}),
    policy({"type": "sigstoreSigned", "fulcio": FULCIO, "rekorPublicKeyPath": "/r"}),
    policy({"type": "sigstoreSigned", "fulcio": FULCIO, "rekorPublicKeyDatas": ["AAAA"]}),
    policy({"type": "sigstoreSigned", "pki": PKI}),
    policy({"type": "sigstoreSigned", "pki": PKI | {"subjectHostname": "h", "caIntermediatesData": "AAAA"}}),
    identity(type="matchExact"),
    identity(type="matchRepoDigestOrExact"),
    identity(type="matchRepository"),
    identity(type="exactReference", dockerReference="a.example/b:1"),
    identity(type="exactReference", dockerReference=f"busybox@sha256:{_HEX}"),
    identity(type="exactRepository", dockerRepository="busybox"),
    identity(type="remapIdentity", prefix="a.example:5000", signedPrefix="b.example/c"),
    policy(ACCEPT, docker={}),
    policy(ACCEPT, docker={"": [REJECT]}, nobody_knows={"it": [REJECT]}),
    scoped("docker", "docker.io/library/busybox:1"),
    scoped("docker", "*.example.com"),
    scoped("docker", "what/ever:@!"),
    scoped("docker-daemon", "busybox"),
    scoped("dir", "/a/b"),
    scoped("oci", "/a"),
    scoped("containers-storage", "[overlay@/a]"),
    scoped("containers-storage", "[/a]busybox:1"),
    scoped("containers-storage", f"[/a]busybox:1@{_HEX}"),
    scoped("containers-storage", f"[/a]busybox@sha256:{_HEX}@{_HEX}"),
]
"""Everybody takes these."""

BAD = [
    "",
    "[]",
    "null",
    "{}",
    '{"default": []}',
    '{"default": null}',
    '{"default": {"type": "reject"}}',
    '{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}',
    '{"default": [{"type": "reject"}], "other": 1}',
    '{"Default": [{"type": "reject"}]}',
    '{"default": [{"type": "reject"}]} {}',
    '{"default": [{"type": "reject", "type": "reject"}]}',
    '{"default": [{"type": "reject"}], "transports": []}',
    '{"default": [{"type": "reject"}], "transports": null}',
    '{"default": [{"type": "reject"}], "transports": {"docker": []}}',
    '{"default": [{"type": "reject"}], "transports": {"docker": {}, "docker": {}}}',
    policy(REJECT, docker={"a": [REJECT], "b": [REJECT]}).replace('"b"', '"a"'),
    '{"default": [{"type": "reject"}], "transports": {"docker": {"a": []}}}',
    policy("reject"),
    policy({}),
    policy({"type": 1}),
    policy({"type": "unknown"}),
    policy(ACCEPT | {"x": 1}),
    policy(REJECT | {"keyPath": "/k"}),
    policy({"type": "signedBy", "keyPath": "/k"}),
    policy({"type": "signedBy", "keyType": "gpgkeys", "keyPath": "/k"}),
    policy({"type": "signedBy", "keyType": "GPGKeys"}),
    policy(SIGNED | {"keyPath": ""}),
    policy(SIGNED | {"keyPath": 1}),
    policy(SIGNED | {"keyPath": ["/k"]}),
    policy(SIGNED | {"keyData": "AAAA"}),
    policy(SIGNED | {"keyPaths": ["/k"]}),
    policy({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": "/k"}),
    policy({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [1]}),
    policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": "not base64!"}),
    policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAA"}),
    policy(SIGNED | {"keydata": "AAAA"}),
    policy(SIGNED | {"signedIdentity": None}),
    policy(SIGNED | {"signedIdentity": "matchExact"}),
    policy({"type": "signedBaseLayer"}),
    policy({"type": "sigstoreSigned"}),
    policy(SIGSTORE | {"keyData": "AAAA"}),
    policy(SIGSTORE | {"fulcio": FULCIO}),
    policy({"type": "sigstoreSigned", "keyPaths": []}),
    policy(SIGSTORE | {"rekorPublicKeyPath": "/r", "rekorPublicKeyData": "AAAA"}),
    policy({"type": "sigstoreSigned", "fulcio": FULCIO}),
    policy({"type": "sigstoreSigned", "fulcio": {**FULCIO, "caData": "AAAA"}, "rekorPublicKeyPath": "/r"}),
    policy({"type": "sigstoreSigned", "fulcio": {"caPath": "/ca", "oidcIssuer": "i"}, "rekorPublicKeyPath": "/r"}),
    policy({"type": "sigstoreSigned", "fulcio": {**FULCIO, "oidcIssuer": ""}, "rekorPublicKeyPath": "/r"}),
    policy({"type": "sigstoreSigned", "fulcio": {**FULCIO, "x": ""}, "rekorPublicKeyPath": "/r"}),
    policy({"type": "sigstoreSigned", "pki": {"caRootsPath": "/ca"}}),
    policy({"type": "sigstoreSigned", "pki": {"subjectEmail": "a@b"}}),
    policy({"type": "sigstoreSigned", "pki": PKI, "rekorPublicKeyPath": "/r"}),
    policy({"type": "sigstoreSigned", "pki": {**PKI, "caIntermediatesPath": "/i", "caIntermediatesData": "AAAA"}}),
    identity(type="matchexact"),
    identity(type="matchExact", x="1"),
    identity(type="exactReference"),
    identity(type="exactReference", dockerReference="a.example/b"),
    identity(type="exactReference", dockerReference="a.example/B:1"),
    identity(type="exactReference", dockerReference="docker://a.example/b:1"),
    identity(type="exactRepository", dockerRepository="!"),
    identity(type="remapIdentity", prefix="a.example"),
    identity(type="remapIdentity", prefix="", signedPrefix="a.example"),
    identity(type="remapIdentity", prefix="a.example/b:tag", signedPrefix="a.example"),
    identity(type="remapIdentity", prefix="a.example/", signedPrefix="a.example"),
    scoped("docker-archive", "/a"),
    scoped("tarball", "/a"),
    scoped("dir", "a"),
    scoped("dir", "/"),
    scoped("dir", "/a/"),
    scoped("dir", "/a//b"),
    scoped("oci", "/a/../b"),
    scoped("oci-archive", "//a"),
    scoped("sif", "/./a"),
    scoped("docker-daemon", f"sha256:{_HEX}"),
    scoped("containers-storage", "busybox"),
    scoped("containers-storage", "[]"),
    scoped("containers-storage", "[a]"),
    scoped("containers-storage", "[overlay@a]"),
    scoped("containers-storage", "[@/a]"),
    scoped("containers-storage", "[/a]busybox@beef"),
]
"""Everybody refuses these."""
