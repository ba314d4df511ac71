"""A store of an ordinary user from the pull to the last removal: by command, and by the library without a namespace."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.images import image
from tests.support.ordinary_user import UID, OrdinaryUser
from tests.support.registry_simulator import RegistrySimulator
from tests.support.tars import directory, file, opaque, tar, whiteout

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

GRANTS = f"{UID}:200000:65536\n"
LOWER = tar(
    [
        directory("var"),
        replace(file("var/mail", b"letter"), uid=8, gid=12),
        file("var/gone"),
        directory("old"),
        file("old/hidden"),
        replace(directory("hers"), uid=33, mode=0o700),
        replace(file("hers/own", b"hers"), uid=33),
    ]
)
UPPER = tar([directory("var"), whiteout("var/gone"), directory("old"), opaque("old"), file("old/new")])
SAMPLE = image([LOWER, UPPER])

LIBRARY = """
import asyncio, asyncpull
from pathlib import Path
from asyncpull.store.store import Store

async def main():
    async with Store.open(root=Path("storage"), run_root=Path("run")) as store:
        (image,) = await store.images()
        print(len(await store.layers()), len(await store.containers()), (await store.check(full=False)).is_clean)
        for attempt in (
            lambda: store.check(),
            lambda: store.create_container(image),
            lambda: store.mount(image),
            lambda: store.remove_container("one"),
            lambda: store.remove_image(image, force=True),
        ):
            try:
                await attempt()
            except asyncpull.AsyncpullError as error:
                print(type(error).__name__, "asyncpull unshare" in error.hint)
        print(len(await store.layers()), len(await store.containers()))

asyncio.run(main())
"""


async def _pulled(user: OrdinaryUser, *options: str) -> None:
    async with RegistrySimulator() as registry:
        registry.add_image("a/b", "1", SAMPLE)
        reference = f"{registry.address}/a/b:1"
        arguments = ("--root=storage", "--runroot=run", *options, "pull", "-q", "--tls-verify=false", reference)
        ended = await asyncio.to_thread(user.asyncpull, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")


def _said(user: OrdinaryUser, script: str, options: str = "") -> list[str]:
    """Run a script in which ``a`` is our command on the store, to its end or to the first command that fails."""
    command = f"{user.python} -m asyncpull --root={user.home}/storage --runroot={user.home}/run {options}"
    path = user.home / "a"
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    ended = user.run("sh", "-euc", f"PATH={user.home}:$PATH\n{script}")
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.fixture
def user(place: Path) -> OrdinaryUser:
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")
    return OrdinaryUser(place, GRANTS)


async def test_from_the_pull_to_the_last_removal(user: OrdinaryUser) -> None:
    await _pulled(user)
    said = _said(
        user,
        """
        a check
        a create --name one b:1 >/dev/null
        a unshare sh -euc '
            path=$(a mount one)
            cd "$path"
            stat -c "%n %u:%g %a" . var/mail hers/own old/*
            ls var
            rm var/mail
            echo written >var/new
            chown 5:6 var/new
            cd /
            a unmount one >/dev/null
            path=$(a mount b:1)
            cat "$path/var/mail"
            a unmount b:1 >/dev/null
        '
        echo
        stat -c "%u:%g" storage/overlay/*/diff/var/new
        a unshare sh -euc 'cat "$(a mount one)/var/new"'
        a check
        a rm -f one >/dev/null
        a rmi b:1 >/dev/null
        a layers -q
        ls storage/overlay storage/overlay/tempdirs
        """,
    )
    assert said == [
        *(". 0:0 555", "var/mail 8:12 644", "hers/own 33:0 644", "old/new 0:0 644", "mail", "letter"),
        *("200004:200005", "written", "storage/overlay:", "l", "tempdirs", "", "storage/overlay/tempdirs:"),
    ]


async def test_a_container_with_a_namespace_inside_of_the_namespace(user: OrdinaryUser) -> None:
    """No user may have the kernel map the files of its machine, so the layer is copied."""
    await _pulled(user)
    said = _said(
        user,
        """
        a create --name two --uidmap 0:1000:1000 b:1 >/dev/null
        a unshare sh -euc 'cd "$(a mount two)"; stat -c "%n %u:%g" . var/mail hers/own old/*'
        a check
        a layers -q | wc -l
        a rm -f two >/dev/null
        a rmi b:1 >/dev/null
        a layers -q | wc -l
        """,
    )
    assert said == [
        *(". 1000:1000", "var/mail 1008:1012", "hers/own 1033:1000", "old/new 1000:1000"),
        *("4", "0"),
    ]


async def test_the_same_through_a_mount_program(user: OrdinaryUser) -> None:
    program = shutil.which("fuse-overlayfs")
    if program is None:
        pytest.skip("needs fuse-overlayfs")
    option = f"--storage-opt=overlay.mount_program={program}"
    await _pulled(user, option)
    said = _said(
        user,
        """
        cat storage/overlay/.has-mount-program; echo
        a check
        a create --name one b:1 >/dev/null
        a unshare sh -euc '
            path=$(a mount one)
            stat -f -c %T "$path"
            cd "$path"
            stat -c "%n %u:%g %a" var/mail hers/own old/*
            ls var
            rm var/mail
            echo written >var/new
            cd /
            a unmount one >/dev/null
            cat "$(a mount b:1)/var/mail"
            a unmount b:1 >/dev/null
        '
        echo
        a diff one
        a check
        a rm -f one >/dev/null
        a rmi b:1 >/dev/null
        a layers -q
        """,
        option,
    )
    assert said == [
        *("true", "fuseblk", "var/mail 8:12 644", "hers/own 33:0 644", "old/new 0:0 644", "mail", "letter"),
        *("C /var", "D /var/mail", "A /var/new"),
    ]


async def test_one_id_is_enough_where_owners_do_not_matter(place: Path) -> None:
    user, option = OrdinaryUser(place), "--storage-opt=overlay.ignore_chown_errors=true"
    await _pulled(user, option)
    said = _said(
        user,
        """
        a check
        a create --name one b:1 >/dev/null
        a unshare sh -euc 'cd "$(a mount one)"; stat -c "%n %u:%g" var/mail hers/own old/*; echo x >var/new'
        a check
        a rm -f one >/dev/null
        a rmi b:1 >/dev/null
        a layers -q
        """,
        option,
    )
    assert said == ["var/mail 0:0", "hers/own 0:0", "old/new 0:0"]


async def test_outside_of_the_namespace_the_library_looks_and_does_not_touch(user: OrdinaryUser) -> None:
    await _pulled(user)
    _said(user, "a create --name one b:1 >/dev/null")
    (user.home / "library.py").write_text(LIBRARY)
    ended = user.run(user.python, "library.py")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        *("3 1 True", "StoreWriteError True", "StoreWriteError True", "MountError True"),
        *("StoreWriteError True", "StoreWriteError True", "3 1"),
    ]
    assert _said(user, "a check") == []
