"""Short names at the command: what is tried, who is asked, and what is recorded."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncpull.cli.choosing import Choice, first_of
from asyncpull.errors import NotFoundError, StoreWriteError, UnavailableError
from asyncpull.spec.reference import Reference, parse_reference
from tests.support.images import image
from tests.support.registry_simulator import RegistrySimulator
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.command import Command, Ended

SAMPLE = image([tar([file("name", b"sample\n")])])
ONE, TWO, THREE = (parse_reference(f"{name}.example/x:1") for name in ("one", "two", "three"))


async def test_the_first_that_can_be_had() -> None:
    tried: list[Reference] = []

    async def attempt(reference: Reference) -> str:
        tried.append(reference)
        if reference == ONE:
            raise NotFoundError("one has it not")
        return reference.domain

    assert await first_of(Choice("x", (ONE, TWO, THREE)), attempt) == "two.example"
    assert tried == [ONE, TWO]


async def test_when_none_can_be_had_the_last_error_tells_of_all() -> None:
    async def attempt(reference: Reference) -> str:
        raise (NotFoundError if reference == ONE else UnavailableError)(f"not at {reference.domain}", "look again")

    with pytest.raises(UnavailableError) as caught:
        await first_of(Choice("x", (ONE, TWO)), attempt)
    assert (str(caught.value), caught.value.hint) == (
        "not at two.example",
        "before that: not at one.example; look again",
    )


async def test_what_no_other_registry_could_put_right_ends_it() -> None:
    tried: list[Reference] = []

    async def attempt(reference: Reference) -> str:
        tried.append(reference)
        raise StoreWriteError("read-only", "/store")

    with pytest.raises(StoreWriteError):
        await first_of(Choice("x", (ONE, TWO)), attempt)
    assert tried == [ONE]


class Surroundings:
    """Two registries to search, of which the second has a/b:1, and somebody who is not root."""

    def __init__(self, directory: Path, command: Command, first: RegistrySimulator, second: RegistrySimulator) -> None:
        self.command, self.first, self.second = command, first, second
        self.conf = directory / "registries.conf"
        self.recorded = directory / "cache/containers/short-name-aliases.conf"
        self.environment = {
            "XDG_CACHE_HOME": str(directory / "cache"),
            "_CONTAINERS_ROOTLESS_UID": "1000",
            "CONTAINERS_REGISTRIES_CONF": str(self.conf),
        }
        self.directory = directory

    def configure(self, mode: str) -> None:
        """Set short-name-mode."""
        self.conf.write_text(
            f'unqualified-search-registries = ["{self.first.address}", "{self.second.address}"]\n'
            f'short-name-mode = "{mode}"\n'
        )

    def arguments(self, *arguments: str) -> tuple[str, ...]:
        """What follows the command."""
        return "--tls-verify=false", "--registries-conf-dir", str(self.directory / "none"), *arguments

    async def run(self, *arguments: str) -> Ended:
        """Run without a terminal."""
        return await asyncio.to_thread(self.command, *self.arguments(*arguments), environment=self.environment)

    async def answer(self, answers: bytes, *arguments: str) -> tuple[int, str]:
        """Run on a terminal at which ``answers`` are typed; the exit code and what the terminal shows."""
        master, slave = pty.openpty()
        try:
            process = await asyncio.to_thread(
                subprocess.Popen,
                [*self.command.arguments, *self.arguments(*arguments)],
                env=self.command.environment(self.environment),
                stdin=slave,
                stdout=subprocess.DEVNULL,
                stderr=slave,
                start_new_session=True,
            )
            os.write(master, answers)
            code = await asyncio.to_thread(process.wait, 60)
            return code, os.read(master, 1 << 16).decode()
        finally:
            os.close(master)
            os.close(slave)

    async def names(self) -> list[str]:
        """The names of all images of the store."""
        return [name for record in (await self.run("images", "--json")).json() for name in record["names"]]


@pytest_asyncio.fixture
async def surroundings(tmp_path: Path, command: Command) -> AsyncIterator[Surroundings]:
    async with RegistrySimulator() as first, RegistrySimulator() as second:
        second.add_image("a/b", "1", SAMPLE)
        yield Surroundings(tmp_path, command, first, second)


@pytest.mark.root
@pytest.mark.parametrize("mode", ["permissive", "disabled"])
async def test_without_a_terminal_all_are_tried(surroundings: Surroundings, mode: str) -> None:
    surroundings.configure(mode)
    ended = await surroundings.run("pull", "-q", "a/b:1")
    assert (ended.code, ended.out, ended.err) == (0, f"{SAMPLE.id}\n", "")
    assert await surroundings.names() == [f"{surroundings.second.address}/a/b:1"]
    assert not surroundings.recorded.exists()


@pytest.mark.root
async def test_enforcing_without_a_terminal_is_64(surroundings: Surroundings) -> None:
    surroundings.configure("enforcing")
    ended = await surroundings.run("pull", "a/b:1")
    assert (ended.code, ended.out) == (64, "")
    for registry in (surroundings.first, surroundings.second):
        assert f"{registry.address}/a/b:1" in ended.err
        assert not registry.requests
    assert not surroundings.command.root.exists()


@pytest.mark.root
@pytest.mark.parametrize("mode", ["enforcing", "permissive"])
async def test_a_choice_is_recorded_once_it_was_pulled(surroundings: Surroundings, mode: str) -> None:
    surroundings.configure(mode)
    code, shown = await surroundings.answer(b"1\n", "pull", "-q", "a/b:1")
    assert (code, surroundings.recorded.exists()) == (2, False)
    for registry in (surroundings.first, surroundings.second):
        assert f"{registry.address}/a/b:1" in shown
    code, shown = await surroundings.answer(b"3\n2\n", "pull", "-q", "a/b:1")
    assert code == 0, shown
    assert surroundings.recorded.read_text() == f'[aliases]\n  "a/b" = "{surroundings.second.address}/a/b"\n'
    asked = len(surroundings.first.requests)
    ended = await surroundings.run("pull", "-q", "a/b:1")
    assert (ended.code, ended.out) == (0, f"{SAMPLE.id}\n")
    assert len(surroundings.first.requests) == asked


@pytest.mark.root
async def test_a_plan_records_nothing(surroundings: Surroundings) -> None:
    surroundings.configure("permissive")
    code, shown = await surroundings.answer(b"2\n", "plan", "a/b:1")
    assert code == 0, shown
    assert f"{surroundings.second.address}/a/b:1" in shown
    assert not surroundings.recorded.exists()


@pytest.mark.root
async def test_where_nothing_can_be_recorded_the_pull_is_good(surroundings: Surroundings) -> None:
    surroundings.configure("permissive")
    surroundings.recorded.parent.parent.write_text("a file in the way")
    code, shown = await surroundings.answer(b"2\n", "pull", "-q", "a/b:1")
    assert code == 0
    assert "was not recorded" in shown
    assert await surroundings.names() == [f"{surroundings.second.address}/a/b:1"]
