"""Credentials from files: which file, which key."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.registry.credentials import AuthFile, Credentials, Keyring, auth_files, load_keyring
from asyncpull.spec.reference import parse_reference


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def written(**entries: object) -> bytes:
    return json.dumps({"auths": entries}).encode()


def users(keys: list[str]) -> AuthFile:
    """A file in which every key has a user of its own name."""
    return AuthFile(Path("auth.json"), {key: Credentials(key, "") for key in keys})


@pytest.mark.parametrize(
    ("keys", "reference", "found"),
    [
        (["quay.io"], "quay.io/a/b", "quay.io"),
        (["quay.io", "quay.io/a", "quay.io/a/b"], "quay.io/a/b", "quay.io/a/b"),
        (["quay.io", "quay.io/a"], "quay.io/a/b", "quay.io/a"),
        (["quay.io", "quay.io/a"], "quay.io/ab/c", "quay.io"),
        (["quay.io/a"], "quay.io/b", None),
        (["quay.io"], "quay.io:8443/a", None),
        (["localhost:5000"], "localhost:5000/a", "localhost:5000"),
        (["https://quay.io/v2/"], "quay.io/a", "https://quay.io/v2/"),
        (["http://quay.io"], "quay.io/a", "http://quay.io"),
        (["https://quay.io", "quay.io"], "quay.io/a", "quay.io"),
        (["docker.io"], "alpine", "docker.io"),
        (["docker.io/library"], "alpine", "docker.io/library"),
        (["https://index.docker.io/v1/"], "alpine", "https://index.docker.io/v1/"),
        (["index.docker.io"], "alpine", "index.docker.io"),
        (["registry-1.docker.io"], "alpine", "registry-1.docker.io"),
        (["https://index.docker.io/v1/"], "quay.io/a", None),
        (["https://quay.io.evil.example/"], "quay.io/a", None),
    ],
)
def test_the_most_specific_key_wins(keys: list[str], reference: str, found: str | None) -> None:
    credentials = users(keys).lookup(parse_reference(reference))
    assert (credentials.username if credentials else None) == found


def test_the_first_file_wins() -> None:
    keyring = Keyring((users(["example.org"]), users(["quay.io"]), users(["quay.io/a"])))
    credentials = keyring.lookup(parse_reference("quay.io/a/b"))
    assert credentials == Credentials("quay.io", "")


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [("me:secret", "me", "secret"), ("me:a:b", "me", "a:b"), ("me:", "me", ""), ("me:pad\0\0", "me", "pad")],
)
def test_entries(text: str, user: str, password: str) -> None:
    file = AuthFile.from_bytes(Path("auth.json"), written(x=auth(text)))
    assert file.entries == {"x": Credentials(user, password)}
    shown = repr(file)
    assert user in shown
    assert not password or password not in shown


@pytest.mark.parametrize("raw", [b"{}", b'{"auths": null}', b'{"credsStore": "x", "auths": {"quay.io": {}}}'])
def test_files_without_credentials(raw: bytes) -> None:
    assert AuthFile.from_bytes(Path("auth.json"), raw).entries == {}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "auth.json: not JSON"),
        (b"[]", "auth.json: auths is not an object"),
        (b'{"auths": []}', "auth.json: auths is not an object"),
        (written(x=[]), "auth.json: auths['x'] is not an object"),
        (written(x={"auth": 7}), "auth.json: auths['x'].auth is not a string"),
        (written(x={"auth": "???"}), "auth.json: auths['x'].auth is not base64"),
        (written(x={"auth": "/w=="}), "auth.json: auths['x'].auth is not base64 of text"),
        (written(x=auth("nocolon")), "auth.json: auths['x'].auth is not base64 of user:password"),
    ],
)
def test_bad_files_are_named_with_the_key(raw: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AuthFile.from_bytes(Path("auth.json"), raw)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"},
            ["/run/user/7/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"],
        ),
        (
            {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"},
            ["/run/containers/7/auth.json", "/c/containers/auth.json", "/d/config.json"],
        ),
        ({"HOME": "/h", "REGISTRY_AUTH_FILE": "/a.json"}, ["/a.json"]),
    ],
)
def test_the_places(environ: dict[str, str], expected: list[str]) -> None:
    assert [str(path) for path in auth_files(environ, 7)] == expected
    assert auth_files(environ, 7, Path("/given")) == (Path("/given"),)


async def test_files_are_read_in_order_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(written(x=auth("me:1")))
    (tmp_path / "two").write_bytes(written(x=auth("me:2"), y=auth("you:3")))
    keyring = await load_keyring([tmp_path / "none", tmp_path / "one", tmp_path / "one" / "not", tmp_path / "two"])
    assert [file.path.name for file in keyring.files] == ["one", "two"]
    with pytest.raises(ConfigurationError, match="none: no such file"):
        await load_keyring([tmp_path / "none"], must_exist=True)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await load_keyring([tmp_path])
