"""Layers for measuring: a recipe becomes a tar, compressed and hashed while it is written to disk."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

import zstandard

from bench.inputs import opened
from bench.recipes import BigFiles, DeepDirectories, HardLinks, ManyFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import IO

    from _typeshed import ReadableBuffer

    from bench.inputs import Input
    from bench.recipes import Recipe

MiB = 1 << 20
MADE = 1_700_000_000
"""Modification time of everything generated, in seconds."""

Compression = Literal["gzip", "zstd"]
_LEVEL = {"gzip": 6, "zstd": 3}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer on disk. ``size`` and ``digest`` are those of the compressed file, the rest is about the tar in it.

    ``files`` are the regular ones; ``stand_ins`` names packages that could not be had, and so are not in it.
    """

    path: Path
    digest: str
    size: int
    diff_id: str
    unpacked_size: int
    entries: int
    files: int
    compression: Compression = "gzip"
    stand_ins: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"path": self.path.name}


def build_layer(recipe: Recipe, inputs: Sequence[Input], path: Path, compression: Compression = "gzip") -> Layer:
    """Write the layer that ``recipe`` describes, made of ``inputs`` if it is one of packages, to ``path``."""
    with _writer(path, compression) as writer:
        match recipe:
            case BigFiles(count, size, seed):
                writer.directory("srv")
                for number in range(count):
                    writer.file(f"srv/model-{number}.bin", library_like(1000 * seed + number, size))
            case ManyFiles(count, seed):
                _add_many_files(writer, count, seed)
            case DeepDirectories(chains, depth, seed):
                _add_deep_directories(writer, chains, depth, seed)
            case HardLinks(files, names, seed):
                _add_hard_links(writer, files, names, seed)
            case _:
                for each in inputs:
                    _add_package(writer, each)
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


class _Compressor(Protocol):
    def compress(self, data: memoryview[int], /) -> bytes: ...
    def flush(self) -> bytes: ...


def _compressor(compression: Compression) -> _Compressor:
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=_LEVEL["zstd"]).compressobj()
    return zlib.compressobj(_LEVEL["gzip"], zlib.DEFLATED, 31)


class _LayerWriter(io.RawIOBase):
    """A tar that is compressed and hashed as it is written."""

    def __init__(self, path: Path, out: io.BufferedWriter, compression: Compression) -> None:
        super().__init__()
        self._path, self._out, self._compression = path, out, compression
        self._packer = _compressor(compression)
        self._blob, self._diff = hashlib.sha256(), hashlib.sha256()
        self._size = self._unpacked = self._entries = self._files = 0
        self._seen: set[str] = set()
        self.archive: tarfile.TarFile | None = None
        self.stand_ins: list[str] = []

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
        counts = (self._unpacked, self._entries, self._files)
        return Layer(self._path, digest, self._size, diff_id, *counts, self._compression, tuple(self.stand_ins))

    def directory(self, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, MADE
        self.add(info)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), mode, MADE
        self.add(info, io.BytesIO(data))

    def hard_link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode, info.mtime = tarfile.LNKTYPE, target, 0o644, MADE
        self.add(info)

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
        self._files += info.isreg()
        info.name, info.uname, info.gname = name, "", ""
        if info.islnk():
            info.linkname = info.linkname.removeprefix("./")
        self.archive.addfile(info, data)

    def _store(self, data: bytes) -> None:
        self._blob.update(data)
        self._size += len(data)
        self._out.write(data)


@contextmanager
def _writer(path: Path, compression: Compression) -> Iterator[_LayerWriter]:
    with path.open("wb") as out:
        writer = _LayerWriter(path, out, compression)
        with tarfile.open(fileobj=writer, mode="w|", bufsize=MiB, format=tarfile.PAX_FORMAT) as archive:
            writer.archive = archive
            yield writer
        writer.close_stream()


def _add_package(writer: _LayerWriter, package: Input) -> None:
    if package.path is None:
        _add_stand_in(writer, package)
        return
    with opened(package) as members:
        for info, data in members:
            if not info.mtime:  # wheels and npm packages: what installs them gives the time
                writer.parents(info.name)
                info.mtime = MADE
            writer.add(info, data)


def _add_stand_in(writer: _LayerWriter, package: Input) -> None:
    """Add as many files as the package has, of as many bytes; the first has half of them, as packages often do."""
    writer.stand_ins.append(package.name)
    count, size = max(1, package.pin.files), package.pin.size
    rest = size // 2 // max(1, count - 1)
    stock = library_like(int(package.pin.sha256[:8], 16), max(size - rest * (count - 1), rest))
    for number in range(count):
        name = f"opt/stand-in/{package.pin.sha256[:12]}/part-{number // 50}/file-{number}"
        writer.parents(name)
        writer.file(name, stock[: rest if number else size - rest * (count - 1)])


def _add_many_files(writer: _LayerWriter, count: int, seed: int) -> None:
    chance = random.Random(seed)
    stock = library_like(seed, 4 * MiB)
    for number in range(count):
        name = f"app/node_modules/package-{number // 500}/lib-{number // 50 % 10}/module-{number}.js"
        if number % 50 == 0:
            writer.parents(name)
        start, size = chance.randrange(len(stock) - 8_192), chance.randrange(8_192)
        writer.file(name, stock[start : start + size])


def _add_deep_directories(writer: _LayerWriter, chains: int, depth: int, seed: int) -> None:
    stock = library_like(seed, MiB)
    for chain in range(chains):
        place = f"deep/chain-{chain}"
        writer.parents(f"{place}/file")
        for level in range(depth):
            place += f"/level-{level}"
            writer.directory(place)
            start = (chain * depth + level) * 1_000 % (MiB - 1_000)
            writer.file(f"{place}/file", stock[start : start + 1_000])


def _add_hard_links(writer: _LayerWriter, files: int, names: int, seed: int) -> None:
    chance = random.Random(seed)
    stock = library_like(seed, 4 * MiB)
    for number in range(files):
        first = f"store/content/{number % 100:02}/file-{number}"
        writer.parents(first)
        start, size = chance.randrange(len(stock) - 32_768), chance.randrange(32_768)
        writer.file(first, stock[start : start + size])
        for other in range(1, names):
            name = f"store/view-{other}/{number % 100:02}/file-{number}"
            writer.parents(name)
            writer.hard_link(name, first)
