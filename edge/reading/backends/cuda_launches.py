"""The kernels of kernels/cuda/cuda.cu as Python calls: name, grid, block and shared memory of each from its sizes.

What a kernel computes and the shapes of its arrays stand in kernels/cuda/*.h; the arguments here have the same order.
Addresses are the device's, 0 for null.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from edge.errors import BackendError
from edge.reading.backends.cuda_weights import Storage

# Constants of portable.h, token.h and image.h.
THREADS: Final = 128
WARPS: Final = THREADS // 32
CHOOSE_THREADS: Final = 256
STATE_WORDS: Final = 8
TILE_TOKENS, TILE_ROWS, TILE_STRIPE = 32, 64, 17
HEAD_WIDTHS: Final = (16, 32, 64, 128)
SHARED_LIMIT_BYTES: Final = 48 * 1024  # what every GPU gives a block unasked
GRID_LIMIT: Final = 65535  # blocks along y and z, on every GPU
LONG_ROW: Final = 1024  # columns from which a whole warp shares a weight row

Grid = tuple[int, int, int]


class Matrix(NamedTuple):
    """Addresses of a stored matrix (cuda_weights.StoredRows) and its bias, (rows,) f32."""

    rows: np.uint64
    scales: np.uint64
    bias: np.uint64


class Norm(NamedTuple):
    """Addresses of a LayerNorm's weight and bias, (width,) f32."""

    weight: np.uint64
    bias: np.uint64
    epsilon: float


class HeadRows(NamedTuple):
    """Addresses of keys and values, (heads, tokens, stored head width), and their scales, (heads, tokens) f32."""

    keys: np.uint64
    values: np.uint64
    key_scales: np.uint64
    value_scales: np.uint64


class Launcher(Protocol):
    """cuda_device.Kernels, or a test's."""

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, arguments: list[np.number[Any]]) -> None:
        """Put a kernel on the stream."""


def head_storage(head_width: int) -> int:
    """Columns in which a head's keys are stored. Raises BackendError `kernels.bad-argument` above 128."""
    for width in HEAD_WIDTHS:
        if head_width <= width:
            return width
    raise BackendError(
        f"expected heads of at most {HEAD_WIDTHS[-1]} columns, got {head_width}", code="kernels.bad-argument"
    )


