"""``asyncpull sync``: registries, directories and files that name images; each beside what skopeo makes of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.docker_registry import docker_registry, is_installed
from tests.support.images import image, index, noise, write_directory
from tests.support.registry_simulator import RegistrySimulator
from tests.support.tars import file, tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Command
    from tests.support.docker_registry import Registry

ONE = image([tar([file("one", noise(1, 50_000))])], comment="one")
TWO = image([tar([file("two", b"two")])], comment="two")
BOTH = index([ONE, image([tar([file("arm", b"arm")])], architecture="arm64")])

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "registry") as running:
        for tag, target in (("1.0", ONE), ("1.1", TWO), ("both", BOTH)):
            running.push("group/app", tag, target)
        running.push("group/other", "latest", TWO)
        yield running


def held(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, but for the note of who made it."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_repository_becomes_directories_as_skopeo_makes_them(
    command: Command, registry: Registry, tmp_path: Path
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    source = f"{registry.address}/group/app"
    for scoped in ([], ["--scoped"]):
        name = "scoped" if scoped else "plain"
        ours, theirs = tmp_path / f"ours-{name}", tmp_path / f"theirs-{name}"
        options = ["sync", "--src", "docker", "--dest", "dir", "--all", *scoped]
        ended = command(*options, "--src-tls-verify=false", source, str(ours))
        assert (ended.code, ended.out) == (0, "")
        subprocess.run(
            ["skopeo", *options, "--src-tls-verify=false", source, str(theirs)], check=True, capture_output=True
        )
        assert held(ours) == held(theirs)
        assert len(held(ours)) > 10


def test_directories_become_a_repository(command: Command, registry: Registry, tmp_path: Path) -> None:
    source = f"{registry.address}/group/app"
    command("sync", "-s", "docker", "-d", "dir", "-a", "--src-tls-verify=false", source, str(tmp_path / "d"))
    digests = tmp_path / "digests"
    ended = command(
        "sync", "-s", "dir", "-d", "docker", "--all", "--dest-tls-verify=false", "--append-suffix=-new",
        "--digestfile", str(digests), "--json", str(tmp_path / "d"), f"{registry.address}/copied",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    expected = {tag: target.manifest.digest for tag, target in (("1.0", ONE), ("1.1", TWO))}
    expected["both"] = BOTH.manifest.digest
    assert {each["destination"]: each["digest"] for each in ended.json()} == {
        f"docker://{registry.address}/copied/app:{tag}-new": digest for tag, digest in expected.items()
    }
    assert sorted(digests.read_text().splitlines()) == sorted(
        f"{digest} docker://{registry.address}/copied/app:{tag}-new" for tag, digest in expected.items()
    )
    # One image alone is called as its directory is.
    ended = command(
        "sync", "-s", "dir", "-d", "docker", "--dest-tls-verify=false", str(tmp_path / "d" / "app:1.0"),
        f"{registry.address}/alone",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    read = command("--tls-verify=false", "digest", f"docker://{registry.address}/alone/app:1.0")
    assert read.out.strip() == ONE.manifest.digest


def test_what_is_there_is_not_copied_again(command: Command, registry: Registry) -> None:
    arguments = ["sync", "-s", "docker", "-d", "docker", "--tls-verify=false", "--json"]
    places = [f"{registry.address}/group/app", f"{registry.address}/mirror"]
    for options in (["--all"], []):
        first = command(*arguments, *options, *places)
        assert first.code == 0, first.err
        seen = len(registry.requests())
        second = command(*arguments, *options, *places)
        assert second.code == 0, second.err
        later = registry.requests()[seen:]
        pushed = [line for line in later if line.startswith("PUT")]
        assert not pushed
        assert {each["bytes_copied"] for each in second.json()} == {0}
        assert {each["digest"] for each in first.json()} == {each["digest"] for each in second.json()}


def test_a_file_names_images_of_registries(command: Command, registry: Registry, tmp_path: Path) -> None:
    listed = tmp_path / "sync.yml"
    listed.write_text(
        json.dumps(  # which is YAML too
            {
                registry.address: {
                    "tls-verify": False,
                    "images": {"group/other": []},
                    "images-by-semver": {"group/app": ">=1.1"},
                    "images-by-tag-regex": {"group/none": "x"},
                }
            }
        )
    )
    target = str(tmp_path / "out")
    ended = command("sync", "-s", "yaml", "-d", "dir", str(listed), target)
    assert (ended.code, ended.out) == (2, "")
    assert "group/none" in ended.err
    ended = command("sync", "-s", "yaml", "-d", "dir", "--keep-going", "--dry-run", str(listed), target)
    assert ended.code == 2
    assert ended.out.splitlines() == [
        f"docker://{registry.address}/group/other:latest dir:{target}/other:latest",
        f"docker://{registry.address}/group/app:1.1 dir:{target}/app:1.1",
    ]
    assert not (tmp_path / "out").exists()
    ended = command("sync", "-s", "yaml", "-d", "dir", "--keep-going", str(listed), target)
    assert ended.code == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["app:1.1", "other:latest"]
    before = held(tmp_path / "out")
    ended = command("sync", "-s", "yaml", "-d", "dir", str(listed), target)  # nothing is overwritten
    assert ended.code != 0
    assert held(tmp_path / "out") == before


async def test_one_failure_stops_all_or_is_told_at_the_end(command: Command, tmp_path: Path) -> None:
    async with RegistrySimulator() as registry:
        for tag, target in (("a", ONE), ("b", TWO)):
            registry.add_image("x/y", tag, target)
        registry.add_manifest("x/y", "bad", b"{", "application/vnd.oci.image.manifest.v1+json")
        arguments = ["sync", "-s", "docker", "-d", "dir", "--tls-verify=false", f"{registry.address}/x/y"]
        ended = await asyncio.to_thread(command, *arguments, "--keep-going", str(tmp_path / "all"))
        assert ended.code == 65
        assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["y:a", "y:b"]
        ended = await asyncio.to_thread(command, *arguments, str(tmp_path / "stopped"))
        assert ended.code == 65
        ended = await asyncio.to_thread(command, *arguments[:-1], f"{registry.address}/no/such", str(tmp_path / "no"))
        assert (ended.code, (tmp_path / "no").exists()) == (2, False)


def test_what_a_repository_has_is_not_sent_to_another_one(command: Command, registry: Registry, tmp_path: Path) -> None:
    arguments = ["sync", "-s", "dir", "-d", "docker", "--dest-tls-verify=false", "--json", str(tmp_path)]
    write_directory(tmp_path / "app:1", TWO)
    moved = []
    for namespace in ("first", "second"):
        ended = command(*arguments, f"{registry.address}/{namespace}")
        assert ended.code == 0, ended.err
        moved += [each["bytes_copied"] for each in ended.json()]
    assert moved[0] > 0 == moved[1]


def test_a_directory_that_is_there_or_is_not(command: Command, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "out" / "other:latest").mkdir(parents=True)
    source = f"{registry.address}/group/other"
    ended = command("sync", "-s", "docker", "-d", "dir", "--tls-verify=false", source, str(tmp_path / "out"))
    assert (ended.code, held(tmp_path / "out")) == (73, {})
    ended = command("sync", "-s", "dir", "-d", "docker", str(tmp_path / "none"), f"{registry.address}/copied")
    assert (ended.code, ended.out) == (2, "")
    assert str(tmp_path / "none") in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-s", "dir", "-d", "dir", "{}", "x"],
        ["-s", "oci", "-d", "dir", "{}", "x"],
        ["-s", "dir", "-d", "oci", "{}", "x"],
        ["-s", "yaml", "-d", "dir", "{}/missing.yml", "x"],
        ["-s", "dir", "{}", "x"],
        ["-s", "docker", "-d", "dir", "UPPER", "x"],
    ],
)
def test_what_cannot_be_meant(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "app:1").mkdir()
    (tmp_path / "app:1" / "manifest.json").write_bytes(ONE.manifest.data)
    ended = command("sync", *(argument.format(tmp_path) for argument in arguments))
    assert (ended.code, ended.out) == (64, "")
