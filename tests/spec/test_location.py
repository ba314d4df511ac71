"""Locations: every transport's form, and that what was parsed is printed as it was written."""

from __future__ import annotations

import pytest

from asyncpull.errors import InvalidReferenceError
from asyncpull.spec.digest import Digest
from asyncpull.spec.location import (
    DaemonLocation,
    DirectoryLocation,
    DockerArchiveLocation,
    LayoutArchiveLocation,
    LayoutLocation,
    Location,
    RegistryLocation,
    SifLocation,
    StorageLocation,
    TarballLocation,
    parse_location,
)
from asyncpull.spec.reference import parse_reference

SHA = "sha256:" + "ab" * 32
BUSYBOX = parse_reference("docker.io/library/busybox:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker://alpine", RegistryLocation("alpine")),
        (f"docker://localhost:5000/a/b@{SHA}", RegistryLocation(f"localhost:5000/a/b@{SHA}")),
        ("oci:/a/b", LayoutLocation("/a/b")),
        ("oci:b:v1.2", LayoutLocation("b", "v1.2")),
        ("oci:b:docker.io/library/busybox:1", LayoutLocation("b", "docker.io/library/busybox:1")),
        ("oci:b:@3", LayoutLocation("b", None, 3)),
        ("oci-archive:a.tar", LayoutArchiveLocation("a.tar")),
        ("oci-archive:a.tar:x", LayoutArchiveLocation("a.tar", "x")),
        ("oci-archive:a.tar:@0", LayoutArchiveLocation("a.tar", None, 0)),
        ("dir:/a:b", DirectoryLocation("/a:b")),
        ("docker-archive:a.tar", DockerArchiveLocation("a.tar")),
        ("docker-archive:a.tar:docker.io/library/busybox:1", DockerArchiveLocation("a.tar", BUSYBOX)),
        ("docker-archive:/dev/stdin:@1", DockerArchiveLocation("/dev/stdin", None, 1)),
        ("docker-daemon:docker.io/library/busybox:1", DaemonLocation(BUSYBOX)),
        (f"docker-daemon:{SHA}", DaemonLocation(None, Digest.parse(SHA))),
        ("containers-storage:busybox", StorageLocation("busybox")),
        ("containers-storage:[/r]x", StorageLocation("x", "", "/r")),
        (
            "containers-storage:[overlay@/r+/run:overlay.sync=none,a=b]x:1",
            StorageLocation("x:1", "overlay", "/r", "/run", ("overlay.sync=none", "a=b")),
        ),
        ("tarball:a.tar:-", TarballLocation(("a.tar", "-"))),
        ("sif:a.sif", SifLocation("a.sif")),
    ],
)
def test_parse(text: str, expected: Location) -> None:
    parsed = parse_location(text)
    assert parsed == expected
    assert str(parsed) == text


@pytest.mark.parametrize("text", ["alpine", "alpine:3.20", "docker:dind", "localhost:5000/x", f"quay.io/a/b@{SHA}"])
def test_without_a_transport_it_is_a_reference(text: str) -> None:
    parsed = parse_location(text)
    assert parsed == RegistryLocation(text)
    assert parsed.reference == parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker://",
        "docker://UPPER",
        "oci:",
        "oci::x",
        "oci:a:",
        "oci:a:@",
        "oci:a:@-1",
        "oci:a:@1x",
        "oci:a:-x",
        "oci:a:x y",
        "oci:a\0b",
        "dir:\0",
        "oci-archive:a:../x:",
        "docker-archive:",
        "docker-archive:a:UPPER",
        f"docker-archive:a:busybox@{SHA}",
        f"docker-daemon:busybox:1@{SHA}",
        "docker-daemon:sha256:../../x",
        "docker-daemon:sha256:ab",
        "containers-storage:[]x",
        "containers-storage:[relative]x",
        "containers-storage:[overlay@/r",
        "tarball:a::b",
        "ostree:x@/y",
        "ftp://x",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_location(text)
