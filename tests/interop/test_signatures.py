"""Signatures of real tools are verified by us, and ours by them; and whatever was changed is refused by both."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.signature import SigstoreSignature, SimpleSignature, signature_to_file
from asyncpull.trust.gate import Gate
from asyncpull.trust.policyfile import TrustOptions
from asyncpull.trust.scopes import of_reference
from asyncpull.trust.signing import GpgSigner, KeyFileSigner, SigstoreSigner
from tests.support import images, tars
from tests.support.command import Command
from tests.support.policies import REJECT, policy
from tests.support.stores import workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.docker_registry import Registry
    from tests.support.images import Image
    from tests.support.peers import Peer
    from tests.support.signers import Gpg


@pytest.fixture
def folder(newest: Peer) -> Iterator[Path]:
    with workplace(newest) as directory:
        yield directory


def an_image(comment: str) -> Image:
    return images.image([tars.tar([tars.file("f", b"x")])], comment=comment)


def configured(folder: Path, registry: Registry, **section: object) -> Path:
    """A registries.d with a section for ``registry``; JSON is YAML."""
    directory = folder / "registries.d"
    directory.mkdir(exist_ok=True)
    named = {name.replace("_", "-"): value for name, value in section.items()}
    (directory / "test.yaml").write_text(json.dumps({"docker": {registry.address: named}}))
    return directory


def pulled(folder: Path, reference: str, requirement: dict[str, object], *more: str) -> tuple[int, str]:
    """Pull with a policy of one requirement into a new store: the exit code, and what was said."""
    (folder / "policy.json").write_text(policy(REJECT, docker={"": [requirement]}))
    root = Path(mkdtemp(prefix="p-", dir=folder))
    ended = Command(root)(
        *("--policy", str(folder / "policy.json"), "--registries.d", str(folder / "registries.d"), *more),
        *("--tls-verify=false", "--progress", "none", "pull", reference),
    )
    if ended.code:
        assert not [*root.rglob("images.json")] or all(
            p.read_bytes() in (b"", b"[]") for p in root.rglob("images.json")
        )
        assert not [*(root / "storage").glob("asyncpull/spool/*")]
    return ended.code, ended.err


def accepted_here(folder: Path, reference: str, requirement: dict[str, object]) -> bool:
    """Whether we accept it, without a store and a process, under the same policy as ``pulled``."""
    (folder / "policy.json").write_text(policy(REJECT, docker={"": [requirement]}))

    async def judged() -> bool:
        wanted = parse_reference(reference)
        gate = Gate(TrustOptions(folder / "policy.json", registries_dir=folder / "registries.d"))
        async with RegistryClient(RegistryAccess(tls_verify=False)) as client:
            document = await RegistrySource(client, wanted).manifest()
            where = gate.registry_signatures(client, wanted)
            return (await gate.judge(of_reference(wanted), document.raw, where)).verdict.is_accepted

    return asyncio.run(judged())


def copied(peer: Peer, folder: Path, reference: str, requirement: dict[str, object]) -> str:
    """What skopeo says of the same; nothing where it copies."""
    (folder / "policy.json").write_text(policy(REJECT, docker={"": [requirement]}))
    words = ("skopeo", "--policy", f"{folder}/policy.json", "--registries.d", f"{folder}/registries.d", "copy", "-q")
    script = 'out=$1; shift; if said=$("$@" 2>&1); then rm -rf "$out"; else echo "$said" | tail -n 1; rm -rf "$out"; fi'
    source = ("--src-tls-verify=false", f"docker://{reference}", f"dir:{folder}/out")
    return peer.run("sh", "-c", script, "sh", folder / "out", *words, *source).strip()


def signed_by(key: Path, **identity: str) -> dict[str, object]:
    found: dict[str, object] = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(key)}
    return found | ({"signedIdentity": identity} if identity else {})


def test_signed_by_skopeo_with_gpg(
    debian: Peer, registry: Registry, gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    configured(tmp_path, registry, lookaside=f"file://{tmp_path}/lookaside")
    mine, other = gpg.make_key("mine@a.example"), gpg.make_key("other@a.example")
    keys = {name: tmp_path / f"{name}.gpg" for name in ("mine", "other")}
    for name, path in keys.items():
        path.write_bytes(gpg.export(f"{name}@a.example"))
    assert mine != other
    image = an_image("gpg")
    images.write_layout(tmp_path / "layout", {"1": image})
    name = f"{registry.address}/signed/gpg"
    options = ("--registries.d", str(tmp_path / "registries.d"), "--insecure-policy")
    debian.run(
        *("skopeo", *options, "copy", "-q", "--dest-tls-verify=false", "--sign-by", mine),
        *(f"oci:{tmp_path}/layout:1", f"docker://{name}:1"),
    )
    registry.push("signed/gpg", "2", image)
    for reference, requirement, accepted in (
        (f"{name}:1", signed_by(keys["mine"]), True),
        (f"{name}:2", signed_by(keys["mine"]), False),
        (f"{name}:2", signed_by(keys["mine"], type="matchRepository"), True),
        (f"{name}@{image.manifest.digest}", signed_by(keys["mine"]), True),
        (f"{name}@{image.manifest.digest}", signed_by(keys["mine"], type="matchExact"), False),
        (f"{name}:2", signed_by(keys["mine"], type="exactReference", dockerReference=f"{name}:1"), True),
        (f"{name}:1", signed_by(keys["mine"], type="exactRepository", dockerRepository="a.example/b"), False),
        (f"{name}:1", signed_by(keys["other"]), False),
    ):
        assert accepted_here(tmp_path, reference, requirement) is accepted
        assert (copied(debian, tmp_path, reference, requirement) == "") is accepted
    assert pulled(tmp_path, f"{name}:1", signed_by(keys["mine"])) == (0, "")
    (stored,) = tmp_path.glob("lookaside/signed/*/signature-1")
    raw = bytearray(stored.read_bytes())
    raw[-20] ^= 1
    stored.write_bytes(raw)
    code, said = pulled(tmp_path, f"{name}:1", signed_by(keys["mine"]))
    assert code == 65, said
    assert copied(debian, tmp_path, f"{name}:1", signed_by(keys["mine"]))


def test_keys_that_expired_or_were_revoked(
    debian: Peer, registry: Registry, gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    configured(tmp_path, registry, lookaside=f"file://{tmp_path}/lookaside")
    image = an_image("old keys")
    name = registry.push("signed/old", "1", image)
    long_ago = ("--faked-system-time", "20240101T000000")
    gpg.make_key("expired@a.example", *long_ago, lasts="30d")
    gpg.make_key("revoked@a.example")
    place = tmp_path / f"lookaside/signed/old@{image.manifest.digest.replace(':', '=')}"
    place.mkdir(parents=True)
    made = json.dumps(
        {
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": image.manifest.digest},
                "identity": {"docker-reference": name},
            },
            "optional": {},
        }
    ).encode()
    for who, when in (("expired", ("--faked-system-time", "20240102T000000")), ("revoked", ())):
        (place / "signature-1").write_bytes(gpg.run(*when, "-u", f"{who}@a.example", "--sign", data=made))
        key = tmp_path / f"{who}.gpg"
        if who == "revoked":
            key.write_bytes(gpg.export(f"{who}@a.example"))
            assert accepted_here(tmp_path, name, signed_by(key))
            note = next((gpg.home / "openpgp-revocs.d").glob(f"{gpg.fingerprint(f'{who}@a.example')}.rev"))
            gpg.run("--import", data=note.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
        key.write_bytes(gpg.export(f"{who}@a.example"))
        assert not accepted_here(tmp_path, name, signed_by(key))
        assert copied(debian, tmp_path, name, signed_by(key))


def test_signed_by_us_in_openpgp(
    debian: Peer, registry: Registry, gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    configured(tmp_path, registry, lookaside=f"file://{tmp_path}/lookaside")
    image = an_image("ours")
    name = registry.push("signed/ours", "1", image)
    gpg.make_key("file@a.example")
    (tmp_path / "secret.pgp").write_bytes(gpg.run("--export-secret-keys", "file@a.example"))
    (tmp_path / "file.gpg").write_bytes(gpg.export("file@a.example"))
    fingerprint = gpg.make_key("agent@a.example")
    (tmp_path / "agent.gpg").write_bytes(gpg.export("agent@a.example"))
    place = tmp_path / f"lookaside/signed/ours@{image.manifest.digest.replace(':', '=')}"
    place.mkdir(parents=True)
    for signer, public in (
        (asyncio.run(KeyFileSigner.load(tmp_path / "secret.pgp")), "file.gpg"),
        (GpgSigner(fingerprint), "agent.gpg"),
    ):
        signature = asyncio.run(signer.sign(image.manifest.data, parse_reference(name)))
        assert isinstance(signature, SimpleSignature)
        (place / "signature-1").write_bytes(signature_to_file(signature))
        requirement = signed_by(tmp_path / public)
        assert copied(debian, tmp_path, name, requirement) == ""
        assert accepted_here(tmp_path, name, requirement)
        signature = asyncio.run(signer.sign(image.manifest.data + b"\n", parse_reference(name)))
        (place / "signature-1").write_bytes(signature_to_file(signature))
        assert copied(debian, tmp_path, name, requirement)
        assert not accepted_here(tmp_path, name, requirement)


@contextmanager
def web_server(directory: Path) -> Iterator[str]:
    """Serve the files of a directory; the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(directory))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_staged_as_files_and_read_from_a_web_server(
    debian: Peer, registry: Registry, gpg: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    mine = gpg.make_key("mine@a.example")
    (tmp_path / "mine.gpg").write_bytes(gpg.export("mine@a.example"))
    (tmp_path / "look aside").mkdir()
    by_them, by_us = an_image("staged by skopeo"), an_image("staged by us")
    images.write_layout(tmp_path / "layout", {"1": by_them, "2": by_us})
    name = f"docker://{registry.address}/staged/image"
    options = ("--registries.d", str(tmp_path / "registries.d"), "--insecure-policy")
    with web_server(tmp_path / "look aside") as url:
        staging = f"file://{tmp_path}/look%20aside/sub"
        configured(tmp_path, registry, lookaside=f"{url}/sub", lookaside_staging=staging)
        layout = f"oci:{tmp_path}/layout"
        debian.run(
            *("skopeo", *options, "copy", "-q", "--dest-tls-verify=false", "--sign-by", mine),
            *(f"{layout}:1", f"{name}:1"),
        )
        ended = Command(tmp_path)(
            *(*options, "--tls-verify=false", "--progress", "none", "copy", "--sign-by", mine),
            *(f"{layout}:2", f"{name}:2"),
        )
        assert (ended.code, ended.err) == (0, "")
        for tag in "12":
            reference = f"{registry.address}/staged/image:{tag}"
            assert copied(debian, tmp_path, reference, signed_by(tmp_path / "mine.gpg")) == ""
            assert pulled(tmp_path, reference, signed_by(tmp_path / "mine.gpg")) == (0, "")
        registry.push("staged/image", "3", an_image("not signed"))
        before = len(registry.requests())
        code, said = pulled(tmp_path, f"{registry.address}/staged/image:3", signed_by(tmp_path / "mine.gpg"))
        assert (code, "a signature is required, and there is none" in said) == (65, True)
        asked = registry.requests()[before:]
        assert [request for request in asked if "/manifests/3" in request]
        assert [request for request in asked if "/blobs/" in request] == []


def test_sigstore_in_both_directions(newest: Peer, registry: Registry, folder: Path) -> None:
    configured(folder, registry, use_sigstore_attachments=True)
    (folder / "passphrase").write_text("open sesame")
    for prefix in ("mine", "other"):
        output = ("--output-prefix", folder / prefix, "--passphrase-file", folder / "passphrase")
        newest.run("skopeo", "generate-sigstore-key", *output)

    def by(prefix: str, **identity: str) -> dict[str, object]:
        found: dict[str, object] = {"type": "sigstoreSigned", "keyPath": f"{folder}/{prefix}.pub"}
        return found | ({"signedIdentity": identity} if identity else {})

    image = an_image("sigstore")
    images.write_layout(folder / "layout", {"1": image})
    name = f"{registry.address}/signed/sigstore"
    options = ("--registries.d", folder / "registries.d", "--insecure-policy")
    key = ("--sign-by-sigstore-private-key", folder / "mine.private", "--sign-passphrase-file", folder / "passphrase")
    newest.run(
        *("skopeo", *options, "copy", "-q", "--dest-tls-verify=false", *key),
        *(f"oci:{folder}/layout:1", f"docker://{name}:1"),
    )
    registry.push("signed/sigstore", "2", image)
    for reference, requirement, accepted in (
        (f"{name}:1", by("mine"), True),
        (f"{name}:2", by("mine"), False),
        (f"{name}:2", by("mine", type="matchRepository"), True),
        (f"{name}@{image.manifest.digest}", by("mine"), True),
        (f"{name}:1", by("other"), False),
    ):
        assert accepted_here(folder, reference, requirement) is accepted
        assert (copied(newest, folder, reference, requirement) == "") is accepted

    ours = an_image("sigstore, ours")
    name = registry.push("signed/sigstore", "3", ours)
    signer = asyncio.run(SigstoreSigner.load(folder / "mine.private", "open sesame"))
    signature = asyncio.run(signer.sign(ours.manifest.data, parse_reference(name)))
    assert isinstance(signature, SigstoreSignature)
    attach(registry, "signed/sigstore", ours, signature)
    assert copied(newest, folder, name, by("mine")) == ""
    assert pulled(folder, name, by("mine"))[0] == 0
    changed = SigstoreSignature(
        signature.media_type, signature.payload.replace(b":3", b":4"), dict(signature.annotations)
    )
    attach(registry, "signed/sigstore", ours, changed)
    assert copied(newest, folder, name, by("mine", type="matchRepository"))
    assert pulled(folder, name, by("mine", type="matchRepository"))[0] == 65


def attach(registry: Registry, repository: str, image: Image, signature: SigstoreSignature) -> None:
    """Upload one signature as the only attachment of ``image``."""
    config = images.Blob(images.OCI_CONFIG, b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}')
    layer = images.Blob(signature.media_type, signature.payload)
    for blob in (config, layer):
        registry.upload(repository, blob.digest, len(blob.data), blob.data)
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor(annotations=dict(signature.annotations))],
    }
    tag = image.manifest.digest.replace(":", "-") + ".sig"
    registry.put_manifest(repository, tag, json.dumps(document).encode(), images.OCI_MANIFEST)
