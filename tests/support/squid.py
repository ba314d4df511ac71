"""Debian's squid as a forward proxy, started and ended by the tests; it alone finds the hosts that they make up."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.docker_registry import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAM = "squid"
PASSWORDS = Path("/usr/lib/squid/basic_ncsa_auth")
_USER = "proxy"
_START_SECONDS = 90


def is_installed() -> bool:
    """Tell whether the program is on this machine (Debian: package squid)."""
    return shutil.which(PROGRAM) is not None and PASSWORDS.exists()


@dataclass(frozen=True, slots=True)
class Squid:
    """A running squid. ``address`` is ``127.0.0.1:PORT``."""

    address: str
    log: Path

    def requests(self) -> list[str]:
        """Return status, method and target of every request so far: ``"200 CONNECT registry.test:5000"``."""
        return self.log.read_text(errors="replace").splitlines()


@contextmanager
def squid(*, hosts: Sequence[str] = (), account: tuple[str, str] | None = None) -> Iterator[Squid]:
    """Run squid, and end it with the block.

    ``hosts`` are names that it finds on loopback; ``account`` is the user name and password that it wants. Squid does
    not want to be root, and others may not read below pytest's folders, so it gets a directory of its own.
    """
    with (
        tempfile.TemporaryDirectory(prefix="squid-") as directory,
        _running(Path(directory), hosts, account) as running,
    ):
        yield running


@contextmanager
def _running(directory: Path, hosts: Sequence[str], account: tuple[str, str] | None) -> Iterator[Squid]:
    for name in ("access.log", "cache.log"):
        (directory / name).touch()
    (directory / "hosts").write_text("".join(f"127.0.0.1 {host}\n" for host in hosts))
    if account is not None:
        hashed = subprocess.run(["openssl", "passwd", "-apr1", account[1]], capture_output=True, text=True, check=True)
        (directory / "passwords").write_text(f"{account[0]}:{hashed.stdout}")
    running = Squid(f"127.0.0.1:{free_port()}", directory / "access.log")
    configuration = directory / "squid.conf"
    configuration.write_text(_configuration(directory, running, wants_password=account is not None))
    user = None
    if os.geteuid() == 0:
        user = _USER
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, user)
    # The service name is that of its shared memory too.
    command = [PROGRAM, "-N", "-n", f"test{running.address.rpartition(chr(58))[2]}", "-f", str(configuration)]
    with (directory / "output").open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        try:
            _wait_until_it_listens(running, process, directory)
            yield running
        finally:
            process.send_signal(signal.SIGINT)  # at once
            process.wait()


def _configuration(directory: Path, running: Squid, *, wants_password: bool) -> str:
    lines = [
        f"http_port {running.address}",
        f"hosts_file {directory / 'hosts'}",
        f"pid_filename {directory / 'squid.pid'}",
        f"coredump_dir {directory}",
        f"cache_log {directory / 'cache.log'}",
        "logformat short %>Hs %rm %ru",
        f"access_log stdio:{directory / 'access.log'} logformat=short",
        "buffered_logs off",
        "cache deny all",
        "memory_cache_shared off",
        "netdb_filename none",
        "pinger_enable off",
        "shutdown_lifetime 0 seconds",
        "visible_hostname squid.test",
    ]
    if wants_password:
        lines += [
            f"auth_param basic program {PASSWORDS} {directory / 'passwords'}",
            "auth_param basic realm squid",
            "acl known proxy_auth REQUIRED",
            "http_access allow known",
        ]
    else:
        lines.append("http_access allow all")
    return "\n".join(lines) + "\n"


def _wait_until_it_listens(running: Squid, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    host, _, port = running.address.partition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = (directory / "output").read_text() + (directory / "cache.log").read_text()
                raise RuntimeError(f"{PROGRAM} did not start: {said[-2000:]}") from error
            time.sleep(0.02)
        else:
            return
