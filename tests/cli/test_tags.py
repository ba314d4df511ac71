"""``asyncpull tags``: streams and exit codes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.images import OCI_MANIFEST
from tests.support.registry_faults import status
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from tests.support.command import Command


async def test_tags_are_listed_one_per_line(command: Command) -> None:
    async with RegistrySimulator() as registry:
        for tag in ("v1", "v2", "latest"):
            registry.add_manifest("a/b", tag, tag.encode(), OCI_MANIFEST)
        registry.tags_per_page = 2
        repository = f"docker://{registry.address}/a/b"
        listed = await asyncio.to_thread(command, "--tls-verify=false", "tags", repository)
        assert (listed.code, listed.out, listed.err) == (0, "v1\nv2\nlatest\n", "")
        listed = await asyncio.to_thread(command, "tags", "--json", "--tls-verify=false", repository)
        assert listed.json() == {"repository": f"{registry.address}/a/b", "tags": ["v1", "v2", "latest"]}
        missing = await asyncio.to_thread(command, "--tls-verify=false", "tags", f"{registry.address}/no/such")
        assert (missing.code, missing.out) == (2, "")
        assert "repository name not known" in missing.err


async def test_how_often_is_retried_and_after_how_long_is_said_on_the_command_line(command: Command) -> None:
    async with RegistrySimulator() as registry:
        registry.add_manifest("a/b", "v1", b"v1", OCI_MANIFEST)
        arguments = ["--tls-verify=false", "tags", f"docker://{registry.address}/a/b", "--retry-delay", "1ms"]
        for times, code in (("0", 69), ("1", 69), ("2", 0)):
            registry.on("/tags/list", status(503), times=2)
            before = len(registry.asked("/tags/list"))
            ended = await asyncio.to_thread(command, *arguments, "--retry-times", times)
            assert (ended.code, len(registry.asked("/tags/list")) - before) == (code, int(times) + 1)
            registry.heal()
        ended = await asyncio.to_thread(command, *arguments, "--retry-delay", "soon")
        assert ended.code == 64


@pytest.mark.parametrize("repository", ["alpine:3.20", "localhost:1/a@sha256:" + "a" * 64, "containers-storage:a"])
def test_a_repository_has_no_tag(command: Command, repository: str) -> None:
    ended = command("tags", repository)
    assert (ended.code, ended.out) == (64, "")
