"""The policy decides about pulls: before anything of the image but its manifest is asked for."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError, PolicyError
from asyncpull.plan import PullPolicy
from asyncpull.pull import Puller
from asyncpull.registry.config import RegistryAccess
from asyncpull.spec.signature import SIGSTORE_TYPE, SigstoreSignature, SimpleSignature, signature_to_file
from asyncpull.trust.policyfile import TrustOptions
from asyncpull.trust.signaturestore import StoredSignatures
from tests.support import images
from tests.support.command import Command
from tests.support.policies import ACCEPT, REJECT, policy
from tests.support.pulls import AMD64, HURRY, Bench, bench_at, layer
from tests.support.registry_faults import replaced
from tests.support.signers import (
    SIGNATURE,
    SIGSTORE,
    SIMPLE,
    PgpKey,
    claim,
    encode,
    public_pem,
    raw_sign,
    sigstore_keys,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.plan import PulledImage
    from asyncpull.spec.signature import Signature


class Judge:
    """A bench with a policy, and a lookaside store of files."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench, self.directory = bench, directory
        self.payloads: set[str] = set()
        self.key, self.sigstore_key = PgpKey(), sigstore_keys()["P-256"]
        (directory / "key.gpg").write_bytes(self.key.public)
        (directory / "key.pem").write_bytes(public_pem(self.sigstore_key))
        section = {"lookaside": f"file://{directory}/lookaside", "use-sigstore-attachments": True}
        (directory / "x.yaml").write_text(json.dumps({"docker": {bench.registry.address: section}}))
        self.signed_by = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{directory}/key.gpg"}
        self.sigstore_signed = {"type": "sigstoreSigned", "keyPath": f"{directory}/key.pem"}

    @property
    def options(self) -> TrustOptions:
        return TrustOptions(self.directory / "policy.json", registries_dir=self.directory)

    async def pull(self, reference: str, *requirements: object, when: PullPolicy = PullPolicy.ALWAYS) -> PulledImage:
        (self.directory / "policy.json").write_text(policy(REJECT, docker={self.bench.registry.address: requirements}))
        access = RegistryAccess(tls_verify=False)
        store = self.bench.store
        async with Puller(store, platform=AMD64, access=access, retry=HURRY, trust=self.options) as puller:
            return await puller.pull(reference, when=when)

    async def refused(self, reference: str, *requirements: object) -> str:
        """The reasons; nothing but manifests, and what signatures are in, was asked for."""
        before = await self.bench.listed()
        with pytest.raises(PolicyError) as caught:
            await self.pull(reference, *requirements)
        assert await self.bench.listed() == before
        assert self.bench.spools == []
        asked = {request.path.rpartition("/")[2] for request in self.bench.registry.asked("/blobs/")}
        assert asked <= self.payloads
        return str(caught.value)

    def sign(self, digest: str, name: str) -> SimpleSignature:
        """Put a signature into the lookaside store."""
        signature = SimpleSignature(self.key.sign(claim(SIMPLE, digest, name)))
        place = self.directory / f"lookaside/a/b@{digest.replace(':', '=')}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "signature-1").write_bytes(signature_to_file(signature))
        return signature

    def attach(self, digest: str, name: str) -> SigstoreSignature:
        """Attach a signature to an image of the registry."""
        payload = claim(SIGSTORE, digest, name)
        annotations = {SIGNATURE: encode(raw_sign(self.sigstore_key, payload))}
        blob = images.Blob(SIGSTORE_TYPE, payload)
        self.payloads.add(self.bench.registry.add_blob(payload))
        document = {"schemaVersion": 2, "layers": [blob.descriptor(annotations=annotations)]}
        tag = digest.replace(":", "-") + ".sig"
        self.bench.registry.add_manifest("a/b", tag, json.dumps(document).encode(), images.OCI_MANIFEST)
        return SigstoreSignature(SIGSTORE_TYPE, payload, annotations)


@pytest.fixture
async def judge(tmp_path: Path) -> AsyncIterator[Judge]:
    async with bench_at(tmp_path / "bench") as bench:
        yield Judge(bench, tmp_path)


IMAGE = images.image([layer("one")])


