"""Real overlay mounts in each of the three ways, with odd paths, many layers, and the kernel's refusals in words."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.errors import MountError
from asyncpull.store.driver import MountPlan
from asyncpull.store.mounting import mount_error, perform, perform_by_fsopen, perform_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS = [perform, perform_by_fsopen, perform_in_child]

# What makes a path awkward: overlay splits at colons and commas, and takes backslashes away; fsconfig takes 255 bytes.
AWKWARD = ["plain", "a:b,c", "back\\slash", "blank é", "long-" + "x" * 230]


def layout(place: Path, lowers: int, *, writable: bool = True) -> MountPlan:
    """``lowers`` directories with a file each, and what all of them have."""
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(lowers):
        path = place / f"layer{number}"
        path.mkdir()
        (path / f"file{number}").write_text(str(number))
        (path / "everywhere").write_text(str(number))
        paths.append(path)
    for name in ("upper", "work", "merged"):
        (place / name).mkdir()
    return MountPlan(
        target=place / "merged",
        lowers=tuple(paths),
        upper=place / "upper" if writable else None,
        work=place / "work" if writable else None,
        options=() if writable else ("ro",),
    )


def options_of(target: Path) -> list[str]:
    """The options that the kernel lists for a mount, of the mount and of the file system."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(target):
            return [*fields[5].split(","), *fields[-1].split(",")]
    raise AssertionError(f"{target} is not mounted")


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", AWKWARD)
def test_writable(place: Path, way: Callable[[MountPlan], None], name: str) -> None:
    plan = layout(place / name, 3)
    way(plan)
    assert kernel.is_mount_point(plan.target)
    assert (plan.target / "everywhere").read_text() == "0"  # the first one covers the others
    assert (plan.target / "file2").read_text() == "2"
    (plan.target / "new").write_text("new")
    assert (place / name / "upper/new").read_text() == "new"
    kernel.unmount(plan.target)
    assert not kernel.is_mount_point(plan.target)


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_read_only(place: Path, way: Callable[[MountPlan], None]) -> None:
    plan = layout(place, 2, writable=False)
    way(plan)
    assert (plan.target / "file1").read_text() == "1"
    with pytest.raises(OSError, match="Read-only"):
        (plan.target / "new").touch()


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_options(place: Path, way: Callable[[MountPlan], None]) -> None:
    plan = replace(layout(place, 2), options=("nodev", "nosuid", "noatime", "metacopy=on", "volatile"))
    way(plan)
    options = options_of(plan.target)
    assert {"nodev", "nosuid", "noatime", "metacopy=on"} <= set(options)
    assert {"volatile", "fsync=volatile"} & set(options)  # newer kernels use the other word


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [200, 499])
def test_many_layers(place: Path, way: Callable[[MountPlan], None], number: int) -> None:
    before = os.getcwd()
    plan = layout(place, number)
    way(plan)
    names = set(os.listdir(plan.target))
    assert names == {"everywhere", *(f"file{n}" for n in range(number))}
    assert (plan.target / "everywhere").read_text() == "0"
    assert os.getcwd() == before


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_more_than_the_kernel_takes(place: Path, way: Callable[[MountPlan], None]) -> None:
    plan = layout(place, 501)
    with pytest.raises((OSError, MountError)):
        way(plan)
    assert not kernel.is_mount_point(plan.target)


@pytest.mark.root
def test_a_refusal_in_words(place: Path) -> None:
    plan = layout(place, 2)
    assert plan.upper is not None
    with pytest.raises(MountError, match="cannot mount"):
        perform(replace(plan, options=("nonsense=1",)))
    with pytest.raises(OSError, match="nonsense"):  # this way the kernel says what it does not like
        perform_by_fsopen(replace(plan, options=("nonsense=1",)))
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        perform_in_child(replace(plan, options=("nonsense=1",)))
    with pytest.raises(MountError, match="No such file"):
        perform(replace(plan, lowers=(place / "missing",)))
    assert not kernel.is_mount_point(plan.target)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENODEV, errno.EINVAL])
def test_refusals_come_with_a_next_step(number: int) -> None:
    error = mount_error(OSError(number, os.strerror(number)), Path("/some/where"))
    assert "/some/where" in str(error)
    assert error.hint


def test_other_refusals_come_without() -> None:
    assert mount_error(OSError(errno.EIO, "broken"), Path("/x")).hint is None


@pytest.mark.root
def test_a_mount_point_is_what_the_path_leads_to_now(place: Path) -> None:
    """A mount that another one covers is none, whatever the list of mounts says."""
    inner = place / "outer/inner"
    inner.mkdir(parents=True)
    assert not kernel.is_mount_point(inner)
    assert not kernel.is_mount_point(place / "missing")
    kernel.mount("tmpfs", inner, "tmpfs", 0)
    assert kernel.is_mount_point(inner)
    assert kernel.mounts_below(place) == [str(inner)]
    kernel.mount(str(place / "outer"), place / "outer", "none", kernel.MS_BIND)
    assert kernel.is_mount_point(place / "outer")
    assert not kernel.is_mount_point(inner)
    assert str(inner) in kernel.mounts_below(place)
    kernel.unmount(place / "outer")
    assert kernel.is_mount_point(inner)


@pytest.mark.root
def test_unmounting_does_not_follow_a_link(place: Path) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    kernel.mount("tmpfs", place / "real", "tmpfs", 0)
    with pytest.raises(OSError, match="Invalid"):
        kernel.unmount(place / "link")
    assert kernel.is_mount_point(place / "real")


def test_syncs_the_file_system(tmp_path: Path) -> None:
    kernel.sync_file_system(tmp_path)
    with pytest.raises(FileNotFoundError):
        kernel.sync_file_system(tmp_path / "missing")
