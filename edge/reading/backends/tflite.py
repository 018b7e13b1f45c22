"""TFLite int8 through LiteRT, or tflite-runtime where only that exists: the same file for both."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.radiograph import F32

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
OUTPUTS = ("tokens", "findings", "population", "chest", "masks", "embedding")  # order of the file's signature


class TfliteEncoder:
    """Runs encoder.tflite; int8 tensors are quantised and dequantised here (scale, zero point of the file)."""

    name = "tflite"

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        details = {d["name"]: d for d in interpreter.get_output_details()}
        signature = interpreter.get_signature_list()
        if len(details) != len(OUTPUTS) or not signature:
            raise BackendError("The TFLite file does not have the reader's outputs.", code="backend.model")
        by_index = {d["index"]: d for d in details.values()}
        self._outputs = dict(zip(OUTPUTS, _in_signature_order(interpreter, by_index), strict=True))

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


def load(bundle: Bundle, threads: int) -> TfliteEncoder:
    """Load encoder.tflite. Raises BackendError: backend.absent (no runtime), backend.load."""
    path = str(bundle.file("encoder.tflite"))
    try:
        interpreter = _runtime().Interpreter(model_path=path, num_threads=threads)
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


def _in_signature_order(interpreter: Any, by_index: dict[int, Any]) -> list[Any]:
    """Outputs sorted by the signature's names output_0 ... output_5."""
    runner = interpreter.get_signature_runner()
    names = sorted(runner.get_output_details(), key=lambda n: int(n.rsplit("_", 1)[1]))
    return [by_index[runner.get_output_details()[n]["index"]] for n in names]


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
