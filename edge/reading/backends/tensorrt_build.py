"""ONNX file -> TensorRT plan: strongly typed, with progress, cancel and timing cache. Runs in a child (tensorrt_child).

Calls after NVIDIA's TensorRT developer guide, "Importing a Model Using the ONNX Parser" and "Building an Engine".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.errors import BackendError
from edge.reading.backends.tensorrt_api import LONGEST_MESSAGE, make_log, refusal
from edge.reading.backends.tensorrt_key import Flags
from edge.reading.backends.tensorrt_onnx import check_file

Shape = tuple[int, ...]
Report = Callable[[str, int, int], None]
"""(phase, steps done, steps in all) of the build; called from threads of TensorRT's, one at a time."""

_UNUSABLE_CACHE: Final = b""


@dataclass(frozen=True)
class Built:
    """plan: what `Runtime.deserialize_cuda_engine` takes. timing_cache: b"" where none was used."""

    plan: bytes
    timing_cache: bytes


@dataclass(frozen=True)
class Wanted:
    """Names and shapes of the one input and of every output, all float32, batch of 1 included."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


class Timing:
    """The timing cache of one build; `before` are the bytes of an earlier build, b"" for none."""

    def __init__(self, before: bytes = b"") -> None:
        self._before = before
        self._timing_cache: Any = None

    def use(self, _trt: Any, config: Any) -> None:
        """Give it to a builder's config. A cache that TensorRT refuses (torn, of another GPU) is begun anew."""
        timing_cache = config.create_timing_cache(self._before)
        if timing_cache is None or not config.set_timing_cache(timing_cache, False):
            timing_cache = config.create_timing_cache(_UNUSABLE_CACHE)
            config.set_timing_cache(timing_cache, False)
        self._timing_cache = timing_cache

    def bytes_after(self) -> bytes:
        """To keep for the next build."""
        if self._timing_cache is None:
            return b""
        host_memory = self._timing_cache.serialize()
        return bytes(host_memory) if host_memory is not None else b""


def build_plan(
    trt: Any,
    model: Path,
    wanted: Wanted,
    flags: Flags,
    prepare: Callable[[Any, Any], None],
    report: Report,
    cancelled: Callable[[], bool],
) -> bytes:
    """Bytes of the plan.

    prepare: told (trt, config) before the build: `Timing.use`. cancelled: asked after every step.
    Raises BackendError: tensorrt.refused (what the parser says of the file), tensorrt.wrong-shape, tensorrt.cancelled,
    tensorrt.builder-resource, tensorrt.out-of-memory, tensorrt.build-failed, backend.absent, cuda.no-device.
    """
    check_file(model)
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # the binding's word for a factory that returned nothing: no driver, no GPU
        raise refusal(log.said, "cuda.no-device", "TensorRT could not start its builder.") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, log, model)
    _check_network(trt, network, wanted)
    config = builder.create_builder_config()
    config.builder_optimization_level = flags.level
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, flags.workspace_bytes)
    monitor = _monitor(trt, report, cancelled)
    config.progress_monitor = monitor
    prepare(trt, config)
    host_memory = builder.build_serialized_network(network, config)
    if host_memory is None:
        if cancelled():
            raise BackendError("The building of the engine was cancelled.", code="tensorrt.cancelled")
        raise refusal(log.said, "tensorrt.build-failed", "TensorRT could not build the engine.")
    return bytes(host_memory)


def _parse(trt: Any, network: Any, log: Any, model: Path) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(model)):
        return
    problems = [parser.get_error(i) for i in range(parser.num_errors)]
    said = "; ".join(problem.desc() for problem in problems) or "no reason"
    message = f"TensorRT refuses the model file {model.name}: {said[:LONGEST_MESSAGE]}"
    raise BackendError(message, code="tensorrt.refused")


def _check_network(trt: Any, network: Any, wanted: Wanted) -> None:
    """Names, shapes and types: a bundle of another make is refused before the build."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for side, tensors, expected in (("input", inputs, wanted.inputs), ("output", outputs, wanted.outputs)):
        found = {tensor.name: tuple(tensor.shape) for tensor in tensors}
        if found != expected:
            message = f"expected every {side} of the model as {dict(expected)}, got {found}"
            raise BackendError(message, code="tensorrt.wrong-shape")
        for tensor in tensors:
            if tensor.dtype != trt.DataType.FLOAT:
                message = f"expected the {side} {tensor.name} as float32, got another type"
                raise BackendError(message, code="tensorrt.wrong-shape")


def _monitor(trt: Any, report: Report, cancelled: Callable[[], bool]) -> Any:
    """An IProgressMonitor. TensorRT calls it from several threads, and keeps it as long as the config lives."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._turn = threading.Lock()

        def phase_start(self, phase_name: str, _parent_phase: str, num_steps: int) -> None:
            """A phase of `num_steps` begins."""
            with self._turn:
                self._steps[phase_name] = num_steps
                report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Step number `step`, from 0, is done. False ends the build."""
            with self._turn:
                report(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends, whether it came to its last step or not."""
            with self._turn:
                self._steps.pop(phase_name, None)

    return Monitor()
