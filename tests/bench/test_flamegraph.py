"""The flame graph of a pull shows the command, the nursery, and the workers that were forked from it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from bench.flamegraph import main, sampling
from tests.support.docker_registry import is_installed as has_docker_registry
from tests.support.nginx import is_installed as has_nginx


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="samples other processes, which takes root here and there")
@pytest.mark.skipif(not (has_nginx() and has_docker_registry()), reason="needs nginx and docker-registry")
@pytest.mark.skipif(
    shutil.which("py-spy", path=str(Path(sys.executable).parent)) is None, reason="py-spy is not installed"
)
def test_workers_are_in_it(tmp_path: Path) -> None:
    out = tmp_path / "stacks.txt"

    for _ in range(10):  # a worker may have done so small an image between two samples
        main(["tiny", "--out", str(out), "--sources", str(tmp_path / "sources"), "--idle"])
        stacks = out.read_text()
        if "asyncpull/extract/worker.py" in stacks:
            break
    assert "(asyncpull/__main__.py:" in stacks  # not by its arguments, which a process has a moment after it began
    assert "asyncpull/extract/__main__.py" in stacks
    assert "asyncpull/extract/worker.py" in stacks
    assert [path.name for path in (tmp_path / "sources").glob("tmp*")] == []


def test_the_name_says_the_format(tmp_path: Path) -> None:
    assert sampling(Path("a.json"), 100, idle=False, native=True)[-5:] == [
        "speedscope",
        "-o",
        "a.json",
        "--native",
        "--",
    ]
    with pytest.raises(SystemExit, match=r"\.svg, \.json, \.txt"):
        main(["tiny", "--out", str(tmp_path / "a.png")])
