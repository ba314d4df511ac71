"""``asyncpull pull``, ``inspect`` and ``digest`` against a scripted registry: streams and exit codes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
import ssl
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support import registry_faults as faults
from tests.support.certificates import make_authority
from tests.support.images import Image, image, index, noise
from tests.support.registry_simulator import Basic, RegistrySimulator
from tests.support.tars import directory, file, hard_link, tar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.command import Command, Ended

pytestmark = pytest.mark.root

BASE = tar([directory("etc/"), file("etc/name", b"base\n")])
LARGE = tar([directory("srv/"), file("srv/noise", noise(1, 3_000_000))])
SAMPLE = image([BASE, LARGE])


@pytest_asyncio.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        simulator.add_image("a/b", "1", SAMPLE)
        yield simulator


async def run(command: Command, *arguments: str) -> Ended:
    """Run while the registry, in this loop, answers."""
    return await asyncio.to_thread(command, "--tls-verify=false", *arguments)


def names(command: Command) -> list[str]:
    records = command("images", "--json").json()
    return [name for record in records for name in record["names"]]


def assert_untouched(command: Command) -> None:
    """The store lists nothing, and nothing temporary is left."""
    assert command("images", "--json").json() == command("layers", "--json").json() == []
    for place in ("overlay/tempdirs", "overlay-layers/tmp", "overlay/l"):
        assert not list((command.root / place).glob("*"))


async def test_the_id_and_nothing_else_on_stdout(command: Command, registry: RegistrySimulator) -> None:
    ended = await run(command, "pull", f"{registry.address}/a/b:1")
    assert (ended.code, ended.out) == (0, f"{SAMPLE.id}\n")
    assert ": done in " in ended.err
    assert names(command) == [f"{registry.address}/a/b:1"]


@pytest.mark.parametrize("verb", ["pull", "prefetch"])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_how_patient_a_pull_is(command: Command, registry: RegistrySimulator, verb: str, part: str) -> None:
    reference, options = f"{registry.address}/a/b:1", ("--retry-delay", "1ms")
    registry.on(part, faults.status(503), times=None)
    assert (await run(command, verb, reference, "--retry", "0", *options)).code != 0
    asked = {request.target for request in registry.asked(part)}
    assert len(registry.asked(part)) == len(asked)
    assert_untouched(command)
    registry.heal()
    registry.on(part, faults.status(503), times=2)
    assert (await run(command, verb, reference, "--retry", "2", *options)).code == 0
    assert names(command) == [reference]


async def test_json_result(command: Command, registry: RegistrySimulator) -> None:
    ended = await run(command, "pull", "-q", "--json", f"{registry.address}/a/b:1")
    (pulled,) = ended.json()
    assert ended.err == ""
    assert set(pulled) == {"reference", "id", "digest", "layers", "bytes_fetched", "bytes_resumed", "seconds"}
    assert (pulled["id"], pulled["digest"]) == (SAMPLE.id, SAMPLE.manifest.digest)
    assert [layer["digest"] for layer in pulled["layers"]] == [blob.digest for blob in SAMPLE.layers]
    assert [layer["diff_id"] for layer in pulled["layers"]] == list(SAMPLE.diff_ids)
    assert [layer["reused"] for layer in pulled["layers"]] == [False, False]
    assert pulled["bytes_fetched"] == sum(len(blob.data) for blob in SAMPLE.layers)
    (again,) = (await run(command, "pull", "-q", "--json", f"{registry.address}/a/b:1")).json()
    assert [layer["reused"] for layer in again["layers"]] == [True, True]
    assert again["bytes_fetched"] == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_authorities_of_the_system_are_trusted_and_no_others(command: Command, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "authority")
    certificate = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key)
    async with RegistrySimulator(context) as registry:
        registry.add_image("a/b", "1", SAMPLE)
        arguments = "pull", "-q", f"{registry.address}/a/b:1"
        refused = await asyncio.to_thread(command, *arguments)
        assert (refused.code, refused.out) == (69, "")
        assert "the TLS certificate is refused" in refused.err
        assert_untouched(command)
        trusting = {"SSL_CERT_FILE": str(authority.path)}
        pulled = await asyncio.to_thread(lambda: command(*arguments, environment=trusting))
        assert (pulled.code, pulled.out) == (0, f"{SAMPLE.id}\n")
        assert (await run(command, *arguments)).out == f"{SAMPLE.id}\n"


async def test_json_progress_is_one_event_per_line_on_stderr(command: Command, registry: RegistrySimulator) -> None:
    ended = await run(command, "pull", "--progress", "json", f"{registry.address}/a/b:1")
    assert ended.out == f"{SAMPLE.id}\n"
    events = [json.loads(line) for line in ended.err.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("pull_started", "pull_completed")
    for pair in ("fetch_started", "fetch_completed"), ("extract_started", "extract_completed"):
        assert [kinds.count(kind) for kind in pair] == [2, 2]
    assert kinds.count("commit_completed") == 1


async def test_several_references_in_their_order(command: Command, registry: RegistrySimulator) -> None:
    other = image([BASE], comment="other")
    registry.add_image("c/d", "1", other)
    ended = await run(command, "pull", "-q", f"{registry.address}/c/d:1", f"{registry.address}/a/b:1")
    assert (ended.code, ended.out.splitlines()) == (0, [other.id, SAMPLE.id])
    assert registry.sent(SAMPLE.layers[0].digest) == len(SAMPLE.layers[0].data)  # the shared layer came once


async def test_several_references_of_which_some_fail(command: Command, registry: RegistrySimulator) -> None:
    absent, present = f"{registry.address}/absent:1", f"{registry.address}/a/b:1"
    ended = await run(command, "pull", "-q", absent, present)
    assert (ended.code, ended.out) == (2, f"{SAMPLE.id}\n")
    assert absent.rpartition(":")[0] in ended.err
    registry.add_image("bad", "1", image([b"this is no tar" * 100]))
    ended = await run(command, "pull", "-q", absent, f"{registry.address}/bad:1", present)
    assert (ended.code, ended.out) == (1, f"{SAMPLE.id}\n")
    assert len([line for line in ended.err.splitlines() if line.startswith("asyncpull: ")]) == 2


async def test_tls_verify_keeps_the_reference(command: Command, registry: RegistrySimulator) -> None:
    ended = await asyncio.to_thread(command, "pull", "--tls-verify", f"{registry.address}/a/b:1")
    assert ended.code == 69
    assert registry.address in ended.err


async def test_platform(command: Command, registry: RegistrySimulator) -> None:
    arm = image([BASE], architecture="arm", variant="v7")
    registry.add_image("multi", "1", index([SAMPLE, arm]))
    reference = f"{registry.address}/multi:1"
    assert (await run(command, "pull", "-q", "--platform", "linux/arm/v7", reference)).out == f"{arm.id}\n"
    by_override = await run(command, "pull", "-q", "--override-arch", "arm", "--override-variant", "v7", reference)
    assert by_override.out == f"{arm.id}\n"
    assert (await run(command, "digest", "--platform", "linux/arm/v7", reference)).out == f"{arm.manifest.digest}\n"
    ended = await run(command, "pull", "-q", "--platform", "linux/s390x", reference)
    assert ended.code == 2
    assert "linux/arm/v7" in ended.err


async def test_pull_policies(command: Command, registry: RegistrySimulator) -> None:
    reference = f"{registry.address}/a/b:1"
    ended = await run(command, "pull", "-q", "--pull", "never", reference)
    assert (ended.code, ended.out) == (2, "")
    assert not registry.requests
    assert (await run(command, "pull", "-q", "--pull", "missing", reference)).code == 0
    asked = len(registry.requests)
    for policy in ("missing", "never"):
        assert (await run(command, "pull", "-q", "--pull", policy, reference)).out == f"{SAMPLE.id}\n"
    assert len(registry.requests) == asked


async def test_digest_and_inspect_fetch_no_layer(command: Command, registry: RegistrySimulator) -> None:
    reference = f"docker://{registry.address}/a/b:1"
    assert (await run(command, "digest", reference)).out == f"{SAMPLE.manifest.digest}\n"
    assert (await run(command, "digest", "--json", reference)).json() == {
        "reference": reference,
        "digest": SAMPLE.manifest.digest,
    }
    raw = await run(command, "inspect", "--raw", reference)
    assert "sha256:" + hashlib.sha256(raw.out.encode()).hexdigest() == SAMPLE.manifest.digest
    assert (await run(command, "inspect", "--config", reference)).out.encode() == SAMPLE.config.data
    summary = (await run(command, "inspect", reference)).json()
    assert summary["Name"] == f"{registry.address}/a/b"
    assert (summary["Architecture"], summary["Os"]) == ("amd64", "linux")
    assert summary["Layers"] == [blob.digest for blob in SAMPLE.layers]
    assert not any(registry.asked(blob.digest) for blob in SAMPLE.layers)
    assert not command.root.exists()


@pytest.mark.parametrize(
    ("part", "fault", "code"),
    [
        ("manifests", faults.error(404, "MANIFEST_UNKNOWN", "manifest unknown"), 2),
        ("manifests", faults.error(403, "DENIED", "no"), 77),
        ("manifests", faults.replaced(b"{not json"), 65),
        ("manifests", faults.replaced(b" " * (5 << 20)), 65),
        (SAMPLE.config.digest, faults.flip(3), 65),
        (SAMPLE.layers[1].digest, faults.flip(100_000), 65),
        (SAMPLE.layers[1].digest, faults.error(404, "BLOB_UNKNOWN", "blob unknown"), 2),
    ],
)
async def test_what_a_registry_can_do_wrong(
    command: Command, registry: RegistrySimulator, part: str, fault: faults.Fault, code: int
) -> None:
    registry.on(part, fault, times=None)
    ended = await run(command, "pull", "-q", f"{registry.address}/a/b:1")
    assert (ended.code, ended.out) == (code, "")
    assert 1 <= len(ended.err.splitlines()) <= 2
    assert "Traceback" not in ended.err
    assert_untouched(command)


@pytest.mark.parametrize(
    "hostile",
    [
        image([tar([file("../../etc/x", b"out")])]),
        image([tar([file("a", b""), hard_link("b", "not/there")])]),
        image([BASE], diff_ids=["sha256:" + "0" * 64]),
        image([b"\x1f\x8b this is no gzip"], compression="none"),
        image([tar([])] * 501),
    ],
    ids=["path out of the root", "link to nowhere", "wrong diff ID", "no tar", "too many layers"],
)
async def test_content_that_is_refused(command: Command, registry: RegistrySimulator, hostile: Image) -> None:
    registry.add_image("hostile", "1", hostile)
    ended = await run(command, "pull", "-q", f"{registry.address}/hostile:1")
    assert (ended.code, ended.out) == (65, "")
    assert_untouched(command)


async def test_credentials_of_the_authfile(command: Command, registry: RegistrySimulator, tmp_path: Path) -> None:
    registry.protection = Basic("me", "secret-word")
    refused = await run(command, "pull", "-q", f"{registry.address}/a/b:1")
    assert refused.code == 77
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {registry.address: {"auth": "bWU6c2VjcmV0LXdvcmQ="}}}))
    ended = await run(command, "pull", "--log-level", "debug", "--authfile", str(authfile), f"{registry.address}/a/b:1")
    assert ended.code == 0
    assert "secret-word" not in ended.err + ended.out
    assert "bWU6c2VjcmV0LXdvcmQ=" not in ended.err + ended.out


async def test_a_root_that_cannot_be_written(command: Command, registry: RegistrySimulator) -> None:
    ended = await run(command, "pull", "-q", "--root", "/sys/nothing", f"{registry.address}/a/b:1")
    assert (ended.code, ended.out) == (73, "")
    assert "/sys/nothing" in ended.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_and_what_was_received_is_kept(
    command: Command, registry: RegistrySimulator, number: signal.Signals, code: int
) -> None:
    large = SAMPLE.layers[1]
    gate = asyncio.Event()
    registry.on(large.digest, faults.hold(gate, at=1_000_000))
    arguments = ("--tls-verify=false", "pull", "--progress", "json", f"{registry.address}/a/b:1")
    process = command.start(*arguments)
    await asyncio.to_thread(_read_until, process.stderr, b"fetch_advanced")
    process.send_signal(number)
    out, err = await asyncio.to_thread(process.communicate)
    assert (process.returncode, out) == (code, b"")
    assert b"Traceback" not in err
    assert_untouched(command)
    gate.set()
    registry.heal()
    (pulled,) = (await run(command, "pull", "-q", "--json", f"{registry.address}/a/b:1")).json()
    assert pulled["bytes_resumed"] > 0
    assert pulled["bytes_fetched"] + pulled["bytes_resumed"] == sum(len(blob.data) for blob in SAMPLE.layers)


def _read_until(stream: object, part: bytes) -> None:
    """Read lines until one has ``part``; the command tells how far it is."""
    for line in stream:  # type: ignore[attr-defined]
        if part in line:
            return
    raise AssertionError(f"{part!r} was never told")
