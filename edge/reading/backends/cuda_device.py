"""One NVIDIA GPU behind one thread: memory, copies, launches, events and graphs, over pycuda or cuda.core.

The kernels are plain CUDA (kernels/cuda), built ahead into cubins and PTX, so the box needs no compiler. A driver
(cuda_pycuda.py, cuda_core.py) makes the calls of one Python package; cuda_driver.py names its errors; checks are here.
Everything runs in the device's primary context (TensorRT's too), on one stream, in the thread that opened the device.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.backends.cuda_driver import Bytes, DeviceFacts, Driver, error_code

__all__ = ["DRIVERS", "Bytes", "CudaDevice", "DeviceFacts", "Graph", "Kernels", "error_code", "open_device"]

DRIVERS: Final = {"pycuda": "cuda_pycuda", "cuda-core": "cuda_core"}
"""Names in order of preference, and the module of each."""
OLDEST_DRIVER: Final = 11040
"""CUDA 11.4, as a driver gives its version: the first with the calls for graphs that are used here."""

Result = TypeVar("Result")


class CudaDevice:
    """A GPU, opened by the thread that uses it. Raises BackendError `cuda.*`; after `cuda.fault` only `close` works.

    A child made by fork is refused (`cuda.forked`): CUDA works only in the process that opened it.
    """

    def __init__(self, driver: Driver, ordinal: int = 0) -> None:
        """Raises BackendError `cuda.old-driver` too: NVIDIA's driver is older than OLDEST_DRIVER."""
        self.driver_name = driver.name
        self._driver = driver
        self._owner = threading.get_ident()
        self._process = os.getpid()
        self._refusal: BackendError | None = None
        self._capturing = False
        self._sizes: dict[int, int] = {}
        self._left: list[Callable[[], None]] = []
        self.facts = self._call(f"GPU {ordinal} to open", lambda: driver.open(ordinal))
        # pycuda aborts a process that ends with a context pushed.
        atexit.register(self._end)
        if 0 < self.facts.driver_version < OLDEST_DRIVER:
            self.close()
            raise BackendError(
                f"expected NVIDIA's driver for CUDA 11.4 or newer, got one for {_release(self.facts.driver_version)}",
                code="cuda.old-driver",
            )

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory, contents undefined; what was left behind is given back first."""
        if size_bytes < 1:
            raise BackendError(f"expected an allocation above 0 bytes, got {size_bytes}", code="cuda.bad-argument")
        self._refuse_in_capture("an allocation")
        while self._left:
            self._left.pop()()
        address = self._call(f"{size_bytes} bytes of GPU memory", lambda: self._driver.allocate(size_bytes))
        self._sizes[address] = size_bytes
        return address

    def free(self, address: int) -> None:
        """Give one `allocate` back."""
        if address not in self._sizes:
            raise BackendError("expected an allocation of this device, got another address", code="cuda.bad-argument")
        self._call("memory to be freed", lambda: self._driver.free(address))
        del self._sizes[address]

    def leave(self, give_back: Callable[[], None]) -> None:
        """Have `give_back` called by the owner before its next allocation: for finalisers, which run in any thread."""
        self._left.append(give_back)

    def host_memory(self, size_bytes: int) -> Bytes:
        """(size_bytes,) page-locked, for copies inside a graph; until the device is closed, and not touched after."""
        self._refuse_in_capture("an allocation")
        return self._call(f"{size_bytes} bytes of page-locked memory", lambda: self._driver.host_memory(size_bytes))

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device; returns when it is there."""
        source = _as_bytes(array)
        self.copy_in(address, source)
        self.wait()

    def download(self, array: NDArray[Any], address: int) -> None:
        """Fill a contiguous array from the device; returns when it is here."""
        self.copy_out(_as_bytes(array), address)
        self.wait()

    def copy_in(self, address: int, source: Bytes) -> None:
        """As upload, but ordered on the stream: `source` must not change until `wait`. May be captured."""
        self._check_range(address, source.size)
        self._call("a copy to the GPU", lambda: self._driver.copy_in(address, source))

    def copy_out(self, target: Bytes, address: int) -> None:
        """As download, but ordered on the stream: `target` is filled by `wait`. May be captured."""
        self._check_range(address, target.size)
        self._call("a copy from the GPU", lambda: self._driver.copy_out(target, address))

    def load(self, image: bytes) -> Kernels:
        """A module from the bytes of a cubin, a fatbin or PTX."""
        self._refuse_in_capture("a module")
        module = self._call("the kernels' image to load", lambda: self._driver.load(image))
        return Kernels(self, module)

    def find(self, module: object, name: str) -> object:
        """A kernel of a loaded module."""
        self._refuse_in_capture("a kernel's first use, which loads it")
        return self._call(f"a kernel named {name}", lambda: self._driver.kernel(module, name))

    def launch(
        self,
        kernel: object,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        arguments: Sequence[np.number[Any]],
    ) -> None:
        """Put one kernel on the stream. Addresses are np.uint64, sizes np.int32, numbers np.float32."""
        self._call("a launch", lambda: self._driver.launch(kernel, grid, threads, shared_bytes, arguments))

    def mark(self) -> object:
        """An event at this point of the stream."""
        return self._call("an event", self._driver.mark)

    def elapsed_s(self, start: object, end: object) -> float:
        """Seconds of the GPU's clock between two events that have passed."""
        return self._call("a time between events", lambda: self._driver.elapsed_s(start, end))

    def wait(self) -> None:
        """Return when everything on the stream is done; a fault of a kernel is raised here."""
        self._refuse_in_capture("a wait")
        self._call("the kernels to finish", self._driver.wait)

    def capture(self, record: Callable[[], None]) -> Graph:
        """What `record` puts on the stream, as a graph, not run.

        `record` must not wait, allocate, load, or launch a kernel for the first time: `cuda.in-capture`.
        """
        self._refuse_in_capture("a capture")
        self._call("a capture to begin", self._driver.begin_capture)
        self._capturing = True
        try:
            record()
        except BaseException:
            self._capturing = False
            with contextlib.suppress(*self._driver.failures):  # else the stream stays in capture for good
                self._driver.free_graph(self._driver.end_capture())
            raise
        self._capturing = False
        return Graph(self, self._call("a graph of the captured work", self._driver.end_capture))

    def launch_graph(self, graph: object) -> None:
        """Put a captured graph on the stream."""
        self._call("a graph to launch", lambda: self._driver.launch_graph(graph))

    def free_graph(self, graph: object) -> None:
        """Give a graph back."""
        self._call("a graph to be freed", lambda: self._driver.free_graph(graph))

    def check(self) -> None:
        """Raises BackendError where the device cannot be used: another thread, a fork, a fault, closed."""
        self._check_thread()
        if self._refusal is not None:
            raise BackendError(self._refusal.message, code=self._refusal.code)

    def close(self) -> None:
        """Free everything and let go of the context. Later calls raise `cuda.closed`."""
        self._check_thread()
        if self._refusal is not None and self._refusal.code == "cuda.closed":
            return
        self._refusal = BackendError("expected an open GPU, got one that was closed", code="cuda.closed")
        self._sizes.clear()
        self._left.clear()
        atexit.unregister(self._end)
        self._driver.close()

    def _end(self) -> None:
        """The interpreter ends: close what only this thread of this process can close."""
        if threading.get_ident() == self._owner and os.getpid() == self._process:
            self.close()

    def _refuse_in_capture(self, what: str) -> None:
        if self._capturing:
            raise BackendError(f"expected copies and launches in a capture, got {what}", code="cuda.in-capture")

    def _check_range(self, address: int, size_bytes: int) -> None:
        for start, length in self._sizes.items():
            if start <= address and address + size_bytes <= start + length:
                return
        raise BackendError(
            f"expected {size_bytes} bytes within an allocation of this device, got a range outside",
            code="cuda.bad-argument",
        )

    def _check_thread(self) -> None:
        if os.getpid() != self._process:
            raise BackendError("expected the process that opened the GPU, got a fork of it", code="cuda.forked")
        if threading.get_ident() != self._owner:
            raise BackendError("expected the thread that opened the GPU, got another", code="cuda.wrong-thread")

    def _call(self, wanted: str, call: Callable[[], Result]) -> Result:
        self.check()
        try:
            return call()
        except self._driver.failures as error:
            code = error_code(str(error))
            refusal = BackendError(f"expected {wanted}, got from {self.driver_name}: {error}", code=code)
            if code == "cuda.fault":  # CUDA answers every later call of this context with it
                self._refusal = refusal
            raise refusal from error


