"""The sets of kernels that this architecture has, for tests that go through all of them."""

from __future__ import annotations

import platform

import pytest

from edge.errors import BackendError
from edge.reading.ops.native import NativeKernels

SETS = (
    ("reference", "neon", "neon_dotprod", "neon_i8mm")
    if platform.machine() == "aarch64"
    else ("reference", "avx2", "avx512vnni")
)


def chosen(name: str) -> NativeKernels:
    """The set `name`; skips where the CPU lacks it."""
    try:
        return NativeKernels(name)
    except BackendError as error:
        if error.code != "kernels.unsupported":
            raise
        pytest.skip(error.message)
