"""Standard streams that were closed, or take nothing: by a shell, as it happens."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image, noise, write_layout
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Command

SAMPLE = image([tar([file("large", noise(1, 300_000))])])


def under(redirection: str, command: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with streams as a shell redirects them."""
    words = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command.arguments, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_copy_needs_no_stream(command: Command, tmp_path: Path, redirection: str) -> None:
    write_layout(tmp_path / "layout", {"1": SAMPLE})
    ended = under(redirection, command, "copy", "-q", f"oci:{tmp_path}/layout:1", f"dir:{tmp_path}/out")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == SAMPLE.manifest.data


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_result_that_cannot_be_told_is_an_error(command: Command, tmp_path: Path, redirection: str) -> None:
    write_layout(tmp_path / "layout", {"1": SAMPLE})
    ended = under(redirection, command, "digest", f"oci:{tmp_path}/layout:1")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (73, 1)
    assert ended.stderr.startswith("asyncpull: stdout: ")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("words", [("--version",), ("--help",), ("pull", "--help")])
def test_help_that_cannot_be_told_is_an_error(command: Command, redirection: str, words: tuple[str, ...]) -> None:
    ended = under(redirection, command, *words)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (73, 1)
    assert ended.stderr.startswith("asyncpull: stdout: ")


def test_an_error_that_nobody_hears_is_one_all_the_same(command: Command, tmp_path: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full"):
        assert under(redirection, command, "digest", f"oci:{tmp_path}/none:1").returncode == 2
