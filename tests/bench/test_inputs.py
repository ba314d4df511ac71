"""Inputs are what their pins say, or generated files that stand for them and are named as such."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from bench import inputs
from bench.inputs import Pin, inputs_of, names_of, pins
from bench.layers import build_layer
from bench.recipes import ManyFiles, Modules, Packages, Wheels
from bench.scenarios import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "asyncpull-bench-no-such-package"


def test_everything_that_the_scenarios_name_is_pinned() -> None:
    named = {
        name
        for scenario in SCENARIOS.values()
        for image in scenario.images
        for recipe in image
        for name in names_of(recipe)
    }

    assert named == pins().keys()


def _wheel() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        wheel.writestr("thing/__init__.py", "x = 1\n")
    return out.getvalue()


def _module() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("package/index.js")
        info.size = 6
        archive.addfile(info, io.BytesIO(b"x = 1\n"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("recipe", "data", "path"),
    [
        (Wheels(("thing==1",)), _wheel(), "usr/local/lib/python3.11/site-packages/thing/__init__.py"),
        (Modules(("@team/thing@1",)), _module(), "usr/local/lib/node_modules/@team/thing/index.js"),
    ],
)
def test_a_package_that_is_here_is_unpacked_where_it_would_be(
    tmp_path: Path, recipe: Wheels | Modules, data: bytes, path: str
) -> None:
    (name,) = names_of(recipe)
    (tmp_path / "thing").write_bytes(data)
    known = {name: Pin("thing", "", hashlib.sha256(data).hexdigest(), 1, 6)}

    layer = build_layer(recipe, inputs_of(recipe, tmp_path, known), tmp_path / "layer")

    with tarfile.open(layer.path) as archive:
        found = archive.extractfile(path)
        assert found is not None
        assert found.read() == b"x = 1\n"
    assert (layer.stand_ins, layer.files) == ((), 1)


def test_a_package_with_another_hash_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thing").write_bytes(_wheel())
    monkeypatch.setattr(inputs, "download", lambda *_: None)  # the registry has nothing else either
    recipe = Wheels((f"{NOWHERE}==1",))

    (found,) = inputs_of(recipe, tmp_path, {f"{NOWHERE}==1": Pin("thing", "", "00" * 32, 1, 6)})

    assert found.path is None


def test_a_stand_in_has_as_much_in_it_and_is_named(tmp_path: Path) -> None:
    pin = Pin("gone.deb", "1", "ab" * 32, 120, 500_000)
    gone = inputs.Input(Packages, "gone", pin, None)

    layer = build_layer(Packages(("gone",)), [gone], tmp_path / "layer")
    again = build_layer(Packages(("gone",)), [gone], tmp_path / "again")

    with tarfile.open(layer.path) as archive:
        sizes = [member.size for member in archive if member.isreg()]
    assert (len(sizes), sum(sizes)) == (120, 500_000)
    assert (layer.stand_ins, layer.digest) == (("gone",), again.digest)


def test_what_is_generated_needs_no_inputs(tmp_path: Path) -> None:
    assert inputs_of(ManyFiles(10), tmp_path, {}) == []
