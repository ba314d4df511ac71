"""tar-split: lines equal to podman's, exact rebuilding, and what is done about contents that have changed."""

from __future__ import annotations

import gzip
import io
import json
import random
from base64 import b64decode
from pathlib import Path

import orjson
import pytest
from fastcrc.crc64 import go_iso
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import DigestMismatchError, IntegrityError, LayerError, SizeMismatchError
from asyncpull.layer.split import Contents, Segment, SplitWriter, read_split, rebuild
from tests.support.layer_reading import Reading, cut, read_layer, slices
from tests.support.odd_layers import ACCEPTED, BETTER, REFUSED
from tests.support.tar_blocks import BLOCK, END, member
from tests.support.tar_strategies import TARS

GOLDEN = Path(__file__).parent / "golden"


def lines_and_tail(lines: list[bytes]) -> tuple[list[bytes], bytes]:
    """The lines up to the last member's, and the bytes after it: how Go cuts those depends on its reads."""
    last = max((number for number, line in enumerate(lines, 1) if json.loads(line)["type"] == 1), default=0)
    return lines[:last], b"".join(b64decode(json.loads(line)["payload"]) for line in lines[last:])


def rebuilt(reading: Reading, split: bytes) -> bytes:
    """The tar stream from ``split`` and the contents, which are asked for in their order."""
    contents = (data for data in reading.contents if data)
    return b"".join(rebuild(read_split([split]), lambda name: io.BytesIO(next(contents))))


def test_there_is_a_golden_file_for_every_layer_and_no_other() -> None:
    assert {path.name for path in GOLDEN.glob("*.tar-split.gz")} == {f"{name}.tar-split.gz" for name in ACCEPTED}
    refused = (GOLDEN / "refused.txt").read_text().splitlines()
    assert {line.partition(":")[0] for line in refused} == set(REFUSED)


@pytest.mark.parametrize("name", sorted(set(ACCEPTED) - BETTER))
def test_lines_are_those_of_podman(name: str) -> None:
    golden = gzip.decompress((GOLDEN / f"{name}.tar-split.gz").read_bytes()).splitlines()
    assert lines_and_tail(read_layer([ACCEPTED[name]]).split_lines) == lines_and_tail(golden)


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_stream_is_rebuilt(name: str) -> None:
    reading = read_layer([ACCEPTED[name]])
    assert rebuilt(reading, reading.split) == ACCEPTED[name]


@pytest.mark.parametrize("name", sorted(set(ACCEPTED) - BETTER))
def test_the_stream_is_rebuilt_from_what_podman_wrote(name: str) -> None:
    golden = (GOLDEN / f"{name}.tar-split.gz").read_bytes()
    assert rebuilt(read_layer([ACCEPTED[name]]), golden) == ACCEPTED[name]


@given(TARS, st.lists(st.integers(0), max_size=5))
def test_any_tar_is_rebuilt(tar: bytes, places: list[int]) -> None:
    reading = read_layer(cut(tar, places), with_actions=False)
    assert rebuilt(reading, reading.split) == tar


@given(TARS, st.data())
def test_any_damaged_tar_that_is_still_one_is_rebuilt(tar: bytes, data: st.DataObject) -> None:
    damaged = bytearray(tar)
    for place in data.draw(st.lists(st.integers(0, max(len(tar) - 1, 0)), min_size=1, max_size=3)):
        damaged[place : place + 1] = data.draw(st.binary(max_size=2))
    try:
        reading = read_layer([bytes(damaged)], with_actions=False)
    except LayerError:
        return
    assert rebuilt(reading, reading.split) == damaged


@pytest.mark.parametrize(
    ("contents", "payload"),
    [
        (b"1", "QyAAAAAAAAA="),
        (b"zz", "IFBwAAAAAAA="),
        (b"new", "KrLdsAAAAAA="),
        (b"changed", "M2LRvYQYJ0A="),
        (b"hardlink content", "BE6mM80Xdc8="),
    ],
)
def test_crc_vectors(contents: bytes, payload: str) -> None:
    for size in (1, 2, 10_000):
        lines = read_layer(slices(member(b"a", contents), size)).split_lines
        assert orjson.loads(lines[1])["payload"] == payload


