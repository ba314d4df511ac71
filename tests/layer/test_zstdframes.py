"""Cutting zstd data at block boundaries: nothing lost, nothing added, every run bounded."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import MalformedLayerError
from asyncpull.layer.zstdframes import FrameWalker
from tests.support.layer_reading import cut, slices

LIMIT = 256 << 10


def frame(data: bytes, *, level: int = 3, checksum: bool = True, size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level, write_checksum=checksum, write_content_size=size).compress(data)


FRAMES = st.one_of(
    st.builds(
        frame, st.binary(max_size=2000), level=st.sampled_from([1, 19]), checksum=st.booleans(), size=st.booleans()
    ),
    st.binary(max_size=40).map(lambda data: b"\x53\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data),
)


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0), max_size=8))
def test_the_runs_are_the_data(frames: list[bytes], places: list[int]) -> None:
    data = b"".join(frames)
    walker = FrameWalker(LIMIT)
    assert b"".join(run for piece in cut(data, places) for run in walker.feed(piece)) == data
    assert walker.between_frames


@pytest.mark.parametrize("size", [1000, 1 << 20])
@pytest.mark.parametrize("contents", [bytes(3 << 20), random.Random(1).randbytes(100) * 30_000, b"ab" * 40_000])
def test_runs_become_no_more_than_the_limit(contents: bytes, size: int) -> None:
    data = frame(contents) + frame(contents, size=False)
    walker = FrameWalker(LIMIT)
    inflater = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    made = [inflater.decompress(run) for piece in slices(data, size) for run in walker.feed(piece)]
    assert b"".join(made) == contents * 2
    assert max(map(len, made)) <= LIMIT


def test_data_may_end_between_frames_only() -> None:
    one = frame(b"contents" * 100)
    for end in range(2 * len(one) + 1):
        walker = FrameWalker(LIMIT)
        list(walker.feed((one * 2)[:end]))
        assert walker.between_frames is (end in (0, len(one), 2 * len(one)))


@pytest.mark.parametrize(
    "data",
    [
        b"hello, world",
        b"\x28\xb5\x2f\xfe\0\0\0\0",
        frame(b"") + b"hello, world",
        b"\x28\xb5\x2f\xfd\x00\x88" + b"\x06\0\0",
        b"\x28\xb5\x2f\xfd\x00\x88" + (((128 << 10) + 1) << 3).to_bytes(3, "little"),
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(MalformedLayerError):
        list(FrameWalker(LIMIT).feed(data))
