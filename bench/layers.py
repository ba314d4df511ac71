"""Layers for measuring: of Debian packages, of Python wheels and of generated files, written to disk as gzip.

Packages bring the owners, modes, directories and mixture of sizes that real layers have; generated files stand for what
no package has. Downloads are kept, so that a second run needs no network.
"""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import IO

    from _typeshed import ReadableBuffer

MiB = 1 << 20
MADE = 1_700_000_000
"""Modification time of everything generated, in seconds."""
SITE_PACKAGES = "usr/local/lib/python3.11/site-packages"
_WHEEL_TARGET = [
    "--python-version=3.11",
    "--implementation=cp",
    "--platform=manylinux2014_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux_2_27_x86_64",
    "--platform=manylinux_2_28_x86_64",
]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer on disk. ``size`` and ``digest`` are those of the gzip file, the rest is about the tar in it."""

    path: Path
    digest: str
    size: int
    diff_id: str
    unpacked_size: int
    entries: int

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"path": self.path.name}


@dataclass(frozen=True, slots=True)
class Packages:
    """A layer of Debian packages, each unpacked as dpkg would, without its scripts."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wheels:
    """A layer of Python packages, each named with its version: ``numpy==2.2.6``."""

    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BigFiles:
    """A layer of ``count`` files of ``size`` bytes that compress to a third; others for another ``seed``."""

    count: int
    size: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ManyFiles:
    """A layer of ``count`` files of up to 8 KB each in directories of 50; others for another ``seed``."""

    count: int
    seed: int = 97


Recipe = Packages | Wheels | BigFiles | ManyFiles


def build_layer(recipe: Recipe, sources: Path, path: Path) -> Layer:
    """Write the layer that ``recipe`` describes to ``path``; downloads are kept below ``sources``."""
    with _writer(path) as writer:
        match recipe:
            case Packages(names):
                _add_packages(writer, names, sources / "packages")
            case Wheels(requirements):
                _add_wheels(writer, requirements, sources / "wheels")
            case BigFiles(count, size, seed):
                writer.directory("srv")
                for number in range(count):
                    writer.file(f"srv/model-{number}.bin", library_like(1000 * seed + number, size))
            case ManyFiles(count, seed):
                _add_many_files(writer, count, seed)
    return writer.finish()


def library_like(seed: int, size: int) -> bytes:
    """Return bytes that compress to a third, as shared libraries do: noise, text of 16 values, repetitions.

    Always the same ones.
    """
    chance = random.Random(seed)
    alphabet = bytes(b"etaoinshrdlucmfw"[value % 16] for value in range(256))
    out = bytearray()
    while len(out) < size:
        noise, text = chance.randbytes(12_000), chance.randbytes(24_000).translate(alphabet)
        out += noise + text + text[:4_000] * 9
    del out[size:]
    return bytes(out)


class _LayerWriter(io.RawIOBase):
    """A tar that is compressed and hashed as it is written."""

    def __init__(self, path: Path, out: io.BufferedWriter) -> None:
        super().__init__()
        self._path, self._out = path, out
        self._packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._blob, self._diff = hashlib.sha256(), hashlib.sha256()
        self._size = self._unpacked = self._entries = 0
        self._seen: set[str] = set()
        self.archive: tarfile.TarFile | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Take what tarfile writes."""
        view = memoryview(data)
        self._diff.update(view)
        self._unpacked += len(view)
        self._store(self._packer.compress(view))
        return len(view)

    def close_stream(self) -> None:
        self._store(self._packer.flush())

    def finish(self) -> Layer:
        digest, diff_id = (f"sha256:{each.hexdigest()}" for each in (self._blob, self._diff))
        return Layer(self._path, digest, self._size, diff_id, self._unpacked, self._entries)

    def directory(self, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, MADE
        self.add(info)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), mode, MADE
        self.add(info, io.BytesIO(data))

    def parents(self, name: str) -> None:
        """Add the directories above ``name`` that are not there yet."""
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self.directory(str(parent))

    def add(self, info: tarfile.TarInfo, data: IO[bytes] | None = None) -> None:
        """Add a member, unless there is one of this name: a layer must not have two."""
        if self.archive is None:
            raise RuntimeError("the archive is not open")
        name = info.name.removeprefix("./").rstrip("/")
        if name in {"", "."} or name in self._seen:
            return
        self._seen.add(name)
        self._entries += 1
        info.name, info.uname, info.gname = name, "", ""
        if info.islnk():
            info.linkname = info.linkname.removeprefix("./")
        self.archive.addfile(info, data)

    def _store(self, data: bytes) -> None:
        self._blob.update(data)
        self._size += len(data)
        self._out.write(data)


@contextmanager
def _writer(path: Path) -> Iterator[_LayerWriter]:
    with path.open("wb") as out:
        writer = _LayerWriter(path, out)
        with tarfile.open(fileobj=writer, mode="w|", bufsize=MiB, format=tarfile.PAX_FORMAT) as archive:
            writer.archive = archive
            yield writer
        writer.close_stream()


def _add_packages(writer: _LayerWriter, names: Iterable[str], kept: Path) -> None:
    for name in names:
        command = ["dpkg-deb", "--fsys-tarfile", str(_package(name, kept))]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as unpacker,
            tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive,
        ):
            for info in archive:
                writer.add(info, archive.extractfile(info) if info.isreg() else None)
        if unpacker.returncode != 0:
            raise RuntimeError(f"{command} ended with {unpacker.returncode}")


def _package(name: str, kept: Path) -> Path:
    """Return the file of a package, downloaded if it is not kept already."""
    kept.mkdir(parents=True, exist_ok=True)
    if not list(kept.glob(f"{name}_*.deb")):
        download = ["apt-get", "-q", "download", name]
        if subprocess.run(download, cwd=kept, capture_output=True, check=False).returncode != 0:
            subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)
            subprocess.run(download, cwd=kept, check=True, capture_output=True)
    (found,) = kept.glob(f"{name}_*.deb")
    return found


def _add_wheels(writer: _LayerWriter, requirements: Iterable[str], kept: Path) -> None:
    for requirement in requirements:
        folder = kept / requirement
        if not list(folder.glob("*.whl")):
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary=:all:",
                *_WHEEL_TARGET,
            ]
            subprocess.run([*command, "-d", str(folder), requirement], check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    name = f"{SITE_PACKAGES}/{member.filename}"
                    writer.parents(name)
                    writer.file(name, archive.read(member), member.external_attr >> 16 & 0o777 or 0o644)


def _add_many_files(writer: _LayerWriter, count: int, seed: int) -> None:
    chance = random.Random(seed)
    stock = library_like(seed, 4 * MiB)
    for number in range(count):
        name = f"app/node_modules/package-{number // 500}/lib-{number // 50 % 10}/module-{number}.js"
        if number % 50 == 0:
            writer.parents(name)
        start, size = chance.randrange(len(stock) - 8_192), chance.randrange(8_192)
        writer.file(name, stock[start : start + size])