def test_objects_are_numbered_and_a_member_without_contents_has_no_size() -> None:
    lines = read_layer([member(b"a") + member(b"b", b"1") + END]).split_lines
    assert [orjson.loads(line)["position"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[1] == b'{"type":1,"name":"a","payload":null,"position":1}'
    assert lines[3] == b'{"type":1,"name":"b","size":1,"payload":"QyAAAAAAAAA=","position":3}'


def test_what_follows_the_end_is_cut_to_a_mebibyte_whatever_the_slices() -> None:
    trailing = bytes(range(256)) * 10_000
    lines = read_layer([END + trailing]).split_lines
    sizes = [len(b64decode(orjson.loads(line)["payload"])) for line in lines]
    assert sizes == [2 * BLOCK, 1 << 20, 1 << 20, len(trailing) - (2 << 20)]
    assert read_layer(slices(END + trailing, 99_999)).split_lines == lines


def test_pieces_are_handed_on_as_they_come() -> None:
    pieces: list[bytes] = []
    writer = SplitWriter(pieces.append)
    noise = random.Random(1).randbytes(100_000)
    for number in range(200):
        writer.add_member(noise, b"%d" % number, 0, 0)
    before = len(pieces)
    writer.close()
    assert before > 5
    assert max(map(len, pieces)) < 1 << 20
    assert len(list(read_split(pieces))) == 400


def test_entries_from_any_pieces_and_members_of_gzip() -> None:
    text = b"".join(
        [
            b'{"type":2,"payload":"YWJj","position":0}\n',
            b'{"position":7,"payload":"QyAAAAAAAAA=","unknown":[1],"size":1,"name":"\\u003ca","type":1}\n',
            b'{"type":1,"name_raw":"6Q==","payload":null,"position":0}\n',
        ]
    )
    entries = [Segment(b"abc"), Contents(b"<a", 1, go_iso(b"1")), Contents(b"\xe9", 0, 0)]
    split = gzip.compress(text[:50]) + gzip.compress(b"") + gzip.compress(text[50:])
    assert list(read_split([split])) == entries
    assert list(read_split(slices(split, 1))) == entries
    assert list(read_split([gzip.compress(text.rstrip(b"\n"))])) == entries
    assert list(read_split([gzip.compress(b"")])) == []


@pytest.mark.parametrize(
    "split",
    [
        b"",
        b'{"type":2,"payload":"YWJj","position":0}\n',
        gzip.compress(b'{"type":2,"payload":"YWJj","position":0}\n')[:-1],
        gzip.compress(b'{"type":2,"payload":"YWJj","position":0}\n') + b"more",
        *(
            gzip.compress(line)
            for line in (
                b"not json",
                b"[]",
                b"7",
                b"\n\n",
                b'{"type":2,"position":0}',
                b'{"type":2,"payload":null}',
                b'{"type":2,"payload":"YWJ"}',
                b'{"type":3,"payload":""}',
                b'{"type":1,"name":5,"payload":null}',
                b'{"type":1,"name":"a","size":1,"payload":null}',
                b'{"type":1,"name":"a","size":1,"payload":"YWJj"}',
                b'{"type":1,"name":"a","size":"1","payload":"QyAAAAAAAAA="}',
                b'{"type":1,"name":"a","size":-1,"payload":"QyAAAAAAAAA="}',
            )
        ),
    ],
)
def test_what_is_no_tar_split(split: bytes) -> None:
    with pytest.raises(IntegrityError):
        list(read_split([split]))


@given(st.binary(max_size=300))
def test_random_bytes_are_no_tar_split(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        list(read_split([data]))


@given(st.binary(max_size=300))
def test_random_lines_are_an_integrity_error_or_entries(data: bytes) -> None:
    try:
        entries = list(read_split([gzip.compress(data)]))
    except IntegrityError:
        return
    assert bool(entries) == bool(data)


class Tree:
    """Contents by name, which remembers what is open."""

    def __init__(self, contents: dict[bytes, bytes]) -> None:
        self.contents = contents
        self.opened: list[io.BytesIO] = []

    def open(self, name: bytes) -> io.BytesIO:
        self.opened.append(io.BytesIO(self.contents[name]))
        return self.opened[-1]


BIG = bytes(range(256)) * 10_000
TAR = member(b"./a", b"contents") + member(b"none") + member(b"big", BIG) + END


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (b"CONTENTS", DigestMismatchError),
        (b"content", SizeMismatchError),
        (b"contents!", SizeMismatchError),
        (b"", SizeMismatchError),
    ],
)
def test_changed_contents_are_found(changed: bytes, error: type[IntegrityError]) -> None:
    tree = Tree({b"./a": changed, b"big": BIG})
    with pytest.raises(error) as found:
        list(rebuild(read_split([read_layer([TAR]).split]), tree.open))
    assert "./a" in str(found.value)
    assert [file.closed for file in tree.opened] == [True]


def test_contents_are_opened_by_name_and_closed() -> None:
    tree = Tree({b"./a": b"contents", b"big": BIG})
    assert b"".join(rebuild(read_split([read_layer([TAR]).split]), tree.open)) == TAR
    assert [file.closed for file in tree.opened] == [True, True]


def test_errors_of_opening_pass_through() -> None:
    with pytest.raises(KeyError):
        list(rebuild([Contents(b"a", 1, 0)], Tree({}).open))
