"""Members as header blocks: read back they are the same, by us and by others, and the bytes are what they were."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import UnsupportedMemberError
from asyncpull.layer.archive import END, format_member, padding
from asyncpull.layer.header import CHARACTER_DEVICE, DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMLINK, Member
from tests.support.layer_reading import read_layer

PLAIN = Member(b"a", REGULAR, 0o644, 0, 0, 0, 10**9, 10**9, b"", 0, 0, {}, 0)
LATEST = (1 << 63) - 1

NAMES = st.lists(
    st.binary(min_size=1, max_size=60).map(lambda part: part.translate(None, b"/\0") or b"x"), min_size=1, max_size=9
).map(b"/".join)
MEMBERS = st.builds(
    lambda kind, name, mode, uid, gid, time, link, device, xattrs, size: Member(
        name=name + b"/" if kind == DIRECTORY else name,
        kind=kind,
        mode=mode,
        uid=uid,
        gid=gid,
        size=size if kind == REGULAR else 0,
        mtime_ns=time,
        atime_ns=time,
        link_name=link if kind in (SYMLINK, HARD_LINK) else b"",
        dev_major=device[0] if kind == CHARACTER_DEVICE else 0,
        dev_minor=device[1] if kind == CHARACTER_DEVICE else 0,
        xattrs=xattrs,
        position=0,
    ),
    kind=st.sampled_from([REGULAR, DIRECTORY, SYMLINK, HARD_LINK, CHARACTER_DEVICE, FIFO]),
    name=NAMES,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    time=st.integers(0, LATEST),
    link=NAMES,
    device=st.tuples(st.integers(0, 4095), st.integers(0, (1 << 20) - 1)),
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=9).map(lambda name: b"user." + name.translate(None, b"=\0")), st.binary()
    ),
    size=st.integers(0, 3000),
)


def archive(*members: Member) -> bytes:
    parts = [format_member(each) + bytes(each.size) + padding(each.size) for each in members]
    return b"".join([*parts, END])


@given(st.lists(MEMBERS, max_size=4))
def test_what_is_read_back_is_what_was_written(members: list[Member]) -> None:
    reading = read_layer([archive(*members)], with_actions=False)
    assert [replace(each, position=0) for each in reading.members] == members
    assert [len(each) for each in reading.contents] == [each.size for each in members]


@given(MEMBERS)
def test_others_read_the_same(member: Member) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(member)), errors="surrogateescape") as tar:
        (info,) = tar.getmembers()
    assert info.name.encode(errors="surrogateescape") == member.name.rstrip(b"/")
    assert info.linkname.encode(errors="surrogateescape") == member.link_name
    assert (info.mode, info.uid, info.gid, info.size) == (member.mode, member.uid, member.gid, member.size)
    assert (info.devmajor, info.devminor) == (member.dev_major, member.dev_minor)


@pytest.mark.parametrize(
    ("member", "blocks"),
    [
        pytest.param(PLAIN, 1, id="plain"),
        pytest.param(replace(PLAIN, name=b"d" * 99, kind=DIRECTORY), 1, id="a directory that just fits"),
        pytest.param(replace(PLAIN, name=b"d" * 100, kind=DIRECTORY), 3, id="a directory that just does not fit"),
        pytest.param(replace(PLAIN, name=b"p" * 155 + b"/" + b"n" * 100), 1, id="name and prefix full"),
        pytest.param(replace(PLAIN, name=b"p" * 156 + b"/" + b"n" * 99), 3, id="no slash where it would help"),
        pytest.param(replace(PLAIN, name="\u00e4".encode()), 3, id="not ASCII"),
        pytest.param(replace(PLAIN, uid=8**7), 3, id="a large user ID"),
        pytest.param(replace(PLAIN, mtime_ns=1), 3, id="a fraction of a second"),
        pytest.param(replace(PLAIN, xattrs={b"user.a": b"v" * 600}), 4, id="a long attribute"),
    ],
)
def test_only_what_does_not_fit_takes_more_than_a_block(member: Member, blocks: int) -> None:
    assert len(format_member(member)) == blocks * 512


def test_the_bytes_are_these() -> None:
    header = format_member(replace(PLAIN, name=b"etc/hosts", uid=3, gid=4, size=5, mtime_ns=1_700_000_000_500_000_000))
    assert header[512:554] == b"22 mtime=1700000000.5\n".ljust(42, b"\0")
    assert header[1024 : 1024 + 157] == (
        b"etc/hosts".ljust(100, b"\0")
        + b"0000644\x000000003\x000000004\x0000000000005\x0014524770400\x00"
        + header[1024 + 148 : 1024 + 156]
        + b"0"
    )


@pytest.mark.parametrize(
    "xattrs", [{b"user.a=b": b""}, {b"user.%d" % number: bytes(1 << 16) for number in range(17)}], ids=["=", "many"]
)
def test_attributes_that_no_archive_can_hold_are_refused(xattrs: dict[bytes, bytes]) -> None:
    with pytest.raises(UnsupportedMemberError):
        format_member(replace(PLAIN, xattrs=xattrs))
