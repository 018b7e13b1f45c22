"""What the backends of NPUs with a file format of their own share: the bundle's compiled file, and the shapes in it.

Such a file is compiled outside this box from the float ONNX file (docs/npu.md). It rounds in its own way, so the bundle
also holds what its compiler's simulator says of the golden inputs, under the name of the file: `hef.tokens`, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError, BundleError
from edge.reading.backends import OUTPUTS
from edge.reading.radiograph import F32
from edge.reading.weights import read_tensors

NO_MODEL = "backend.no-model"


def compiled_file(bundle: Bundle, emission: str, maker: str) -> Path:
    """Path of encoder.<emission>. maker: who makes it. Raises BackendError: backend.no-model, backend.load."""
    name = f"encoder.{emission}"
    if name not in bundle.manifest.files:
        message = f"The model bundle has no {name}. It is made with {maker} and added to the bundle; see docs/npu.md."
        raise BackendError(message, code=NO_MODEL)
    try:
        golden = read_tensors(bundle.file("golden.safetensors"))
    except BundleError as error:
        raise BackendError(error.message, code="backend.load") from error
    if any(f"{emission}.{output}" not in golden for output in OUTPUTS):
        message = f"The model bundle has {name}, but not the golden outputs that {maker} gives for it; see docs/npu.md."
        raise BackendError(message, code=NO_MODEL)
    return bundle.path / name


def output_shapes(bundle: Bundle) -> Mapping[str, tuple[int, ...]]:
    """Name -> shape with the batch axis, in the order of OUTPUTS; see `edge.reading.backends.Encoder.run`."""
    grid, channels, findings = bundle.manifest.grid, bundle.manifest.channels, len(bundle.findings)
    shapes = (
        (1, grid * grid, channels), (1, findings), (1, 1), (1, 1), (1, 3, grid, grid), (1, channels),
        (1, findings, grid, grid),
    )  # fmt: skip
    return MappingProxyType(dict(zip(OUTPUTS, shapes, strict=True)))


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an output as `to_channels_first` takes it, without batch: rank 4 (1, K, H, W) -> (H, W, K)."""
    return (shape[2], shape[3], shape[1]) if len(shape) == 4 else shape[1:]


def fits(shape: tuple[int, ...], device_shape: tuple[int, ...]) -> bool:
    """True if a device's array of `device_shape`, channels last and without batch, holds the output of `shape`.

    A device keeps the grid of the tokens, (H, W, C) for (N, C), and counts a vector as an image of one cell.
    """
    if device_shape[-1:] != channels_last(shape)[-1:]:
        return False
    if len(shape) == 4:
        return device_shape == channels_last(shape)
    return int(np.prod(device_shape)) == int(np.prod(shape))


def to_channels_first(values: F32, shape: tuple[int, ...]) -> F32:
    """An array for which `fits` holds -> float32 of `shape`, C-contiguous. Tokens are cells in row-major order."""
    laid = values.reshape(channels_last(shape))
    if len(shape) == 4:
        laid = laid.transpose(2, 0, 1)
    return np.ascontiguousarray(laid.reshape(shape), np.float32)
