"""Networks with a rate, and file systems for one run, are what they are said to be, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from bench.filesystems import Directories, LoopFilesystem
from bench.namespace import shaped_network

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts, which takes root")


@pytest.mark.root
@needs_root
def test_a_network_has_its_rate_in_all_and_goes() -> None:
    def serve(listening: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            threading.Thread(target=connection.sendall, args=(bytes(1_000_000),)).start()
            connections.append(connection)

    connections: list[socket.socket] = []
    receive = (
        "import socket, sys, time\n"
        "began = time.monotonic()\n"
        "made = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(2)]\n"
        "for one in made:\n"
        "    left = 1_000_000\n"
        "    while left: left -= len(one.recv(min(left, 65536)))\n"
        "print(time.monotonic() - began)"
    )
    with shaped_network("test", "16mbit") as network:
        with socket.create_server((network.address, 0)) as listening:
            thread = threading.Thread(target=serve, args=(listening,))
            thread.start()
            port = str(listening.getsockname()[1])
            command = [*network.entrance, sys.executable, "-c", receive, network.address, port]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            thread.join()
        for connection in connections:
            connection.close()

    assert float(said) > 0.7  # 2 MB at 2 MB/s, less what the bucket has saved up: nothing is faster than that
    assert "test-" not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


@pytest.mark.root
@needs_root
def test_links_of_two_rates_stand_side_by_side() -> None:
    with shaped_network("test", "16mbit") as slow, shaped_network("test", "32mbit") as fast:
        assert slow.address != fast.address
        for network in (slow, fast):
            with socket.create_server((network.address, 0)) as listening:
                ask = f"import socket; socket.create_connection({listening.getsockname()!r}, 5)"
                subprocess.run([*network.entrance, sys.executable, "-c", ask], check=True)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_each_run_has_a_file_system_of_its_own(tmp_path: Path, kind: str) -> None:
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"no mkfs.{kind}")
    ground = LoopFilesystem(tmp_path, kind, 320 << 20)
    try:
        with ground.place() as place:
            (place / "file").write_bytes(b"1")
            assert os.stat(place).st_dev != os.stat(tmp_path).st_dev
    except SystemExit as error:
        pytest.skip(f"no loop devices here: {error}")
    with ground.place() as place:
        assert list(place.iterdir()) == []
    assert kernel.mounts_below(tmp_path) == []


def test_each_run_has_a_directory_of_its_own_and_nothing_is_deleted(tmp_path: Path) -> None:
    ground = Directories(tmp_path)
    for _ in range(2):
        with ground.place() as place:
            (place / "file").write_bytes(b"1")

    assert len(list(tmp_path.rglob("file"))) == 2
