"""``asyncpull prefetch`` and ``plan``: streams, files and exit codes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncpull.cli.verbs.prefetch import references_in
from tests.support import registry_faults as faults
from tests.support.images import image, index, noise
from tests.support.registry_simulator import RegistrySimulator
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.command import Command, Ended

BASE = tar([directory("etc/"), file("etc/name", b"base\n" * 1000)])
OWN = [tar([directory("srv/"), file("srv/noise", noise(number, 300_000))]) for number in range(2)]
TARGETS = [image([BASE, own]) for own in OWN]
BLOBS = {blob.digest: len(blob.data) for target in TARGETS for blob in target.layers}


@pytest_asyncio.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        for number, target in enumerate(TARGETS):
            simulator.add_image("a/b", str(number), target)
        yield simulator


async def run(command: Command, *arguments: str) -> Ended:
    return await asyncio.to_thread(command, "--tls-verify=false", *arguments)


def test_references_in_a_file() -> None:
    text = "# all of them\nq.io/a:1\n\n  q.io/b:2   # the second\r\n\t\n#q.io/c\nq.io/d@sha256:00"
    assert references_in(text) == ["q.io/a:1", "q.io/b:2", "q.io/d@sha256:00"]


@pytest.mark.root
async def test_prefetch_prints_one_line_per_reference(
    command: Command, registry: RegistrySimulator, tmp_path: Path
) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"# the second\n{registry.address}/a/b:1\n\n")
    ended = await run(command, "prefetch", "-f", str(listed), f"{registry.address}/a/b:0", "--bandwidth", "50M")
    assert ended.code == 0
    assert ended.out.splitlines() == [f"{registry.address}/a/b:{number} {TARGETS[number].id}" for number in (0, 1)]
    assert "2 of 2 images are here, 6" in ended.err
    assert {digest: registry.sent(digest) for digest in BLOBS} == BLOBS


@pytest.mark.root
async def test_prefetch_goes_on_and_tells_what_failed(command: Command, registry: RegistrySimulator) -> None:
    good, missing = f"{registry.address}/a/b:0", f"{registry.address}/a/b:none"
    ended = await run(command, "prefetch", "--progress", "none", missing, good)
    assert (ended.code, ended.out.splitlines()) == (2, [f"{missing} failed", f"{good} {TARGETS[0].id}"])
    assert "manifests/none" in ended.err
    assert "1 of 2 images are here" in ended.err
    ended = await run(command, "prefetch", "--json", "-q", missing, good, "Not/A/Reference")
    assert ended.code == 1  # they failed for different reasons
    summary = ended.json()
    assert (summary["images"], summary["failed"], summary["bytes_fetched"]) == (1, 2, 0)
    assert [result.get("exit_code") for result in summary["results"]] == [2, None, 64]
    assert summary["results"][1]["id"] == TARGETS[0].id


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a REF"),
        (["--scheduler", "10.0.0.1:9", "q.io/a"], "fleets are not supported"),
        (["-f", "/nowhere/list"], "/nowhere/list"),
        (["--bandwidth", "fast", "q.io/a"], "no amount of bytes"),
        (["--pull", "sometimes", "q.io/a"], "sometimes"),
    ],
)
def test_usage(command: Command, arguments: list[str], words: str) -> None:
    ended = command("prefetch", *arguments)
    assert (ended.code, ended.out) == (64, "")
    assert words in ended.err


@pytest.mark.root
async def test_plan_asks_for_no_layer(command: Command, registry: RegistrySimulator) -> None:
    registry.add_image("a/b", "both", index([TARGETS[0], image([BASE], architecture="arm64")]))
    references = [f"{registry.address}/a/b:both", f"{registry.address}/a/b:1"]
    ended = await run(command, "plan", "--platform", "linux/amd64", *references)
    assert ended.code == 0
    assert "x its blob, as is usual" in ended.out
    assert "Requests that count against a rate limit: 3" in ended.out
    assert "All together" in ended.out
    planned = (await run(command, "plan", "--platform", "linux/amd64", "--json", *references)).json()
    assert planned["bytes_to_fetch"] == sum(BLOBS.values())
    assert planned["counted_requests"] == 3
    assert [layer["action"] for layer in planned["images"][1]["layers"]] == ["fetch", "fetch"]
    assert not any(registry.asked(digest) for digest in BLOBS)
    assert command("images", "--json").json() == []


@pytest.mark.root
async def test_plan_after_a_pull_and_after_a_broken_one(command: Command, registry: RegistrySimulator) -> None:
    assert (await run(command, "pull", "-q", f"{registry.address}/a/b:0")).code == 0
    digest = TARGETS[1].layers[1].digest
    registry.on(digest, faults.status(404), times=None, skip=1)
    registry.on(digest, faults.cut(200_000))
    assert (await run(command, "pull", "-q", f"{registry.address}/a/b:1")).code == 2
    (planned,) = (await run(command, "plan", "--json", f"{registry.address}/a/b:1")).json()["images"]
    assert [layer["action"] for layer in planned["layers"]] == ["reuse", "fetch"]
    assert planned["bytes_to_resume"] == 200_000
    assert planned["bytes_to_fetch"] == BLOBS[digest] - 200_000
    assert planned["bytes_reused"] == BLOBS[TARGETS[0].layers[0].digest]
    assert "as the 2 compressed layers of the store" in planned["layers"][1]["basis"]


@pytest.mark.root
async def test_plan_of_what_is_not_there(command: Command, registry: RegistrySimulator) -> None:
    ended = await run(command, "plan", f"{registry.address}/a/b:none")
    assert (ended.code, ended.out) == (2, "")
