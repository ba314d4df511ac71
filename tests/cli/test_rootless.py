"""Pulling as an ordinary user, whose files belong to many in the image and to few outside."""

from __future__ import annotations

import asyncio
import shutil
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.ordinary_user import UID, OrdinaryUser
from tests.support.registry_simulator import RegistrySimulator
from tests.support.tars import character_device, directory, file, tar, whiteout

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

ROOTS = ("--root", "storage", "--runroot", "run")
OWNED = tar([directory("var/"), replace(file("var/mail", b"letter"), uid=8, gid=12), character_device("null", 1, 3)])
REMOVING = tar([directory("var/"), whiteout("var/mail"), replace(file("var/new", b""), uid=1000, gid=1000)])
SAMPLE = image([OWNED, REMOVING])


async def pulled(user: OrdinaryUser) -> tuple[int, str, str]:
    async with RegistrySimulator() as registry:
        registry.add_image("a/b", "1", SAMPLE)
        arguments = (*ROOTS, "pull", "-q", "--tls-verify=false", f"{registry.address}/a/b:1")
        ended = await asyncio.to_thread(user.asyncpull, *arguments)
    return ended.returncode, ended.stdout, ended.stderr


async def test_many_owners_with_many_ids(tmp_path: Path) -> None:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    user = OrdinaryUser(tmp_path, f"{UID}:200000:65536\n")
    assert await pulled(user) == (0, f"{SAMPLE.id}\n", "")
    found = {path: path.lstat() for path in tmp_path.glob("storage/overlay/*/diff/var/*")}
    letters = [status for path, status in found.items() if path.name == "mail" and stat.S_ISREG(status.st_mode)]
    whiteouts = [status for path, status in found.items() if path.name == "mail" and stat.S_ISCHR(status.st_mode)]
    # Inside, the IDs that are granted begin at 1.
    assert [(status.st_uid, status.st_gid) for status in letters] == [(200_007, 200_011)]
    assert [status.st_rdev for status in whiteouts] == [0]
    assert [(status.st_uid, status.st_gid) for path, status in found.items() if path.name == "new"] == [
        (200_999, 200_999)
    ]
    assert not list(tmp_path.glob("storage/overlay/*/diff/null"))  # no device but whiteouts can be made here
    removed = user.asyncpull(*ROOTS, "rmi", SAMPLE.id)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert not list(tmp_path.glob("storage/overlay/*/diff"))


async def test_many_owners_with_one_id(tmp_path: Path) -> None:
    user = OrdinaryUser(tmp_path)
    code, out, err = await pulled(user)
    assert (code, out) == (73, "")
    assert "cannot give it to owner" in err  # of either layer: they are extracted at the same time
    assert "/etc/subuid" in err
    assert user.asyncpull(*ROOTS, "layers", "-q").stdout == ""
    assert not list(tmp_path.glob("storage/overlay/tempdirs/*"))


async def test_one_owner_for_all_where_that_is_wanted(tmp_path: Path) -> None:
    user = OrdinaryUser(tmp_path)
    async with RegistrySimulator() as registry:
        registry.add_image("a/b", "1", SAMPLE)
        arguments = (*ROOTS, "pull", "-q", "--tls-verify=false", "--storage-opt", "overlay.ignore_chown_errors=true")
        ended = await asyncio.to_thread(user.asyncpull, *arguments, f"{registry.address}/a/b:1")
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_copies_into_the_own_store_and_out_of_it(tmp_path: Path) -> None:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    user = OrdinaryUser(tmp_path, f"{UID}:200000:65536\n")
    place, out = "containers-storage:localhost/x:1", tmp_path / "out"
    async with RegistrySimulator() as registry:
        source = f"docker://{registry.add_image('a/b', '1', SAMPLE)}"
        ended = await asyncio.to_thread(user.asyncpull, *ROOTS, "copy", "-q", "--src-tls-verify=false", source, place)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    for verb in ("digest", "verify"):
        told = user.asyncpull(*ROOTS, verb, place)
        assert told.returncode == 0, told.stderr
        assert SAMPLE.manifest.digest in told.stdout
    ended = user.asyncpull(*ROOTS, "copy", "-q", "--dest-decompress", place, f"dir:{out}")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    # The owners are those of the image again.
    for layer, diff_id in zip((OWNED, REMOVING), SAMPLE.diff_ids, strict=True):
        assert (out / diff_id.removeprefix("sha256:")).read_bytes() == layer
    assert (out / "manifest.json").stat().st_uid == UID