async def stored(judge: Judge, pulled: PulledImage) -> tuple[Signature, ...]:
    record = await judge.bench.store.image(pulled.id)
    found = StoredSignatures(judge.bench.store, record)
    listed = await found.of(pulled.digest, is_instance=False)
    assert await found.of(pulled.digest, is_instance=True) == listed
    return listed


async def test_accepted_and_rejected(judge: Judge) -> None:
    reference = judge.bench.offer(IMAGE)
    assert "everything is rejected" in await judge.refused(reference, REJECT)
    assert "everything is rejected" in await judge.refused(reference, ACCEPT, REJECT)
    pulled = await judge.pull(reference, ACCEPT)
    assert pulled.bytes_fetched > 0
    assert await stored(judge, pulled) == ()
    # Signatures are kept also where nobody asks for them, and their lack is nobody's trouble.
    signature = judge.sign(IMAGE.manifest.digest, "a.example/other:1")
    assert await stored(judge, await judge.pull(reference, ACCEPT)) == (signature,)
    other = images.image([layer("other")])
    judge.bench.offer(other)
    judge.sign(other.manifest.digest, reference)
    (judge.directory / f"lookaside/a/b@{other.manifest.digest.replace(':', '=')}/signature-1").write_bytes(b"nonsense")
    pulled = await judge.pull(reference, ACCEPT)
    assert await stored(judge, pulled) == ()
    # What the store has needs nobody's permission, which is what podman does.
    assert (await judge.pull(reference, REJECT, when=PullPolicy.MISSING)).id == pulled.id


async def test_signed(judge: Judge) -> None:
    reference = judge.bench.offer(IMAGE)
    for requirement in (judge.signed_by, judge.sigstore_signed):
        assert "a signature is required, and there is none" in await judge.refused(reference, requirement)
    simple = judge.sign(IMAGE.manifest.digest, f"{judge.bench.registry.address}/a/b:2")
    judge.attach(IMAGE.manifest.digest, f"{judge.bench.registry.address}/a/b:2")
    for requirement in (judge.signed_by, judge.sigstore_signed):
        assert "for the name" in await judge.refused(reference, requirement)
    simple = judge.sign(IMAGE.manifest.digest, reference)
    assert "for the name" in await judge.refused(reference, judge.signed_by, judge.sigstore_signed)
    attached = judge.attach(IMAGE.manifest.digest, reference)
    pulled = await judge.pull(reference, judge.signed_by, judge.sigstore_signed)
    assert await stored(judge, pulled) == (simple, attached)


async def test_of_an_index_the_instance_is_judged(judge: Judge) -> None:
    index = images.index([IMAGE, images.image([layer("two")], architecture="arm64")])
    reference = judge.bench.offer(index)
    judge.sign(index.manifest.digest, reference)
    assert "a signature is required, and there is none" in await judge.refused(reference, judge.signed_by)
    signature = judge.sign(IMAGE.manifest.digest, reference)
    pulled = await judge.pull(reference, judge.signed_by)
    record = await judge.bench.store.image(pulled.id)
    assert json.loads(record.metadata) == {
        "signature-sizes": [len(signature.message)],
        "signatures-sizes": {IMAGE.manifest.digest: [len(signature.message)]},
    }


async def test_another_manifest_under_the_same_tag(judge: Judge) -> None:
    reference = judge.bench.offer(IMAGE)
    judge.sign(IMAGE.manifest.digest, reference)
    other = images.image([layer("other")])
    judge.bench.offer(other)
    assert "a signature is required, and there is none" in await judge.refused(reference, judge.signed_by)
    # Not even if the signature of the first is found where that of the other should be.
    signature = judge.sign(IMAGE.manifest.digest, reference)
    place = judge.directory / f"lookaside/a/b@{other.manifest.digest.replace(':', '=')}"
    place.mkdir()
    (place / "signature-1").write_bytes(signature_to_file(signature))
    assert f"for another manifest, {IMAGE.manifest.digest}" in await judge.refused(reference, judge.signed_by)