def _over(count: int, size: int) -> int:
    return -(-count // size)


def _arguments(*values: int | float | np.uint64) -> list[np.number[Any]]:
    """int -> int32, float -> float32; addresses come as np.uint64."""
    return [v if isinstance(v, np.uint64) else np.int32(v) if isinstance(v, int) else np.float32(v) for v in values]


class Launches:
    """Every kernel, for one choice of storage: `weights` of matrices, `keys` of keys and values."""

    def __init__(self, kernels: Launcher, weights: Storage, keys: Storage) -> None:
        self._kernels, self._weights, self._keys = kernels, weights, keys

    def _launch(self, name: str, grid: Grid, threads: int, floats: int, *arguments: int | float | np.uint64) -> None:
        if floats * 4 > SHARED_LIMIT_BYTES or max(grid[1:]) > GRID_LIMIT:
            raise BackendError(
                f"expected sizes that fit {SHARED_LIMIT_BYTES} bytes of shared memory and {GRID_LIMIT} rows of blocks, "
                f"got {floats * 4} bytes and {max(grid[1:])} rows for {name}",
                code="kernels.bad-argument",
            )
        self._kernels.launch(f"radbox_{name}", grid, threads, floats * 4, _arguments(*arguments))

    def _rows(self, name: str, rows: int, columns: int, floats: int, *arguments: int | float | np.uint64) -> None:
        """A matrix-vector kernel: `floats` of shared memory beside the input vector's."""
        lanes = 32 if columns >= LONG_ROW else 16
        one_pass = lanes * (16 if self._weights == "i8" else 8)
        floats += _over(columns, one_pass) * one_pass
        grid = (_over(rows, THREADS // lanes), 1, 1)
        self._launch(f"{name}_{self._weights}_l{lanes}", grid, THREADS, floats, *arguments)

    def linear_add(self, x: np.uint64, weight: Matrix, rows: int, columns: int, y: np.uint64, state: np.uint64) -> None:
        """y += W x + b."""
        self._rows("linear_add", rows, columns, 0, x, *weight, rows, columns, y, state)

    def norm_linear(
        self,
        after: str,
        x: np.uint64,
        norm: Norm,
        weight: Matrix,
        rows: int,
        columns: int,
        y: np.uint64,
        state: np.uint64,
    ) -> None:
        """y = after(W LayerNorm(x) + b); after: "store" or "gelu"."""
        arguments = (x, *norm, *weight, rows, columns, y, state)
        self._rows(f"norm_linear_{after}", rows, columns, 2 * WARPS, *arguments)

    def gate_project(
        self,
        a: np.uint64,
        slices: np.uint64,
        slice_count: int,
        gate_weight: np.uint64,
        gate_pair: np.uint64,
        weight: Matrix,
        width: int,
        dh: int,
        x: np.uint64,
        state: np.uint64,
    ) -> None:
        """x += W_o (a + g c) + b_o."""
        gate = a, slices, slice_count, head_storage(dh) + 2, gate_weight, gate_pair
        self._rows("gate_project", width, width, WARPS + width, *gate, *weight, width, dh, x, state)

    def attend(
        self,
        qkv: np.uint64,
        width: int,
        heads: int,
        own: HeadRows,
        positions: int,
        image: HeadRows,
        bias: np.uint64,
        image_tokens: int,
        per_slice: int,
        a: np.uint64,
        slices: np.uint64,
        scores: np.uint64,
        state: np.uint64,
    ) -> None:
        """Self-attention over `own`, the cache, and the slices of cross-attention over `image`."""
        dh = width // heads
        stored = head_storage(dh)
        grid = (heads, 1 + _over(image_tokens, per_slice), 1)
        arguments = (qkv, width, dh, *own, positions, *image, bias, image_tokens, per_slice, a, slices, scores, state)
        self._launch(f"attend_{self._keys}_h{stored}", grid, THREADS, (WARPS + 1) * (stored + 2), *arguments)

    def attention_maps(
        self,
        slices: np.uint64,
        slice_count: int,
        scores: np.uint64,
        layers: int,
        heads: int,
        dh: int,
        image_tokens: int,
        maps: np.uint64,
    ) -> None:
        """Every layer's cross-attention, averaged over the heads."""
        grid = (_over(image_tokens, THREADS), layers, 1)
        arguments = (slices, slice_count, head_storage(dh) + 2, scores, heads, image_tokens, maps)
        self._launch("attention_maps", grid, THREADS, 2 * heads, *arguments)

    def embed(
        self,
        table: np.uint64,
        position_table: np.uint64,
        vocabulary: int,
        positions: int,
        width: int,
        x: np.uint64,
        state: np.uint64,
    ) -> None:
        """x = embed[token] + position[t]."""
        self._launch("embed", (1, 1, 1), THREADS, 0, table, position_table, vocabulary, positions, width, x, state)

    def masked_argmax(self, logits: np.uint64, allowed: np.uint64, vocabulary: int, state: np.uint64) -> None:
        """The allowed token of the greatest logit, and the next position."""
        floats = 2 * CHOOSE_THREADS // 32
        self._launch("masked_argmax", (1, 1, 1), CHOOSE_THREADS, floats, logits, allowed, vocabulary, state)

    def norm_rows(self, x: np.uint64, norm: Norm, tokens: int, width: int, y: np.uint64, state: np.uint64) -> None:
        """LayerNorm of every row."""
        self._launch("norm_rows", (tokens, 1, 1), THREADS, 2 * WARPS, x, *norm, width, y, state)

    def project_rows(
        self, x: np.uint64, weight: Matrix, tokens: int, rows: int, columns: int, y: np.uint64, state: np.uint64
    ) -> None:
        """Y = X W^T + b."""
        grid = (_over(rows, TILE_ROWS), _over(tokens, TILE_TOKENS), 1)
        floats = (TILE_TOKENS + TILE_ROWS) * TILE_STRIPE
        name = f"project_rows_{self._weights}"
        self._launch(name, grid, THREADS, floats, x, *weight, tokens, rows, columns, y, state)

    def store_image(
        self, kv: np.uint64, image_tokens: int, width: int, heads: int, image: HeadRows, state: np.uint64
    ) -> None:
        """A layer's image keys and values into their stored form."""
        dh = width // heads
        grid = (_over(image_tokens, WARPS), heads, 2)
        name = f"store_image_{self._keys}_h{head_storage(dh)}"
        self._launch(name, grid, THREADS, 0, kv, image_tokens, width, dh, *image, state)
