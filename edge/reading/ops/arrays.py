"""The one check that every operator makes on its arrays: dtype, layout and shape, before a pointer is handed to C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError

F32 = NDArray[np.float32]

BAD_ARGUMENT = "kernels.bad-argument"
NOT_FINITE = "kernels.not-finite"
NOTHING_ALLOWED = "kernels.nothing-allowed"


def f32(name: str, array: NDArray[Any], *shape: int | None) -> F32:
    """`array` itself if it is a C-contiguous float32 array of `shape` (None = any length above 0).

    Raises BackendError `kernels.bad-argument` naming what was expected and what came.
    """
    if isinstance(array, np.ndarray) and array.dtype == np.float32 and array.flags.c_contiguous:
        got = array.shape
        if len(got) == len(shape) and all(g == s or (s is None and g > 0) for g, s in zip(got, shape, strict=True)):
            return array
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    raise BackendError(
        f"expected {name} as a contiguous float32 array of shape ({wanted}), got {describe(array)}", code=BAD_ARGUMENT
    )


def describe(array: object) -> str:
    """Type, dtype, shape and layout in words, never the values."""
    if not isinstance(array, np.ndarray):
        return f"a {type(array).__name__}"
    layout = "" if array.flags.c_contiguous else ", not contiguous"
    return f"{array.dtype} of shape {tuple(array.shape)}{layout}"


def head_width(width: int, heads: int) -> int:
    """width / heads, or BackendError `kernels.bad-argument` if heads do not divide it."""
    if heads < 1 or width % heads:
        raise BackendError(f"expected heads that divide a width of {width}, got {heads}", code=BAD_ARGUMENT)
    return width // heads


def finite(operation: str, array: F32) -> F32:
    """`array` itself, or BackendError `kernels.not-finite` if a NaN or an infinity is in it."""
    if not np.isfinite(array).all():
        raise BackendError(f"expected finite numbers in {operation}, got NaN, infinity or an overflow", code=NOT_FINITE)
    return array


Weights = Mapping[str, F32]
