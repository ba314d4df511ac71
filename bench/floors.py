"""What nobody who does the same work can be faster than; programs that do less.

``floor-tar``: ``curl | igzip -dc | tar -x`` for every layer at once, each into a directory of its own, and ``sync -f``
in the end. Nothing is verified, nothing recorded, and whiteouts are files like others. ``floor-sha``: the same, with
both digests of a layer computed on the way, and nothing done with them. ``floor-cpu``: inflate all blobs and hash both
sides of that, from files in the page cache, a layer per thread; nothing is fetched or written.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard
from isal import isal_zlib

from bench.orders import job_of
from bench.scenarios import STORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.layers import Layer
    from bench.measure import Job
    from bench.orders import Order, Peer

FLOORS = ("floor-tar", "floor-sha", "floor-cpu")
_REPOSITORY = Path(__file__).resolve().parent.parent
_PIECE = 256 << 10
_UNPACKERS = {"gzip": "igzip -dc", "zstd": "zstd -dcq"}


@dataclass(frozen=True, slots=True)
class TarFloor:
    """Nothing but fetching, inflating and unpacking, and hashing if that is wanted, by programs in C and assembler."""

    version: str
    name: str = "floor-tar"
    hashing: bool = False
    goals = frozenset((STORE,))

    @contextmanager
    def job(self, order: Order) -> Iterator[Job]:
        urls = {
            layer: f"{repository}/blobs/{layer.digest}"
            for image, repository in zip(order.images, order.repositories, strict=True)
            for layer in image.layers
        }
        blobs = [(url, layer.compression) for layer, url in urls.items()]
        script = tar_script(blobs, order.directory, hashing=self.hashing)
        yield job_of(order, ["bash", "-c", script])


def tar_script(blobs: Sequence[tuple[str, str]], directory: Path, *, hashing: bool = False) -> str:
    """Return what bash is to do: all pipes at once, wait for each, fail if one has failed, sync.

    Digests go to files ``blob-N`` and ``diff-N`` beside ``rootfs-N``.
    """
    lines = ["set -o pipefail", "pids=()"]
    for number, (url, compression) in enumerate(blobs):
        place = shlex.quote(str(directory / f"rootfs-{number}"))
        lines.append(f"mkdir {place}")
        pipe = [
            f"curl -sSf --retry 9 {shlex.quote(url)}",
            _UNPACKERS[compression],
            f"tar -xpf - --numeric-owner -C {place}",
        ]
        if hashing:
            for at, what in ((2, "diff"), (1, "blob")):
                file = shlex.quote(str(directory / f"{what}-{number}"))
                pipe.insert(at, f"tee >(openssl dgst -sha256 -r >{file})")
        lines.append(f"{{ {' | '.join(pipe)}; }} & pids+=($!)")
    lines += ['for pid in "${pids[@]}"; do wait "$pid" || exit 1; done', f"sync -f {shlex.quote(str(directory))}"]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CpuFloor:
    """Nothing but inflating and hashing."""

    version: str
    name: str = "floor-cpu"
    goals = frozenset((STORE,))

    @contextmanager
    def job(self, order: Order) -> Iterator[Job]:
        layers = dict.fromkeys(layer for image in order.images for layer in image.layers)
        paths = [f"{layer.compression}:{layer.path}" for layer in layers]
        yield job_of(order, ["env", f"PYTHONPATH={_REPOSITORY}", sys.executable, "-m", "bench.floors", *paths])


def find_floors() -> list[Peer]:
    """Return the floors that can be run on this machine."""
    found: list[Peer] = [CpuFloor(sys.version.split()[0])]
    if all(shutil.which(program) for program in ("curl", "igzip", "tar", "bash")):
        said = subprocess.run(["igzip", "--version"], capture_output=True, text=True, check=False)
        version = (said.stdout + said.stderr).split()[-1]
        found.insert(0, TarFloor(version))
        if shutil.which("openssl"):
            found.insert(1, TarFloor(version, "floor-sha", hashing=True))
    return found


def hashes(layer: Path, compression: str) -> tuple[str, str]:
    """Return the digests of a blob and of the tar in it, without ``sha256:``."""
    blob, diff = hashlib.sha256(), hashlib.sha256()
    decompress = _decompressor(compression)
    with layer.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            blob.update(piece)
            diff.update(decompress(piece))
    return blob.hexdigest(), diff.hexdigest()


def _decompressor(compression: str) -> Callable[[bytes], bytes]:
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress
    decompress: Callable[[bytes], bytes] = isal_zlib.decompressobj(31).decompress
    return decompress


def same_layers(layers: Sequence[Layer]) -> bool:
    """Whether the floor does the work: what it hashes is what the layers are."""
    return all(
        (f"sha256:{blob}", f"sha256:{diff}") == (layer.digest, layer.diff_id)
        for layer in layers
        for blob, diff in [hashes(layer.path, layer.compression)]
    )


def main() -> None:
    """Inflate and hash the files that are named, ``gzip:PATH`` or ``zstd:PATH``."""
    layers = [argument.partition(":") for argument in sys.argv[1:]]
    with ThreadPoolExecutor(len(layers)) as pool:
        list(pool.map(lambda each: hashes(Path(each[2]), each[0]), layers))


if __name__ == "__main__":
    main()
