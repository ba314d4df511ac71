"""``inspect``, ``digest``, ``tags``, ``manifest-digest``: the same answers wherever an image is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image, index, write_directory, write_layout
from tests.support.pulls import layer
from tests.support.registry_simulator import Basic, RegistrySimulator
from tests.support.schema1 import as_schema1, signed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Command

SAMPLE = image([layer("a", 1000), layer("b", 2000)], flavour="docker")
BOTH = index([SAMPLE, image([layer("c", 1000)], architecture="arm64", flavour="docker")], flavour="docker")


@pytest.fixture
def places(command: Command, tmp_path: Path) -> dict[str, str]:
    """The image in places of every kind that has manifests as they were, and in an archive of docker's."""
    write_layout(tmp_path / "layout", {"one": SAMPLE, "both": BOTH})
    write_directory(tmp_path / "directory", SAMPLE)
    found = {
        "oci": f"oci:{tmp_path}/layout:one",
        "dir": f"dir:{tmp_path}/directory",
        "oci-archive": f"oci-archive:{tmp_path}/archive.tar:one",
        "docker-archive": f"docker-archive:{tmp_path}/docker.tar:example.com/a/b:1",
    }
    for kind in ("oci-archive", "docker-archive"):
        copied = command("copy", found["oci"], found[kind])
        assert copied.code == 0, copied.err
    return found


def test_an_image_is_shown_wherever_it_is(command: Command, places: dict[str, str]) -> None:
    for kind, place in places.items():
        told = command("inspect", place).json()
        assert (told["Os"], told["Architecture"], len(told["Layers"])) == ("linux", "amd64", 2)
        assert command("inspect", "--config", place).out.encode() == SAMPLE.config.data
        digest = command("digest", place).out.strip()
        assert digest == told["Digest"]
        if kind != "docker-archive":  # which has layers of its own
            assert digest == SAMPLE.manifest.digest
            assert command("inspect", "--raw", place).out.encode() == SAMPLE.manifest.data


def test_an_instance_is_chosen(command: Command, places: dict[str, str], tmp_path: Path) -> None:
    both = f"oci:{tmp_path}/layout:both"
    assert command("digest", both).out.strip() == BOTH.manifest.digest
    assert command("inspect", "--raw", both).out.encode() == BOTH.manifest.data
    for each, platform in zip(BOTH.images, ("linux/amd64", "linux/arm64"), strict=True):
        assert command("digest", "--platform", platform, both).out.strip() == each.manifest.digest
        assert command("inspect", "--platform", platform, "--raw", both).out.encode() == each.manifest.data


def test_names_in_files_are_listed(command: Command, places: dict[str, str], tmp_path: Path) -> None:
    assert command("tags", f"oci:{tmp_path}/layout").out == "one\nboth\n"
    assert command("tags", f"oci-archive:{tmp_path}/archive.tar").out == "one\n"
    assert command("tags", f"docker-archive:{tmp_path}/docker.tar").out == "example.com/a/b:1\n"
    for place in (places["oci"], places["dir"], "containers-storage:a"):
        assert command("tags", place).code == 64


def test_an_image_is_reached_as_it_is_copied(command: Command, places: dict[str, str], tmp_path: Path) -> None:
    layout, shared = f"oci:{tmp_path}/apart:1", ("--shared-blob-dir", f"{tmp_path}/shared")
    copied = command("copy", "--dest-shared-blob-dir", f"{tmp_path}/shared", places["oci"], layout)
    assert copied.code == 0, copied.err
    assert command("inspect", layout).code == 2
    assert command("inspect", "--config", *shared, layout).out.encode() == SAMPLE.config.data
    assert command("digest", *shared, layout).out.strip() == SAMPLE.manifest.digest
    assert command("tags", *shared, f"oci:{tmp_path}/apart").out == "1\n"
    assert command("verify", *shared, "--insecure-policy", layout).code == 0


async def test_credentials_are_for_one_command(command: Command) -> None:
    async with RegistrySimulator() as registry:
        registry.protection = Basic("user", "secret")
        registry.add_image("a/b", "1", SAMPLE)
        place = f"docker://{registry.address}/a/b:1"
        for verb in ("inspect", "digest", "verify", "tags"):
            name = place.removesuffix(":1") if verb == "tags" else place
            arguments = (verb, "--tls-verify=false", "--insecure-policy", name)
            assert (await asyncio.to_thread(command, *arguments)).code == 77
            ended = await asyncio.to_thread(command, *arguments, "--creds=user:secret")
            assert ended.code == 0, ended.err
            assert "secret" not in ended.out + ended.err


@pytest.mark.parametrize("place", ["oci:{0}/none:1", "dir:{0}/none", "oci-archive:{0}/none", "docker-archive:{0}/none"])
def test_what_is_not_there(command: Command, place: str, tmp_path: Path) -> None:
    for verb in ("inspect", "digest"):
        ended = command(verb, place.format(tmp_path))
        assert (ended.code, ended.out) == (2, "")


def test_the_digest_of_a_file(command: Command, tmp_path: Path) -> None:
    file, plain = tmp_path / "file", as_schema1(SAMPLE)
    for content, digest in ((SAMPLE.manifest.data, SAMPLE.manifest.digest), (plain, None), (signed(plain), None)):
        file.write_bytes(content)
        told = command("manifest-digest", str(file)).out.strip()
        assert told == (digest or command("manifest-digest", str(file), "--json").json()["digest"])
    file.write_bytes(b"\xff")
    ended = command("manifest-digest", str(file))
    assert (ended.code, ended.out) == (65, "")
    assert str(file) in ended.err
    file.write_bytes(plain)
    assert command("manifest-digest", str(file)).out.strip() == told, "a signature is no part of it"
    assert command("manifest-digest", str(tmp_path / "none")).code == 2
