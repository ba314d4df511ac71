"""Requirements of every kind, met and not met, through the commands ``pull`` and ``copy``.

One command pulls all images. A command copies one, so that of all cases only those of ``KINDS`` are copied by it, which
has each type of requirement met and not met; the library copies the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncpull.access import Access
from asyncpull.cli import exit_codes
from asyncpull.copy import Copier
from asyncpull.errors import AsyncpullError
from asyncpull.registry.config import RegistryAccess
from asyncpull.trust.policyfile import TrustOptions
from tests.support import images
from tests.support.command import Command
from tests.support.pulls import AMD64, layer
from tests.support.registry_simulator import RegistrySimulator
from tests.support.verdicts import Cases

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.verdicts import Case

KINDS = {
    *("anything", "nothing", "base-layer", "signed", "signed-by-other", "key", "key-other", "log", "log-other"),
    *("fulcio", "fulcio-email", "pki", "pki-other-host"),
}
IMAGE = images.image([layer("one", 1000)])


def files(folder: Path) -> dict[str, bytes]:
    """Everything that is in a folder, but locks and the times of changes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


async def copied(case: Case, source: str, goal: str, command: Command, options: tuple[str, ...]) -> tuple[int, str]:
    """Copy an image: the exit code, and what was said."""
    if case.name in KINDS:
        ended = await asyncio.to_thread(command, *options, "copy", source, goal)
        assert ended.out == ""
        return ended.code, ended.err
    folder = command.directory
    trust = TrustOptions(folder / "policy.json", registries_dir=folder / "registries.d")
    async with Copier(source=Access(RegistryAccess(tls_verify=False)), platform=AMD64, trust=trust) as copier:
        try:
            await copier.copy(source, goal)
        except AsyncpullError as error:
            return exit_codes.exit_code_of(error), str(error)
    return 0, ""


async def test_every_requirement_by_the_commands(tmp_path: Path) -> None:
    command = Command(tmp_path)
    async with RegistrySimulator() as registry:
        cases = Cases(tmp_path, registry.address, IMAGE.manifest.digest).all()
        for case in cases:
            registry.add_image(f"verdicts/{case.name}", "1", IMAGE)
        options = (
            *("--policy", f"{tmp_path}/policy.json", "--registries.d", f"{tmp_path}/registries.d"),
            *("--tls-verify=false", "--progress", "none"),
        )
        place = f"{registry.address}/verdicts"
        refused = [case for case in cases if case.reason is not None]
        accepted = [case for case in cases if case.reason is None]

        # The store and the registry that would get something have something already.
        ended = await asyncio.to_thread(command, *options, "--insecure-policy", "pull", f"{place}/nothing:1")
        assert ended.code == 0, ended
        before = files(command.root)
        asked = len(registry.asked("/blobs/"))
        ended = await asyncio.to_thread(command, *options, "pull", *(f"{place}/{each.name}:1" for each in refused))
        assert ended.code == 65, ended
        assert ended.out == ""
        for case in refused:
            (line,) = [line for line in ended.err.splitlines() if f"/{case.name}:1: " in line]
            assert case.reason is not None
            assert case.reason in line, line
        for number, case in enumerate(refused):
            to_registry = f"docker://{registry.address}/refused/{case.name}:1"
            goal = f"dir:{tmp_path}/refused" if number % 2 else to_registry
            code, said = await copied(case, f"docker://{place}/{case.name}:1", goal, command, options)
            assert code == 65, (case, said)
            assert case.reason is not None
            assert case.reason in said, (case, said)
            assert registry.manifest(f"refused/{case.name}", "1") is None
        assert files(command.root) == before
        assert not (tmp_path / "refused").exists()
        assert len(registry.asked("/blobs/")) == asked
        assert not [request for request in registry.asked("/v2/refused") if request.method != "GET"]

        ended = await asyncio.to_thread(command, *options, "pull", *(f"{place}/{each.name}:1" for each in accepted))
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.split() == [IMAGE.id] * len(accepted)
        for case in accepted:
            goal = f"dir:{tmp_path}/accepted-{case.name}"
            ended_so = await copied(case, f"docker://{place}/{case.name}:1", goal, command, options)
            assert ended_so == (0, ""), case
            assert (tmp_path / f"accepted-{case.name}/manifest.json").read_bytes() == IMAGE.manifest.data
            taken = sorted((tmp_path / f"accepted-{case.name}").glob("signature-*"))
            assert len(taken) == len(case.signatures)
