"""What ``asyncpull copy`` signs is accepted by skopeo and podman, and stores keep signatures as they keep them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import images, tars
from tests.support.command import Command
from tests.support.policies import ACCEPT, REJECT, policy
from tests.support.stores import SharedStore, workplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer
    from tests.support.signers import Gpg


WHO = ("agent", "file", "other")


@pytest.fixture
def folder(newest: Peer) -> Iterator[Path]:
    with workplace(newest) as directory:
        yield directory


def configured(folder: Path, registry: Registry) -> tuple[str, ...]:
    """A registries.d where everything is on; the options for us and for skopeo."""
    section = {"lookaside": f"file://{folder}/lookaside", "use-sigstore-attachments": True}
    (folder / "registries.d").mkdir()
    (folder / "registries.d/test.yaml").write_text(json.dumps({"docker": {registry.address: section}}))
    return ("--registries.d", f"{folder}/registries.d")


def an_image(folder: Path, comment: str) -> images.Image:
    image = images.image([tars.tar([tars.file("f", b"x")])], comment=comment)
    images.write_layout(folder / "layout", {"1": image})
    return image


def test_signed_by_copy_in_openpgp(
    debian: Peer, registry: Registry, tmp_path: Path, gpg: Gpg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    command, options = Command(tmp_path), configured(tmp_path, registry)
    fingerprint = gpg.make_key("me@a.example")
    (tmp_path / "secret.pgp").write_bytes(gpg.run("--export-secret-keys", "me@a.example"))
    (tmp_path / "key.gpg").write_bytes(gpg.export("me@a.example"))
    requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{tmp_path}/key.gpg"}
    (tmp_path / "policy.json").write_text(policy(REJECT, docker={"": [requirement]}))
    an_image(tmp_path, "copied")
    for tag, key in (("agent", ("--sign-by", fingerprint)), ("file", ("--sign-by-key", f"{tmp_path}/secret.pgp"))):
        name = f"docker://{registry.address}/copied/pgp-{tag}:1"
        ended = command(
            *(*options, "--insecure-policy", "--tls-verify=false", "--progress", "none", "copy", *key),
            *(f"oci:{tmp_path}/layout:1", name),
        )
        assert (ended.code, ended.err) == (0, "")
        said = ("skopeo", "--policy", f"{tmp_path}/policy.json", *options, "copy", "-q", "--src-tls-verify=false")
        debian.run(*said, name, f"dir:{tmp_path}/{tag}")
        # skopeo took the signature along; ours is what it is verified with there.
        assert (tmp_path / tag / "signature-1").read_bytes()


def test_signed_by_copy_with_sigstore_and_kept_in_stores(newest: Peer, registry: Registry, folder: Path) -> None:
    command, options = Command(folder), configured(folder, registry)
    (folder / "passphrase").write_text("open sesame\n")
    output = ("--output-prefix", folder / "key", "--passphrase-file", folder / "passphrase")
    newest.run("skopeo", "generate-sigstore-key", *output)
    requirement = {"type": "sigstoreSigned", "keyPath": f"{folder}/key.pub"}
    rules = {"docker": {"": [requirement]}, "containers-storage": {"": [requirement]}}
    (folder / "policy.json").write_text(json.dumps({"default": [REJECT], "transports": rules}))
    image = an_image(folder, "copied with sigstore")
    name = f"{registry.address}/copied/sigstore:1"
    key = ("--sign-by-sigstore-private-key", f"{folder}/key.private", "--sign-passphrase-file", f"{folder}/passphrase")
    quiet = ("--tls-verify=false", "--progress", "none")
    ended = command(*options, *quiet, "--insecure-policy", "copy", *key, f"oci:{folder}/layout:1", f"docker://{name}")
    assert (ended.code, ended.err) == (0, "")
    wrong = folder / "wrong"
    wrong.write_text("open barley")
    ended = command(*options, *quiet, "copy", *key[:3], str(wrong), f"oci:{folder}/layout:1", f"docker://{name}")
    assert ended.code == 64
    assert "the passphrase is wrong" in ended.err

    strict = ("--policy", f"{folder}/policy.json")
    ours, theirs = (SharedStore(newest, folder / which) for which in ("ours", "theirs"))
    for store in (ours, theirs):
        store.directory.mkdir()
    ours.asyncpull(*options, *strict, "pull", name)
    place = f"[overlay@{ours.root}+{ours.run_root}]"
    copied = ("copy", "-q", "--remove-signatures", f"containers-storage:{place}{name}", f"dir:{folder}/out")
    newest.run("skopeo", *strict, *copied)
    assert json.loads((folder / "out/manifest.json").read_bytes())["config"]["digest"] == image.config.digest
    place = f"[overlay@{theirs.root}+{theirs.run_root}]"
    source = ("--src-tls-verify=false", f"docker://{name}")
    newest.run_in_namespace("skopeo", *strict, *options, "copy", "-q", *source, f"containers-storage:{place}{name}")
    for store in (ours, theirs):
        verdict = json.loads(store.asyncpull(*strict, "--json", "verify", f"containers-storage:{name}"))
        assert verdict["accepted"]
        assert verdict["signatures"] == 1
    records = [store.image_records()[0] for store in (ours, theirs)]
    assert records[0]["metadata"] == records[1]["metadata"]
    keys = ("big-data-names", "big-data-sizes", "big-data-digests")
    assert [records[0][key] for key in keys] == [records[1][key] for key in keys]
    ours.check()


def test_podman_wants_all_signatures_that_copies_made(
    newest: Peer, registry: Registry, folder: Path, gpg: Gpg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    command, options = Command(folder), configured(folder, registry)
    secret = ("--pinentry-mode", "loopback", "--passphrase", "open sesame")
    fingerprint = gpg.make_key("agent@a.example", *secret)
    gpg.make_key("file@a.example", *secret)
    gpg.make_key("other@a.example")
    for who in WHO:
        (folder / f"{who}.gpg").write_bytes(gpg.export(f"{who}@a.example"))
    (folder / "secret.pgp").write_bytes(gpg.run(*secret, "--export-secret-keys", "file@a.example"))
    (folder / "passphrase").write_text("open sesame\n")
    (folder / "wrong").write_text("open barley\n")
    output = ("--output-prefix", folder / "key", "--passphrase-file", folder / "passphrase")
    newest.run("skopeo", "generate-sigstore-key", *output)
    image = an_image(folder, "signed three times")
    name = f"{registry.address}/copied/thrice:1"
    quiet = (*options, "--tls-verify=false", "--progress", "none", "--insecure-policy", "copy")
    keys = (
        ("--sign-by", fingerprint),
        ("--sign-by-key", f"{folder}/secret.pgp"),
        ("--sign-by-sigstore-private-key", f"{folder}/key.private"),
    )
    source = f"oci:{folder}/layout:1"
    for key in keys:
        gpg.end()  # its agent would remember the passphrase
        wrong = command(*quiet, *key, "--sign-passphrase-file", f"{folder}/wrong", source, f"docker://{name}")
        assert wrong.code == 64, wrong
        gpg.end()
        ended = command(*quiet, *key, "--sign-passphrase-file", f"{folder}/passphrase", source, f"docker://{name}")
        assert (ended.code, ended.err) == (0, "")
        source = f"docker://{name}"

    # podman looks for registries.d in the home of whoever runs it.
    (folder / "home/.config/containers").mkdir(parents=True)
    shutil.copytree(folder / "registries.d", folder / "home/.config/containers/registries.d")
    by_key = {"type": "sigstoreSigned", "keyPath": f"{folder}/key.pub"}
    signed_by = {who: {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{folder}/{who}.gpg"} for who in WHO}
    everybody = [signed_by["agent"], signed_by["file"], by_key]
    for number, (requirements, is_accepted) in enumerate(
        ((everybody, True), ([*everybody, signed_by["other"]], False), ([ACCEPT], True))
    ):
        (folder / "policy.json").write_text(policy(REJECT, docker={"": requirements}))
        theirs, ours = (SharedStore(newest, folder / f"{which}-{number}") for which in ("theirs", "ours"))
        for store in (theirs, ours):
            store.directory.mkdir()
        pull = ("pull", "-q", "--tls-verify=false", "--signature-policy", folder / "policy.json", name)
        said = newest.run("env", f"HOME={folder}/home", *theirs.podman_command, *pull, expect=0 if is_accepted else 125)
        assert said.strip() == (image.id if is_accepted else "")
        strict = ("--policy", f"{folder}/policy.json", *options, "pull", name)
        assert ours.asyncpull(*strict, expect=0 if is_accepted else 65) == (image.id if is_accepted else "")
        if is_accepted:
            # All are kept in the record, whether or not the policy asks for them.
            kept = [store.image_records()[0]["metadata"] for store in (ours, theirs)]
            assert isinstance(kept[0], str)
            assert kept[0] == kept[1]
            assert len(json.loads(kept[0])["signature-sizes"]) == 3
