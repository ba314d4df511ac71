"""Credentials are found where podman finds them: the same files and programs, asked by both."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AsyncpullError
from asyncpull.registry.credentials import AUTH_FILES, load_keyring
from tests.support.credential_program import credential_program
from tests.support.peers import debian_peer
from tests.support.podman_store import podman_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PLACES = ("run/containers/auth.json", "config/containers/auth.json", "home/.docker/config.json", "home/.dockercfg")
QUAY = ("quay.io", "quay.io/a", "quay.io/a/b", "quay.io/ab")
DOCKER = ("docker.io", "docker.io/library/alpine", "index.docker.io", "registry-1.docker.io")

pytestmark = pytest.mark.skipif(debian_peer() is None, reason="podman is not installed")


def entry(user: str, password: str = "secret", **more: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode(), **more}


def auths(*keys: str) -> dict[str, object]:
    """A document in which every key has a user called by its place."""
    return {"auths": {key: entry(f"user-{number}") for number, key in enumerate(keys)}}


@pytest.fixture(scope="module")
def podman() -> Iterator[tuple[str, ...]]:
    with podman_store() as (_, command):
        yield command


@pytest.mark.parametrize(
    ("documents", "helpers", "accounts"),
    [
        # Nowhere two keys that mean the same and are not the account: podman takes any of them.
        ([auths("quay.io")], (), (*QUAY, "quay.io:8443/a", "quay.ioo/a")),
        ([auths("quay.io/a/b", "quay.io/a", "quay.io")], (), QUAY),
        ([auths("quay.io/a", "quay.io/a/b/c")], (), QUAY),
        ([auths("https://quay.io/v2/")], (), QUAY),
        ([auths("http://quay.io", "quay.io")], (), QUAY),
        ([auths("https://quay.io.evil.example/")], (), QUAY),
        ([auths("localhost:5000", "localhost:5000/a")], (), ("localhost:5000/a/b", "localhost:5000/c", "localhost/a")),
        ([auths("docker.io")], (), DOCKER),
        ([auths("docker.io/library")], (), DOCKER),
        ([auths("https://index.docker.io/v1/")], (), DOCKER),
        ([auths("registry-1.docker.io")], (), DOCKER),
        ([auths("index.docker.io", "docker.io")], (), DOCKER[:3]),
        ([auths("index.docker.io/a")], (), ("docker.io/a",)),
        # The order of the files, and entries that end the search in theirs.
        ([auths("quay.io/a"), auths("x", "quay.io"), auths("x", "y", "quay.io/a/b")], (), QUAY),
        ([None, auths("quay.io/a"), auths("x", "quay.io")], (), QUAY),
        ([None, None, auths("quay.io/a"), {"quay.io": entry("old")}], (), QUAY),
        ([None, None, None, {"https://quay.io/v1/": entry("old")}], (), QUAY),
        ([None, None, None, {"quay.io/v1/": entry("old")}], (), QUAY),
        ([{"auths": {"quay.io/a": {}, "quay.io": entry("me")}}], (), QUAY),
        ([{"auths": {"quay.io/a": {}, "quay.io": entry("me")}}, auths("quay.io")], (), QUAY),
        ([{"auths": {"quay.io": entry("", "")}}, auths("x", "quay.io")], (), QUAY),
        ([{"auths": None}, {}, auths("quay.io")], (), QUAY),
        ([{"auths": {"quay.io": entry("me", "", identitytoken="t")}}], (), QUAY),
        # Programs of the files.
        ([{"credHelpers": {"quay.io": "one"}, **auths("quay.io/a")}], (), QUAY),
        ([{"credHelpers": {"quay.io": "none"}, **auths("quay.io/a")}, auths("x", "quay.io/a")], (), QUAY),
        ([{"credHelpers": {"quay.io/a": "one"}, **auths("quay.io")}], (), QUAY),
        ([{"credHelpers": {"quay.io": "broken"}}, auths("quay.io")], (), ("quay.io",)),
        ([{"credHelpers": {"quay.io": "missing"}}, auths("quay.io")], (), ("quay.io",)),
        ([{"credHelpers": {"docker.io": "one", "index.docker.io": "two"}}], (), DOCKER),
        # Programs of registries.conf.
        ([auths("quay.io")], ("one", AUTH_FILES), QUAY),
        ([auths("quay.io/a")], (AUTH_FILES, "one"), QUAY),
        ([auths("quay.io")], ("none",), QUAY),
        ([auths("quay.io")], ("none", "two"), QUAY),
        ([auths("quay.io")], ("broken", "missing", AUTH_FILES), QUAY),
        ([{}], ("broken", "none"), ("quay.io",)),
        ([{"credHelpers": {"quay.io": "broken"}}], (AUTH_FILES, "one"), ("quay.io",)),
    ],
)
async def test_the_same_user_is_found(
    tmp_path: Path,
    podman: tuple[str, ...],
    documents: Sequence[object],
    helpers: tuple[str, ...],
    accounts: tuple[str, ...],
) -> None:
    for place in PLACES:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    for place, document in zip(PLACES, documents, strict=False):
        if document is not None:
            (tmp_path / place).write_text(json.dumps(document))
    for name in ("one", "two"):
        servers = ("quay.io", "docker.io", "index.docker.io")
        credential_program(tmp_path / "bin", name, {server: (f"{name}-{server}", "secret") for server in servers})
    credential_program(tmp_path / "bin", "none", {})
    credential_program(tmp_path / "bin", "broken", {}, fails_with="out of order")
    conf = tmp_path / "registries.conf"
    conf.write_text(f"credential-helpers = {json.dumps(helpers)}\n" if helpers else "")
    environ = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "CONTAINERS_REGISTRIES_CONF": str(conf),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    keyring = load_keyring(environ, helpers=helpers or (AUTH_FILES,))
    ours, theirs = {}, {}
    for account in accounts:
        try:
            found = await keyring.lookup(account)
            ours[account] = "nobody" if found is None else found.credentials.username
        except AsyncpullError:
            ours[account] = "an error"
        theirs[account] = who_podman_finds(account, podman, environ)
    assert ours == theirs


def who_podman_finds(account: str, podman: tuple[str, ...], environ: dict[str, str]) -> str:
    done = subprocess.run(
        [*podman, "login", "--get-login", account], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode == 0:
        return done.stdout.strip()
    return "nobody" if f"not logged into {account}" in done.stderr else "an error"
