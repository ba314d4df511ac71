"""The policy decides about copies; signatures go along, are made, and are where they are looked for afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.copy import Copier
from asyncpull.copying.plan import CopyOptions, Instances, ManifestFormat, Selection
from asyncpull.copying.publish import RegistrySink, add_signature_files, remove_signature_files
from asyncpull.errors import ConfigurationError, DocumentError, PolicyError, StoreWriteError, UsageError
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.spec.digest import Digest
from asyncpull.spec.mediatype import OCI_CONFIG, OCI_MANIFEST
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.signature import SIGNATURES_LIMIT, SIGSTORE_TYPE, SigstoreSignature, SimpleSignature
from asyncpull.spec.source import SourceDocument
from asyncpull.trust.gate import Gate
from asyncpull.trust.policyfile import TrustOptions
from asyncpull.trust.scopes import of_reference
from asyncpull.trust.signaturestore import read_signature_files
from asyncpull.trust.signing import KeyFileSigner, Signing, SigstoreSigner
from tests.support import images
from tests.support.command import Command
from tests.support.policies import ACCEPT, REJECT, policy
from tests.support.pulls import AMD64, layer
from tests.support.registry_faults import header, status
from tests.support.registry_simulator import RegistrySimulator
from tests.support.signers import PgpKey, public_pem, sigstore_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncpull.copying.image import CopiedImage

IMAGE = images.image([layer("one", 1000)])
INDEX = images.index([IMAGE, images.image([layer("two", 1000)], architecture="arm64")])
KEY, SIGSTORE_KEY = PgpKey(), sigstore_keys()["P-256"]
ACCESS = RegistryAccess(tls_verify=False)


class Desk:
    """A registry, keys of both kinds, and copies under policies."""

    def __init__(self, registry: RegistrySimulator, directory: Path) -> None:
        self.registry, self.directory = registry, directory
        (directory / "key.gpg").write_bytes(KEY.public)
        (directory / "secret.pgp").write_bytes(bytes(KEY.secret))
        (directory / "key.pem").write_bytes(public_pem(SIGSTORE_KEY))
        self.signed_by = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": f"{directory}/key.gpg"}
        self.sigstore_signed = {"type": "sigstoreSigned", "keyPath": f"{directory}/key.pem"}
        self.configure(lookaside=f"file://{directory}/lookaside", use_sigstore_attachments=True)
        self.sigstore = SigstoreSigner(SIGSTORE_KEY)

    def configure(self, **section: object) -> None:
        named = {name.replace("_", "-"): value for name, value in section.items()}
        (self.directory / "x.yaml").write_text(json.dumps({"docker": {self.registry.address: named}}))

    @property
    def options(self) -> TrustOptions:
        return TrustOptions(self.directory / "policy.json", registries_dir=self.directory)

    async def pgp(self) -> KeyFileSigner:
        return await KeyFileSigner.load(self.directory / "secret.pgp")

    async def copy(
        self, source: str, destination: str, *requirements: object, signing: Signing | None = None, **options: object
    ) -> CopiedImage:
        (self.directory / "policy.json").write_text(policy(*requirements or (ACCEPT,)))
        chosen = CopyOptions(**options)  # type: ignore[arg-type]  # each by its name
        async with Copier(source=Access(ACCESS), platform=AMD64, trust=self.options) as copier:
            return await copier.copy(source, destination, chosen, signing)

    def place(self, name: str) -> str:
        return f"docker://{self.registry.address}/{name}"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with RegistrySimulator() as registry:
        yield Desk(registry, tmp_path)


async def test_what_is_refused_is_not_copied(desk: Desk, tmp_path: Path) -> None:
    for target in (IMAGE, INDEX):
        desk.registry.add_image("a/b", "1", target)
        for goal in (
            f"oci:{tmp_path}/layout",
            f"dir:{tmp_path}/dir",
            desk.place("c/d:1"),
            f"oci-archive:{tmp_path}/a.tar",
        ):
            for requirement in (REJECT, desk.signed_by, desk.sigstore_signed):
                with pytest.raises(PolicyError):
                    await desk.copy(desk.place("a/b:1"), goal, requirement)
            for instances in (Instances.ALL, Instances.INDEX_ONLY):
                with pytest.raises(PolicyError):
                    await desk.copy(desk.place("a/b:1"), goal, REJECT, selection=Selection(instances))
    assert desk.registry.asked("/blobs/") == []
    assert desk.registry.manifest("c/d", "1") is None
    assert not (tmp_path / "a.tar").exists()
    assert not (tmp_path / "dir/manifest.json").exists()


async def test_signed_on_the_way_and_verified_afterwards(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    signing = Signing((await desk.pgp(), desk.sigstore))
    await desk.copy(desk.place("a/b:1"), desk.place("c/d:2"), signing=signing)
    both = (desk.signed_by, desk.sigstore_signed)
    for goal in (f"dir:{tmp_path}/dir", f"containers-storage:[overlay@{tmp_path}/graph+{tmp_path}/run]x/y:1"):
        await desk.copy(desk.place("c/d:2"), goal, *both)
        again = [
            each | {"signedIdentity": {"type": "exactRepository", "dockerRepository": desk.place("c/d")[9:]}}
            for each in both
        ]
        await desk.copy(goal, f"oci:{tmp_path}/layout", *again)
        with pytest.raises(PolicyError):
            await desk.copy(goal, f"oci:{tmp_path}/other", *again[:1], {**again[1], "keyPath": "/none"})
    with pytest.raises(PolicyError):
        await desk.copy(desk.place("a/b:1"), desk.place("e/f:1"), desk.signed_by)
    # Signed where it is; what was there before stays, and nothing is there twice.
    for _ in range(2):
        await desk.copy(desk.place("c/d:2"), desk.place("c/d:3"), signing=Signing((desk.sigstore,)))
    await desk.copy(desk.place("c/d:2"), f"dir:{tmp_path}/third", *both)
    await desk.copy(desk.place("c/d:3"), f"dir:{tmp_path}/fourth", desk.sigstore_signed)


async def test_what_is_there_is_copied_again_for_its_signatures(desk: Desk) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)

    async def pushes(**more: object) -> int:
        before = len([each for each in desk.registry.asked("c/d/manifests") if each.method == "PUT"])
        await desk.copy(desk.place("a/b:1"), desk.place("c/d:1"), skips_equal=True, **more)  # type: ignore[arg-type]
        return len([each for each in desk.registry.asked("c/d/manifests") if each.method == "PUT"]) - before

    assert [await pushes(), await pushes()] == [1, 0]
    with pytest.raises(PolicyError):
        await desk.copy(desk.place("a/b:1"), desk.place("c/d:1"), REJECT, skips_equal=True)
    assert await pushes(signing=Signing((desk.sigstore,))) == 2
    await desk.copy(desk.place("c/d:1"), desk.place("a/b:1"), desk.sigstore_signed)
    desk.registry.add_image("c/d", "1", IMAGE)
    assert await pushes() > 0
    await desk.copy(desk.place("c/d:1"), desk.place("e/f:1"), desk.sigstore_signed)


async def test_of_an_index_everything_is_signed(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("a/b", "1", INDEX)
    everything = Selection(Instances.ALL)
    signing = Signing((await desk.pgp(), desk.sigstore))
    await desk.copy(desk.place("a/b:1"), desk.place("c/d:1"), selection=everything, signing=signing)
    for digest in (INDEX.manifest.digest, *(each.manifest.digest for each in INDEX.images)):
        assert desk.registry.manifest("c/d", digest.replace(":", "-") + ".sig") is not None
        assert len(read_signature_files(tmp_path / f"lookaside/c/d@{digest.replace(':', '=')}", "")) == 1
    both = (desk.signed_by, desk.sigstore_signed)
    await desk.copy(desk.place("c/d:1"), f"dir:{tmp_path}/all", *both, selection=everything)
    names = sorted(path.name for path in (tmp_path / "all").glob("*signature-*"))
    digests = [each.manifest.digest.removeprefix("sha256:") for each in INDEX.images]
    assert names == sorted(
        [*(f"{each}.signature-{n}" for each in digests for n in (1, 2)), "signature-1", "signature-2"]
    )
    one = [
        each | {"signedIdentity": {"type": "exactReference", "dockerReference": desk.place("c/d:1")[9:]}}
        for each in both
    ]
    await desk.copy(f"dir:{tmp_path}/all", f"dir:{tmp_path}/one", *one)
    assert sorted(path.name for path in (tmp_path / "one").glob("*signature-*")) == ["signature-1", "signature-2"]
    await desk.copy(f"dir:{tmp_path}/one", f"oci:{tmp_path}/layout", *one)


async def test_what_would_invalidate_signatures(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    signing = Signing((desk.sigstore,))
    await desk.copy(desk.place("a/b:1"), desk.place("a/b:1"), signing=signing)
    for goal in (f"dir:{tmp_path}/dir", desk.place("c/d:1")):
        with pytest.raises(UsageError, match="is signed, and would be changed"):
            await desk.copy(desk.place("a/b:1"), goal, format=ManifestFormat.V2S2)
        unsigned = Signing(removes=True)
        copied = await desk.copy(desk.place("a/b:1"), goal, format=ManifestFormat.V2S2, signing=unsigned)
        assert str(copied.digest) != IMAGE.manifest.digest
    assert not [*(tmp_path / "dir").glob("signature-*")]
    # Signed anew, it is what it has become that is signed.
    await desk.copy(
        desk.place("a/b:1"),
        desk.place("e/f:1"),
        format=ManifestFormat.V2S2,
        signing=Signing((desk.sigstore,), removes=True),
    )
    await desk.copy(desk.place("e/f:1"), f"dir:{tmp_path}/new", desk.sigstore_signed)


async def test_places_that_hold_no_signatures(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    signing = Signing((desk.sigstore,))
    with pytest.raises(UsageError, match="cannot hold signatures"):
        await desk.copy(desk.place("a/b:1"), f"oci:{tmp_path}/layout", signing=signing)
    with pytest.raises(UsageError, match="no name at the destination"):
        await desk.copy(desk.place("a/b:1"), f"dir:{tmp_path}/dir", signing=signing)
    named = Signing((desk.sigstore,), identity=parse_reference("a.example/b:1"))
    await desk.copy(desk.place("a/b:1"), f"dir:{tmp_path}/dir", signing=named)
    exact = {"signedIdentity": {"type": "exactReference", "dockerReference": "a.example/b:1"}}
    await desk.copy(f"dir:{tmp_path}/dir", f"oci:{tmp_path}/layout", desk.sigstore_signed | exact)
    desk.configure(lookaside=desk.place("x")[:-2].replace("docker:", "http:"))
    with pytest.raises(ConfigurationError, match="use-sigstore-attachments"):
        await desk.copy(desk.place("a/b:1"), desk.place("c/d:1"), signing=signing)
    with pytest.raises(ConfigurationError, match="lookaside-staging"):
        await desk.copy(desk.place("a/b:1"), desk.place("c/d:1"), signing=Signing((await desk.pgp(),)))
    assert desk.registry.manifest("c/d", "1") is None


@pytest.mark.parametrize("config", [b"no JSON", b"[]", b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}"])
async def test_attachments_that_cannot_be_added_to_are_left_alone(desk: Desk, config: bytes) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    tag = f"sha256-{IMAGE.manifest.digest.removeprefix('sha256:')}.sig"
    entry = {"mediaType": OCI_CONFIG, "digest": desk.registry.add_blob(config), "size": len(config)}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": []}).encode()
    desk.registry.add_manifest("a/b", tag, raw, OCI_MANIFEST)
    with pytest.raises(DocumentError, match="the config of the manifest of attached signatures"):
        await desk.copy(desk.place("a/b:1"), desk.place("a/b:1"), signing=Signing((desk.sigstore,)))
    assert desk.registry.manifest("a/b", tag) == (raw, OCI_MANIFEST)


async def test_the_registrys_own_place(desk: Desk) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    path = f"/extensions/v2/a/b/signatures/{IMAGE.manifest.digest}"
    there = SimpleSignature(b"\x90there")
    listed = [{"schemaVersion": 2, "name": "x", "type": "atomic", "content": "kHRoZXJl"}]
    desk.registry.on("/v2/", header("X-Registry-Supports-Signatures", "1"), times=None)
    desk.registry.on(path, status(200, json.dumps({"signatures": listed}).encode()), times=None)
    desk.registry.on(path, status(201), times=None, method="PUT")
    reference = parse_reference(f"{desk.registry.address}/a/b:1")
    async with RegistryClient(ACCESS) as client:
        sink = RegistrySink(client, reference, of_reference(reference), Gate(desk.options).directory)
        digest = Digest.parse(IMAGE.manifest.digest)
        document = SourceDocument(IMAGE.manifest.data, IMAGE.manifest.media_type, digest)
        await sink.put_signatures(document, (there, SimpleSignature(b"\x90new")), is_instance=False)
    (put,) = [request for request in desk.registry.asked(path) if request.method == "PUT"]
    sent = json.loads(put.body)
    assert (sent["schemaVersion"], sent["type"], sent["content"]) == (2, "atomic", "kG5ldw==")
    assert sent["name"].startswith(f"{digest}@")


def test_files_are_added_and_never_replaced(tmp_path: Path) -> None:
    first, second = SimpleSignature(b"\x90one"), SigstoreSignature(SIGSTORE_TYPE, b"{}", {"a": "b"})
    place = tmp_path / "new/place"
    add_signature_files(place, [first])
    add_signature_files(place, [first, second])
    assert read_signature_files(place, "") == (first, second)
    assert sorted(path.name for path in place.iterdir()) == ["signature-1", "signature-2"]
    assert (place / "signature-1").stat().st_mode & 0o777 == 0o644
    (place / "signature-3").write_bytes(b"nonsense")
    with pytest.raises(DocumentError):
        add_signature_files(place, [SimpleSignature(b"\x90three")])
    (place / "signature-3").unlink()
    add_signature_files(place, [SimpleSignature(b"\x90%d" % number) for number in range(SIGNATURES_LIMIT - 2 - 1)])
    with pytest.raises((StoreWriteError, DocumentError)):
        add_signature_files(place, [SimpleSignature(b"\x90a"), SimpleSignature(b"\x90b")])


def test_files_are_removed_and_nothing_else(tmp_path: Path) -> None:
    remove_signature_files(tmp_path / "nowhere")
    add_signature_files(tmp_path / "place", [SimpleSignature(b"\x90one"), SimpleSignature(b"\x90two")])
    (tmp_path / "place/mine").write_bytes(b"")
    remove_signature_files(tmp_path / "place")
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["mine"]
    (tmp_path / "place/mine").unlink()
    add_signature_files(tmp_path / "place", [SimpleSignature(b"\x90one")])
    remove_signature_files(tmp_path / "place")
    assert not (tmp_path / "place").exists()
    (tmp_path / "place/signature-1").mkdir(parents=True)
    with pytest.raises(StoreWriteError):
        remove_signature_files(tmp_path / "place")


async def test_every_transport_is_judged(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    (tmp_path / "root.tar").write_bytes(layer("root", 1000))
    places = {
        "oci": f"oci:{tmp_path}/layout:1",
        "oci-archive": f"oci-archive:{tmp_path}/layout.tar:1",
        "dir": f"dir:{tmp_path}/dir",
        "docker-archive": f"docker-archive:{tmp_path}/docker.tar:x/y:1",
        "containers-storage": f"containers-storage:[overlay@{tmp_path}/graph+{tmp_path}/run]x/y:1",
    }
    for place in places.values():
        await desk.copy(desk.place("a/b:1"), place)
    places["tarball"] = f"tarball:{tmp_path}/root.tar"
    scopes = {
        "oci": f"{tmp_path}/layout",
        "oci-archive": str(tmp_path),
        "dir": f"{tmp_path}/dir",
        "docker-archive": "",
        "containers-storage": f"[overlay@{tmp_path}/graph]docker.io/x/y:1@{IMAGE.id}",
        "tarball": "",
    }
    for transport, place in places.items():
        rules = {transport: {scopes[transport]: [REJECT]}}
        (tmp_path / "policy.json").write_text(json.dumps({"default": [ACCEPT], "transports": rules}))
        async with Copier(platform=AMD64, trust=desk.options) as copier:
            for goal in (
                f"oci:{tmp_path}/goal-{transport}",
                f"containers-storage:[overlay@{tmp_path}/g+{tmp_path}/r]z:1",
            ):
                with pytest.raises(PolicyError, match="everything is rejected"):
                    await copier.copy(place, goal)
            assert not (tmp_path / f"goal-{transport}/index.json").exists()
        command = Command(tmp_path)
        ended = await asyncio.to_thread(command, "--policy", f"{tmp_path}/policy.json", "--json", "verify", place)
        assert ended.code == 65, ended
        assert ended.json()["scope"].startswith(f"transports.{transport}") or "-" in transport
        assert ended.json()["requirements"] == [{"type": "reject", "met": False, "reasons": ["everything is rejected"]}]
        (tmp_path / "policy.json").write_text(
            policy(REJECT, **{transport.replace("-", "_"): {scopes[transport]: [ACCEPT]}})
        )
        async with Copier(platform=AMD64, trust=desk.options) as copier:
            await copier.copy(place, f"oci:{tmp_path}/goal-{transport}")


async def test_sync_and_copy_by_the_command(desk: Desk, tmp_path: Path) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    (tmp_path / "policy.json").write_text(policy(REJECT, docker={"": [desk.signed_by]}))
    command = Command(tmp_path)
    options = ("--policy", f"{tmp_path}/policy.json", "--registries.d", str(tmp_path), "--tls-verify=false")
    quiet = (*options, "--progress", "none")
    source, goal = desk.place("a/b:1"), desk.place("c/d")
    sync = ("sync", "--src", "docker", "--dest", "docker", source.removeprefix("docker://"), desk.place("c")[9:])
    for words in (("copy", source, f"dir:{tmp_path}/dir"), ("copy", source, f"{goal}:1"), sync):
        ended = await asyncio.to_thread(command, *quiet, *words)
        assert ended.code == 65, ended
        assert "a signature is required, and there is none of that kind" in ended.err
    sign = ("--sign-by-key", f"{tmp_path}/secret.pgp")
    ended = await asyncio.to_thread(command, *quiet, "--insecure-policy", "copy", *sign, source, source)
    assert (ended.code, ended.err) == (0, "")
    ended = await asyncio.to_thread(command, *quiet, *sync, *sign)
    assert (ended.code, ended.err) == (0, "")
    ended = await asyncio.to_thread(command, *quiet, "verify", desk.place("c/b:1"))
    assert ended.code == 0, ended
    for more, message in (
        (("--sign-identity", "a.example/b:1"), "--sign-identity wants a key"),
        (("--sign-passphrase-file", "/none"), "wants exactly one key"),
        (("--sign-by-key", "/none"), "/none: the key cannot be read"),
        (("--sign-by-key", f"{tmp_path}/key.gpg"), "no secret key that can sign"),
        (("--sign-by-sigstore-private-key", "/none"), "nobody is there to be asked"),
        (("--sign-by-key", f"{tmp_path}/secret.pgp", "--sign-passphrase-file", "/none"), "passphrase cannot be read"),
    ):
        ended = await asyncio.to_thread(command, *quiet, "copy", *more, source, f"{goal}:9")
        assert ended.code == 64, ended
        assert message in ended.err
    assert desk.registry.manifest("c/d", "9") is None
