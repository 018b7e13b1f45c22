"""Who runs the encoder: the box's backend with its rounding in and out, and the runtime alone as its maker times it.

LiteRT's own benchmark is the tool of its package (ai_edge_litert.tools.benchmark_litert_model): buffers filled once,
warm-up, then only the run is timed. `LiteRtBenchmark` makes the same calls, so that they can stand in turns with ours;
`vendor_ms` runs the tool itself in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import load_backend
from edge.reading.backends.setup import Setup
from edge.reading.weights import read_tensors
from tools.decoder_bench.contestant import NotInstalled

TURN = (1, 2)
VENDOR_TOOL = "ai_edge_litert.tools.benchmark_litert_model"
EMISSIONS = {"tflite": "encoder.tflite", "onnxruntime": "encoder.onnx"}


def image(bundle: Bundle) -> np.ndarray:
    """(1, 1, H, W) float32: the first golden input."""
    golden = read_tensors(bundle.file("golden.safetensors"))
    return np.ascontiguousarray(golden["input"][:1].astype(np.float32) / 127.5 - 1.0)


class Timed:
    """Keeps its own time: a run is long enough to be preempted now and then, which then meets everyone alike."""

    turn = TURN
    name = ""
    kind = ""

    def rewind(self) -> None:
        """Every run is the same."""

    def token(self) -> float:
        began_s = time.perf_counter()
        self.run()
        return time.perf_counter() - began_s

    def run(self) -> None:
        raise NotImplementedError


class Ours(Timed):
    """A backend of the box: float32 image in, float32 outputs out, as a worker calls it."""

    def __init__(self, backend: str, bundle: Bundle, threads: int) -> None:
        self.name, self.kind = f"radbox {backend}", EMISSIONS[backend]
        self._encoder = load_backend(backend, bundle, Setup(threads=threads))
        self._image = image(bundle)

    def run(self) -> None:
        self._encoder.run(self._image)


class LiteRtInterpreter(Timed):
    """Interpreter: the input set once, then only `invoke`."""

    kind = EMISSIONS["tflite"]

    def __init__(self, bundle: Bundle, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise NotInstalled("ai-edge-litert") from error
        self.name = "LiteRT Interpreter, invoke only"
        self._interpreter = Interpreter(model_path=str(bundle.file("encoder.tflite")), num_threads=threads)
        self._interpreter.allocate_tensors()
        details = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))

    def run(self) -> None:
        self._interpreter.invoke()


class LiteRtBenchmark(Timed):
    """The calls of LiteRT's own benchmark: CompiledModel on the CPU, buffers filled once, then only `run_by_name`."""

    kind = EMISSIONS["tflite"]

    def __init__(self, bundle: Bundle, threads: int) -> None:
        try:
            from ai_edge_litert.compiled_model import CompiledModel
            from ai_edge_litert.environment import Environment
            from ai_edge_litert.hardware_accelerator import HardwareAccelerator
            from ai_edge_litert.options import CpuOptions, Options
        except ImportError as error:
            raise NotInstalled("ai-edge-litert 2 (CompiledModel)") from error
        self.name = "LiteRT's own benchmark (CompiledModel)"
        options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=threads))
        self._environment = Environment.create()
        self._model = CompiledModel.from_file(
            str(bundle.file("encoder.tflite")), environment=self._environment, options=options
        )
        self._signature = next(iter(self._model.get_signature_list()))
        inputs = self._model.get_input_tensor_details(self._signature)
        outputs = self._model.get_output_tensor_details(self._signature)
        self._inputs = {name: self._model.create_input_buffer_by_name(self._signature, name) for name in inputs}
        self._outputs = {name: self._model.create_output_buffer_by_name(self._signature, name) for name in outputs}
        for name, details in inputs.items():
            self._inputs[name].write(np.zeros(details["shape"], np.dtype(details["dtype"])))

    def run(self) -> None:
        self._model.run_by_name(self._signature, self._inputs, self._outputs)


class OnnxRuntime(Timed):
    """InferenceSession with input and outputs bound once: no copies in the timed call."""

    kind = EMISSIONS["onnxruntime"]

    def __init__(self, bundle: Bundle, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise NotInstalled("onnxruntime") from error
        self.name = "ONNX Runtime, bound"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        path = str(bundle.file("encoder.onnx"))
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        value = onnxruntime.OrtValue.ortvalue_from_numpy(image(bundle))
        self._binding.bind_ortvalue_input(self._session.get_inputs()[0].name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


def contestants(bundle: Bundle, threads: int, missing: set[str]) -> Iterator[Timed]:
    """Everyone that is installed; the rest is named in `missing`."""
    makers: tuple[Any, ...] = (
        lambda: Ours("tflite", bundle, threads),
        lambda: LiteRtBenchmark(bundle, threads),
        lambda: LiteRtInterpreter(bundle, threads),
        lambda: Ours("onnxruntime", bundle, threads),
        lambda: OnnxRuntime(bundle, threads),
    )
    for make in makers:
        try:
            yield make()
        except (NotInstalled, BackendError) as error:
            missing.add(str(error))


def vendor_ms(bundle: Bundle, threads: int, runs: int) -> float | None:
    """Median of LiteRT's own tool in a process of its own, in milliseconds; None where it is not installed."""
    if importlib.util.find_spec("ai_edge_litert") is None or importlib.util.find_spec(VENDOR_TOOL) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        command = [sys.executable, "-m", VENDOR_TOOL, f"--model={bundle.file('encoder.tflite')}"]
        command += [f"--num_threads={threads}", f"--num_runs={runs}", f"--result_json={file}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not file.is_file():
            return None
        return _median_ms(json.loads(file.read_text()))


def _median_ms(document: dict[str, Any]) -> float | None:
    """Whatever the tool nests it in."""
    for name, value in document.items():
        if isinstance(value, dict) and (found := _median_ms(value)) is not None:
            return found
        if "median" in name and isinstance(value, int | float):
            return float(value)
    return None
