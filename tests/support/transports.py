"""Every transport, with images that other tools put there, and with what other tools find there afterwards.

Nothing of asyncpull is used here. skopeo reads what was written: it copies it into a flat directory, whose files are
hashed here.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from typing import TYPE_CHECKING

import zstandard

from tests.support import images
from tests.support.docker_daemon import docker
from tests.support.stores import SharedStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.images import Image, Index
    from tests.support.peers import Peer

    Target = Image | Index

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Kept(IntEnum):
    """What of an image is the same afterwards; each has those before it."""

    DIFF_IDS = 1
    CONFIG = 2
    MANIFEST = 3


GIVEN = {
    "docker": Kept.MANIFEST,
    "oci": Kept.MANIFEST,
    "oci-archive": Kept.MANIFEST,
    "dir": Kept.MANIFEST,
    "containers-storage": Kept.CONFIG,  # it has lost the compressed layers that the manifest speaks of
    "docker-archive": Kept.CONFIG,
    "docker-daemon": Kept.CONFIG,
    "tarball": Kept.DIFF_IDS,  # only layers are put in
}
"""What each transport gives back of an image that was put there."""

HELD = {
    "docker": Kept.MANIFEST,
    "oci": Kept.MANIFEST,
    "oci-archive": Kept.MANIFEST,
    "dir": Kept.MANIFEST,
    "containers-storage": Kept.MANIFEST,
    "docker-archive": Kept.CONFIG,
    "docker-daemon": Kept.CONFIG,
}
"""What each destination can hold of an image that it is given."""


def kept(source: str, destination: str) -> Kept:
    """What is the same after a copy between two transports that was asked for no change."""
    return min(GIVEN[source], HELD[destination])


@dataclass(frozen=True, slots=True)
class Found:
    """An image as skopeo reads it: its exact manifest, its config, and the digests of its layers when unpacked."""

    manifest: bytes
    config: bytes
    diff_ids: tuple[str, ...]


class Yard:
    """A place with something of every transport; ``daemon`` is the host of a dockerd."""

    def __init__(self, peer: Peer, directory: Path, registry: Registry | None = None, daemon: str = "") -> None:
        self.peer, self.directory, self.registry, self.daemon = peer, directory, registry, daemon
        self._numbers = count()

    def place(self, transport: str, name: str) -> str:
        """A location that is not there yet; ``name`` is of small letters and digits."""
        path = self.directory / f"{transport}-{name}"
        match transport:
            case "docker":
                assert self.registry is not None
                return f"docker://{self.registry.address}/yard/{name}:1"
            case "oci" | "oci-archive":
                return f"{transport}:{path}:1"
            case "docker-archive":
                return f"docker-archive:{path}:localhost/yard/{name}:1"
            case "docker-daemon":
                return f"docker-daemon:localhost/yard/{name}:1"
            case "containers-storage":
                return f"containers-storage:[overlay@{path}/root+{path}/run]localhost/yard/{name}:1"
        assert transport == "dir"
        return f"dir:{path}"

    def offer(self, transport: str, name: str, target: Target) -> str:
        """Put an image or an index there, without asyncpull; its location."""
        where = self.place(transport, name) if transport != "tarball" else ""
        path = self.directory / f"{transport}-{name}"
        match transport:
            case "docker":
                assert self.registry is not None
                self.registry.push(f"yard/{name}", "1", target)
            case "oci":
                images.write_layout(path, {"1": target})
            case "oci-archive":  # skopeo would compress layers again, and convert
                images.write_layout(self.directory / f"{path.name}-layout", {"1": target})
                with tarfile.open(path, "w") as archive:
                    archive.add(self.directory / f"{path.name}-layout", ".")
            case "dir":
                images.write_directory(path, target)
            case "tarball":
                assert isinstance(target, images.Image)
                path.mkdir()
                files = [path / f"{number}.tar" for number in range(len(target.layers))]
                for file, layer in zip(files, target.layers, strict=True):
                    file.write_bytes(unpacked(layer.data))
                return f"tarball:{':'.join(map(str, files))}"
            case "containers-storage":
                assert isinstance(target, images.Image)
                store = self.store(name)
                layout = self.offer("oci", f"{name}-for-store", target).split("/")[-1]
                pull = (*store.podman_command, "pull", "--quiet", f"oci:{layout}")  # it makes a name of a path
                self.peer.run("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", self.directory, *pull)
                store.podman("tag", target.id, where.partition("]")[2])
            case "docker-archive":
                self.skopeo("copy", "--quiet", self.offer("oci", f"{name}-for-{transport}", target), where)
            case "docker-daemon":
                _, file_name, tag = self.offer("docker-archive", name, target).split(":", 2)
                self.docker("load", "--quiet", "--input", file_name)
                self.docker("tag", tag, where.removeprefix("docker-daemon:"))
        return where

    def store(self, name: str) -> SharedStore:
        """The store of the location of that name."""
        directory = self.directory / f"containers-storage-{name}"
        directory.mkdir(exist_ok=True)
        return SharedStore(self.peer, directory)

    def options(self, side: str) -> tuple[str, ...]:
        """How a side of a copy is reached, ``src`` or ``dest``: the same options for skopeo and for asyncpull."""
        daemon = (f"--{side}-daemon-host={self.daemon}",) if self.daemon else ()
        return (f"--{side}-tls-verify=false", *daemon)

    def skopeo(self, verb: str, *arguments: str) -> str:
        """Run the peer's skopeo; its standard output."""
        match verb:
            case "copy":
                options = (*self.options("src"), *self.options("dest"))
            case "inspect":
                options = ("--tls-verify=false", *([f"--daemon-host={self.daemon}"] if self.daemon else []))
            case _:
                options = ()
        return self.peer.run("skopeo", "--insecure-policy", verb, *options, *arguments)

    def manifest(self, location: str) -> bytes:
        """The exact manifest or index at a location."""
        return self.skopeo("inspect", "--raw", location).encode()

    def found(self, location: str) -> Found:
        """Read a whole image. Raises CommandError where skopeo cannot."""
        directory = self.directory / f"found-{next(self._numbers)}"
        manifest = self.manifest(location)
        self.skopeo("copy", "--quiet", location, f"dir:{directory}")
        document = json.loads((directory / "manifest.json").read_bytes())
        config = _blob(directory, document["config"]["digest"])
        layers = [_blob(directory, each["digest"]) for each in document["layers"]]
        shutil.rmtree(directory)
        return Found(manifest, config, tuple(images.sha256(unpacked(layer)) for layer in layers))

    def docker(self, *arguments: str | Path) -> str:
        """Run the peer's docker command on the daemon; its standard output."""
        return docker(self.peer, self.daemon, *arguments)


def assert_kept(found: Found, image: Image, what: Kept) -> None:
    """Say that of ``image`` so much was found."""
    assert found.diff_ids == image.diff_ids
    if what >= Kept.CONFIG:
        assert found.config == image.config.data
    if what >= Kept.MANIFEST:
        assert found.manifest == image.manifest.data


def unpacked(layer: bytes) -> bytes:
    """The tar of a layer, whatever it is compressed by."""
    if layer.startswith(_GZIP):
        return gzip.decompress(layer)
    if layer.startswith(_ZSTD):
        return zstandard.ZstdDecompressor().decompressobj().decompress(layer)
    return layer


def _blob(directory: Path, digest: str) -> bytes:
    data = (directory / digest.partition(":")[2]).read_bytes()
    assert images.sha256(data) == digest
    return data
