"""TFLite int8 through LiteRT, or tflite-runtime where only that exists: the same file for both."""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import OUTPUTS
from edge.reading.backends.setup import Setup
from edge.reading.radiograph import F32

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


class TfliteEncoder:
    """Runs encoder.tflite; int8 tensors are quantised and dequantised here (scale, zero point of the file)."""

    name = "tflite"
    emission = "tflite"

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        numbered = {_number(d["name"]): d for d in interpreter.get_output_details()}
        if sorted(numbered) != list(range(len(OUTPUTS))):
            raise BackendError("The TFLite file does not have the reader's outputs.", code="backend.model")
        self._outputs = {name: numbered[i] for i, name in enumerate(OUTPUTS)}

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`."""
        self._interpreter.set_tensor(self._input["index"], _quantise(x, self._input))
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise BackendError("The TFLite runtime failed while running the model.", code="backend.run") from error
        return {
            name: _dequantise(self._interpreter.get_tensor(details["index"]), details)
            for name, details in self._outputs.items()
        }


def load(bundle: Bundle, setup: Setup) -> TfliteEncoder:
    """Load encoder.tflite. Raises BackendError: backend.absent (no runtime), backend.load."""
    path = str(bundle.file("encoder.tflite"))
    try:
        interpreter = _runtime().Interpreter(model_path=path, num_threads=setup.threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError, SystemError) as error:
        raise BackendError("The TFLite runtime refused the model file.", code="backend.load") from error
    return TfliteEncoder(interpreter)


def _runtime() -> Any:
    for module in RUNTIMES:
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise BackendError("Neither LiteRT nor tflite-runtime is installed.", code="backend.absent")


def _number(tensor_name: str) -> int:
    """Which output of the traced function a tensor is: its name holds `output_<n>`."""
    found = re.search(r"output_(\d+)", tensor_name)
    return int(found.group(1)) if found else -1


def _quantise(x: F32, details: Any) -> Any:
    scale, zero = details["quantization"]
    if not scale:
        return x.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _dequantise(values: Any, details: Any) -> F32:
    scale, zero = details["quantization"]
    result: F32 = values.astype(np.float32) if not scale else (values.astype(np.float32) - zero) * np.float32(scale)
    return result