async def test_what_was_judged_is_what_is_pulled(judge: Judge) -> None:
    index = images.index([IMAGE, images.image([layer("two")], architecture="arm64")])
    other = images.image([layer("other")])
    judge.bench.offer(other, "2")
    for target in (IMAGE, index):
        reference = judge.bench.offer(target)
        judge.sign(IMAGE.manifest.digest, reference)
        # Whoever asks again gets another one.
        for name in ("1", IMAGE.manifest.digest):
            judge.bench.registry.on(f"/manifests/{name}", replaced(other.manifest.data), times=None, skip=1)
        before = len(judge.bench.registry.requests)
        pulled = await judge.pull(reference, judge.signed_by)
        asked = [request.path for request in judge.bench.registry.requests[before:] if "/manifests/" in request.path]
        assert (pulled.id, len(asked)) == (IMAGE.id, len(set(asked)))
        assert str(pulled.digest) == target.manifest.digest
        judge.bench.registry.heal()


async def test_a_policy_that_is_not_understood_stops_everything(judge: Judge) -> None:
    reference = judge.bench.offer(IMAGE)
    before = await judge.bench.listed()
    with pytest.raises(ConfigurationError, match="there is no requirement 'signedby'"):
        await judge.pull(reference, {"type": "signedby"})
    assert await judge.bench.listed() == before
    assert judge.bench.registry.asked("/blobs/") == []


async def test_without_any_policy_everything_is_accepted_and_that_is_said_once(judge: Judge, tmp_path: Path) -> None:
    references = [judge.bench.registry.add_image("a/b", tag, IMAGE) for tag in ("1", "2")]
    command = Command(tmp_path / "command")
    (tmp_path / "command").mkdir()
    # A home without policies, and a machine without any, as far as the command can see.
    hide = "for place in /etc/containers /usr/share/containers; do [ ! -d $place ] || mount -t tmpfs none $place; done"
    options = ("--tls-verify=false", "--progress", "none")
    for verb in (("pull", *references), ("copy", f"docker://{references[0]}", f"dir:{tmp_path}/dir")):
        ended = await asyncio.to_thread(
            subprocess.run,
            ["unshare", "-rm", "sh", "-euc", f'{hide}; exec "$@"', "sh", *command.arguments, *options, *verb],
            env=command.environment({"HOME": f"{tmp_path}/command", "XDG_CONFIG_HOME": ""}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended
        assert ended.stderr.count("there is no policy.json on this machine, so every image is accepted") == 1, ended
        assert len(ended.stderr.splitlines()) == 1
    assert (tmp_path / "dir/manifest.json").read_bytes() == IMAGE.manifest.data


async def test_the_commands(judge: Judge, tmp_path: Path) -> None:
    reference = judge.bench.offer(IMAGE)
    await judge.refused(reference, judge.signed_by)
    command = Command(tmp_path / "command")
    (tmp_path / "command").mkdir()
    named = (
        "--policy",
        f"{tmp_path}/policy.json",
        "--registries.d",
        f"{tmp_path}",
        "--tls-verify=false",
        "--progress",
        "none",
    )

    for verb in ("pull", "plan", "prefetch"):
        ended = await asyncio.to_thread(command, *named, verb, reference)
        assert ended.code == 65, (verb, ended)
        assert "a signature is required, and there is none of that kind" in ended.err + ended.out
    ended = await asyncio.to_thread(command, *named, "verify", "--platform", "linux/amd64", reference)
    assert ended.code == 65
    assert ended.err == ""
    assert ended.out.splitlines() == [
        f"docker://{reference}: refused",
        f"  manifest: {IMAGE.manifest.digest}",
        f"  policy: {tmp_path}/policy.json",
        f'  scope: transports.docker."{judge.bench.registry.address}"',
        "  signatures looked at: 0",
        "  1. signedBy: not met",
        "     a signature is required, and there is none of that kind",
    ]
    judge.sign(IMAGE.manifest.digest, reference)
    ended = await asyncio.to_thread(command, *named, "verify", "--json", reference)
    assert (ended.code, ended.err) == (0, "")
    assert ended.json() == {
        "image": f"docker://{reference}",
        "digest": IMAGE.manifest.digest,
        "accepted": True,
        "policy": f"{tmp_path}/policy.json",
        "scope": f'transports.docker."{judge.bench.registry.address}"',
        "signatures": 1,
        "requirements": [{"type": "signedBy", "met": True, "reasons": [f"signed by the key {judge.key.fingerprint}"]}],
    }
    other = images.image([layer("other")])
    judge.bench.offer(other)
    ended = await asyncio.to_thread(command, *named, "--insecure-policy", "pull", reference)
    assert (ended.code, ended.out.strip()) == (0, other.id)
