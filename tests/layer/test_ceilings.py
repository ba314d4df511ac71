"""What a layer may become at most, held against the bytes of bombs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
from typing import TYPE_CHECKING

import pytest
import zstandard

from asyncpull.errors import CeilingError
from asyncpull.layer.ceilings import BOUNDLESS, Ceilings
from asyncpull.layer.codec import Inflater

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def inflated(blob: bytes, limits: Ceilings) -> int:
    """How many bytes come out of a blob."""
    inflater = Inflater(limits)
    total = sum(len(piece) for at in range(0, len(blob), 1000) for piece in inflater.feed(blob[at : at + 1000]))
    inflater.close()
    return total


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_the_ceiling_of_size_counts_what_comes_out(compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(5 * MIB))
    assert inflated(bomb, Ceilings(size=5 * MIB, ratio=None)) == 5 * MIB
    with pytest.raises(CeilingError, match=r"becomes more than 5,242,879 bytes .* ceiling of size") as caught:
        inflated(bomb, Ceilings(size=5 * MIB - 1, ratio=None))
    assert caught.value.measure == "size"
    assert "--max-layer-size" in str(caught.value.hint)


def test_the_ceiling_of_size_is_for_uncompressed_layers_too() -> None:
    with pytest.raises(CeilingError):
        inflated(bytes(1001), Ceilings(size=1000))


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_the_ceiling_of_ratio_begins_where_it_is_suspicious(compress: Callable[[bytes], bytes]) -> None:
    limits = Ceilings(ratio=100, ratio_from=2 * MIB)
    assert inflated(compress(bytes(2 * MIB)), limits) == 2 * MIB
    with pytest.raises(CeilingError, match="more than 100 times as large as its blob") as caught:
        inflated(compress(bytes(8 * MIB)), limits)
    assert caught.value.measure == "ratio"
    assert inflated(compress(bytes(8 * MIB)), BOUNDLESS) == 8 * MIB


def test_the_error_comes_home_from_a_worker() -> None:
    error = CeilingError("ratio", "becomes too much")
    again = pickle.loads(pickle.dumps(error))
    assert (again.measure, str(again), again.hint) == (error.measure, str(error), error.hint)
