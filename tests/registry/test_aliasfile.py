"""The file of recorded short names: what podman reads, and what of it survives a change."""

from __future__ import annotations

import asyncio
import os
import stat
import tomllib
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import ConfigurationError, StoreWriteError
from asyncpull.registry.aliasfile import alias_file, read_recorded, record_alias
from asyncpull.registry.config import RegistryAccess, load_registries
from asyncpull.spec.reference import parse_reference

if TYPE_CHECKING:
    from pathlib import Path

QUAY = parse_reference("quay.io/ns/x:3")


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, 0, "/var/cache/containers/short-name-aliases.conf"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, 1000, "/cache/containers/short-name-aliases.conf"),
        ({"HOME": "/home/me"}, 1000, "/home/me/.cache/containers/short-name-aliases.conf"),
        ({}, 1000, "None"),
    ],
)
def test_where_it_is(environ: dict[str, str], uid: int, expected: str) -> None:
    assert str(alias_file(environ, uid)) == expected


async def test_a_first_record_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cache/containers/short-name-aliases.conf"
    assert await read_recorded(path) == {}
    assert not path.parent.exists()
    await record_alias(path, "ns/x", QUAY)
    assert path.read_text() == '[aliases]\n  "ns/x" = "quay.io/ns/x"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(path.parent)) == ["short-name-aliases.conf", "short-name-aliases.conf.lock"]


async def test_other_entries_stay(tmp_path: Path) -> None:
    path = tmp_path / "short-name-aliases.conf"
    path.write_text('[aliases]\n  fedora = "registry.fedoraproject.org/fedora"\n  gone = ""\n  x = "a.example/x"\n')
    path.chmod(0o644)
    await record_alias(path, "x", QUAY)
    assert tomllib.loads(path.read_text()) == {
        "aliases": {"fedora": "registry.fedoraproject.org/fedora", "gone": "", "x": "quay.io/ns/x"}
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_records_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "short-name-aliases.conf"
    await asyncio.gather(*(record_alias(path, f"x{number}", QUAY) for number in range(20)))
    assert set(await read_recorded(path)) == {f"x{number}" for number in range(20)}


async def test_a_file_that_nobody_can_read_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "short-name-aliases.conf"
    path.write_text('[aliases]\nx = "no registry"\n')
    for attempt in (record_alias(path, "y", QUAY), read_recorded(path)):
        with pytest.raises(ConfigurationError) as caught:
            await attempt
        assert str(caught.value).startswith(f"{path}: aliases.x: ")
    assert path.read_text() == '[aliases]\nx = "no registry"\n'


async def test_where_it_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file/short-name-aliases.conf"
    with pytest.raises(StoreWriteError) as caught:
        await record_alias(path, "x", QUAY)
    assert str(path) in str(caught.value)


async def test_what_was_recorded_wins(tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        'unqualified-search-registries = ["a.example"]\n'
        '[aliases]\nx = "b.example/x"\ny = "b.example/y"\nz = "b.example/z"\n'
    )
    cache = tmp_path / "cache/containers"
    cache.mkdir(parents=True)
    (cache / "short-name-aliases.conf").write_text('[aliases]\nx = "quay.io/ns/x"\nz = ""\n')
    access = RegistryAccess(registries_conf=conf, registries_conf_dir=tmp_path / "none")
    registries = await load_registries(access, {"XDG_CACHE_HOME": str(tmp_path / "cache")}, 1000)
    assert [str(registries.candidates(text).references[0]) for text in ("x:1", "y:1", "z:1")] == [
        "quay.io/ns/x:1",
        "b.example/y:1",
        "a.example/z:1",
    ]
    assert registries.files == (conf, cache / "short-name-aliases.conf")
    assert registries.record_file == cache / "short-name-aliases.conf"
