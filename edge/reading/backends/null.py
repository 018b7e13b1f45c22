"""No accelerator at all: outputs of the right shape that say nothing.

It fails every golden case on purpose. A board that lists only `null` is a box whose AI is paused, which is how that
state is simulated and tested.
"""

from __future__ import annotations

import numpy as np

from edge.bundle import Bundle
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32


class NullEncoder:
    """Zeros of every output's shape."""

    name = "null"
    emission = "tflite"

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        grid, channels = manifest.grid, manifest.channels
        self._shapes = {
            "tokens": (1, grid * grid, channels),
            "findings": (1, len(bundle.findings)),
            "population": (1, 1),
            "chest": (1, 1),
            "masks": (1, 3, grid, grid),
            "embedding": (1, channels),
            "maps": (1, len(bundle.findings), grid, grid),
        }

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`; `x` is not looked at."""
        return {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}


def load(bundle: Bundle, setup: Setup) -> NullEncoder:
    """Always loads."""
    return NullEncoder(bundle)
