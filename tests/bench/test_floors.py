"""The floors do the work that they are said to do."""

from __future__ import annotations

import subprocess
import time
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


@pytest.mark.skipif(len(find_floors()) < 3, reason="needs the programs curl, igzip, tar and openssl")
def test_the_floor_that_hashes_has_both_digests(tmp_path: Path) -> None:
    layer = build_layer(ManyFiles(60), (), tmp_path / "layer", "gzip")

    script = tar_script([(layer.path.as_uri(), layer.compression)], tmp_path, hashing=True)
    subprocess.run(["bash", "-c", script], check=True)

    assert sum(path.is_file() for path in (tmp_path / "rootfs-0").rglob("*")) == layer.files
    for name, digest in (("blob-0", layer.digest), ("diff-0", layer.diff_id)):
        for _ in range(500):  # bash does not wait for them
            if (tmp_path / name).stat().st_size:
                break
            time.sleep(0.01)
        assert f"sha256:{(tmp_path / name).read_text().split()[0]}" == digest
