"""The floors do the work that they are said to do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from bench.floors import find_floors, hashes, tar_script
from bench.layers import build_layer
from bench.recipes import ManyFiles

if TYPE_CHECKING:
    from pathlib import Path

    from bench.layers import Compression


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_is_hashed_is_the_layer(tmp_path: Path, compression: Compression) -> None:
    layer = build_layer(ManyFiles(60), (), tmp_path / "layer", compression)

    assert [f"sha256:{each}" for each in hashes(layer.path, compression)] == [layer.digest, layer.diff_id]


@pytest.mark.skipif(len(find_floors()) < 2, reason="needs the programs curl, igzip and tar")
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_all_files_are_there_and_a_failure_is_one(tmp_path: Path, compression: Compression) -> None:
    layer = build_layer(ManyFiles(60), (), tmp_path / "layer", compression)
    there, gone = (layer.path.as_uri(), layer.compression), ((tmp_path / "none").as_uri(), layer.compression)
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()

    done = subprocess.run(["bash", "-c", tar_script([there, there], tmp_path / "good")], check=False)
    failed = subprocess.run(
        ["bash", "-c", tar_script([gone, there], tmp_path / "bad")], capture_output=True, check=False
    )

    assert done.returncode == 0
    for number in range(2):
        assert sum(path.is_file() for path in (tmp_path / "good" / f"rootfs-{number}").rglob("*")) == layer.files
    assert failed.returncode != 0
