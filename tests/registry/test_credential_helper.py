"""The protocol of docker-credential-* programs, spoken with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from asyncpull.errors import AuthenticationError, ConfigurationError
from asyncpull.registry.credential_helper import CredentialHelper
from tests.support.credential_program import credential_program

if TYPE_CHECKING:
    from collections.abc import Callable


def helper(directory: Path, name: str = "one", time_limit: float = 60.0, **environ: str) -> CredentialHelper:
    return CredentialHelper(name, {"PATH": f"{directory}:/usr/bin:/bin", **environ}, time_limit)


def script(directory: Path, text: str, name: str = "one") -> None:
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


async def test_keeping_and_forgetting(tmp_path: Path) -> None:
    kept = credential_program(tmp_path, "one", {})
    program = helper(tmp_path, MARK="passed on")
    assert await program.get("quay.io") is None
    assert await program.erase("quay.io") is False
    await program.store("quay.io", "me", 'sec"ret\n')
    assert await program.get("quay.io") == ("me", 'sec"ret\n')
    assert await program.list() == {"quay.io": "me"}
    assert await program.erase("quay.io") is True
    assert await program.list() == {}
    assert json.loads(kept.read_text()) == {}
    log = kept.with_name("one.json.log").read_text().splitlines()
    assert log == [f"{action} passed on" for action in ("get", "erase", "store", "get", "list", "erase", "list")]


def test_any_loop_in_any_thread(tmp_path: Path) -> None:
    credential_program(tmp_path, "one", {"quay.io": ("me", "secret")})
    answers: list[object] = []

    def run(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            answers.append(runner.run(helper(tmp_path).get("quay.io")))

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        run(factory)
        thread = threading.Thread(target=run, args=(factory,))
        thread.start()
        thread.join()
    assert answers == [("me", "secret")] * 4


@pytest.mark.parametrize(
    "name", ["", ".", "../one", "one/two", "one two", "-x", "one\n", "one;two", "/bin/sh", "a" * 101, "ö", ".one"]
)
async def test_only_plain_names_are_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name of a credential helper"):
        await helper(tmp_path, name).get("quay.io")


async def test_a_program_that_is_not_there_or_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="docker-credential-one is not installed") as caught:
        await helper(tmp_path).get("quay.io")
    assert caught.value.hint
    script(tmp_path, "exit 0")
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", "bin:."):
        with pytest.raises(ConfigurationError, match="not installed"):
            await CredentialHelper("one", {"PATH": path}).get("quay.io")
    (tmp_path / "docker-credential-one").write_text("#!/no/such/interpreter\n")
    with pytest.raises(ConfigurationError, match="cannot be run: No such file"):
        await helper(tmp_path).get("quay.io")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'the keyring  is locked' >&2; echo 'the keyring  is locked'; exit 1", "code 1: the keyring is locked"),
        ("exit 3", "docker-credential-one get failed with exit code 3"),
        ("kill -9 $$", "docker-credential-one get failed with exit code -9"),
        ("echo no credentials server URL; exit 1", "no credentials server URL"),
        ("echo not JSON", "the answer of docker-credential-one is not JSON"),
        ("echo '[]'", "the answer of docker-credential-one is not an object"),
        ("echo '{\"Username\": 7}'", "the answer of docker-credential-one.Username is not a string"),
        ("exec yes", "says more than 1048576 bytes"),
    ],
)
async def test_programs_that_fail(tmp_path: Path, text: str, message: str) -> None:
    script(tmp_path, text)
    with pytest.raises(AuthenticationError) as caught:
        await helper(tmp_path).get("quay.io")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ['echo \'{"Username": "me", "Secret": "sesame"}\'; exit 1', "cat; exit 1"])
async def test_what_a_failing_program_says_is_not_shown_if_it_may_be_a_secret(tmp_path: Path, text: str) -> None:
    script(tmp_path, text)
    program = helper(tmp_path)
    with pytest.raises(AuthenticationError) as caught:
        await program.get("quay.io")
    assert "sesame" not in str(caught.value)
    with pytest.raises(AuthenticationError) as caught:
        await program.store("quay.io", "me", "sesame")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("text", ["exec sleep 1000", "sleep 5 & echo started", "exec >&-; exec sleep 1000"])
async def test_a_program_that_does_not_end(tmp_path: Path, text: str) -> None:
    script(tmp_path, f"echo $$ >{tmp_path}/pid\n{text}")
    with pytest.raises(AuthenticationError, match=r"did not answer in 1 seconds"):
        await helper(tmp_path, time_limit=1.0).get("quay.io")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


async def test_cancelling_ends_the_program(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script(tmp_path, f"echo $$ >{tmp_path}/fifo\nexec sleep 1000")
    task = asyncio.ensure_future(helper(tmp_path).get("quay.io"))
    pid = (await asyncio.to_thread((tmp_path / "fifo").read_text)).strip()
    assert subprocess.run(["kill", "-0", pid], check=False).returncode == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path("/proc", pid).exists()


async def test_cancelling_before_it_began(tmp_path: Path) -> None:
    kept = credential_program(tmp_path, "one", {})
    task = asyncio.ensure_future(helper(tmp_path).store("quay.io", "me", "secret"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert json.loads(kept.read_text()) == {}
