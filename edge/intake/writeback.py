"""Asking the kernel to begin to write a growing file, so that the fsync at its end has little left to wait for."""

from __future__ import annotations

import ctypes
from typing import Final

_SYNC_FILE_RANGE_WRITE: Final = 2  # sync_file_range(2)
_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writeback(handle: int, start: int, size_bytes: int) -> None:
    """Start writing a range of the file and return at once.

    A hint: it promises nothing, and what goes wrong with the bytes is told by the fsync that must follow.
    """
    _sync_file_range(handle, start, size_bytes, _SYNC_FILE_RANGE_WRITE)
