"""The tar stream: members and contents from any slices, ends, extensions, what is refused."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import LayerError, MalformedLayerError, UnsupportedMemberError
from asyncpull.layer.header import DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMLINK
from asyncpull.layer.split import SplitWriter
from asyncpull.layer.stream import Member, TarStream
from tests.support.layer_reading import cut, read_layer, slices
from tests.support.odd_layers import ACCEPTED, REFUSED, STRICTER
from tests.support.tar_blocks import BLOCK, END, GNU, directory, header, long_name, member, padded, records
from tests.support.tar_strategies import TARS

if TYPE_CHECKING:
    from collections.abc import Iterable

SECOND = 1_000_000_000


@pytest.mark.parametrize("name", ACCEPTED)
def test_slices_make_no_difference(name: str) -> None:
    tar = ACCEPTED[name]
    whole = read_layer([tar])
    for size in (1, 7, 511, 512, 513, 1000):
        assert read_layer(slices(tar, size)) == whole
    assert read_layer([b"", tar, b""]) == whole


@pytest.mark.parametrize("name", ACCEPTED)
def test_contents_have_the_size_of_their_member(name: str) -> None:
    reading = read_layer([ACCEPTED[name]])
    assert [member.size for member in reading.members] == [len(contents) for contents in reading.contents]


@pytest.mark.parametrize("name", [*REFUSED, *STRICTER])
def test_refusals_tell_where_whatever_the_slices(name: str) -> None:
    tar = (REFUSED | STRICTER)[name]
    with pytest.raises(LayerError) as whole:
        read_layer([tar])
    assert whole.value.position is not None
    for size in (100, BLOCK, 10_000):
        with pytest.raises(LayerError) as sliced:
            read_layer(slices(tar, size))
        assert (type(sliced.value), sliced.value.args) == (type(whole.value), whole.value.args)


def test_pieces_are_views_of_what_was_fed() -> None:
    stream = TarStream(SplitWriter(lambda piece: None))
    data = member(b"a", b"contents")
    ((_, piece),) = stream.feed(data)
    assert bytes(piece) == b"contents"
    assert piece.obj is data


def test_a_member_comes_before_its_contents_are_there() -> None:
    stream = TarStream(SplitWriter(lambda piece: None))
    ((begun, nothing),) = stream.feed(header(b"a", size=1 << 30))
    assert begun is not None
    assert (begun.size, bytes(nothing)) == (1 << 30, b"")
    assert [(member, bytes(some)) for member, some in stream.feed(b"some")] == [(None, b"some")]


def test_a_member_has_all_that_its_header_says() -> None:
    tar = member(b"d/hard", kind=b"1", link=b"other", mode=0o4751, uid=7, gid=8, mtime=5, prefix=b"pre")
    assert read_layer([directory(b"x"), tar]).members[1] == Member(
        name=b"pre/d/hard",
        kind=HARD_LINK,
        mode=0o4751,
        uid=7,
        gid=8,
        size=0,
        mtime_ns=5 * SECOND,
        atime_ns=5 * SECOND,
        link_name=b"other",
        dev_major=0,
        dev_minor=0,
        xattrs={},
        position=BLOCK,
    )


def test_records_override_the_header_and_only_the_next_one() -> None:
    said = {
        b"path": b"p",
        b"linkpath": b"l",
        b"uid": b"1",
        b"gid": b"2",
        b"mtime": b"3.5",
        b"atime": b"4",
        b"SCHILY.xattr.user.a": b"\0b",
    }
    first, second = read_layer([records(said) + member(b"h", kind=b"2", link=b"t") + member(b"h", b"x")]).members
    assert (first.name, first.link_name, first.uid, first.gid) == (b"p", b"l", 1, 2)
    assert (first.mtime_ns, first.atime_ns) == (3 * SECOND + SECOND // 2, 4 * SECOND)
    assert first.xattrs == {b"user.a": b"\0b"}
    assert first.position == 2 * BLOCK
    assert (second.name, second.uid, second.xattrs) == (b"h", 0, {})


def test_a_gnu_name_wins_over_records() -> None:
    (found,) = read_layer([ACCEPTED["pax-and-gnu-name"]]).members
    assert found.name == b"from-gnu"


def test_later_records_replace_earlier_ones() -> None:
    (found,) = read_layer([ACCEPTED["pax-twice"]]).members
    assert (found.name, found.uid, found.gid) == (b"a", 0, 6)


def test_a_global_header_is_a_member_and_forgets_what_came_before() -> None:
    first, second = read_layer([ACCEPTED["global-header-forgets"]]).members
    assert (first.kind, first.size) == (ord("g"), 0)
    assert second.name == b"after"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("nul-type", [REGULAR, DIRECTORY]),
        ("nul-type-long", [DIRECTORY, REGULAR]),
        ("file-with-slash", [REGULAR]),
        ("sizes-without-contents", [DIRECTORY, SYMLINK, FIFO, DIRECTORY, REGULAR]),
    ],
)
def test_kinds(name: str, kinds: list[int]) -> None:
    assert [member.kind for member in read_layer([ACCEPTED[name]]).members] == kinds


def test_contents_after_a_record_of_their_size() -> None:
    reading = read_layer([records({b"size": b"5"}) + header(b"a", size=9000) + padded(b"12345") + member(b"b")])
    assert reading.contents == (b"12345", b"")


@pytest.mark.parametrize("tar", [b"", END, bytes(BLOCK), member(b"a"), member(b"a", b"x") + bytes(BLOCK) + END])
def test_where_a_stream_may_end(tar: bytes) -> None:
    read_layer([tar])


@pytest.mark.parametrize(
    ("tar", "position"),
    [
        (member(b"a") + header(b"b")[:1], BLOCK),
        (member(b"a") + header(b"b")[:511], BLOCK),
        (header(b"a", size=10), 0),
        (member(b"a", b"x" * 600)[:1111], 0),
        (bytes(BLOCK + 1), 0),
        (long_name(b"n" * 100)[:600], 0),
    ],
)
def test_where_a_stream_may_not_end(tar: bytes, position: int) -> None:
    with pytest.raises(MalformedLayerError) as refused:
        read_layer([tar])
    assert refused.value.position == position


def test_a_refusal_names_the_member() -> None:
    with pytest.raises(UnsupportedMemberError) as refused:
        read_layer([member(b"a") + header(b"S", b"S", magic=GNU)])
    assert (refused.value.member, refused.value.position) == (b"S", BLOCK)
    assert refused.value.hint


def test_headers_before_a_member_are_bounded() -> None:
    endless = records({b"comment": b"c" * 1000})
    with pytest.raises(MalformedLayerError):
        read_layer(endless for _ in range(10_000))


@given(TARS, st.lists(st.integers(0), max_size=8))
def test_any_slices_of_any_tar(tar: bytes, places: list[int]) -> None:
    assert read_layer(cut(tar, places), with_actions=False) == read_layer([tar], with_actions=False)


def can_be_told(pieces: Iterable[bytes]) -> bool:
    """Whether the pieces are a layer, or a LayerError tells where they are not."""
    try:
        read_layer(pieces)
    except LayerError as error:
        return error.position is not None
    return True


@given(TARS, st.data())
def test_damage_is_a_layer_error_or_nothing(tar: bytes, data: st.DataObject) -> None:
    damaged = bytearray(tar)
    for place in data.draw(st.lists(st.integers(0, max(len(tar) - 1, 0)), min_size=1, max_size=4)):
        damaged[place : place + 1] = data.draw(st.binary(max_size=4))
    assert can_be_told(slices(bytes(damaged), data.draw(st.integers(1, 2000))))


@given(st.binary(max_size=3000))
def test_random_bytes_are_a_layer_error_or_nothing(data: bytes) -> None:
    assert can_be_told([data])


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150)
INFOS = st.tuples(
    TEXTS,
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
    st.binary(max_size=1200),
    st.integers(0, 0o7777),
    st.integers(0, 1 << 32),
    st.integers(0, 1 << 33),
    TEXTS,
)


@given(st.lists(INFOS, max_size=5), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_what_the_standard_library_writes(
    infos: list[tuple[str, bytes, bytes, int, int, int, str]], layout: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        for name, kind, data, mode, uid, mtime, link in infos:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.mtime = kind, mode, uid, mtime
            if kind == tarfile.REGTYPE:
                info.size = len(data)
            elif kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = link
            archive.addfile(info, io.BytesIO(data))
    reading = read_layer([out.getvalue()], with_actions=False)
    out.seek(0)
    with tarfile.open(fileobj=out, encoding="utf-8") as archive:
        found = list(archive)
        assert len(found) == len(reading.members)
        for info, ours, contents in zip(found, reading.members, reading.contents, strict=True):
            slash = b"/" if ours.kind == DIRECTORY else b""
            assert ours.name.rstrip(b"/") + slash == info.name.encode().rstrip(b"/") + slash
            assert (ours.kind, ours.mode, ours.uid) == (info.type[0], info.mode, info.uid)
            assert (ours.mtime_ns, ours.link_name) == (int(info.mtime) * SECOND, info.linkname.encode())
            assert contents == (archive.extractfile(info).read() if info.isreg() else b"")  # type: ignore[union-attr]
