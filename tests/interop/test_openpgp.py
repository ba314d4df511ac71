"""Messages of gpg, good ones and others: what skopeo refuses we refuse, and what we accept it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.errors import AsyncpullError
from asyncpull.spec.location import parse_location
from asyncpull.trust.judge import judge
from asyncpull.trust.policy import Policy
from asyncpull.trust.scopes import scopes_of
from asyncpull.trust.signaturestore import read_signature_files
from tests.support import images, tars
from tests.support.policies import policy
from tests.support.signers import SIMPLE, Gpg, claim
from tests.support.stores import workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.peers import Peer

NAME = "a.example/b:1"
IMAGE = images.image([tars.tar([tars.file("f", b"x")])], comment="openpgp")
CLAIM = claim(SIMPLE, IMAGE.manifest.digest, NAME)
# The clock of a faked time runs, and starts anew with each command: what is used later needs a later time.
LONG_AGO, LATER = (("--faked-system-time", f"2024010{day}T000000") for day in (1, 2))
STRICTER = {
    "signed in the future": "Sequoia believes no signature that is not made yet",
    "signed over SHA-1": "Sequoia believes no signature over SHA-1 any more",
    "bytes behind the end": "what is behind the end of the compressed data is not part of the message",
}
"""What we refuse and gpg does not, and why."""
REASONS = {
    "of another key": "not signed by one of the policy's keys, but by",
    "signed in the future": "was not made yet",
    "the signature has expired": "the signature by the key",
    "the key has expired": "has expired",
    "the subkey has expired": "has expired",
    "signed over SHA-1": "is not valid",
    "another manifest": "the signature is for another manifest",
    "another name": "the signature is for the name 'a.example/b:2'",
    "more in critical": "critical.x is not a key that is known here",
    "a key twice": "optional is there twice",
    "no keyring": "no keyring of OpenPGP",
}
"""What is said of some that we refuse."""


@dataclass(frozen=True, slots=True)
class Message:
    """A signature as gpg made it, and a keyring; ``is_good`` is what everybody is to think of it."""

    name: str
    signature: bytes
    keyring: bytes
    is_good: bool = False


def changed(old: bytes, new: bytes) -> bytes:
    assert old in CLAIM
    return CLAIM.replace(old, new)


def messages(gpg: Gpg) -> Iterator[Message]:
    def signed(who: str, *options: str, content: bytes = CLAIM) -> bytes:
        return gpg.run(*options, "-u", f"{who}@x", "--sign", data=content)

    for who in ("a", "b"):
        gpg.make_key(f"{who}@x")
    a, b = (gpg.export(f"{who}@x") for who in ("a", "b"))
    yield Message("plain", signed("a"), a, True)
    yield Message("in a keyring of several", signed("b"), a + b, True)
    yield Message("armoured keyring", signed("a"), gpg.run("--armor", "--export", "a@x"), True)
    yield Message("not compressed", signed("a", "-z0"), a, True)
    yield Message("compressed by bzip2", signed("a", "--compress-algo", "bzip2"), a, True)
    yield Message("of another key", signed("b"), a)
    yield Message("armoured signature", gpg.run("--armor", "-u", "a@x", "--sign", data=CLAIM), a)
    yield Message("cleartext signature", gpg.run("-u", "a@x", "--clearsign", data=CLAIM), a)
    yield Message("detached signature", gpg.run("-u", "a@x", "--detach-sign", data=CLAIM), a)
    yield Message("not signed", gpg.run("--store", data=CLAIM), a)
    yield Message("signed by two", gpg.run("-u", "a@x", "-u", "b@x", "--sign", data=CLAIM), a + b)
    yield Message("signed in the future", signed("a", "--faked-system-time", "20370101T000000"), a)
    yield Message("bytes behind the end", signed("a") + b"x", a)
    yield Message("no keyring", signed("a"), b"hello")
    yield Message("an empty keyring", signed("a"), b"")

    for name, lasts in (("old", "never"), ("gone", "30d")):
        gpg.make_key(f"{name}@x", *LONG_AGO, lasts=lasts)
    yield Message("signed long ago", signed("old", *LATER), gpg.export("old@x"), True)
    expires = ("--default-sig-expire", "1d")
    yield Message("the signature has expired", signed("old", *LATER, *expires), gpg.export("old@x"))
    yield Message("the key has expired", signed("gone", *LATER), gpg.export("gone@x"))

    gpg.run("--quick-generate-key", "sub@x", "ed25519", "cert", "never")
    gpg.run("--quick-add-key", gpg.fingerprint("sub@x"), "ed25519", "sign", "never")
    yield Message("by a subkey", signed("sub"), gpg.export("sub@x"), True)
    gpg.run(*LONG_AGO, "--quick-generate-key", "left@x", "ed25519", "cert", "never")
    gpg.run(*LATER, "--quick-add-key", gpg.fingerprint("left@x"), "ed25519", "sign", "30d")
    yield Message(
        "the subkey has expired", signed("left", "--faked-system-time", "20240103T000000"), gpg.export("left@x")
    )

    gpg.run("--quick-generate-key", "rsa@x", "rsa2048", "sign", "never")
    yield Message("signed by RSA", signed("rsa"), gpg.export("rsa@x"), True)
    yield Message("signed over SHA-1", signed("rsa", "--digest-algo", "SHA1"), gpg.export("rsa@x"))

    other = changed(IMAGE.manifest.digest.encode(), b"sha256:" + b"0" * 64)
    yield Message("another manifest", signed("a", content=other), a)
    yield Message("another name", signed("a", content=changed(b"b:1", b"b:2")), a)
    yield Message("more in critical", signed("a", content=changed(b'"critical": {', b'"critical": {"x": 1, ')), a)
    yield Message("more at the top", signed("a", content=changed(b'{"critical"', b'{"x": 1, "critical"')), a)
    yield Message("a key twice", signed("a", content=changed(b'"optional"', b'"optional": {}, "optional"')), a)
    for text, is_good in (
        (b'"x": [1]', True),
        (b'"timestamp": 1483228800', True),
        (b'"timestamp": 1.5', False),
        (b'"timestamp": 1e300', False),
        (b'"creator": 1', False),
    ):
        content = changed(b'"optional": {', b'"optional": {' + text)
        yield Message(f"optional {text.decode()}", signed("a", content=content), a, is_good)


def refusal(folder: Path, policy_text: str) -> str:
    """Why we refuse what is in a directory; nothing where we do not."""
    image = scopes_of(parse_location(f"dir:{folder}"))
    rule = Policy.from_bytes(Path("policy.json"), policy_text.encode()).rule_for(image)
    try:
        signatures = read_signature_files(folder, "")
    except AsyncpullError as error:
        return str(error)
    verdict = judge("policy.json", rule, image, (folder / "manifest.json").read_bytes(), signatures)
    return "" if verdict.is_accepted else verdict.findings[0].reasons[0]


def test_messages_of_gpg(newest: Peer, gpg: Gpg) -> None:
    with workplace(newest) as folder:
        ours: dict[str, bool] = {}
        expected: dict[str, bool] = {}
        for number, message in enumerate(messages(gpg)):
            place = folder / str(number)
            images.write_directory(place, IMAGE)
            (place / "signature-1").write_bytes(message.signature)
            (folder / f"{number}.gpg").write_bytes(message.keyring)
            identity = {"type": "exactReference", "dockerReference": NAME}
            key = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{folder}/{number}.gpg"}
            text = policy(key | {"signedIdentity": identity})
            (folder / f"{number}.json").write_text(text)
            reason = refusal(place, text)
            assert REASONS.get(message.name, "") in reason, message
            ours[message.name], expected[message.name] = not reason, message.is_good
        script = (
            f'cd "$1"; for n in $(seq 0 {len(ours) - 1}); do'
            " if skopeo --policy $n.json copy -q --remove-signatures dir:$n dir:out >/dev/null 2>&1;"
            " then echo yes; else echo no; fi; rm -rf out; done"
        )
        said = newest.run("sh", "-c", script, "sh", folder).split()
    theirs = dict(zip(ours, (answer == "yes" for answer in said), strict=True))
    assert ours == expected
    assert {name for name in ours if ours[name] != theirs[name]} == STRICTER.keys()
