"""A disk that gets full under a copy: the old image stays, and with room again the next copy goes through."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from asyncpull.access import Access
from asyncpull.cli.exit_codes import CANNOT_WRITE, exit_code_of
from asyncpull.copy import Copier
from asyncpull.errors import NoSpaceError
from asyncpull.registry.config import RegistryAccess
from asyncpull.spec.platform import Platform
from tests.support import images, tars
from tests.support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

OLD = images.image([tars.tar([tars.file("old", b"old")])])
NEW = images.image([tars.tar([tars.file(str(number), images.noise(number, 900_000))]) for number in range(3)])
GOALS = ["oci:{}/layout:1", "oci-archive:{}/a.tar:1", "dir:{}/dir", "docker-archive:{}/{}.tar:x/y:1"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


async def copy(source: str, goal: str) -> None:
    access = Access(RegistryAccess(tls_verify=False))
    async with Copier(source=access, platform=Platform("linux", "amd64")) as copier:
        await copier.copy(source, goal)


def contents(directory: Path) -> dict[str, bytes]:
    """What a reader of the place looks at: every file that is not hidden, and no blob that nothing lists."""
    files = (path for path in directory.rglob("*") if path.is_file() and "blobs" not in path.parts)
    found = {str(path.relative_to(directory)): path for path in files}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".") and "/." not in name}


@pytest.mark.parametrize("is_local", [False, True], ids=["from a registry", "from a layout"])
@pytest.mark.parametrize("goal", GOALS)
async def test_it_gets_full(disk: Path, tmp_path: Path, goal: str, is_local: bool) -> None:
    images.write_layout(tmp_path / "from", {"old": OLD, "new": NEW})
    async with RegistrySimulator() as registry:
        source = f"docker://{registry.add_image('a/b', '1', NEW)}"
        if is_local:
            source = f"oci:{tmp_path}/from:new"
        await copy(f"oci:{tmp_path}/from:old", goal.format(disk, "old"))
        before = contents(disk)
        with pytest.raises(NoSpaceError) as caught:
            await copy(source, goal.format(disk, "new"))
        assert exit_code_of(caught.value) == CANNOT_WRITE
        assert str(disk) in str(caught.value)
        assert caught.value.hint
        assert contents(disk) == before
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        await copy(source, goal.format(disk, "new"))
        await copy(goal.format(disk, "new"), f"dir:{tmp_path}/read")
    assert not list(disk.rglob(".*"))
    config = NEW.config.digest.removeprefix("sha256:")
    assert (tmp_path / "read" / config).read_bytes() == NEW.config.data
