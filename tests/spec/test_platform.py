"""Platform selection: the order of variants, and what is said when nothing fits."""

from __future__ import annotations

import pytest

from asyncpull.errors import NoMatchingPlatformError, UsageError
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.platform import Platform, host_platform, parse_platform, select_platform


def instances(*platforms: str | None) -> list[Descriptor]:
    return [
        Descriptor("m", Digest.of(str(n).encode()), 1, None if text is None else parse_platform(text))
        for n, text in enumerate(platforms)
    ]


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/amd64/v3", ["linux/amd64/v4", "linux/amd64"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm/v7", ["linux/arm/v8", "linux/arm"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/aarch64", ["linux/amd64", "linux/arm64"], 1),
        ("linux/riscv64/weird", ["linux/riscv64", "linux/riscv64/weird"], 1),
        ("windows/amd64", ["linux/amd64", "windows/amd64", "windows/amd64"], 1),
        ("linux/s390x", ["linux/amd64", None], 1),
        ("linux/amd64", [None, "linux/amd64"], 1),
    ],
)
def test_chooses(wanted: str, there: list[str | None], chosen: int) -> None:
    descriptors = instances(*there)
    assert select_platform(descriptors, parse_platform(wanted)) is descriptors[chosen]


def test_nothing_fits() -> None:
    with pytest.raises(
        NoMatchingPlatformError, match="no instance for linux/ppc64le; there is linux/amd64, linux/arm/v7"
    ):
        select_platform(instances("linux/arm/v7", "linux/amd64", "unknown/unknown"), parse_platform("linux/ppc64le"))
    with pytest.raises(NoMatchingPlatformError, match="none at all"):
        select_platform([], parse_platform("linux/ppc64le"))


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"])
def test_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_platform(text)


def test_host_is_a_platform_of_the_specification() -> None:
    host = host_platform()
    assert host.os == "linux"
    assert host.architecture in {"amd64", "arm64", "arm", "386", "riscv64", "s390x", "ppc64le", "loong64"}
    assert str(Platform("linux", "arm", "v7")) == "linux/arm/v7"
