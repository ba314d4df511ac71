"""Diff, export and commit as an ordinary user, whose store holds other owners than the layers name."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.layer_reading import read_layer
from tests.support.ordinary_user import UID, OrdinaryUser
from tests.support.registry_simulator import RegistrySimulator
from tests.support.tars import directory, file, tar

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

ROOTS = ("--root", "storage", "--runroot", "run")
SAMPLE = image([tar([directory("var/"), replace(file("var/mail", b"letter"), uid=8, gid=12), directory("old/")])])
WORK = """
    set -e
    rootfs=$({command} mount c)
    echo new >"$rootfs/var/new"; chown 3:4 "$rootfs/var/new"
    rm "$rootfs/var/mail"; rmdir "$rootfs/old"; mkdir "$rootfs/old"; echo x >"$rootfs/old/x"
    {command} diff c
    {command} unmount c >unmounted
"""


async def test_what_is_committed_has_the_owners_of_images(tmp_path: Path) -> None:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    user = OrdinaryUser(tmp_path, f"{UID}:200000:65536\n")
    async with RegistrySimulator() as registry:
        registry.add_image("a/b", "1", SAMPLE)
        arguments = (*ROOTS, "pull", "-q", "--tls-verify=false", f"{registry.address}/a/b:1")
        pulled = await asyncio.to_thread(user.asyncpull, *arguments)
        assert pulled.returncode == 0, pulled.stderr
    created = user.asyncpull(*ROOTS, "create", "--name", "c", SAMPLE.id)
    assert created.returncode == 0, created.stderr
    command = " ".join((user.python, "-m", "asyncpull", *ROOTS))
    worked = user.asyncpull("unshare", "sh", "-c", WORK.format(command=command))
    changes = "D /old\nA /old/x\nC /var\nD /var/mail\nA /var/new\n"
    assert (worked.returncode, worked.stdout) == (0, changes), worked.stderr
    assert user.asyncpull(*ROOTS, "diff", "c").stdout == changes

    made = user.asyncpull(*ROOTS, "commit", "c", "made")
    assert made.returncode == 0, made.stderr
    assert user.asyncpull(*ROOTS, "export", "-o", "layer.tar", "made").returncode == 0
    members = read_layer([(tmp_path / "layer.tar").read_bytes()]).members
    assert [(each.name, each.uid, each.gid) for each in members if each.name == b"var/new"] == [(b"var/new", 3, 4)]
    assert {b"var/.wh.mail", b"old/.wh..wh..opq"} <= {each.name for each in members}
    assert [path.stat().st_uid for path in tmp_path.glob("storage/overlay/*/diff/var/new")] == [200_002] * 2
    checked = user.asyncpull(*ROOTS, "check", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (record,) = [
        each
        for each in json.loads((tmp_path / "storage/overlay-images/images.json").read_bytes())
        if each["id"] == made.stdout.strip()
    ]
    assert record["names"] == ["localhost/made:latest"]
