"""Editing auth.json: one entry changes, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError, StoreWriteError
from asyncpull.registry.authfile import edit_auth_file, mark_entry, remove_entry, set_entry
from asyncpull.registry.credentials import AuthFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def setting(key: str = "quay.io") -> Callable[[dict[str, object]], None]:
    return lambda document: set_entry(document, key, "me", "secret")


def removing(key: str = "quay.io") -> Callable[[dict[str, object]], bool]:
    return lambda document: remove_entry(document, key)


def marking(key: str = "quay.io") -> Callable[[dict[str, object]], None]:
    return lambda document: mark_entry(document, key)


ENTRY = '{\n\t\t\t"auth": "bWU6c2VjcmV0"\n\t\t}'


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        (None, setting(), f'{{\n\t"auths": {{\n\t\t"quay.io": {ENTRY}\n\t}}\n}}'),
        ("{}", setting(), f'{{\n\t"auths": {{\n\t\t"quay.io": {ENTRY}\n\t}}\n}}'),
        ('{"auths": null}', setting(), f'{{\n\t"auths": {{\n\t\t"quay.io": {ENTRY}\n\t}}\n}}'),
        # What is not ours keeps its place, its value, the indentation and the end of the file.
        (
            '{\n  "z": [1, 2.50, "<é>", {"b": null}],\n  "auths": {\n    "z": {},\n    "a": {}\n  },\n  "a": 1\n}\n',
            setting("b"),
            (
                '{\n  "z": [\n    1,\n    2.5,\n    "<é>",\n    {\n      "b": null\n    }\n  ],\n  "auths": {\n'
                '    "z": {},\n    "a": {},\n    "b": {\n      "auth": "bWU6c2VjcmV0"\n    }\n  },\n  "a": 1\n}\n'
            ),
        ),
        # Another password replaces all that was a secret, and nothing else.
        (
            ('{\n\t"auths": {\n\t\t"quay.io": {\n\t\t\t"email": "x", "auth": "eDp5", "identitytoken": "t"}\n\t}\n}'),
            setting(),
            '{\n\t"auths": {\n\t\t"quay.io": {\n\t\t\t"auth": "bWU6c2VjcmV0",\n\t\t\t"email": "x"\n\t\t}\n\t}\n}',
        ),
        (
            '{\n "auths": {\n  "a": {},\n  "quay.io": {"auth": "eDp5"}\n }\n}',
            removing(),
            '{\n "auths": {\n  "a": {}\n }\n}',
        ),
        ('{\n "auths": {\n  "quay.io": {"auth": "eDp5"}\n }\n}', marking(), '{\n "auths": {\n  "quay.io": {}\n }\n}'),
        # Nothing to do: not even another form.
        ('{"auths":  {"a": {}}}', removing(), '{"auths":  {"a": {}}}'),
    ],
)
async def test_edits(
    tmp_path: Path, before: str | None, change: Callable[[dict[str, object]], object], after: str
) -> None:
    path = tmp_path / "auth.json"
    if before is not None:
        path.write_text(before)
    await edit_auth_file(path, change)
    assert path.read_text() == after


async def test_what_a_change_says_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    await edit_auth_file(path, setting())
    assert await edit_auth_file(path, removing()) is True
    assert await edit_auth_file(path, removing()) is False


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "auth.json"
    before = os.umask(0)
    try:
        await edit_auth_file(path, setting())
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    path.chmod(0o644)
    await edit_auth_file(path, setting("b"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == ["auth.json", "auth.json.lock"]


async def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to("real/auth.json")
    await edit_auth_file(tmp_path / "link.json", setting("a"))
    await edit_auth_file(tmp_path / "link.json", setting("b"))
    assert (tmp_path / "link.json").is_symlink()
    assert list(json.loads((tmp_path / "real" / "auth.json").read_text())["auths"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("", "auth.json: not JSON"),
        ("{", "auth.json: not JSON"),
        ("[]", "auth.json: not a JSON object"),
        ('{"auths": []}', "auth.json: auths is not an object"),
        ('{"auths": {"x": {"auth": 1}}}', r"auth.json: auths\['x'\].auth is not a string"),
    ],
)
async def test_a_file_that_nobody_can_read_is_left_alone(tmp_path: Path, before: str, message: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(before)
    with pytest.raises(ConfigurationError, match=message):
        await edit_auth_file(path, setting())
    assert path.read_text() == before


async def test_a_file_that_is_nested_deeply_is_changed_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    before = '{"x": ' + "[" * 1000 + "]" * 1000 + "}"
    path.write_text(before)
    message = ""
    try:  # how deep is too deep, the json module decides, and differently in each Python
        await edit_auth_file(path, setting())
    except ConfigurationError as error:
        message = str(error)
    is_changed = bool(AuthFile.from_bytes(path, path.read_bytes()).entries)
    assert is_changed != ("nested too deeply to be changed" in message)
    assert is_changed or path.read_text() == before


async def test_a_change_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    await edit_auth_file(path, setting("a"))
    before = path.read_bytes()

    def fail(document: dict[str, object]) -> None:
        set_entry(document, "b", "me", "secret")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await edit_auth_file(path, fail)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["auth.json", "auth.json.lock"]


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match=r"file/auth\.json: cannot"):
        await edit_auth_file(tmp_path / "file" / "auth.json", setting())
    (tmp_path / "dir" / "auth.json").mkdir(parents=True)
    with pytest.raises(StoreWriteError, match=r"dir/auth\.json: cannot be written: Is a directory"):
        await edit_auth_file(tmp_path / "dir" / "auth.json", setting())


async def test_edits_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    keys = [f"r{number}.example.org" for number in range(12)]
    await asyncio.gather(*(edit_auth_file(path, setting(key)) for key in keys))
    assert sorted(json.loads(path.read_text())["auths"]) == sorted(keys)


async def test_somebody_who_takes_no_lock_loses_nothing_either(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    seen = []

    def change(document: dict[str, object]) -> None:
        seen.append(json.dumps(document))
        if len(seen) == 1:  # podman writes while we are at it
            path.write_text('{"auths": {"theirs": {}}}')
        set_entry(document, "ours", "me", "secret")

    await edit_auth_file(path, change)
    assert list(json.loads(path.read_text())["auths"]) == ["theirs", "ours"]
    assert seen == ["{}", '{"auths": {"theirs": {}}}']
    assert sorted(each.name for each in tmp_path.iterdir()) == ["auth.json", "auth.json.lock"]
