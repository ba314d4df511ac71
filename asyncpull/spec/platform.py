"""Platforms, and the choice of one instance from an index.

An instance fits if its operating system and architecture are the wanted ones and its variant is one that the wanted
variant can run. Variants are tried from the most capable down, as containers/image does: ``arm/v7`` takes v7, v6, v5,
then an instance that names no variant. A platform that names no variant takes an instance without one first, then the
most capable. ``os.version`` and ``os.features`` do not matter on Linux and are only carried along.
"""

from __future__ import annotations

import platform as running
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import NoMatchingPlatformError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.spec.manifest import Descriptor

_VARIANTS = {
    "amd64": ("v4", "v3", "v2", "v1"),
    "arm": ("v8", "v7", "v6", "v5"),
    "arm64": ("v9", "v8"),
}

# What uname says, and people write, for what Go's GOARCH and the specification say.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system, architecture and variant, in Go's words (image-spec, image-index.md)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.os, self.architecture]
        if self.variant:
            parts.append(self.variant)
        return "/".join(parts)


def parse_platform(text: str) -> Platform:
    """Parse ``OS/ARCH[/VARIANT]``; uname's names of architectures are understood. Raises UsageError."""
    parts = text.lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"platform {text!r} is not OS/ARCH[/VARIANT]", "for example linux/amd64 or linux/arm/v7")
    architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    return Platform(parts[0], architecture, parts[2] if len(parts) == 3 else variant)


def host_platform() -> Platform:
    """The platform this process runs on."""
    machine = running.machine().lower()
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform(running.system().lower(), architecture, variant)


def acceptable_variants(wanted: Platform) -> tuple[str, ...]:
    """The variants that ``wanted`` can run, best first."""
    known = _VARIANTS.get(wanted.architecture, ())
    if not wanted.variant:
        return ("", *known)
    if wanted.variant in known:
        return (*known[known.index(wanted.variant) :], "")
    return (wanted.variant, "")


def select_platform(descriptors: Sequence[Descriptor], wanted: Platform) -> Descriptor:
    """The first instance that fits ``wanted`` best; of several alike, the first with layers of zstd.

    An instance that names no platform is taken only if none that does fits. Raises NoMatchingPlatformError, which
    lists what there is.
    """
    fitting: dict[str, Descriptor] = {}
    for descriptor in descriptors:
        has = descriptor.platform
        if has and (has.os, has.architecture) == (wanted.os, wanted.architecture):
            other = fitting.setdefault(has.variant, descriptor)
            if descriptor.is_zstd and not other.is_zstd:
                fitting[has.variant] = descriptor
    for variant in acceptable_variants(wanted):
        if variant in fitting:
            return fitting[variant]
    for descriptor in descriptors:
        if descriptor.platform is None:
            return descriptor
    there = sorted({str(d.platform) for d in descriptors if d.platform and d.platform.os != "unknown"})
    raise NoMatchingPlatformError(
        f"no instance for {wanted}; there is {', '.join(there) or 'none at all'}",
        "choose one with --platform OS/ARCH[/VARIANT]",
    )
