"""The packages that layers are made of: each pinned in ``pins.json`` by version and hash, downloaded once and kept.

What cannot be had any more, or not here, or has another hash than the pin, is replaced by a stand-in of about as many
files and bytes. Results name the stand-ins: digests of images tell that something is different, this tells what.

``python -m bench.inputs`` downloads what the scenarios name and writes the pins of what has none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.recipes import Modules, Packages, Wheels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from bench.recipes import Recipe

PINS = Path(__file__).with_name("pins.json")
_MACHINES = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
_WHEELS = ["--python-version=3.11", "--implementation=cp", *(f"--platform={each}_x86_64" for each in _MACHINES)]
_PIP = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]


@dataclass(frozen=True, slots=True)
class Pin:
    """The file of a package, and how much is in it: ``files`` regular files of ``size`` bytes together."""

    file: str
    version: str
    sha256: str
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Input:
    """A package that a recipe names, its pin, and its file; no ``path``: a stand-in has to do."""

    kind: type[Packages] | type[Wheels] | type[Modules]
    name: str
    pin: Pin
    path: Path | None


def pins() -> dict[str, Pin]:
    """The pins by the names of the packages, as recipes write them."""
    return {name: Pin(**pin) for name, pin in json.loads(PINS.read_text()).items()}


def names_of(recipe: Recipe) -> tuple[str, ...]:
    """The packages that a recipe is made of; none for files that are generated."""
    match recipe:
        case Packages(names) | Wheels(names) | Modules(names):
            return names
    return ()


def inputs_of(recipe: Recipe, kept: Path, known: Mapping[str, Pin]) -> list[Input]:
    """Find the packages of a recipe below ``kept``, download what is not there, and judge all of it by its hash.

    Raises KeyError for what has no pin.
    """
    if not isinstance(recipe, Packages | Wheels | Modules):
        return []
    kept.mkdir(parents=True, exist_ok=True)
    wanted = [(name, known[name]) for name in names_of(recipe)]
    missing = [(name, pin) for name, pin in wanted if not _is(kept / pin.file, pin)]
    if missing:
        download(type(recipe), [(name, pin.version) for name, pin in missing], kept)
    return [
        Input(type(recipe), name, pin, kept / pin.file if _is(kept / pin.file, pin) else None) for name, pin in wanted
    ]


def download(kind: type[Recipe], wanted: Sequence[tuple[str, str]], kept: Path) -> None:
    """Bring packages, each with its version, into ``kept``; what cannot be had is not there afterwards."""
    if kind is Packages:
        words = [f"{name}={version}" if version else name for name, version in wanted]
        for each in [words, *([word] for word in words)]:  # all at once, and where one has gone, one by one
            if _did(["apt-get", "-q", "download", *each], kept) and each is words:
                return
    elif kind is Wheels:
        for name, _ in wanted:
            _did([*_PIP, "--only-binary=:all:", *_WHEELS, "-d", str(kept), name], kept)
    else:
        for name, _ in wanted:
            _did(["npm", "pack", "--silent", "--ignore-scripts", name], kept)


def _did(command: Sequence[str], directory: Path) -> bool:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    except FileNotFoundError:
        return False  # a client that is not installed: its packages cannot be had here
    return done.returncode == 0


def _is(path: Path, pin: Pin) -> bool:
    return path.exists() and _hash(path) == pin.sha256


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def opened(each: Input, root: str = "usr/local/lib") -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]]:
    """Give the members of a package that is here, with their content, at the places where they would be installed."""
    if each.path is None:
        raise ValueError(f"{each.name}: there is only a stand-in")
    if each.kind is Packages:
        command = ["dpkg-deb", "--fsys-tarfile", str(each.path)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as unpacker,
            tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive,
        ):
            yield ((info, archive.extractfile(info) if info.isreg() else None) for info in archive)
        if unpacker.returncode != 0:
            raise RuntimeError(f"{command} ended with {unpacker.returncode}")
    elif each.kind is Wheels:
        with zipfile.ZipFile(each.path) as wheel:
            yield _of_wheel(wheel, f"{root}/python3.11/site-packages")
    else:
        place = f"{root}/node_modules/{each.name.rpartition('@')[0]}"
        with tarfile.open(each.path) as archive:
            yield _of_module(archive, place)


def _of_wheel(wheel: zipfile.ZipFile, place: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    for member in wheel.infolist():
        if not member.is_dir():
            info = tarfile.TarInfo(f"{place}/{member.filename}")
            info.size, info.mode = member.file_size, member.external_attr >> 16 & 0o777 or 0o644
            yield info, io.BytesIO(wheel.read(member))


def _of_module(archive: tarfile.TarFile, place: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    for member in archive:
        if member.isreg():
            info = tarfile.TarInfo(f"{place}/{member.name.partition('/')[2]}")
            info.size, info.mode = member.size, 0o755 if member.mode & 0o100 else 0o644
            yield info, archive.extractfile(member)


def main() -> None:
    """Write the pins of everything that the scenarios name and that has none yet; remove those that nobody names."""
    from bench.scenarios import SCENARIOS

    kept = Path(__file__).with_name(".work") / "inputs"
    kept.mkdir(parents=True, exist_ok=True)
    known = pins() if PINS.exists() else {}
    found: dict[str, Pin] = {}
    _did(["apt-get", "-q", "update"], kept)
    recipes = dict.fromkeys(r for scenario in SCENARIOS.values() for image in scenario.images for r in image)
    for recipe in recipes:
        for name in names_of(recipe):
            if name not in found:
                found[name] = known.get(name) or _pinned(type(recipe), name, kept)
    text = json.dumps({name: asdict(found[name]) for name in sorted(found)}, indent=1)
    PINS.write_text(text + "\n")
    print(f"{len(found)} pins, {len(found.keys() - known.keys())} of them new")


def _pinned(kind: type[Recipe], name: str, kept: Path) -> Pin:
    before = set(os.listdir(kept))
    download(kind, [(name, "")], kept)
    new = set(os.listdir(kept)) - before
    if len(new) != 1:
        raise SystemExit(f"{name}: cannot be downloaded, or is in {kept} already, without a pin")
    path = kept / new.pop()
    version = path.name.split("_")[1].replace("%3a", ":") if kind is Packages else ""
    draft = Pin(path.name, version, _hash(path), 0, 0)
    assert kind in (Packages, Wheels, Modules)
    with opened(Input(kind, name, draft, path)) as members:
        sizes = [info.size for info, _ in members if info.isreg()]
    return Pin(draft.file, version, draft.sha256, len(sizes), sum(sizes))


if __name__ == "__main__":
    main()
