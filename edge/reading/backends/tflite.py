"""TFLite int8 through LiteRT, or tflite-runtime where only that exists: the same file for both."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import OUTPUTS
from edge.reading.backends.custom_ops import custom_ops_library, operators_in
from edge.reading.backends.delegate_nodes import taken
from edge.reading.backends.setup import Setup
from edge.reading.backends.tflite_file import quantisation
from edge.reading.radiograph import F32

MODEL = "encoder.tflite"
XNNPACK_SHARE = 0.5  # with less of the graph in XNNPACK the encoder is several times slower than it could be
_log = logging.getLogger("worker")


@dataclass(frozen=True)
class Runtime:
    """interpreter: its module. legacy: tflite-runtime, which is no longer maintained (2.14 is the last)."""

    name: str
    version: str
    interpreter: Any
    legacy: bool

    @property
    def spoken(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


# Name, distribution, module; the first that can be imported is used.
RUNTIMES: Final = (
    ("LiteRT", "ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite-runtime", "tflite_runtime.interpreter"),
)


class TfliteEncoder:
    """Runs a TFLite file; int8 tensors are quantised and dequantised here (scale, zero point of the file).

    nodes: what delegates took of it, XNNPACK included.
    """

    emission = "tflite"

    def __init__(self, interpreter: Any, name: str = "tflite") -> None:
        self.name = name
        self.nodes = taken(interpreter)
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        numbered = {_number(d["name"]): d for d in interpreter.get_output_details()}
        if sorted(numbered) != list(range(len(OUTPUTS))):
            raise BackendError("The TFLite file does not have the reader's outputs.", code="backend.model")
        self._outputs = {name: numbered[i] for i, name in enumerate(OUTPUTS)}

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`."""
        try:
            self._interpreter.set_tensor(self._input["index"], _quantise(x, self._input))
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise BackendError("The TFLite runtime failed while running the model.", code="backend.run") from error
        return {
            name: _dequantise(self._interpreter.get_tensor(details["index"]), details)
            for name, details in self._outputs.items()
        }


def load(bundle: Bundle, setup: Setup) -> TfliteEncoder:
    """Load encoder.tflite. Raises BackendError: backend.absent (no runtime), backend.model (a file that this runtime
    computes wrongly, or not the reader's), backend.load.
    """
    runtime = find_runtime()
    path = bundle.file(MODEL)
    check_file(runtime, path)
    interpreter = make_interpreter(runtime, path, setup.threads, own_operators(runtime, path))
    allocate(interpreter)
    encoder = TfliteEncoder(interpreter)
    if encoder.nodes.nodes < XNNPACK_SHARE * encoder.nodes.of:
        _log.warning(
            "%s: XNNPACK takes only %d of %d nodes, reading is slower than it could be",
            runtime.spoken,
            encoder.nodes.nodes,
            encoder.nodes.of,
        )
    return encoder


def own_operators(runtime: Runtime, path: Path) -> list[Any]:
    """Our delegate, if the file has our operators; composites are computed without it, too, and the log says so.

    Raises BackendError (backend.load) if the file cannot be read.
    """
    try:
        found = operators_in(path.read_bytes())
    except OSError as error:
        raise BackendError("The model file cannot be read.", code="backend.load") from error
    if not found:
        return []
    ours = custom_ops_library(runtime.interpreter)
    if ours.delegate is None:
        _log.warning("%s: our kernels do not compute %s: %s", runtime.spoken, ", ".join(found), ours.reason)
        return []
    return [ours.delegate]


def find_runtime() -> Runtime:
    """The best runtime that is installed. Raises BackendError (backend.absent)."""
    for name, distribution, module in RUNTIMES:
        legacy = name == "tflite-runtime"
        try:
            interpreter = importlib.import_module(module)
        except (ImportError, SystemError):  # SystemError: built for another numpy, says so in this odd way
            continue
        if legacy and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            message = f"tflite-runtime needs numpy 1, got numpy {np.__version__}; install ai-edge-litert"
            raise BackendError(f"{message}.", code="backend.absent")
        return Runtime(name, _version(distribution), interpreter, legacy)
    raise BackendError("Neither LiteRT nor tflite-runtime is installed.", code="backend.absent")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # a board maker's build, put beside Python's packages by hand
        return "of unknown version"


def check_file(runtime: Runtime, path: Path) -> None:
    """Refuse what tflite-runtime 2.14 computes wrongly without a word, or crashes on. Raises BackendError
    (backend.load for a damaged file, backend.model).
    """
    if not runtime.legacy:
        return
    try:
        found = quantisation(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BackendError("The model file cannot be read.", code="backend.load") from error
    kinds = {"dynamic-range": found.dynamic_range, "4-bit or shorter": found.short, "blockwise": found.blockwise}
    bad = [kind for kind, there in kinds.items() if there]
    if bad:
        message = f"{runtime.spoken} computes {' and '.join(bad)} weights wrongly: expected full int8 or float32"
        raise BackendError(f"{message}; install ai-edge-litert.", code="backend.model")


def make_interpreter(runtime: Runtime, path: Path, threads: int, delegates: Sequence[Any] = ()) -> Any:
    """An interpreter with the explicit `delegates` applied, nothing allocated yet. Raises BackendError (backend.load).

    threads: at least 1 (LiteRT refuses less), at most the CPUs that this process may use.
    """
    usable = max(1, min(threads, len(os.sched_getaffinity(0))))
    try:
        return runtime.interpreter.Interpreter(
            model_path=str(path), num_threads=usable, experimental_delegates=list(delegates) or None
        )
    except (RuntimeError, ValueError, SystemError) as error:
        raise BackendError("The TFLite runtime refused the model file.", code="backend.load") from error


def allocate(interpreter: Any) -> None:
    """Memory for the tensors; XNNPACK takes its nodes now. Raises BackendError (backend.load)."""
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError, SystemError) as error:
        raise BackendError("The TFLite runtime could not set the model up.", code="backend.load") from error


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