class Kernels:
    """The kernels of one module, found by name once."""

    def __init__(self, device: CudaDevice, module: object) -> None:
        self._device, self._module = device, module
        self._found: dict[str, object] = {}

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        arguments: Sequence[np.number[Any]],
    ) -> None:
        """CudaDevice.launch by name."""
        if name not in self._found:
            self._found[name] = self._device.find(self._module, name)
        self._device.launch(self._found[name], grid, threads, shared_bytes, arguments)


class Graph:
    """Captured work, to run again and again with what memory then holds."""

    def __init__(self, device: CudaDevice, graph: object) -> None:
        self._device, self._graph = device, graph

    def launch(self) -> None:
        """Put it on the stream."""
        self._device.launch_graph(self._graph)

    def free(self) -> None:
        """Give it back; not used afterwards."""
        self._device.free_graph(self._graph)


def _as_bytes(array: NDArray[Any]) -> Bytes:
    if not array.flags.c_contiguous or array.size == 0:
        raise BackendError(
            f"expected a contiguous array with elements, got shape {array.shape}", code="cuda.bad-argument"
        )
    return array.reshape(-1).view(np.uint8)


def open_device(names: Sequence[str] = tuple(DRIVERS), ordinal: int = 0) -> CudaDevice:
    """The GPU through the first of `names` that is installed and finds one.

    Raises BackendError: `cuda.unknown-driver`, or `cuda.absent` / `cuda.no-device` / ... of the last one tried, with
    every reason in the message.
    """
    reasons, code = [], "cuda.absent"
    for name in names:
        if name not in DRIVERS:
            raise BackendError(
                f"expected a CUDA driver out of {', '.join(DRIVERS)}, got {name!r}", code="cuda.unknown-driver"
            )
        try:
            driver: Driver = importlib.import_module(f"edge.reading.backends.{DRIVERS[name]}").load()
            return CudaDevice(driver, ordinal)
        except BackendError as error:
            reasons.append(f"{name}: {error.message}")
            code = error.code
    raise BackendError(f"No CUDA device can be used. {'; '.join(reasons)}", code=code)


def _release(driver_version: int) -> str:
    return f"{driver_version // 1000}.{driver_version % 1000 // 10}"
