"""edge.reading.backends.cuda_driver.Driver over pycuda (2024.1 and newer)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.reading.backends.cuda_driver import Bytes, DeviceFacts, load_package
from edge.reading.backends.cuda_graph import GraphError, StreamGraphs

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name


class PycudaDriver:
    """Primary context, one stream that does not wait for the default one."""

    name = "pycuda"

    def __init__(self, drv: Any) -> None:
        self._drv = drv
        self.failures = (drv.Error, GraphError)
        self._memory: dict[int, Any] = {}
        self._host: list[Bytes] = []

    def open(self, ordinal: int) -> DeviceFacts:
        """See Driver.open: retains the primary context and makes it this thread's."""
        drv = self._drv
        drv.init()
        device = drv.Device(ordinal)
        self._context = device.retain_primary_context()
        self._context.push()
        try:
            self._stream = drv.Stream(NON_BLOCKING)
            self._graphs = StreamGraphs(self._stream.handle)
            return DeviceFacts(device.name(), device.compute_capability(), drv.get_driver_version())
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """See Driver.close. After a fault each call fails again; the context is let go of all the same."""
        for memory in self._memory.values():
            with contextlib.suppress(*self.failures):
                memory.free()
        self._memory.clear()
        for host in self._host:
            with contextlib.suppress(*self.failures):
                host.base.free()  # type: ignore[union-attr]
        self._host.clear()
        del self._graphs, self._stream
        self._let_go()

    def _let_go(self) -> None:
        """pycuda aborts a process that ends with a context on its stack; detach alone gives a primary one back."""
        with contextlib.suppress(*self.failures):
            self._context.detach()
        del self._context

    def allocate(self, size_bytes: int) -> int:
        """See Driver.allocate."""
        memory = self._drv.mem_alloc(size_bytes)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """See Driver.free."""
        self._memory.pop(address).free()

    def host_memory(self, size_bytes: int) -> Bytes:
        """See Driver.host_memory."""
        memory: Bytes = self._drv.pagelocked_empty(size_bytes, np.uint8)
        self._host.append(memory)
        return memory

    def copy_in(self, address: int, source: Bytes) -> None:
        """See Driver.copy_in."""
        self._drv.memcpy_htod_async(address, source, self._stream)

    def copy_out(self, target: Bytes, address: int) -> None:
        """See Driver.copy_out."""
        self._drv.memcpy_dtoh_async(target, address, self._stream)

    def load(self, image: bytes) -> Any:
        """See Driver.load."""
        return self._drv.module_from_buffer(image)

    def kernel(self, module: Any, name: str) -> Any:
        """See Driver.kernel."""
        return module.get_function(name)

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        arguments: Sequence[np.number[Any]],
    ) -> None:
        """See Driver.launch."""
        kernel(*arguments, block=(threads, 1, 1), grid=grid, shared=shared_bytes, stream=self._stream)

    def mark(self) -> Any:
        """See Driver.mark."""
        return self._drv.Event().record(self._stream)

    def elapsed_s(self, start: Any, end: Any) -> float:
        """See Driver.elapsed_s."""
        return float(start.time_till(end)) / 1000.0

    def wait(self) -> None:
        """See Driver.wait."""
        self._stream.synchronize()

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


def load() -> PycudaDriver:
    """Raises BackendError `cuda.absent` where pycuda or NVIDIA's driver is missing."""
    return PycudaDriver(load_package("pycuda.driver", "pycuda"))
