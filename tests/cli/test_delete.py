"""``asyncpull delete``: streams and exit codes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.images import OCI_MANIFEST, image, write_layout
from tests.support.registry_simulator import Basic, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Command

RAW = b'{"schemaVersion":2}'


@pytest.fixture
def signatures(tmp_path: Path) -> Path:
    """Where signatures are looked for, by ``registries.d`` in ``tmp_path``."""
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d/here.yaml").write_text(f"default-docker: {{lookaside: 'file://{tmp_path}/signatures'}}\n")
    return tmp_path / "signatures"


async def test_signatures_go_with_the_image(command: Command, signatures: Path) -> None:
    async with RegistrySimulator() as registry:
        digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        other = registry.add_manifest("a/b", "other", RAW + b" ", OCI_MANIFEST)
        for each in (digest, other):
            place = signatures / f"a/b@{each.replace(':', '=')}"
            place.mkdir(parents=True)
            for number in (1, 2):
                (place / f"signature-{number}").write_bytes(b"\x90")
        arguments = ["--tls-verify=false", "--registries.d", f"{signatures.parent}/registries.d", "delete"]
        name = f"docker://{registry.address}/a/b:t"
        ended = await asyncio.to_thread(command, *arguments, "--only-tag", name)
        assert (ended.code, len(list(signatures.rglob("signature-*")))) == (0, 4)
        registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        ended = await asyncio.to_thread(command, *arguments, name)
        assert (ended.code, ended.out, ended.err) == (0, f"{digest}\n", "")
        assert [path.name for path in (signatures / "a").iterdir()] == [f"b@{other.replace(':', '=')}"]
        assert len(list(signatures.rglob("signature-*"))) == 2
        (signatures.parent / "registries.d/here.yaml").write_text(
            "default-docker: {lookaside: 'https://127.0.0.1:1'}\n"
        )
        ended = await asyncio.to_thread(command, *arguments, f"docker://{registry.address}/a/b:other")
        assert (ended.code, ended.out, ended.err) == (0, f"{other}\n", "")


async def test_a_manifest_goes_with_its_tags_or_a_tag_alone(command: Command) -> None:
    async with RegistrySimulator() as registry:
        digest = registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        registry.add_manifest("a/b", "u", RAW, OCI_MANIFEST)
        name = f"docker://{registry.address}/a/b"
        ended = await asyncio.to_thread(command, "--tls-verify=false", "delete", "--only-tag", f"{name}:t")
        assert (ended.code, ended.out, ended.err) == (0, f"{registry.address}/a/b:t\n", "")
        assert registry.manifest("a/b", "t") is None
        ended = await asyncio.to_thread(command, "--tls-verify=false", "delete", f"{name}:u", f"{name}:missing")
        assert (ended.code, ended.out) == (2, f"{digest}\n")
        assert "missing" in ended.err
        assert registry.manifest("a/b", digest) is None
        ended = await asyncio.to_thread(command, "--tls-verify=false", "delete", "--only-tag", f"{name}@{digest}")
        assert (ended.code, ended.out) == (64, "")
        registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        registry.uploads.deletes = False
        ended = await asyncio.to_thread(command, "--tls-verify=false", "delete", f"{name}:t")
        assert (ended.code, ended.out) == (69, "")
        assert "whoever runs the registry has to allow it" in ended.err


async def test_who_may_delete_is_said_on_the_command_line(command: Command) -> None:
    async with RegistrySimulator() as registry:
        registry.protection = Basic("me", "open:sesame")
        registry.add_manifest("a/b", "t", RAW, OCI_MANIFEST)
        arguments = ["--tls-verify=false", "delete", f"docker://{registry.address}/a/b:t"]
        for wrong, code in (([], 77), (["--no-creds"], 77), (["--creds", "me:x"], 77), (["--username", "me"], 64)):
            ended = await asyncio.to_thread(command, *arguments, *wrong)
            assert (ended.code, ended.out) == (code, "")
        assert registry.manifest("a/b", "t") is not None
        ended = await asyncio.to_thread(command, *arguments, "--creds", "me:open:sesame")
        assert ended.code == 0, ended.err
        assert registry.manifest("a/b", "t") is None


def test_a_layout_loses_an_image(command: Command, tmp_path: Path) -> None:
    built = image([b""], compression="none")
    write_layout(tmp_path / "layout", {"t": built})
    ended = command("delete", "--json", f"oci:{tmp_path}/layout:t")
    assert (ended.code, ended.json()) == (0, [built.manifest.digest])
    assert command("delete", f"oci:{tmp_path}/layout:t").code == 2
    assert command("delete", f"dir:{tmp_path}/layout").code == 64


@pytest.mark.root
async def test_a_store_loses_an_image(command: Command) -> None:
    async with RegistrySimulator() as registry:
        reference = registry.add_image("a/b", "t", image([b"\0" * 1024], compression="none"))
        pulled = await asyncio.to_thread(command, "--tls-verify=false", "pull", reference)
        ended = await asyncio.to_thread(command, "delete", f"containers-storage:{reference}")
        assert (ended.code, ended.out) == (0, f"{reference}\n{pulled.out}")
        ended = await asyncio.to_thread(command, "delete", f"containers-storage:{reference}")
        assert (ended.code, ended.out) == (2, "")
