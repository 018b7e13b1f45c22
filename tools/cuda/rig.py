"""What the cases of kernels/cuda stand on: a device with arrays on it, and the definitions in float64.

Expected values are computed from what is stored (weights, keys and values after rounding), so what remains is the
order of float32 sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.reading.backends.cuda_device import CudaDevice, Kernels
from edge.reading.backends.cuda_launches import STATE_WORDS, Launches, Matrix, head_storage
from edge.reading.backends.cuda_weights import STORAGE_TYPES, Storage, restored, store_rows

OK, BAD_ARGUMENT, NOT_FINITE, NOTHING_ALLOWED, WRONG_STATE = 0, 1, 2, 3, 6
EPSILON = 1e-5
TOLERANCE = 2e-5
NULL = np.uint64(0)
GUARD = np.float32(12345.0)

Array = NDArray[Any]


class Rig:
    """A device with the kernels loaded; arrays put on it are freed by `clear`."""

    def __init__(self, device: CudaDevice, kernels: Kernels) -> None:
        self.device, self.kernels = device, kernels
        self._addresses: list[int] = []

    def put(self, array: Array) -> np.uint64:
        array = np.ascontiguousarray(array)
        address = self.device.allocate(array.nbytes)
        self._addresses.append(address)
        self.device.upload(address, array)
        return np.uint64(address)

    def get(self, address: np.uint64, shape: tuple[int, ...] | int, dtype: Any = np.float32) -> Array:
        array = np.empty(shape, dtype)
        self.device.download(array, int(address))
        return array

    def state(self, *, token: int = 0, position: int = 0, status: int = 0) -> np.uint64:
        words = np.zeros(STATE_WORDS, np.int32)
        words[:3] = token, position, status
        return self.put(words)

    def status(self, state: np.uint64) -> int:
        return int(self.get(state, STATE_WORDS, np.int32)[2])

    def launches(self, matrix: Storage = "f16", keys: Storage = "f16") -> Launches:
        return Launches(self.kernels, matrix, keys)

    def clear(self) -> None:
        for address in self._addresses:
            self.device.free(address)
        self._addresses.clear()


def random(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def close(got: Array, expected: Array, tolerance: float = TOLERANCE) -> None:
    """Normalised error: the greatest difference relative to the greatest expected value."""
    assert got.shape == expected.shape, f"expected shape {expected.shape}, got {got.shape}"
    error = float(np.abs(got.astype(np.float64) - expected).max()) / max(float(np.abs(expected).max()), 1e-30)
    assert error <= tolerance, f"expected a normalised error of at most {tolerance}, got {error}"


def softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    total: Array = shares / shares.sum(axis=-1, keepdims=True)
    return total


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    normed: Array = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + EPSILON) * weight + bias
    return normed


def gelu(x: Array) -> Array:
    share: Array = x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return share


def matrix(rig: Rig, storage: Storage, rows: int, columns: int, seed: int = 7) -> tuple[Array, Array, Matrix]:
    """Weights as stored (f64), bias, and the addresses of both."""
    weight, bias = random(seed, rows, columns) / np.float32(np.sqrt(columns)), random(seed + 1, rows)
    stored = store_rows(weight.astype(np.float32), storage)
    return (
        restored(stored, columns).astype(np.float64),
        bias,
        Matrix(rig.put(stored.rows), rig.put(stored.scales), rig.put(bias)),
    )


def store_keys(rows: Array, storage: Storage) -> tuple[Array, Array, Array]:
    """(..., dh) f32 as `store_row` keeps it: padded to the head's storage, scales (...), restored (..., dh) f64."""
    dh = rows.shape[-1]
    if storage == "f16":
        scales, values = np.ones(rows.shape[:-1], np.float32), rows.astype(np.float16)
    else:
        greatest = np.abs(rows).max(axis=-1)
        scales = (greatest / np.float32(127)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(greatest[..., None] > 0, np.rint(rows * (np.float32(127) / greatest[..., None])), 0)
    stored = np.zeros((*rows.shape[:-1], head_storage(dh)), STORAGE_TYPES[storage])
    stored[..., :dh] = values
    back = stored[..., :dh].astype(np.float64) * scales[..., None]
    return stored, scales, back
