"""edge.reading.backends.cuda_driver.Driver over cuda.core (1.0 and newer), NVIDIA's own package: the second choice."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.reading.backends.cuda_driver import Bytes, DeviceFacts, load_package
from edge.reading.backends.cuda_graph import GraphError, StreamGraphs

CUBIN_MAGIC = b"\x7fELF"
FATBIN_MAGIC = b"\x50\xed\x55\xba"


class CudaCoreDriver:
    """cuda.core's Device uses the primary context; one stream that does not wait for the default one."""

    name = "cuda-core"

    def __init__(self, core: Any, bindings: Any, cuda_error: type[Exception]) -> None:
        self._core, self._bindings = core, bindings
        # RuntimeError: NVIDIA's driver library or a call of it is missing. ValueError: the ordinal, a launch's sizes.
        self.failures = (cuda_error, GraphError, RuntimeError, ValueError)
        self._buffers: dict[int, Any] = {}
        self._host: list[Any] = []

    def open(self, ordinal: int) -> DeviceFacts:
        """See Driver.open: set_current makes the primary context this thread's."""
        device = self._core.Device(ordinal)
        device.set_current()
        self._device, self._stream = device, device.create_stream()
        self._graphs = StreamGraphs(int(self._stream.handle))
        capability = device.compute_capability
        status, version = self._bindings.cuDriverGetVersion()
        if int(status):
            raise GraphError(f"cuDriverGetVersion: {status.name}")
        return DeviceFacts(device.name, (capability.major, capability.minor), int(version))

    def close(self) -> None:
        """See Driver.close. cuda.core keeps the primary context until the process ends.

        After a fault each call fails again, and the rest goes with the process.
        """
        for buffer in (*self._buffers.values(), *self._host):
            with contextlib.suppress(*self.failures):
                buffer.close(self._stream)
        self._buffers.clear()
        self._host.clear()
        del self._graphs
        with contextlib.suppress(*self.failures):
            self._stream.sync()
            self._stream.close()

    def allocate(self, size_bytes: int) -> int:
        """See Driver.allocate."""
        buffer = self._device.allocate(size_bytes, stream=self._stream)
        address = int(buffer.handle)
        self._buffers[address] = buffer
        return address

    def free(self, address: int) -> None:
        """See Driver.free."""
        self._buffers.pop(address).close(self._stream)

    def host_memory(self, size_bytes: int) -> Bytes:
        """See Driver.host_memory."""
        buffer = self._core.LegacyPinnedMemoryResource().allocate(size_bytes)
        self._host.append(buffer)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(int(buffer.handle)))

    def copy_in(self, address: int, source: Bytes) -> None:
        """See Driver.copy_in."""
        self._view(address, source.size).copy_from(self._outside(source), stream=self._stream)

    def copy_out(self, target: Bytes, address: int) -> None:
        """See Driver.copy_out."""
        self._view(address, target.size).copy_to(self._outside(target), stream=self._stream)

    def load(self, image: bytes) -> Any:
        """See Driver.load."""
        if image.startswith(CUBIN_MAGIC):
            code = self._core.ObjectCode.from_cubin(image)
        elif image.startswith(FATBIN_MAGIC):
            code = self._core.ObjectCode.from_fatbin(image)
        else:
            code = self._core.ObjectCode.from_ptx(image)
        int(code.handle)  # cuda.core loads at the first use; an image that the driver refuses is to be refused now
        return code

    def kernel(self, module: Any, name: str) -> Any:
        """See Driver.kernel."""
        return module.get_kernel(name)

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        arguments: Sequence[np.number[Any]],
    ) -> None:
        """See Driver.launch."""
        config = self._core.LaunchConfig(grid=grid, block=(threads, 1, 1), shmem_size=shared_bytes)
        self._core.launch(self._stream, config, kernel, *arguments)

    def mark(self) -> Any:
        """See Driver.mark."""
        return self._stream.record(options=self._core.EventOptions(timing_enabled=True))

    def elapsed_s(self, start: Any, end: Any) -> float:
        """See Driver.elapsed_s."""
        return float(end - start) / 1000.0

    def wait(self) -> None:
        """See Driver.wait."""
        self._stream.sync()

    def begin_capture(self) -> None:
        """See Driver.begin_capture."""
        self._graphs.begin()

    def end_capture(self) -> int:
        """See Driver.end_capture."""
        return self._graphs.end()

    def launch_graph(self, graph: Any) -> None:
        """See Driver.launch_graph."""
        self._graphs.launch(graph)

    def free_graph(self, graph: Any) -> None:
        """See Driver.free_graph."""
        self._graphs.free(graph)

    def _view(self, address: int, size_bytes: int) -> Any:
        return self._core.Buffer.from_handle(address, size_bytes)

    def _outside(self, array: Bytes) -> Any:
        """The host's array as a Buffer; the caller keeps it alive until the copy is done."""
        return self._core.Buffer.from_handle(array.ctypes.data, array.size, owner=array)


def load() -> CudaCoreDriver:
    """Raises BackendError `cuda.absent` where cuda.core or NVIDIA's driver is missing."""
    core = load_package("cuda.core", "cuda-core")
    bindings = load_package("cuda.bindings.driver", "cuda-bindings")
    errors = load_package("cuda.core._utils.cuda_utils", "cuda-core")  # CUDAError is exported nowhere else
    return CudaCoreDriver(core, bindings, errors.CUDAError)
