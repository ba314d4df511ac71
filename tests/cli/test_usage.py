"""What was typed: options on both sides of the verb, and 64 for what cannot be meant."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncpull import __version__
from asyncpull.cli import main
from asyncpull.cli.settings import Session, spell_out_booleans

if TYPE_CHECKING:
    from tests.support.command import Command


@pytest.mark.parametrize(
    "arguments",
    [
        ["explode"],
        ["--no-such-option"],
        ["pull"],
        ["pull", "--no-such-option", "x"],
        ["pull", "lower/UPPER"],
        ["pull", "good", "bad reference"],
        ["pull", "oci:layout:name"],
        ["plan", "containers-storage:name"],
        ["pull", "--pull", "sometimes", "x"],
        ["pull", "--max-parallel-downloads", "0", "x"],
        ["pull", "--platform", "linux", "x"],
        ["digest", "--tls-verify=perhaps", "x"],
        ["digest"],
        ["digest", "x", "y"],
        ["inspect", "--raw", "--config", "x"],
        ["--progress", "dance", "images"],
        ["--storage-driver", "zfs", "images"],
        ["--storage-opt", "no-value", "images"],
        ["unmount"],
        ["unmount", "--all", "x"],
        ["tag", "x"],
    ],
)
def test_usage_errors_are_64(command: Command, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["--root", str(command.root), "--runroot", str(command.run_root), *arguments]) == 64
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("asyncpull: ")
    assert len(written.err.splitlines()) <= 2
    assert not command.root.exists()


def test_the_exit_code_is_that_of_the_process(command: Command) -> None:
    assert command("explode").code == 64


def test_without_a_verb_there_is_help_and_64(command: Command) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "asyncpull"], env=command.environment(), capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (64, b"")
    assert b"Usage: asyncpull" in ended.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["pull", "--help"], ["images", "-h"]])
def test_help_is_a_result(command: Command, arguments: list[str]) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Usage: asyncpull")


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    verbs = capsys.readouterr().out.split("Verbs:\n")[1].splitlines()
    names = [line.split()[0] for line in verbs if line.startswith("  ") and not line.startswith("   ")]
    assert {"pull", "info", "images", "layers", "containers", "inspect", "digest"} <= set(names)
    assert {"create", "mount", "unmount", "rm", "rmi", "tag", "untag", "unshare"} <= set(names)
    for name in names:
        assert main([name, "--help"]) == 0, name
        assert capsys.readouterr().out.startswith(f"Usage: asyncpull {name} ")


def test_version(command: Command) -> None:
    ended = command("--version")
    assert (ended.code, ended.out) == (0, f"asyncpull {__version__}\n")


def test_the_version_is_told_without_importing_what_it_does_not_need(command: Command) -> None:
    script = "import sys; from asyncpull.cli import main; main(['--version']); print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], env=command.environment(), capture_output=True, text=True, check=True
    )
    dear = {"aiohttp", "asyncio", "asyncpull.pull", "asyncpull.store.store", "orjson", "rich", "structlog", "uvloop"}
    assert not dear & set(ended.stdout.split())


def test_an_optional_boolean_takes_its_value_only_by_an_equals_sign() -> None:
    assert spell_out_booleans(["--tls-verify", "x/y", "--tls-verify=false", "--", "--tls-verify"]) == [
        "--tls-verify=true",
        "x/y",
        "--tls-verify=false",
        "--",
        "--tls-verify",
    ]


def test_repeated_options_add_up_and_others_are_replaced() -> None:
    session = Session()
    session.set("storage_options", ("a=1",))
    session.set("storage_options", ("b=2", "c=3"))
    session.set("root", "/a")
    session.set("root", "/b")
    assert (session.settings.storage_options, session.settings.root) == (("a=1", "b=2", "c=3"), "/b")


def test_options_stand_before_and_after_the_verb(command: Command) -> None:
    assert command("--json", "images").json() == []
    assert command("images", "--json").json() == []
    other = command.directory / "other"
    assert command("info", "--root", str(other), "--json").code == 0
    assert other.exists()


def test_a_traceback_only_when_asked_for(command: Command) -> None:
    for options, there in ([], False), (["--log-level", "debug"], True):
        ended = command(*options, "mount", "nothing")
        assert ended.code == 2
        assert ("Traceback" in ended.err) is there


def test_an_unknown_log_format_is_refused_and_json_is_one_object_per_line(command: Command) -> None:
    assert command("--log-format", "xml", "images").code == 64
    ended = command("--log-format", "json", "--log-level", "debug", "images")
    assert ended.code == 0
    assert all(isinstance(event, dict) for event in ended.events())
    assert ended.out.startswith("REPOSITORY")
