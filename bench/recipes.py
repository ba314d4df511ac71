"""What layers to measure with are made of: packages of three kinds, pinned by hash, and files that are generated.

Packages bring the owners, modes, directories and mixture of sizes that real layers have; generated files stand for what
no package has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packages:
    """A layer of Debian packages, each unpacked as dpkg would, without its scripts."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wheels:
    """A layer of Python packages, each named with its version: ``numpy==2.2.6``."""

    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Modules:
    """A layer of npm packages, each named with its version: ``typescript@5.8.3``."""

    names: tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class DeepDirectories:
    """A layer of ``chains`` directories one in another, ``depth`` of them each, with a file of 1 KB in every one."""

    chains: int
    depth: int
    seed: int = 11


@dataclass(frozen=True, slots=True)
class HardLinks:
    """A layer of ``files`` of up to 32 KB that have ``names`` each, in directories of their own."""

    files: int
    names: int
    seed: int = 13


Recipe = Packages | Wheels | Modules | BigFiles | ManyFiles | DeepDirectories | HardLinks
