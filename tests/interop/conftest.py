"""What the interop tests stand on: a real registry, other container tools, and stores that both sides use."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import pytest

from tests.support.docker_daemon import docker_daemon
from tests.support.docker_registry import Registry, docker_registry, is_installed
from tests.support.peers import Peer, debian_peer, newest_peer
from tests.support.signers import Gpg
from tests.support.stores import SharedStore, workplace
from tests.support.transports import Yard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this directory: all of them need other tools, and root for the layers' owners and mounts."""
    for item in items:
        if "tests/interop/" in item.nodeid:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A docker-registry that all tests of the session share."""
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def _wanted(peer: Peer | None, name: str) -> Peer:
    if peer is None:
        pytest.skip(f"no {name} container tools: see tests/support/peers.py")
    return peer


@pytest.fixture(scope="session")
def debian() -> Peer:
    return _wanted(debian_peer(), "debian")


@pytest.fixture(scope="session")
def newest() -> Peer:
    peer = _wanted(newest_peer(), "newest")
    with workplace(peer) as directory:  # or each side would have a store of its own, and find nothing wrong with it
        (directory / "here").write_text("seen")
        assert peer.run("cat", directory / "here") == "seen"
    return peer


@pytest.fixture
def gpg() -> Iterator[Gpg]:
    """A gpg with a home of its own, which ends with its agent."""
    if shutil.which("gpg") is None or shutil.which("gpgconf") is None:
        pytest.skip("gpg is not installed")
    keyring = Gpg(Path(mkdtemp(prefix="g-")))
    try:
        yield keyring
    finally:
        keyring.end()
        shutil.rmtree(keyring.home)


@pytest.fixture(params=["newest", "debian"])
def peer(request: pytest.FixtureRequest) -> Peer:
    """Each of the peers in turn."""
    found: Peer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def yard(newest: Peer, registry: Registry) -> Iterator[Yard]:
    """A place with something of every transport, which the newest tools share."""
    if not newest.has("dockerd"):
        pytest.skip("dockerd is not installed beside the newest podman")
    with workplace(newest) as directory, docker_daemon(newest, directory) as host:
        yield Yard(newest, directory, registry, host)


@pytest.fixture
def place(peer: Peer) -> Iterator[Path]:
    """A directory with the same path for us and for the peer."""
    with workplace(peer) as directory:
        yield directory


@pytest.fixture
def new_store(peer: Peer, place: Path) -> Callable[[str], SharedStore]:
    """Make stores that do not exist yet: the first command that uses one creates it."""

    def make(name: str) -> SharedStore:
        directory = place / name
        directory.mkdir()
        return SharedStore(peer, directory)

    return make


@pytest.fixture
def store(new_store: Callable[[str], SharedStore]) -> SharedStore:
    return new_store("store")
