"""Targets: a layer as bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import zstandard

from asyncpull.errors import DocumentError, IntegrityError, LayerError, MalformedLayerError, UnsupportedMemberError
from asyncpull.layer.archive import END, format_member, padding
from asyncpull.layer.changeset import Action, Effect, clean_link, clean_name
from asyncpull.layer.codec import PIECE, Compression, Inflater, detect
from asyncpull.layer.header import BLOCK, DIRECTORY, NO_XATTRS, Member, parse_header
from asyncpull.layer.pax import apply_records, is_sparse, parse_records
from asyncpull.layer.split import Contents, Segment, read_split, rebuild
from asyncpull.layer.zstdframes import FrameWalker
from asyncpull.memberindex import index_members
from tests.fuzz.target import Target
from tests.support.layer_reading import Reading, read_layer, slices
from tests.support.odd_layers import ACCEPTED, REFUSED, STRICTER
from tests.support.tar_blocks import header, member, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CHECKSUMS, _ACTIONS = 1, 2
_MOST = 4 << 20


def _with_checksums(data: bytes) -> bytes:
    """``data`` with the checksum that each header should have; no fuzzer finds those by itself."""
    blocks = bytearray(data)
    at = 0
    while at + BLOCK <= len(blocks):
        block = bytes(blocks[at : at + BLOCK])
        if block.count(0) == BLOCK:
            at += BLOCK
            continue
        blocks[at : at + BLOCK] = block = _summed(block)
        size = 0
        with suppress(MalformedLayerError):
            size = max(parse_header(block, at).size, 0)
        at += BLOCK + size + -size % BLOCK
    return bytes(blocks)


def _summed(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def _header(data: bytes) -> None:
    block = data[:BLOCK].ljust(BLOCK, b"\0")
    read = [_outcome(lambda each=each: parse_header(each, 7)) for each in (block, _summed(block))]  # type: ignore[misc]
    for found in read:
        if isinstance(found, Member):
            assert b"\0" not in found.name + found.link_name
            assert 0 <= found.mtime_ns <= found.atime_ns < 1 << 63


def _outcome(work: Callable[[], object]) -> object:
    """What ``work`` gives, or where and of what kind its documented error is."""
    try:
        return work()
    except LayerError as error:
        return type(error), error.message, error.position


def _pax(data: bytes) -> None:
    found = parse_records(data, 0)
    assert sum(map(len, found)) <= len(data)
    is_sparse(found)
    read = _member(b"name")
    apply_records(read, found, 0)
    assert read.atime_ns >= read.mtime_ns >= 0


def _member(name: bytes, **values: object) -> Member:
    known: dict[str, object] = {
        "kind": 0x30,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": 0,
        "mtime_ns": 0,
        "atime_ns": 0,
        "link_name": b"",
        "dev_major": 0,
        "dev_minor": 0,
        "xattrs": NO_XATTRS,
        "position": 0,
    }
    return Member(name=name, **known | values)  # type: ignore[arg-type]


def _written(data: bytes) -> None:
    """A member whose fields are cut out of ``data`` is written and read back."""
    numbers, _, texts = data.partition(b"\n")
    name, _, rest = texts.partition(b"\n")
    link, _, value = rest.partition(b"\n")
    wide = [int.from_bytes(numbers[start : start + 7]) for start in range(0, 35, 7)]
    kind = 0x30 + (numbers[35] % 7 if len(numbers) > 35 else 0)
    if b"\0" in name + link or not name:
        return
    mtime = wide[3] if len(numbers) % 2 else wide[3] * 1_000_000_000 % (1 << 63)
    before = _member(
        name,
        kind=kind,
        mode=wide[0] & 0o7777,
        uid=wide[1] & 0xFFFFFFFF,
        gid=wide[2] & 0xFFFFFFFF,
        size=wide[4] & 0xFFF if kind == 0x30 else 0,
        mtime_ns=mtime,
        atime_ns=mtime,
        link_name=link if kind in (0x31, 0x32) else b"",
        xattrs={b"user.x": value} if value else NO_XATTRS,
    )
    contents = bytes(before.size)
    after = read_layer([format_member(before) + contents + padding(before.size) + END], with_actions=False).members
    assert len(after) == 1
    if kind == DIRECTORY and name[-1:] != b"/":
        before.name += b"/"
    before.position = after[0].position
    assert after[0] == before


def _stream(data: bytes) -> None:
    flags, size, tar = (data[0], 1 + data[1], data[2:]) if len(data) > 1 else (0, 1, b"")
    if flags & _CHECKSUMS:
        tar = _with_checksums(tar)
    has_actions = bool(flags & _ACTIONS)
    whole = _outcome(lambda: read_layer([tar], with_actions=has_actions))
    cut = _outcome(lambda: read_layer(slices(tar, size), with_actions=has_actions))
    assert _comparable(whole) == _comparable(cut)
    if not isinstance(whole, Reading):
        raise MalformedLayerError("refused")
    for action in whole.actions:
        _require_inside(action)
    contents = (each for each in whole.contents if each)
    assert b"".join(rebuild(read_split([whole.split]), lambda _: io.BytesIO(next(contents)))) == tar


def _comparable(found: object) -> object:
    return (found.members, found.contents, found.actions, found.split_lines) if isinstance(found, Reading) else found


def _require_inside(action: Action) -> None:
    parts = [part for path in (action.parent, action.target) for part in path.split(b"/")]
    assert b".." not in parts
    assert b"." not in parts
    assert b"/" not in action.name
    assert not action.parent.startswith(b"/")
    assert action.name not in (b".", b"..")
    assert bool(action.name) != (action.effect in (Effect.NOTHING, Effect.OPAQUE))


def _names(data: bytes) -> None:
    name = data.replace(b"\0", b"")
    path = clean_name(name)
    for clean in (clean_link(name), path):
        if clean is None:
            continue
        assert clean_name(clean) == clean == clean_link(clean)
        assert not {b"", b".", b".."} & set(clean.split(b"/")) or not clean


def _members(data: bytes) -> None:
    follow, tar = data[:1] == b"f", _with_checksums(data[1:])
    fd = os.memfd_create("archive")
    try:
        os.write(fd, tar)
        index = index_members("archive", fd, follow_links=follow)
        for name, extent in index.files.items():
            assert extent.offset + extent.size <= len(tar)
            assert len(extent.read()) == extent.size
            assert index.has(name)
            _require_relative(name)
        for name, target in index.links.items():
            _require_relative(name)
            _require_relative(target)
    finally:
        os.close(fd)


def _require_relative(name: str) -> None:
    assert ".." not in name.split("/")
    assert not name.startswith("/")


def _split(data: bytes) -> None:
    """Bytes of a gzip stream, or the lines in one."""
    raw = data[1:] if data[:1] == b"z" else gzip.compress(data, 1, mtime=0)
    found = list(read_split([raw]))
    assert list(read_split(slices(raw, 7))) == found
    sizes = sum(len(each.raw) for each in found if isinstance(each, Segment))
    assert sizes <= 2000 * len(raw)
    with suppress(IntegrityError):
        for _ in rebuild(found, lambda _: io.BytesIO(b"1")):
            pass
    for each in found:
        if isinstance(each, Contents):
            assert each.size >= 0
            assert 0 <= each.crc < 1 << 64


def _inflate(pieces: Iterable[bytes]) -> bytes:
    inflater = Inflater()
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        for each in inflater.feed(piece):
            assert len(each) <= PIECE
            size += len(each)
            if size > _MOST:
                return b"".join(found)[:_MOST]
            found.append(each)
    inflater.close()
    return b"".join(found)


def _codec(data: bytes) -> None:
    size, blob = (1 + data[0], data[1:]) if data else (1, b"")
    whole = _kind_of(lambda: _inflate([blob]))
    assert whole == _kind_of(lambda: _inflate(slices(blob, size)))
    if whole is LayerError:
        raise MalformedLayerError("refused")
    if detect(blob) is Compression.NONE:
        assert whole == blob


def _kind_of(work: Callable[[], object]) -> object:
    """What ``work`` gives; how damaged data is put into words depends on how it comes."""
    try:
        return work()
    except LayerError:
        return LayerError


def _zstd_frames(data: bytes) -> None:
    limit, size, blob = (1 << 17, 1 + data[0], data[1:]) if data else (1 << 17, 1, b"")
    ends = []
    for pieces in ([blob], list(slices(blob, size))):
        walker = FrameWalker(2 * limit)
        runs = [run for piece in pieces for run in walker.feed(piece)]
        assert blob.startswith(b"".join(runs))
        assert len(blob) - len(b"".join(runs)) < 18
        ends.append(walker.between_frames)
    assert ends[0] == ends[1]


def _stream_seeds() -> Iterator[bytes]:
    for tar in (*ACCEPTED.values(), *REFUSED.values(), *STRICTER.values()):
        if len(tar) <= 6 * BLOCK:
            yield b"\0\x40" + tar
            yield b"\3\x06" + tar


def _written_seeds() -> Iterator[bytes]:
    yield bytes(range(36)) + b"\nname\nlink\nvalue"
    yield b"\xff" * 35 + b"\5\n" + b"a/" * 80 + b"\n\n"
    yield b"\1" * 35 + b"\2\n\xc3\xa9\n" + b"t" * 120 + b"\n"


def _codec_seeds() -> Iterator[bytes]:
    text = b"some text that is there " * 4
    for blob in (
        gzip.compress(text, mtime=0),
        gzip.compress(text, mtime=0) * 2 + bytes(5),
        b"\x1f\x8b\x08\x1f" + bytes(6) + b"\2\0ab" + b"name\0comment\0",
        bz2.compress(text),
        bz2.compress(b"") + bz2.compress(text),
        lzma.compress(text),
        zstandard.ZstdCompressor().compress(text),
        zstandard.ZstdCompressor(write_checksum=True).compress(text) + b"\x50\x2a\x4d\x18\2\0\0\0ab",
        b"plain",
    ):
        yield b"\4" + blob


def _split_seeds() -> Iterator[bytes]:
    yield b"".join(
        [
            b'{"type":2,"payload":"YWJj","position":0}\n',
            b'{"type":1,"name":"a","size":1,"payload":"QyAAAAAAAAA=","position":1}\n',
            b'{"type":1,"name_raw":"6Q==","payload":null,"position":2}\n',
        ]
    )
    for tar in list(ACCEPTED.values())[::12]:
        if len(tar) <= 6 * BLOCK:
            split = read_layer([tar], with_actions=False).split
            yield gzip.decompress(split)
            yield b"z" + split


_MALFORMED = (MalformedLayerError,)
_TAR_WORDS = (b"ustar\x0000", b"ustar  \0", b"tar\0", b"././@LongLink", b".wh.", b".wh..wh..opq", b"\x80" + bytes(7))

TARGETS = (
    Target("tar-header", _header, _MALFORMED, lambda: (header(b"a"), header(b"a", magic=b"ustar  \0")), _TAR_WORDS),
    Target(
        "pax",
        _pax,
        _MALFORMED,
        lambda: (
            records({b"path": b"a", b"size": b"5", b"mtime": b"1.5"})[BLOCK:].rstrip(b"\0"),
            records({b"SCHILY.xattr.user.a": b"b", b"uid": b"+7", b"atime": b"-1.000000001"})[BLOCK:].rstrip(b"\0"),
            b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
        ),
        (b"path=", b"linkpath=", b"size=", b"GNU.sparse.offset=", b"GNU.sparse.numbytes=", b"GNU.sparse.map=", b"\n6 "),
    ),
    Target("tar-member", _written, (UnsupportedMemberError,), _written_seeds, (b"\n", b"/", b"=")),
    Target("tar-stream", _stream, (LayerError,), _stream_seeds, _TAR_WORDS, length=6 * BLOCK + 2),
    Target("member-names", _names, (), lambda: (b"a/b", b"./a/../b//c/.", b"/..", b".wh.a"), (b"/", b"..", b"./")),
    Target(
        "archive-index",
        _members,
        (DocumentError,),
        lambda: (
            b"f" + member(b"a/b", b"x") + header(b"c", b"2", link=b"a/../d") + END,
            b"-" + member(b"manifest.json", b"[]") + header(b"d/", b"5") + END,
            *(b"-" + each for each in list(ACCEPTED.values())[::10] if len(each) <= 6 * BLOCK),
        ),
        _TAR_WORDS,
        length=6 * BLOCK + 1,
    ),
    Target(
        "tar-split",
        _split,
        (IntegrityError,),
        _split_seeds,
        (b'{"type":', b'"payload":', b'"name_raw":', b'"size":', b"null", b"1e400", b"18446744073709551615"),
        memory=(8 << 20, 5000),
    ),
    Target(
        "codec", _codec, _MALFORMED, _codec_seeds, (b"\x1f\x8b\x08", b"BZh9", b"\x28\xb5\x2f\xfd"), memory=(32 << 20, 0)
    ),
    Target("zstd-frames", _zstd_frames, _MALFORMED, lambda: [s for s in _codec_seeds() if s[1:3] == b"\x28\xb5"]),
)
