"""Every source to every destination by the command, read by skopeo, crane, podman and dockerd.

What is the same afterwards is in ``tests.support.transports``: the manifest to the bit where both sides can have it,
else the config, and always what the layers are when unpacked.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import images, tars
from tests.support.command import Command
from tests.support.samples import base_layer
from tests.support.stores import SharedStore
from tests.support.transports import GIVEN, HELD, Kept, Yard, assert_kept, kept

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images import Image
    from tests.support.transports import Found

FULL = bool(os.environ.get("ASYNCPULL_TEST_FULL"))
KINDS = ["oci", "docker", "mixed", "plain", "single"] if FULL else ["oci"]
AT_ONCE = 4

# Deletes only what is there: about anything else "podman system check" gives false alarms.
REMOVING = tars.tar(
    [tars.directory("etc"), tars.whiteout("etc/gone"), tars.directory("var/lib/old"), tars.opaque("var/lib/old")]
)


def image(kind: str, name: str) -> Image:
    """An image that nobody else of the matrix has, but for its first layers."""
    own = tars.tar([tars.file("own", name.encode()), tars.file("large", images.noise(1, 300_000))])
    layers = [base_layer(), REMOVING, own]
    match kind:
        case "docker":
            return images.image(layers, flavour="docker")
        case "mixed":
            return images.image(layers, compression=("gzip", "zstd", "none"))
        case "plain":
            return images.image(layers, compression="none")
        case "single":
            return images.image([own])
    return images.image(layers)


@pytest.fixture(scope="module")
def loader(yard: Yard) -> SharedStore:
    """The store of the podman that loads archives."""
    directory = yard.directory / "loader"
    directory.mkdir()
    return SharedStore(yard.peer, directory)


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", GIVEN)
def test_to_every_destination(yard: Yard, loader: SharedStore, tmp_path: Path, source: str, kind: str) -> None:
    name = f"{source}-{kind}"
    target = image(kind, name)
    origin = yard.offer(source, name, target)

    def problem(destination: str) -> str:
        where = yard.place(destination, f"{name}-to")
        try:
            command = Command(tmp_path / destination)
            ended = command("copy", *yard.options("src"), *yard.options("dest"), origin, where)
            assert (ended.code, ended.out) == (0, ""), ended.err
            found = yard.found(where)
            assert_kept(found, target, kept(source, destination))
            look_with_others(yard, loader, where, found, target, kept(source, destination))
        except AssertionError as error:
            return f"{origin} to {where}: {error}\n"
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = "".join(pool.map(problem, HELD))
    assert not problems, problems


def look_with_others(yard: Yard, loader: SharedStore, where: str, found: Found, target: Image, what: Kept) -> None:
    """Let other tools than skopeo read what is at a destination, or load it."""
    destination, path = where.split(":")[:2]
    # When crane reads layers it takes them all for gzip.
    is_gzip = all(each["mediaType"].endswith("gzip") for each in json.loads(found.manifest)["layers"])
    validate = ("crane", "validate", "--insecure", *["--fast"] * (not is_gzip), "--remote")
    match destination:
        case "docker":
            yard.peer.run(*validate, where.removeprefix("docker://"))
        case "oci":
            assert yard.registry is not None
            pushed = f"{yard.registry.address}/pushed/{os.path.basename(path)}:1"
            yard.peer.run("crane", "push", "--insecure", path, pushed)
            yard.peer.run(*validate, pushed)
        case "containers-storage":
            store = yard.store(where.split("/")[-1].removesuffix(":1"))
            store.check()
            assert_loaded(store, where.split("]")[1], target, what)
        case "oci-archive":
            loaded = loader.podman("load", "--quiet", "--input", path).rpartition(" ")[2]
            assert_loaded(loader, loaded, target, what)
            assert_in_daemon(yard, yard.docker("load", "--quiet", "--input", path).split()[-1], target, what)
        case "docker-archive":
            yard.peer.run("crane", "validate", "--tarball", path)
            loaded = loader.podman("load", "--quiet", "--input", path).rpartition(" ")[2]
            assert_loaded(loader, loaded, target, what)
            yard.docker("load", "--quiet", "--input", path)
            assert_in_daemon(yard, loaded, target, what)
        case "docker-daemon":
            assert_in_daemon(yard, where.removeprefix("docker-daemon:"), target, what)


def assert_loaded(store: SharedStore, name: str, target: Image, what: Kept) -> None:
    """podman has the image."""
    identity, *diff_ids = store.podman(
        "image", "inspect", "--format", "{{.Id}} {{range .RootFS.Layers}}{{.}} {{end}}", name
    ).split()
    assert diff_ids == list(target.diff_ids)
    if what >= Kept.CONFIG:
        assert identity == target.id


def assert_in_daemon(yard: Yard, name: str, target: Image, what: Kept) -> None:
    """dockerd has the image."""
    identity, *diff_ids = yard.docker(
        "image", "inspect", "--format", "{{.Id}} {{range .RootFS.Layers}}{{.}} {{end}}", name
    ).split()
    assert diff_ids == list(target.diff_ids)
    if what >= Kept.CONFIG:
        assert identity == f"sha256:{target.id}"


@pytest.mark.parametrize("source", ["sif:image.sif", "sif:/no/such/image.sif"])
def test_an_image_of_singularity_is_recognised(tmp_path: Path, source: str) -> None:
    ended = Command(tmp_path)("copy", source, f"dir:{tmp_path}/out")
    assert (ended.code, ended.out) == (64, "")
    assert f"skopeo copy {source}" in ended.err
    assert not (tmp_path / "out").exists()
