"""The verbs about the store, from pulling the demo image to removing it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from asyncpull.demo.image import REPOSITORY, demo_image
from asyncpull.demo.registry import DemoRegistry
from tests.support.command import Command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.root

ABSENT = "a" * 64


@pytest_asyncio.fixture
async def filled(tmp_path: Path) -> AsyncIterator[tuple[Command, str, str]]:
    """The command on a store with the demo image, the image's name, and its ID."""
    command = Command(tmp_path)
    async with DemoRegistry([demo_image()]) as registry:
        name = f"{registry.domain}/{REPOSITORY}:latest"
        pulled = await asyncio.to_thread(command, "pull", "-q", "--tls-verify=false", name)
    assert pulled.err == ""
    assert pulled.code == 0
    yield command, name, pulled.out.strip()
    command("unmount", "--all", "--force")


def test_listing_an_empty_store(command: Command) -> None:
    for verb in ("images", "layers", "containers"):
        assert command(verb, "--json").json() == []
        assert command(verb, "-q").out == ""
        assert len(command(verb).out.splitlines()) == 1
    assert command("mount").out == "MOUNTED  COUNT  PATH\n"
    assert command("unmount", "--all").code == 0


def test_images(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    assert command("images", "-q").out == f"{image_id}\n"
    (image,) = command("images", "--json").json()
    assert (image["id"], image["names"]) == (image_id, [name])
    assert image["size"] > 14_000_000
    assert (image["shared_size"], image["unique_size"]) == (0, image["size"])
    heading, row = command("images").out.splitlines()
    assert heading.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE", "SHARED", "UNIQUE"]
    assert row.split()[:3] == [name.rpartition(":")[0], "latest", image_id[:12]]
    assert image_id in command("images", "--no-trunc").out


def test_layers_are_chained(filled: tuple[Command, str, str]) -> None:
    command, _, _ = filled
    layers = command("layers", "--json").json()
    assert [layer["parent"] for layer in layers] == [None, *[layer["id"] for layer in layers[:-1]]]
    assert len(command("layers", "-q").out.splitlines()) == len(command("layers").out.splitlines()) - 1 == 5


def test_info(filled: tuple[Command, str, str]) -> None:
    command, _, _ = filled
    status = command("info", "--json").json()
    assert (status["driver"], status["images"], status["layers"]) == ("overlay", 1, 5)
    assert (status["graph_root"], status["run_root"]) == (str(command.root), str(command.run_root))
    assert {"asyncpull", "kernel", "python"} <= set(status["versions"])
    assert status["workers"]["no_new_privs"]
    text = command("info").out
    assert "driver:" in text
    assert "workers confined by:" in text
    assert str(command.root) in text


def test_inspecting_what_is_in_the_store(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    for reference in (name, image_id, image_id[:10]):
        summary = command("inspect", f"containers-storage:{reference}").json()
        assert (summary["Id"], summary["Names"]) == (image_id, [name])
        assert len(summary["Layers"]) == 5
    assert command("digest", f"containers-storage:{name}").out.strip() == str(demo_image().tags["latest"].digest)
    assert command("inspect", "containers-storage:absent").code == 2


def test_names_come_and_go(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    assert command("tag", image_id[:12], "localhost/x:1", "localhost/y:2").code == 0
    (image,) = command("images", "--json").json()
    assert set(image["names"]) == {name, "localhost/x:1", "localhost/y:2"}
    assert command("untag", image_id, "localhost/x:1").code == 0
    assert command("untag", image_id, "localhost/x:1").code == 2
    assert command("rmi", "localhost/y:2").out == "localhost/y:2\n"
    assert command("images", "-q").out == f"{image_id}\n"
    assert command("untag", image_id).code == 0
    assert "<none>" in command("images").out
    assert command("tag", "absent", "localhost/x:1").code == 2
    assert command("tag", image_id, "not a name").code == 64


def test_a_container_from_create_to_rm(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    container_id = command("create", name, "--name", "box").out.strip()
    (container,) = command("containers", "--json").json()
    assert (container["id"], container["names"], container["image"]) == (container_id, ["box"], image_id)
    assert command("containers", "-q").out == f"{container_id}\n"
    assert command("containers").out.splitlines()[1].split()[:2] == [container_id[:12], name]
    root = Path(command("mount", "box").out.strip())
    assert command("mount", container_id[:12], "--json").json() == {"target": container_id[:12], "path": str(root)}
    (root / "etc/new").write_text("written")
    assert command("mount", "--json").json() == [{"target": "box", "path": str(root), "count": 2}]
    assert command("rm", "box").code == 1
    assert command("unmount", "box").out == "box\n"
    assert (root / "etc/new").exists()
    assert command("unmount", "box").code == 0
    assert not os.listdir(root)
    assert command("unmount", "box").code == 1
    in_use = command("rmi", name)
    assert (in_use.code, in_use.out) == (1, "")
    assert command("rm", "box", "absent").out == f"{container_id}\n"
    assert command("containers", "--json").json() == []


def test_an_image_is_mounted_read_only(filled: tuple[Command, str, str]) -> None:
    command, name, _ = filled
    root = Path(command("mount", name).out.strip())
    assert (root / "etc/motd").read_text() == "Pulled by asyncpull, layer by layer.\n"
    with pytest.raises(OSError, match="Read-only"):
        (root / "etc/new").write_text("written")
    assert command("unmount", "--all").code == 0
    assert not os.listdir(root)
    assert command("mount", "--json").json() == []


def test_rm_force_unmounts(filled: tuple[Command, str, str]) -> None:
    command, name, _ = filled
    container_id = command("create", name).out.strip()
    command("mount", container_id)
    assert command("rm", "--force", container_id).out == f"{container_id}\n"
    assert command("mount", "--json").json() == []


def test_rmi_leaves_nothing(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    assert set(command("rmi", "--json", name).json()) == {name, image_id}
    assert command("layers", "-q").out == command("images", "-q").out == ""
    assert sorted(path.name for path in (command.root / "overlay").iterdir() if path.is_dir()) == ["l", "tempdirs"]


@pytest.mark.parametrize(
    "arguments",
    [["rm", "x"], ["rmi", "x"], ["mount", "x"], ["unmount", "x"], ["create", "x"], ["untag", "x"], ["rmi", ABSENT]],
)
def test_what_is_not_there_is_2(command: Command, arguments: list[str]) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert arguments[1] in ended.err


def test_one_of_several_that_fails(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    ended = command("rmi", "absent", name)
    assert ended.code == 2
    assert ended.out.splitlines() == [name, image_id]
    assert "absent" in ended.err


def test_a_container_as_it_is_wanted(filled: tuple[Command, str, str]) -> None:
    command, name, image_id = filled
    made = command(
        "create",
        name,
        "--name",
        "one",
        "--name",
        "two",
        "--volatile",
        "-o",
        "nodev,noexec",
        "--metadata",
        "{}",
        "--json",
    ).json()
    assert (made["names"], made["image"]) == (["one", "two"], image_id)
    root = Path(command("mount", "two").out.strip())
    assert os.statvfs(root).f_flag & (os.ST_NODEV | os.ST_NOEXEC) == os.ST_NODEV | os.ST_NOEXEC
    assert command("mount", "--read-only", "one").code == 1
    assert command("unmount", "--all", "--force").code == 0
    assert Path(command("mount", "--read-only", "-o", "nosuid", "one").out.strip()) == root
    assert os.statvfs(root).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV) == os.ST_RDONLY | os.ST_NOSUID
    assert command("rm", "--force", "two").code == 0


def test_a_container_on_nothing(command: Command) -> None:
    made = command("create", "--from-nothing", "--name", "empty", "--json").json()
    assert made["image"] == ""
    root = Path(command("mount", "empty").out.strip())
    assert os.listdir(root) == []
    (root / "new").touch()
    assert command("unmount", "empty").code == 0
    assert command("rm", "empty").out == f"{made['id']}\n"


@pytest.mark.parametrize(
    "arguments",
    [["create"], ["create", "x", "--from-nothing"], ["create", "x", "--mount-label", "y"], ["mount", "--read-only"]],
)
def test_what_does_not_go_together_is_64(command: Command, arguments: list[str]) -> None:
    assert command(*arguments).code == 64
