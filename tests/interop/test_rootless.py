"""A store of an ordinary user, used by us and by podman in turn (format, section 13.3)."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.ordinary_user import UID, OrdinaryUser
from tests.support.samples import base_layer, static_shell
from tests.support.tars import directory, file, opaque, tar, whiteout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_registry import Registry
    from tests.support.peers import Peer

pytestmark = pytest.mark.root

NAME = "u1000"
GRANTS = f"{UID}:100000:65536\n"
MOUNTS = ("passwd", f"{NAME}:x:{UID}:{UID}::/:/bin/sh"), ("group", f"{NAME}:x:{UID}:"), ("subuid", ""), ("subgid", "")
LIST = """(cd "$path" && find . -mindepth 1 -printf "%p %y %U:%G %m %l\\n" | sort)"""


@dataclass(frozen=True, slots=True)
class Rootless:
    """A user, and the store that both programs use in that user's name."""

    user: OrdinaryUser
    peer: Peer

    @property
    def roots(self) -> str:
        return f"--root={self.user.home}/storage --runroot={self.user.home}/run --storage-driver=overlay"

    def ours(self, command: str, expect: int = 0) -> str:
        """Run a shell command in which ``a`` is asyncpull."""
        script = f'a() {{ {self.user.python} -m asyncpull {self.roots} "$@"; }}\n{command}'
        ended = self.user.run("sh", "-euc", script)
        assert ended.returncode == expect, ended.stderr
        return ended.stdout

    def in_namespace(self, script: str) -> str:
        """What ``script`` prints in our namespace, where ``a`` is asyncpull."""
        function = f'a() {{ {self.user.python} -m asyncpull {self.roots} "$@"; }}\n'
        return self.ours(f"a unshare sh -euc {shlex.quote(function + script)}")

    def podman(self, command: str) -> str:
        """Run a shell command in which ``p`` is podman."""
        home = self.user.home
        inner = f'p() {{ podman {self.roots} "$@"; }}\n{command}'
        environment = f"PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME={home} XDG_RUNTIME_DIR={home}/runtime"
        script = f"""
            for file in passwd group subuid subgid; do
                mount --bind {home}/etc/$file /etc/$file
            done
            cd {home}
            exec setpriv --reuid {UID} --regid {UID} --clear-groups env -i {environment} sh -euc {shlex.quote(inner)}
        """
        return self.peer.run_in_namespace("sh", "-euc", script)


@pytest.fixture
def rootless(place: Path, peer: Peer) -> Iterator[Rootless]:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    home = place / "u"
    place.chmod(0o755)
    home.mkdir()
    user = OrdinaryUser(home, GRANTS)
    (home / "etc").mkdir()
    for file_name, line in MOUNTS:
        (home / "etc" / file_name).write_text(GRANTS if "sub" in file_name else f"root:x:0:0::/root:/bin/sh\n{line}\n")
    (home / "runtime").mkdir(mode=0o700)
    for path in (home / "etc", home / "runtime"):
        os.chown(path, UID, UID)
    try:
        yield Rootless(user, peer)
    finally:
        with contextlib.suppress(OSError, ValueError):  # a process that podman leaves, to keep its namespace
            os.kill(int((home / "runtime/libpod/tmp/pause.pid").read_text()), signal.SIGKILL)


@pytest.fixture
def reference(registry: Registry) -> str:
    lower = [
        *(directory("d"), file("d/hidden"), file("gone"), file("hers").with_(uid=33, gid=34)),
        directory("var"),
        directory("var/mail", 0o2775).with_(gid=8),
    ]
    upper = [whiteout("gone"), directory("d"), opaque("d"), file("d/new")]
    return registry.push("rootless/a", "1", image([base_layer(static_shell()), tar(lower), tar(upper)]))


@pytest.mark.parametrize(("peer", "first"), [("newest", "ours"), ("debian", "podman")], indirect=["peer"])
def test_whoever_pulls_both_use_it(rootless: Rootless, reference: str, first: str) -> None:
    pull = f"pull -q --tls-verify=false {reference}"
    for who in ("ours", "podman") if first == "ours" else ("podman", "ours"):
        rootless.ours(f"a {pull}") if who == "ours" else rootless.podman(f"p {pull}")
    assert len(rootless.ours("a layers -q").split()) == 3  # the second one found all that it wanted
    seen = rootless.in_namespace(f"path=$(a mount {reference}); {LIST}")
    assert "./hers f 33:34 644" in seen
    assert "./gone" not in seen
    assert "./d/hidden" not in seen
    theirs = rootless.podman(f"p unshare sh -euc {shlex.quote(_podman_mounts(rootless, reference))}")
    assert theirs == seen
    assert rootless.ours("a check") == ""
    if rootless.peer.name == "newest":
        assert rootless.podman("p system check") == ""

    rootless.podman(f"p create -q --name theirs --network none {reference} sh")
    rootless.ours(f"a create --name ours {reference}")
    rootless.in_namespace('path=$(a mount theirs); echo written >"$path/new"; chown 5:6 "$path/new"; a unmount theirs')
    assert rootless.podman(
        f"p unshare sh -euc 'path=$(podman {rootless.roots} mount theirs); stat -c %u:%g $path/new; cat $path/new'"
    ).split() == ["5:6", "written"]
    rootless.ours("a rm -f theirs ours")
    # Counted still is what was mounted in a namespace that is gone.
    rootless.podman(f"p rmi {reference}") if first == "ours" else rootless.ours(f"a rmi -f {reference}")
    assert rootless.ours("a layers -q") == ""


@pytest.mark.parametrize("peer", ["newest"], indirect=True)
def test_podman_runs_what_we_pulled(rootless: Rootless, reference: str) -> None:
    if static_shell() is None:
        pytest.skip("needs a static busybox")
    rootless.ours(f"a pull -q --tls-verify=false {reference}")
    limits = "--ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
    said = rootless.podman(
        f"p run --rm --pull=never --network none --cgroups=disabled {limits} {reference} sh -c 'id -u; ls d'"
    )
    assert said.split() == ["0", "new"]
    assert rootless.ours("a containers -q") == ""


def _podman_mounts(rootless: Rootless, reference: str) -> str:
    return f"path=$(podman {rootless.roots} image mount {reference}); {LIST}"
