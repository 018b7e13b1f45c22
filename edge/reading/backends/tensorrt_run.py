"""A TensorRT plan at work: one engine, one context, fixed shapes, device memory of CudaDevice, one stream.

`Runtime` is made only after CudaDevice opened the GPU: without a driver it logs an error, and the next call crashes the
process. Not run on any board yet; `radbox selftest` on a Jetson is what proves it.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge.errors import BackendError
from edge.reading.backends.cuda_device import CudaDevice
from edge.reading.backends.cuda_graph import LIBRARY, GraphError, StreamGraphs
from edge.reading.backends.setup import Setup
from edge.reading.backends.tensorrt_api import make_log, refusal
from edge.reading.backends.tensorrt_stream import Stream
from edge.reading.radiograph import F32

Shape = tuple[int, ...]


class LoadedPlan:
    """A loaded plan and its memory. In the thread that opened `device`, as everything of it.

    Raises BackendError: tensorrt.plan-refused, tensorrt.context, cuda.*.
    """

    def __init__(self, trt: Any, device: CudaDevice, plan: bytes, *, graph: bool, library: str = LIBRARY) -> None:
        self._trt, self._device = trt, device
        self._log = make_log(trt)
        self._stream = Stream(library)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise refusal(self._log.said, "tensorrt.plan-refused", "TensorRT refuses the engine it built itself.")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise refusal(self._log.said, "tensorrt.context", "TensorRT has no memory to run the engine.")
        self.inputs, self.outputs = self._shapes()
        self._addresses = self._allocate()
        self._graphs: StreamGraphs | None = None
        self._graph = 0
        self.graph_message = "not asked for"
        if graph:
            self._capture(library)

    @property
    def with_graph(self) -> bool:
        """True if a run is the launch of a captured CUDA graph."""
        return self._graphs is not None

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """One pass; arrays of the engine's shapes, float32. Raises BackendError: backend.run, cuda.*."""
        for name, shape in self.inputs.items():
            if inputs[name].shape != shape or inputs[name].dtype != np.float32:
                got = f"{inputs[name].dtype} {inputs[name].shape}"
                raise BackendError(f"expected {name} as float32 {shape}, got {got}", code="backend.run")
            self._device.upload(self._addresses[name], np.ascontiguousarray(inputs[name]))
        self._enqueue()
        self._stream.wait()
        outputs = {}
        for name, shape in self.outputs.items():
            outputs[name] = np.empty(shape, np.float32)
            self._device.download(outputs[name], self._addresses[name])
        return outputs

    def close(self) -> None:
        """Give the engine back before the device is closed."""
        if self._graphs is not None:
            self._graphs.free(self._graph)
        del self._context, self._engine, self._runtime
        for address in self._addresses.values():
            self._device.free(address)
        self._stream.close()

    def _shapes(self) -> tuple[dict[str, Shape], dict[str, Shape]]:
        inputs: dict[str, Shape] = {}
        outputs: dict[str, Shape] = {}
        engine = self._engine
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            shape = tuple(engine.get_tensor_shape(name))
            if engine.get_tensor_dtype(name) != self._trt.DataType.FLOAT or min(shape, default=0) < 1:
                raise BackendError(f"expected {name} as float32 of a fixed shape, got another", code="backend.load")
            side = inputs if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT else outputs
            side[name] = shape
        return inputs, outputs

    def _allocate(self) -> dict[str, int]:
        addresses = {}
        for name, shape in {**self.inputs, **self.outputs}.items():
            addresses[name] = self._device.allocate(int(np.prod(shape)) * np.dtype(np.float32).itemsize)
            if not self._context.set_tensor_address(name, addresses[name]):
                raise refusal(self._log.said, "backend.load", f"TensorRT refuses the memory of {name}.")
        return addresses

    def _enqueue(self) -> None:
        if self._graphs is not None:
            try:
                self._graphs.launch(self._graph)
            except GraphError as error:
                raise BackendError(
                    f"expected the engine's graph to launch, got: {error}", code="backend.run"
                ) from error
        elif not self._context.execute_async_v3(self._stream.handle):
            raise refusal(self._log.said, "backend.run", "TensorRT failed while running the model.")

    def _capture(self, library: str) -> None:
        """Shapes and addresses never change, so one pass is captured once, after one that was not (developer guide,
        "CUDA Graphs": the first flushes deferred updates). Where it cannot be, each pass is enqueued as before.
        """
        self._enqueue()
        self._stream.wait()
        try:
            graphs = StreamGraphs(self._stream.handle, library)
            graphs.begin()
            try:
                well = self._context.execute_async_v3(self._stream.handle)
            finally:
                graph = graphs.end()
        except GraphError as error:
            self.graph_message = f"not captured: {error}"
            return
        if not well:
            graphs.free(graph)
            self.graph_message = "not captured: the engine cannot be"
            return
        self._graphs, self._graph = graphs, graph
        self.graph_message = "captured"


def wants_graph(setup: Setup) -> bool:
    """The board's `accelerator.options` may say graph=off."""
    return "graph=off" not in setup.options


class TensorrtEncoder:
    """See `edge.reading.backends.Encoder`. emission: of the plan that was kept."""

    name = "tensorrt"

    def __init__(self, loaded: LoadedPlan, emission: str, close_device: Callable[[], None]) -> None:
        (self._input,) = loaded.inputs
        self._loaded: LoadedPlan | None = loaded
        self._close_device = close_device
        self.emission = emission
        # After the device's own, so before it: an engine must be gone before its context is.
        atexit.register(_close, weakref.ref(self))

    def run(self, x: F32) -> dict[str, F32]:
        """See `edge.reading.backends.Encoder.run`."""
        if self._loaded is None:
            raise BackendError("expected an open engine, got one that was closed", code="backend.run")
        return self._loaded.run({self._input: x})

    def close(self) -> None:
        """Give the GPU back; harmless a second time."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()
            self._close_device()

    def __del__(self) -> None:
        _close(lambda: self)


def _close(encoder: Callable[[], TensorrtEncoder | None]) -> None:
    """A worker that opens another model drops this one. After a fault of the GPU nothing can be given back."""
    alive = encoder()
    if alive is not None:
        with contextlib.suppress(BackendError):
            alive.close()
