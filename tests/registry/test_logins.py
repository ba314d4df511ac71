"""Where logins are kept and forgotten: which file, which program, under which name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AuthenticationError, ConfigurationError, UsageError
from asyncpull.registry.credentials import AUTH_FILES, Credentials
from asyncpull.registry.logins import Logins, login_key
from tests.support.credential_program import credential_program

if TYPE_CHECKING:
    from collections.abc import Mapping

MINE = {"auth": "bWU6c2VjcmV0"}


@pytest.mark.parametrize(
    ("environ", "authfile", "docker_file", "expected"),
    [
        ({}, None, None, ("/run/containers/7/auth.json", False, False)),
        ({"XDG_RUNTIME_DIR": "/tmp"}, None, None, ("/tmp/containers/auth.json", False, False)),
        ({"DOCKER_CONFIG": "/d"}, None, None, ("/d/config.json", True, True)),
        ({"DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/r"}, None, None, ("/r", True, False)),
        ({"DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/r"}, "/a", None, ("/a", True, False)),
        ({"DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/r"}, None, "/c", ("/c", True, True)),
    ],
)
def test_the_file_that_is_written(
    environ: dict[str, str], authfile: str | None, docker_file: str | None, expected: tuple[str, bool, bool]
) -> None:
    chosen = Logins.choose(
        {"HOME": "/h", "_CONTAINERS_ROOTLESS_UID": "7", **environ},
        None if authfile is None else Path(authfile),
        None if docker_file is None else Path(docker_file),
        ("one",),
    )
    assert (str(chosen.path), chosen.is_named, chosen.is_docker) == expected
    assert chosen.helpers == ((AUTH_FILES,) if chosen.is_docker else ("one",))
    assert len(chosen.keyring.paths) == (1 if chosen.is_named else 4)
    assert chosen.keyring.paths[0].path == chosen.path


def test_two_files_and_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two files"):
        Logins.choose({}, Path("/a"), Path("/b"))
    with pytest.raises(ConfigurationError, match="none, which XDG_RUNTIME_DIR names, does not exist"):
        Logins.choose({"XDG_RUNTIME_DIR": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("quay.io", "quay.io"),
        ("localhost:5000", "localhost:5000"),
        ("quay.io/ns", "quay.io/ns"),
        ("quay.io/ns/repo", "quay.io/ns/repo"),
        ("https://quay.io/ns", "quay.io"),
        ("http://localhost:5000/", "localhost:5000"),
        ("https://index.docker.io/v1/", "index.docker.io"),
    ],
)
def test_keys(text: str, key: str) -> None:
    assert login_key(text) == key


@pytest.mark.parametrize(
    "text", ["", "/", "quay.io/", "quay.io//ns", "quay.io/a:tag", "quay.io/a@sha256:1", "a b", "https://", "ö"]
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(UsageError, match="no registry"):
        login_key(text)


def logins(
    directory: Path, document: Mapping[str, object], *helpers: str, is_docker: bool = False
) -> tuple[Logins, dict[str, Path]]:
    """Logins of a file with ``document``, and the files of two programs, one and two; a third is broken."""
    path = directory / "auth.json"
    path.write_text(json.dumps(document))
    programs = {name: credential_program(directory / "bin", name, {}) for name in ("one", "two")}
    credential_program(directory / "bin", "broken", {}, fails_with="out of order")
    environ = {"PATH": str(directory / "bin")}
    return Logins(path, True, is_docker, helpers or (AUTH_FILES,), environ), programs


async def outcome(chosen: Logins, programs: Mapping[str, Path]) -> tuple[object, dict[str, list[str]]]:
    """What the file says now, and which servers each program knows."""
    known = {name: list(json.loads(path.read_text())) for name, path in programs.items()}
    return json.loads(chosen.path.read_text()), {name: servers for name, servers in known.items() if servers}


@pytest.mark.parametrize(
    ("document", "helpers", "is_docker", "key", "after", "kept"),
    [
        ({"x": 1}, (), False, "quay.io", {"x": 1, "auths": {"quay.io": MINE}}, {}),
        ({}, (), False, "quay.io/ns", {"auths": {"quay.io/ns": MINE}}, {}),
        ({}, (), False, "docker.io", {"auths": {"docker.io": MINE}}, {}),
        ({}, (), True, "docker.io", {"auths": {"https://index.docker.io/v1/": MINE}}, {}),
        (
            {"credHelpers": {"quay.io": "one"}},
            (),
            False,
            "quay.io",
            {"credHelpers": {"quay.io": "one"}},
            {"one": ["quay.io"]},
        ),
        (
            {"credsStore": "one"},
            (),
            False,
            "quay.io",
            {"credsStore": "one", "auths": {"quay.io": {}}},
            {"one": ["quay.io"]},
        ),
        (
            {"credsStore": "one", "auths": {"docker.io": {**MINE, "email": "x"}}},
            (),
            False,
            "docker.io",
            {"credsStore": "one", "auths": {"docker.io": {"email": "x"}}},
            {"one": ["https://index.docker.io/v1/"]},
        ),
        ({"credsStore": "one"}, (), False, "quay.io/ns", {"credsStore": "one", "auths": {"quay.io/ns": MINE}}, {}),
        (
            {"credsStore": "one", "credHelpers": {"quay.io": "two"}},
            (),
            False,
            "quay.io",
            {"credsStore": "one", "credHelpers": {"quay.io": "two"}},
            {"two": ["quay.io"]},
        ),
        ({}, ("one", "two"), False, "quay.io", {}, {"one": ["quay.io"]}),
        ({}, ("broken", "missing", "two"), False, "quay.io", {}, {"two": ["quay.io"]}),
        ({}, ("one", AUTH_FILES), False, "quay.io/ns", {"auths": {"quay.io/ns": MINE}}, {}),
    ],
)
async def test_keeping_and_finding_and_forgetting(
    tmp_path: Path,
    document: dict[str, object],
    helpers: tuple[str, ...],
    is_docker: bool,
    key: str,
    after: object,
    kept: dict[str, list[str]],
) -> None:
    chosen, programs = logins(tmp_path, document, *helpers, is_docker=is_docker)
    where = await chosen.keep(key, "me", "secret")
    assert where == (f"credential helper: {next(iter(kept))}" if kept else str(chosen.path))
    assert await outcome(chosen, programs) == (after, kept)
    found = await chosen.keyring.lookup(key)
    assert found is not None
    assert found.credentials == Credentials("me", "secret")
    if "broken" not in helpers:
        assert await chosen.forget(key) is True
        assert await chosen.keyring.lookup(key) is None
        assert await chosen.forget(key) is False
        assert (await outcome(chosen, programs))[1] == {}


@pytest.mark.parametrize(
    ("document", "helpers", "is_docker", "key", "error", "message"),
    [
        ({"credHelpers": {"quay.io": "broken"}}, (), False, "quay.io", AuthenticationError, "store failed"),
        ({"credsStore": "broken"}, (), False, "quay.io", AuthenticationError, "store failed"),
        ({"credsStore": "missing"}, (), False, "quay.io", ConfigurationError, "not installed"),
        ({}, ("missing",), False, "quay.io", ConfigurationError, "not installed"),
        ({}, ("one",), False, "quay.io/ns", UsageError, "knows registries only"),
        ({}, (), True, "quay.io/ns", UsageError, "Docker knows no credentials for a namespace"),
    ],
)
async def test_where_it_cannot_be_kept_nothing_changes(
    tmp_path: Path,
    document: dict[str, object],
    helpers: tuple[str, ...],
    is_docker: bool,
    key: str,
    error: type[Exception],
    message: str,
) -> None:
    chosen, programs = logins(tmp_path, document, *helpers, is_docker=is_docker)
    with pytest.raises(error, match=message) as caught:
        await chosen.keep(key, "me", "secret")
    assert "secret" not in str(caught.value)
    assert await outcome(chosen, programs) == (document, {})


async def test_forgetting_goes_on_after_a_failure(tmp_path: Path) -> None:
    chosen, programs = logins(tmp_path, {"auths": {"quay.io": MINE}}, "broken", AUTH_FILES)
    with pytest.raises(AuthenticationError, match="erase failed"):
        await chosen.forget("quay.io")
    assert await outcome(chosen, programs) == ({"auths": {}}, {})


@pytest.mark.parametrize("is_docker", [False, True])
async def test_forgetting_all(tmp_path: Path, is_docker: bool) -> None:
    document = {"x": 1, "auths": {"a": MINE, "b/c": MINE}, "credHelpers": {"quay.io": "one"}}
    chosen, programs = logins(tmp_path, document, AUTH_FILES, "two", "missing", is_docker=is_docker)
    programs["one"].write_text('{"quay.io": ["me", "secret"], "other.io": ["me", "secret"]}')
    programs["two"].write_text('{"quay.io": ["me", "secret"], "other.io": ["me", "secret"]}')
    await chosen.forget_all()
    after: dict[str, object] = {"x": 1, "auths": {}}
    if is_docker:
        after["credHelpers"] = {"quay.io": "one"}
    assert await outcome(chosen, programs) == (after, {"one": ["other.io"]})


async def test_where_there_is_no_file_there_is_nothing_to_forget(tmp_path: Path) -> None:
    chosen = Logins(tmp_path / "dir" / "auth.json", True)
    assert await chosen.forget("quay.io") is False
    await chosen.forget_all()
    assert list(tmp_path.iterdir()) == []
