"""``asyncpull copy``: streams, exit codes, and who is told which credentials."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image, index, noise
from tests.support.pulls import layer
from tests.support.registry_faults import hold
from tests.support.registry_simulator import Basic, RegistrySimulator
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.command import Command, Ended

SAMPLE = image([layer("small", 1000), tar([file("large", noise(1, 3_000_000))])])
BOTH = index([SAMPLE, image([layer("other", 1000)], architecture="arm64")])


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        simulator.add_image("a/b", "1", BOTH)
        yield simulator


async def copy(command: Command, *arguments: str) -> Ended:
    """Run while the registry, in this loop, answers."""
    scratch = command.directory / "scratch"
    scratch.mkdir(exist_ok=True)
    return await asyncio.to_thread(
        command, "copy", "--override-arch=amd64", *arguments, environment={"TMPDIR": str(scratch)}
    )


async def test_a_copy_says_nothing_on_stdout(command: Command, registry: RegistrySimulator, tmp_path: Path) -> None:
    source, digest = f"docker://{registry.address}/a/b:1", tmp_path / "digest"
    ended = await copy(command, "--src-tls-verify=false", source, f"oci:{tmp_path}/l:1", "--digestfile", str(digest))
    assert (ended.code, ended.out) == (0, "")
    assert "done in" in ended.err
    assert digest.read_text() == SAMPLE.manifest.digest
    assert json.loads((tmp_path / "l/index.json").read_bytes())["manifests"][0]["digest"] == SAMPLE.manifest.digest


async def test_a_copy_as_json(command: Command, registry: RegistrySimulator, tmp_path: Path) -> None:
    source = f"docker://{registry.address}/a/b:1"
    ended = await copy(command, "--tls-verify=false", "--all", "--json", "--progress=json", source, f"oci:{tmp_path}/l")
    told = ended.json()
    assert (told["digest"], told["destination"]) == (BOTH.manifest.digest, f"oci:{tmp_path}/l")
    assert [each["from"] for each in told["instances"]] == [each["to"] for each in told["instances"]]
    names = [event["event"] for event in ended.events()]
    assert (names[0], names[-1]) == ("copy_started", "copy_completed")
    assert {"copy_resolved", "fetch_advanced", "put_completed"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("oci:nowhere:1", "dir:out"), 2),
        (("sif:image", "dir:out"), 64),
        (("dir:in", "ostree:x"), 64),
        (("--all", "--multi-arch=system", "dir:in", "dir:out"), 64),
        (("--multi-arch=everything", "dir:in", "dir:out"), 64),
        (("--strip-removed-platforms", "dir:in", "dir:out"), 64),
        (("--format=v2s1", "dir:in", "dir:out"), 64),
        (("--src-no-creds", "--src-creds=a:b", "dir:in", "dir:out"), 64),
        (("--src-username=a", "dir:in", "dir:out"), 64),
    ],
)
async def test_what_cannot_be_done(command: Command, arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    ended = await copy(command, *(each.replace("out", f"{tmp_path}/out") for each in arguments))
    assert (ended.code, ended.out) == (code, "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "place", ["oci:{0}/file", "dir:{0}/file", "oci:{0}/file/l", "oci-archive:{0}/file/a.tar", "oci:/proc/l"]
)
async def test_a_place_that_cannot_be_written(
    command: Command, registry: RegistrySimulator, place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    source = f"docker://{registry.address}/a/b:1"
    ended = await copy(command, "--tls-verify=false", source, place.format(tmp_path))
    assert (ended.code, ended.out) == (73, "")
    assert (tmp_path / "file").read_bytes() == b"mine"


async def test_each_side_has_its_credentials(command: Command, tmp_path: Path) -> None:
    async with RegistrySimulator() as registry:
        registry.protection = Basic("user", "secret")
        registry.add_image("a/b", "1", SAMPLE)
        source = f"docker://{registry.address}/a/b:1"
        common = ("--src-tls-verify=false", source, f"oci:{tmp_path}/l")
        assert (await copy(command, *common, "--dest-creds=user:secret")).code == 77
        assert (await copy(command, *common, "--src-creds=user:wrong")).code == 77
        assert (await copy(command, *common, "--src-no-creds")).code == 77
        assert not (tmp_path / "l/index.json").exists()
        ended = await copy(command, *common, "--src-creds=user:secret")
        assert ended.code == 0
        assert "secret" not in ended.err


async def test_an_interrupted_copy_goes_on_later(command: Command, registry: RegistrySimulator, tmp_path: Path) -> None:
    gate, blob = asyncio.Event(), SAMPLE.layers[1]
    registry.on(blob.digest, hold(gate, at=2_000_000))
    arguments = (
        "copy",
        "--override-arch=amd64",
        "--tls-verify=false",
        f"docker://{registry.address}/a/b:1",
        f"oci:{tmp_path}/l",
    )
    started = command.start(*arguments)
    while registry.sent(blob.digest) < 2_000_000:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # what was sent is received
    started.send_signal(signal.SIGINT)
    await asyncio.to_thread(started.communicate)
    assert started.returncode == 130
    assert not (tmp_path / "l/index.json").exists()
    before = registry.sent(blob.digest)
    assert (await asyncio.to_thread(command, *arguments)).code == 0
    assert registry.sent(blob.digest) - before < 2_000_000
