"""What is allowed and seldom, copied to the bit by the command between everything that can hold it."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command
from tests.support.odd_images import ODD, assert_holds, write_layout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.docker_registry import Registry

FULL = bool(os.environ.get("ASYNCPULL_TEST_FULL"))
NAMES = (
    ODD if FULL else ["sha512", "an empty blob", "an index of nothing", "no layers", "unknown fields", "all of them"]
)

# Each transport is once a source and once a destination; or each comes before each.
WAY = ["oci", "docker", "oci-archive", "dir", "oci"]
FULL_WAY = ["oci", "docker", "oci-archive", "dir", "oci", "oci-archive", "docker", "dir", "docker", "oci", "dir"]
FULL_WAY += ["oci-archive", "oci"]


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_stays(registry: Registry, tmp_path: Path, name: str) -> None:
    command, target = Command(tmp_path), ODD[name]
    write_layout(tmp_path / "first", "odd", target)
    places = [f"oci:{tmp_path}/first:odd"]
    for number, transport in enumerate((FULL_WAY if FULL else WAY)[1:]):
        match transport:
            case "docker":
                places.append(f"docker://{registry.address}/odd/{name.replace(' ', '-')}-{number}:1")
            case "dir":
                places.append(f"dir:{tmp_path}/{number}")
            case _:
                places.append(f"{transport}:{tmp_path}/{number}:odd")
    for source, destination in pairwise(places):
        ended = command("copy", "--all", "--tls-verify=false", source, destination)
        assert (ended.code, ended.out) == (0, ""), f"{source} to {destination}: {ended.err}"
        assert_holds(destination, target)
