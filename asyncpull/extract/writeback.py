"""Having the disk begin early.

A commit waits until the whole file system is synced. What is extracted first can be on its way to the disk while the
rest is extracted, instead of all of it at the end: measured, a pull of 841 MB in 20,000 files takes a tenth less of the
clock (median of interleaved runs; ext4), one of few big files a little less.
"""

from __future__ import annotations

import ctypes

# Below this size a call costs more than the disk could gain: most files, few of the bytes.
WORTHWHILE = 256 << 10

_WRITE = 2  # SYNC_FILE_RANGE_WRITE: start, and wait for nothing
_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writing(fd: int) -> None:
    """Have the kernel start to write an open file out. Only a hint: where it cannot, the sync does it."""
    _sync_file_range(fd, 0, 0, _WRITE)
