"""The whole decoder on a CudaDevice against numpy: cuda_decoder.CudaSession step by step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.reading.backends.cuda_decoder import CudaSession
from edge.reading.backends.cuda_device import CudaDevice, Kernels
from edge.reading.backends.cuda_weights import Storage, restored, store_rows
from edge.reading.ops import reference
from edge.reading.ops.arrays import F32
from edge.reading.ops.shape import DecoderShape
from tools.cuda.rig import close, random

SMALL = DecoderShape(vocabulary=7, width=15, layers=2, heads=5, ffn=33, positions=4, channels=19)
BOX = DecoderShape(vocabulary=30, width=128, layers=3, heads=4, ffn=384, positions=64, channels=128)
TOLERANCES: Mapping[Storage, float] = {"f16": 3e-3, "i8": 3e-2}
"""Of logits, for the storage of keys and values: each is rounded, and every layer rounds again."""


def random_weights(shape: DecoderShape, seed: int = 1) -> dict[str, F32]:
    """Of the size that training leaves: matrices that keep a vector's length, norms around one."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, size in shape.weight_shapes().items():
        values = generator.standard_normal(size) / (np.sqrt(size[-1]) if len(size) > 1 else 4.0)
        weights[name] = (values + ("norm" in name and name.endswith("weight"))).astype(np.float32)
    return weights


def as_stored(weights: Mapping[str, F32], storage: Storage) -> dict[str, F32]:
    """The weights that the kernels compute with: matrices rounded, the rest as it is."""
    kept = ("embed.weight", "position.weight")
    return {
        name: restored(store_rows(array, storage), array.shape[1])
        if array.ndim == 2 and name not in kept and ".gate." not in name
        else array
        for name, array in weights.items()
    }


def decode(
    device: CudaDevice, kernels: Kernels, shape: DecoderShape, storage: Storage, image_tokens: tuple[int, ...] = (1, 67)
) -> None:
    """Two images, as many steps as there are positions: logits and maps, then the choice of the last one."""
    weights = random_weights(shape)
    session = CudaSession(device, kernels, shape, weights, matrix=storage, keys=storage)
    expected = reference.decoder(shape, as_stored(weights, storage))
    try:
        for n in image_tokens:
            bias = np.abs(random(n, shape.layers, n))
            bias[:, 1::3] = -np.inf
            image = random(2, n, shape.channels), bias
            session.begin(*image)
            expected.begin(*image)
            for position in range(min(shape.positions, 6)):
                token = position * 5 % shape.vocabulary
                logits, maps = session.step(token)
                wanted, wanted_maps = expected.step(token)
                close(logits, wanted.astype(np.float64), TOLERANCES[storage])
                close(maps, wanted_maps.astype(np.float64), TOLERANCES[storage])
                assert not maps[:, 1::3].any(), "expected hidden keys without a share"
    finally:
        session.free()
