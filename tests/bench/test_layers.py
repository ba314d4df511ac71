"""Layers to measure with are the same bytes on every run, and what their records say of them is true."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from bench.layers import build_layer, library_like
from bench.recipes import BigFiles, DeepDirectories, HardLinks, ManyFiles, Recipe

if TYPE_CHECKING:
    from pathlib import Path

RECIPES = [BigFiles(2, 100_000), ManyFiles(60), DeepDirectories(2, 9), HardLinks(7, 3)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_layer_is_what_its_record_says(tmp_path: Path, recipe: Recipe) -> None:
    layer = build_layer(recipe, (), tmp_path / "layer.tar.gz")

    blob = layer.path.read_bytes()
    unpacked = gzip.decompress(blob)
    assert (layer.digest, layer.size) == (f"sha256:{hashlib.sha256(blob).hexdigest()}", len(blob))
    assert (layer.diff_id, layer.unpacked_size) == (f"sha256:{hashlib.sha256(unpacked).hexdigest()}", len(unpacked))
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        names = archive.getnames()
        files = sum(member.isreg() for member in archive)
    assert len(names) == len(set(names)) == layer.entries
    assert files == layer.files


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path, recipe: Recipe) -> None:
    first, second = (build_layer(recipe, (), tmp_path / name) for name in ("first", "second"))

    assert first.digest == second.digest


def test_zstd_holds_the_same_tar(tmp_path: Path) -> None:
    one = build_layer(ManyFiles(60), (), tmp_path / "one")
    other = build_layer(ManyFiles(60), (), tmp_path / "other", "zstd")

    assert (other.diff_id, other.unpacked_size) == (one.diff_id, one.unpacked_size)
    with zstandard.ZstdDecompressor().stream_reader(other.path.read_bytes()) as reader:
        assert f"sha256:{hashlib.sha256(reader.read()).hexdigest()}" == other.diff_id


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_every_directory_has_an_entry_before_what_is_in_it(tmp_path: Path, recipe: Recipe) -> None:
    layer = build_layer(recipe, (), tmp_path / "layer.tar.gz")

    seen: set[str] = set()
    with tarfile.open(layer.path) as archive:
        for member in archive:
            parent = member.name.rpartition("/")[0]
            assert not parent or parent in seen
            seen.add(member.name)


def test_big_files_compress_as_shared_libraries_do() -> None:
    data = library_like(1, 1_000_000)

    assert len(data) == 1_000_000
    assert 0.25 < len(gzip.compress(data)) / len(data) < 0.5
    assert data == library_like(1, 1_000_000)
    assert data != library_like(2, 1_000_000)
