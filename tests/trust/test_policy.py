"""``policy.json``: what is refused, what it comes to, and which rule counts."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import ConfigurationError
from asyncpull.spec.reference import parse_reference
from asyncpull.trust.identity import ExactReference, MatchRepoDigestOrExact
from asyncpull.trust.policy import (
    AcceptAnything,
    Authorities,
    Fulcio,
    Material,
    Policy,
    Reject,
    Rule,
    SignedBy,
    SigstoreSigned,
)
from asyncpull.trust.policyfile import TrustOptions, load_policy
from asyncpull.trust.scopes import of_reference
from tests.support.policies import ACCEPT, BAD, FULCIO, GOOD, PKI, REJECT, SIGNED, identity, policy

FILE = Path("/etc/containers/policy.json")


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    assert Policy.from_bytes(FILE, text.encode()).default


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{FILE}: .") as caught:
        Policy.from_bytes(FILE, text.encode())
    assert caught.value.hint == "the whole policy is refused: containers-policy.json(5)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n  x}", "not JSON: Expecting property name enclosed in double quotes: line 2 column 3 (char 4)"),
        (policy(ACCEPT, docker={"a.b": [REJECT, {"type": "no"}]}), 'transports.docker."a.b"[1].type: there is no'),
        (policy(SIGNED | {"keyPaths": []}), "default[0]: exactly one of keyPath, keyPaths, keyData is wanted"),
        (policy(SIGNED | {"keypath": ""}), "default[0].keypath is not a key that is known here"),
        (policy({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [1]}), "default[0].keyPaths[0] is a number"),
        (identity(type="exactReference", dockerReference="a/b"), "default[0].signedIdentity.dockerReference has nei"),
        (policy(ACCEPT, dir={"/a/": [REJECT]}), 'transports.dir."/a/": write it as /a'),
    ],
)
def test_the_place_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{FILE}: {message}")):
        Policy.from_bytes(FILE, text.encode())


def test_requirements_as_values() -> None:
    text = policy(
        ACCEPT,
        REJECT,
        {"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAEC"},
        {"type": "sigstoreSigned", "keyPaths": ["/a", "/b"], "rekorPublicKeyData": "AA=="},
        {"type": "sigstoreSigned", "fulcio": FULCIO, "rekorPublicKeyPath": "/r"},
        {"type": "sigstoreSigned", "pki": PKI, "signedIdentity": {"type": "exactReference", "dockerReference": "a:1"}},
    )
    usual = MatchRepoDigestOrExact()
    assert Policy.from_bytes(FILE, text.encode()).default == (
        AcceptAnything(),
        Reject(),
        SignedBy("GPGKeys", Material(data=(b"\0\1\2",)), usual),
        SigstoreSigned(Material(("/a", "/b")), Material(data=(b"\0",)), usual),
        SigstoreSigned(Fulcio(Material(("/ca",)), "https://issuer", "a@b"), Material(("/r",)), usual),
        SigstoreSigned(
            Authorities(Material(("/ca",)), None, "a@b", None), None, ExactReference(parse_reference("a:1"))
        ),
    )


def rule(text: str, reference: str) -> Rule:
    return Policy.from_bytes(FILE, text.encode()).rule_for(of_reference(parse_reference(reference)))


@pytest.mark.parametrize(
    ("scopes", "scope"),
    [
        (["a.example:5/b/c:1", "a.example:5/b/c"], "a.example:5/b/c:1"),
        (["a.example:5/b/c:2", "a.example:5/b/c", "a.example:5/b"], "a.example:5/b/c"),
        (["a.example:5/b/cc", "a.example:5/b", "a.example:5"], "a.example:5/b"),
        (["a.example:5", "*.example", ""], "a.example:5"),
        (["a.example", "*.example", ""], "*.example"),
        (["*.a.example", ""], ""),
    ],
)
def test_the_most_specific_scope_counts(scopes: list[str], scope: str) -> None:
    found = rule(policy(REJECT, docker={each: [ACCEPT] for each in scopes}), "a.example:5/b/c:1")
    shown = json.dumps(scope) if not scope.isidentifier() else scope
    assert found == Rule(f"transports.docker.{shown}", (AcceptAnything(),))


def test_other_transports_do_not_count() -> None:
    assert rule(policy(REJECT, dir={"": [ACCEPT]}), "a.example/b") == Rule("default", (Reject(),))
    assert rule(policy(REJECT, docker={"x.example": [ACCEPT]}), "a.example/b") == Rule("default", (Reject(),))


def test_the_search_order(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    named = tmp_path / "named.json"
    places = [tmp_path / "xdg/containers/policy.json", tmp_path / "home/.config/containers/policy.json"]
    for path in (named, *places):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(policy(REJECT))
    found = load_policy(TrustOptions(policy=named), environ)
    assert found is not None
    assert found.origin == str(named)
    for path in places:
        found = load_policy(TrustOptions(), environ)
        assert found is not None
        assert found.origin == str(path)
        path.unlink()
    accepting = load_policy(TrustOptions(policy=named, accepts_anything=True), environ)
    assert accepting is not None
    assert accepting.default == (AcceptAnything(),)
    named.unlink()
    with pytest.raises(ConfigurationError, match="there is no such policy"):
        load_policy(TrustOptions(policy=named), environ)
    (tmp_path / "xdg/containers/policy.json").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_policy(TrustOptions(), environ)


_KEYS = st.sampled_from(["default", "type", "reject", "transports", "docker", ""])
_JSON = st.recursive(
    st.none() | st.text() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
)


@given(_JSON)
def test_whatever_it_is_it_is_a_policy_or_refused(value: object) -> None:
    with suppress(ConfigurationError):
        Policy.from_bytes(FILE, json.dumps(value).encode())
