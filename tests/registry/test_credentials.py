"""Where credentials come from: which helper, which file, which key (the order of containers/image)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AuthenticationError, ConfigurationError
from asyncpull.registry.credentials import (
    AUTH_FILES,
    AuthFile,
    AuthPath,
    Credentials,
    Keyring,
    auth_paths,
    load_keyring,
    user_id,
)
from tests.support.credential_program import credential_program

if TYPE_CHECKING:
    from collections.abc import Mapping


def auth(text: str, **more: object) -> dict[str, object]:
    return {"auth": base64.b64encode(text.encode()).decode(), **more}


def written(**entries: object) -> bytes:
    return json.dumps({"auths": entries}).encode()


def entries(keys: list[str]) -> dict[str, object]:
    """Entries in which every key has a user of its own name."""
    return {key: auth(f"{key.replace(':', '~')}:secret") for key in keys}


def users(keys: list[str]) -> Mapping[str, object]:
    """The document of a file with those."""
    return {"auths": entries(keys)}


def keyring(
    directory: Path, *documents: Mapping[str, object], helpers: tuple[str, ...] = (AUTH_FILES,), legacy: bool = False
) -> Keyring:
    """A keyring of files with these documents, the last of the old form if ``legacy``; programs are in bin."""
    paths = []
    for number, document in enumerate(documents):
        path = directory / f"{number}.json"
        path.write_text(json.dumps(document))
        paths.append(AuthPath(path, legacy and number == len(documents) - 1))
    environ = {"PATH": f"{directory / 'bin'}:/usr/bin:/bin"}
    return Keyring(tuple(paths), helpers, environ)


async def who(ring: Keyring, account: str) -> str | None:
    found = await ring.lookup(account)
    return None if found is None else found.credentials.username.replace("~", ":")


@pytest.mark.parametrize(
    ("keys", "account", "found"),
    [
        (["quay.io"], "quay.io/a/b", "quay.io"),
        (["quay.io"], "quay.io", "quay.io"),
        (["quay.io", "quay.io/a", "quay.io/a/b"], "quay.io/a/b", "quay.io/a/b"),
        (["quay.io", "quay.io/a"], "quay.io/a/b", "quay.io/a"),
        (["quay.io", "quay.io/a"], "quay.io/ab/c", "quay.io"),
        (["quay.io/a/b"], "quay.io/a", None),
        (["quay.io/a"], "quay.io/b", None),
        (["quay.io"], "quay.io:8443/a", None),
        (["localhost:5000"], "localhost:5000/a", "localhost:5000"),
        (["https://quay.io/v2/"], "quay.io/a", "https://quay.io/v2/"),
        (["http://quay.io"], "quay.io/a", "http://quay.io"),
        (["https://quay.io", "quay.io"], "quay.io/a", "quay.io"),
        (["https://quay.io", "quay.io/a"], "quay.io/a/b", "quay.io/a"),
        (["docker.io"], "docker.io/library/alpine", "docker.io"),
        (["docker.io/library"], "docker.io/library/alpine", "docker.io/library"),
        (["https://index.docker.io/v1/"], "docker.io/library/alpine", "https://index.docker.io/v1/"),
        (["index.docker.io"], "docker.io/library/alpine", "index.docker.io"),
        (["registry-1.docker.io"], "docker.io/library/alpine", "registry-1.docker.io"),
        (["https://index.docker.io/v1/", "docker.io"], "docker.io/library/alpine", "docker.io"),
        (["https://index.docker.io/v1/"], "quay.io/a", None),
        (["https://quay.io.evil.example/"], "quay.io/a", None),
        (["index.docker.io/a"], "docker.io/a", None),
    ],
)
async def test_the_most_specific_key_wins(tmp_path: Path, keys: list[str], account: str, found: str | None) -> None:
    assert await who(keyring(tmp_path, users(keys)), account) == found


@pytest.mark.parametrize(
    ("keys", "account", "found"),
    [
        (["quay.io"], "quay.io/a/b", "quay.io"),
        (["https://quay.io/v1/"], "quay.io/a", "https://quay.io/v1/"),
        (["quay.io/v1/"], "quay.io/a", "quay.io/v1/"),
        (["quay.io/a", "quay.io"], "quay.io/a", "quay.io"),
        (["https://index.docker.io/v1/"], "docker.io/library/alpine", "https://index.docker.io/v1/"),
    ],
)
async def test_the_old_form_knows_registries_only(
    tmp_path: Path, keys: list[str], account: str, found: str | None
) -> None:
    assert await who(keyring(tmp_path, entries(keys), legacy=True), account) == found


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([users(["example.org"]), users(["quay.io"]), users(["quay.io/a"])], "quay.io"),
        # An empty entry ends the search in its file, and only there.
        ([{"auths": {"quay.io/a": {}, **entries(["quay.io"])}}], None),
        ([{"auths": {"quay.io/a": {}}}, users(["quay.io"])], "quay.io"),
        ([{"auths": {"quay.io/a": auth(":")}}, users(["quay.io"])], "quay.io"),
        ([{}, {"auths": None}, users(["quay.io"])], "quay.io"),
    ],
)
async def test_the_first_file_that_has_something_wins(
    tmp_path: Path, documents: list[Mapping[str, object]], found: str | None
) -> None:
    assert await who(keyring(tmp_path, *documents), "quay.io/a/b") == found


@pytest.mark.parametrize(
    ("documents", "helpers", "found", "source"),
    [
        # credHelpers come before the entries of their file, and hide them even where the program has nothing.
        ([{"credHelpers": {"quay.io": "one"}, **users(["quay.io/a"])}], (), "one-user", "(credHelpers of "),
        ([{"credHelpers": {"quay.io": "none"}, **users(["quay.io/a"])}], (), None, ""),
        ([{"credHelpers": {"quay.io": "none"}}, users(["quay.io"])], (), "quay.io", '1.json: auths["quay.io"]'),
        # They are for registries; a namespace among them is never looked for.
        ([{"credHelpers": {"quay.io/a": "one"}}], (), None, ""),
        ([{"credHelpers": {"quay.io/a": "one"}, **users(["quay.io"])}], (), "quay.io", "auths"),
        # A credsStore is the last in its file, and before the next file.
        ([{"credsStore": "one", **users(["quay.io"])}], (), "quay.io", "auths"),
        ([{"credsStore": "one", "auths": {"quay.io": {}}}], (), "one-user", "docker-credential-one (credsStore of "),
        ([{"credsStore": "one"}, users(["quay.io"])], (), "one-user", "credsStore"),
        ([{"credsStore": "none"}, users(["quay.io"])], (), "quay.io", "auths"),
        ([{"credsStore": "missing"}, users(["quay.io"])], (), "quay.io", "auths"),
        ([{"credsStore": "missing"}], (), None, ""),
        ([{"credsStore": "one", "credHelpers": {"quay.io": "two"}}], (), "two-user", "credHelpers"),
        # registries.conf orders helpers and files.
        ([users(["quay.io"])], ("one", AUTH_FILES), "one-user", "(credential-helpers of registries.conf)"),
        ([users(["quay.io"])], (AUTH_FILES, "one"), "quay.io", "auths"),
        ([{}], (AUTH_FILES, "one"), "one-user", "credential-helpers"),
        ([users(["quay.io"])], ("one",), "one-user", "credential-helpers"),
        ([users(["quay.io"])], ("none",), None, ""),
        ([users(["quay.io"])], ("none", AUTH_FILES), "quay.io", "auths"),
        # One that fails does not keep the next from being asked.
        ([users(["quay.io"])], ("missing", "broken", AUTH_FILES), "quay.io", "auths"),
        ([{"credHelpers": {"quay.io": "broken"}}], (AUTH_FILES, "one"), "one-user", "credential-helpers"),
    ],
)
async def test_programs_and_files_in_order(
    tmp_path: Path,
    documents: list[Mapping[str, object]],
    helpers: tuple[str, ...],
    found: str | None,
    source: str,
) -> None:
    for name in ("one", "two"):
        credential_program(tmp_path / "bin", name, {"quay.io": (f"{name}-user", "secret")})
    credential_program(tmp_path / "bin", "none", {})
    credential_program(tmp_path / "bin", "broken", {}, fails_with="out of order")
    ring = keyring(tmp_path, *documents, helpers=helpers or (AUTH_FILES,))
    answer = await ring.lookup("quay.io/a/b")
    assert (answer.credentials.username if answer else None) == found
    assert source in (answer.source if answer else "")
    assert "secret" not in repr(answer)


@pytest.mark.parametrize(
    ("document", "helpers", "error", "message"),
    [
        ({"credHelpers": {"quay.io": "missing"}}, (), ConfigurationError, "docker-credential-missing is not installed"),
        ({"credHelpers": {"quay.io": "../x"}}, (), ConfigurationError, "'../x' is no name of a credential helper"),
        ({"credHelpers": {"quay.io": "broken"}}, (), AuthenticationError, "failed with exit code 1: out of order"),
        ({}, ("missing", AUTH_FILES), ConfigurationError, "docker-credential-missing is not installed"),
        ({"credsStore": "broken"}, (), AuthenticationError, "docker-credential-broken get failed"),
    ],
)
async def test_a_failure_is_told_when_nobody_has_credentials(
    tmp_path: Path, document: Mapping[str, object], helpers: tuple[str, ...], error: type[Exception], message: str
) -> None:
    credential_program(tmp_path / "bin", "broken", {}, fails_with="out of order")
    with pytest.raises(error) as caught:
        await keyring(tmp_path, document, helpers=helpers or (AUTH_FILES,)).lookup("quay.io/a")
    assert message in str(caught.value)


async def test_a_credsstore_is_asked_for_docker_io_as_docker_does(tmp_path: Path) -> None:
    credential_program(
        tmp_path / "bin", "one", {"https://index.docker.io/v1/": ("me", "secret"), "quay.io": ("x", "y")}
    )
    ring = keyring(tmp_path, {"credsStore": "one"})
    assert await who(ring, "docker.io/library/alpine") == "me"


async def test_an_identity_token_of_a_program(tmp_path: Path) -> None:
    credential_program(tmp_path / "bin", "one", {"quay.io": ("<token>", "the-token")})
    found = await keyring(tmp_path, {}, helpers=("one",)).lookup("quay.io/a")
    assert found is not None
    assert found.credentials == Credentials("", "", "the-token")
    assert "the-token" not in repr(found)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("me:secret"), Credentials("me", "secret")),
        (auth("me:a:b"), Credentials("me", "a:b")),
        (auth("me:"), Credentials("me", "")),
        (auth("me:pad\0\0"), Credentials("me", "pad")),
        (auth("me:", identitytoken="tok"), Credentials("me", "", "tok")),
        (auth("me:secret", identitytoken=""), Credentials("me", "secret")),
        ({"identitytoken": "tok"}, Credentials("", "", "tok")),
        (auth(":"), None),
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": None, "email": "me@example.org"}, None),
    ],
)
def test_entries(entry: dict[str, object], expected: Credentials | None) -> None:
    file = AuthFile.from_bytes(Path("auth.json"), written(x=entry))
    assert file.entries == {"x": expected}
    for secret in ("secret", "a:b", "pad", "tok"):
        assert secret not in repr(file)


@pytest.mark.parametrize("raw", [b"{}", b'{"auths": null, "credHelpers": null, "credsStore": null}'])
def test_files_without_credentials(raw: bytes) -> None:
    assert AuthFile.from_bytes(Path("auth.json"), raw) == AuthFile(Path("auth.json"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "auth.json: not JSON"),
        (b"{", "auth.json: not JSON"),
        (b"[]", "auth.json: not a JSON object"),
        (b'{"auths": []}', "auth.json: auths is not an object"),
        (b'{"credHelpers": []}', "auth.json: credHelpers is not an object"),
        (b'{"credHelpers": {"x": 1}}', "auth.json: credHelpers['x'] is not a string"),
        (b'{"credsStore": 1}', "auth.json: credsStore is not a string"),
        (written(x=[]), "auth.json: auths['x'] is not an object"),
        (written(x={"auth": 7}), "auth.json: auths['x'].auth is not a string"),
        (written(x={"auth": "???"}), "auth.json: auths['x'].auth is not base64"),
        (written(x={"auth": "/w=="}), "auth.json: auths['x'].auth is not base64 of text"),
        (written(x=auth("nocolon")), "auth.json: auths['x'].auth is not base64 of user:password"),
        (written(x=auth("a:", identitytoken=7)), "auth.json: auths['x'].identitytoken is not a string"),
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
            [
                "/run/user/7/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json",
                "/h/.dockercfg",
            ],
        ),
        (
            {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"},
            ["/run/containers/7/auth.json", "/c/containers/auth.json", "/d/config.json", "/h/.dockercfg"],
        ),
        ({"HOME": "/h", "REGISTRY_AUTH_FILE": "/a.json"}, ["/a.json"]),
    ],
)
def test_the_places(environ: dict[str, str], expected: list[str]) -> None:
    places = auth_paths(environ, 7)
    assert [str(place.path) for place in places] == expected
    assert [place.path.name for place in places if place.is_legacy] == [".dockercfg"] * (
        "HOME" in environ and len(places) > 1
    )
    assert auth_paths(environ, 7, Path("/given")) == (AuthPath(Path("/given")),)


def test_in_a_user_namespace_we_are_who_we_are_outside() -> None:
    assert user_id({"_CONTAINERS_ROOTLESS_UID": "1234"}) == 1234
    assert auth_paths({"HOME": "/h"}, 1234)[0].path == Path("/run/containers/1234/auth.json")


async def test_only_the_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ring = Keyring((AuthPath(tmp_path / "none"), AuthPath(tmp_path / "file" / "not")))
    assert await ring.lookup("quay.io") is None
    with pytest.raises(ConfigurationError, match="none: no such file"):
        await load_keyring({"HOME": "/h"}, tmp_path / "none").lookup("quay.io")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await load_keyring({"HOME": "/h"}, tmp_path).lookup("quay.io")


async def test_files_after_the_one_that_has_something_are_not_read(tmp_path: Path) -> None:
    ring = keyring(tmp_path, users(["quay.io"]), {})
    (tmp_path / "1.json").write_text("{")
    assert await who(ring, "quay.io/a") == "quay.io"
    with pytest.raises(ConfigurationError, match=r"1\.json: not JSON"):
        await ring.lookup("example.org/a")
