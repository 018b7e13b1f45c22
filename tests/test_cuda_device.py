"""CudaDevice and its two adapters, against recordings of the drivers' API. No GPU is needed."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.backends import cuda_core, cuda_pycuda
from edge.reading.backends.cuda_device import CudaDevice
from edge.reading.backends.cuda_image import load_images
from tools.cuda import api_names


class Recording:
    """A stand-in for an object of a CUDA package: has the names of api_names.py, writes down every call."""

    def __init__(self, owner: str, names: api_names.Names, calls: list[str], answers: dict[str, object]) -> None:
        self._owner, self._names, self._calls, self._answers = owner, names, calls, answers

    def __getattr__(self, name):
        if name not in self._names[self._owner]:
            raise AttributeError(f"{self._owner or 'the module'} has no {name} in api_names.py")
        full = f"{self._owner}.{name}".removeprefix(".")
        if full in self._answers:
            answer = self._answers[full]
            if not callable(answer) or isinstance(answer, type):
                return answer
        if not self._owner and name in self._names:
            return Recording(name, self._names, self._calls, self._answers)

        def call(*arguments, **keywords):
            self._calls.append(full)
            answer = self._answers.get(full)
            return answer(*arguments, **keywords) if callable(answer) else answer

        return call

    def __call__(self, *arguments, **keywords):
        self._calls.append(self._owner)
        answer = self._answers.get(f"{self._owner}()")
        return answer(*arguments, **keywords) if callable(answer) else self

    def __int__(self):
        return 4096

    def __sub__(self, other):
        return 2.5


class PycudaError(Exception):
    pass


class CudaError(Exception):
    pass


class NoGraphs:
    """StreamGraphs without a driver library."""

    def __init__(self, stream, library=""):
        self.stream = stream

    def begin(self): ...

    def end(self):
        return 77

    def launch(self, ready):
        assert ready == 77

    def free(self, ready):
        assert ready == 77


class Pinned:
    """What lies under pycuda's page-locked arrays."""

    def __init__(self, size):
        self._bytes = np.zeros(size, np.uint8)
        self.__array_interface__ = self._bytes.__array_interface__

    def free(self):
        """Nothing to give back."""


@pytest.fixture(autouse=True)
def at_exit(monkeypatch):
    """What would be called at the end of the process."""
    registered: list[Any] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", registered.remove)
    return registered


@pytest.fixture
def calls():
    return []


@pytest.fixture
def pycuda(calls, monkeypatch):
    monkeypatch.setattr(cuda_pycuda, "StreamGraphs", NoGraphs)
    names = api_names.PYCUDA

    def of(owner):
        return Recording(owner, names, calls, answers)

    answers = {
        "Error": PycudaError,
        "Device.name": lambda: "Orin",
        "Device.compute_capability": lambda: (8, 7),
        "Device.retain_primary_context": lambda: of("Context"),
        "Stream.handle": 5,
        "get_driver_version": lambda: 12060,
        "mem_alloc": lambda size: of("DeviceAllocation"),
        "pagelocked_empty": lambda size, dtype: np.asarray(Pinned(size)),
        "module_from_buffer": lambda image: of("Module"),
        "Module.get_function": lambda name: of("Function"),
        "Event.record": lambda stream: of("Event"),
        "Event.time_till": lambda end: 2.5,
    }
    return cuda_pycuda.PycudaDriver(Recording("", names, calls, answers)), answers


@pytest.fixture
def core(calls, monkeypatch):
    monkeypatch.setattr(cuda_core, "StreamGraphs", NoGraphs)
    names = api_names.CUDA_CORE

    def of(owner):
        return Recording(owner, names, calls, answers)

    class Capability:
        major, minor = 8, 7

    host = np.zeros(8, np.uint8)
    answers = {
        "Device.name": "Orin",
        "Device.compute_capability": Capability,
        "Device.create_stream": lambda: of("Stream"),
        "Device.allocate": lambda size, stream: of("Buffer"),
        "Buffer.handle": 4096,
        "Buffer.from_handle": lambda address, size, owner=None: of("Buffer"),
        "LegacyPinnedMemoryResource.allocate": lambda size: Pinned,
        "ObjectCode.from_cubin": lambda image: of("ObjectCode"),
        "ObjectCode.from_ptx": lambda image: of("ObjectCode"),
        "ObjectCode.get_kernel": lambda name: name,
        "ObjectCode.handle": 9,
        "Stream.handle": 5,
        "Stream.record": lambda options: of("Event"),
    }

    class Pinned:
        handle = host.ctypes.data

        @staticmethod
        def close(stream): ...

    class Bindings:
        @staticmethod
        def cuDriverGetVersion():
            return 0, 13000

    return cuda_core.CudaCoreDriver(Recording("", names, calls, answers), Bindings, CudaError), answers


@pytest.fixture(params=["pycuda", "core"])
def driver(request):
    return request.getfixturevalue(request.param)


def test_adapter_makes_every_call_of_a_step_in_order(driver, calls):
    made, _ = driver
    device = CudaDevice(made)
    assert device.facts.name == "Orin"
    assert device.facts.capability == (8, 7)
    address = device.allocate(16)
    assert address == 4096
    host = device.host_memory(8)
    host[:] = 1
    kernels = device.load(b"\x7fELF...")
    kernels.launch("radbox_embed", (2, 1, 1), 128, 64, [np.uint64(address), np.int32(3)])
    calls.clear()
    start = device.mark()

    def record():
        device.copy_in(address, host)
        kernels.launch("radbox_embed", (2, 1, 1), 128, 64, [np.uint64(address), np.int32(3)])
        device.copy_out(host, address + 8)

    graph = device.capture(record)
    graph.launch()
    assert device.elapsed_s(start, device.mark()) == pytest.approx(2.5e-3)
    device.wait()
    graph.free()
    device.free(address)
    device.close()
    copies = ["memcpy_htod_async", "Function", "memcpy_dtoh_async"], ["Buffer.copy_from", "launch", "Buffer.copy_to"]
    wanted = copies[0] if made.name == "pycuda" else copies[1]
    assert [call for call in calls if call in wanted] == wanted


def test_pycuda_uses_the_primary_context_and_gives_it_back(pycuda, calls):
    made, _ = pycuda
    CudaDevice(made).close()
    order = ["init", "Device", "Device.retain_primary_context", "Context.push", "Stream", "Context.detach"]
    assert [call for call in calls if call in order] == order


def test_cuda_core_takes_ptx_for_what_is_no_cubin(core, calls):
    made, _ = core
    CudaDevice(made).load(b"// PTX")
    assert "ObjectCode.from_ptx" in calls


def test_driver_failure_becomes_a_backend_error(driver):
    made, answers = driver
    failure = made.failures[0]

    def refuse(*arguments, **keywords):
        raise failure("CUDA_ERROR_OUT_OF_MEMORY: out of memory")

    device = CudaDevice(made)
    answers["mem_alloc" if made.name == "pycuda" else "Device.allocate"] = refuse
    with pytest.raises(BackendError, match="expected 16 bytes of GPU memory, got from") as error:
        device.allocate(16)
    assert error.value.code == "cuda.out-of-memory"


def test_after_a_fault_every_call_says_so_and_close_works(driver):
    made, answers = driver
    failure = made.failures[0]

    def fault(*arguments, **keywords):
        raise failure("an illegal memory access was encountered")

    device = CudaDevice(made)
    device.allocate(8)
    for name in ("Stream.synchronize", "DeviceAllocation.free", "Stream.sync", "Buffer.close"):  # each call from now on
        answers[name] = fault
    for call in (device.wait, lambda: device.allocate(1), device.mark):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "cuda.fault"
    device.close()
    device.close()
    with pytest.raises(BackendError) as error:
        device.wait()
    assert error.value.code == "cuda.closed"


def test_another_thread_is_refused(driver):
    made, _ = driver
    device, codes = CudaDevice(made), []

    def call():
        try:
            device.wait()
        except BackendError as error:
            codes.append(error.code)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert codes == ["cuda.wrong-thread"]


def test_failed_capture_ends_the_capture(pycuda, monkeypatch):
    made, _ = pycuda
    device = CudaDevice(made)
    ended: list[int] = []
    monkeypatch.setattr(made, "end_capture", lambda: 77)
    monkeypatch.setattr(made, "free_graph", ended.append)

    def record():
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        device.capture(record)
    assert ended == [77]
    device.wait()


def test_what_a_capture_cannot_hold_is_refused_before_the_driver_is_asked(driver):
    made, _ = driver
    device = CudaDevice(made)
    kernels = device.load(b"\x7fELF")
    for call in (
        lambda: device.allocate(8),
        lambda: device.host_memory(8),
        lambda: device.load(b"\x7fELF"),
        lambda: kernels.launch("radbox_embed", (1, 1, 1), 128, 0, []),
        device.wait,
        lambda: device.capture(lambda: None),
    ):
        with pytest.raises(BackendError) as error:
            device.capture(cast(Callable[[], None], call))
        assert error.value.code == "cuda.in-capture"
    device.wait()


def test_memory_left_by_a_finaliser_is_given_back_by_the_owner(pycuda, calls):
    made, _ = pycuda
    device = CudaDevice(made)
    address = device.allocate(8)
    thread = threading.Thread(target=device.leave, args=(lambda: device.free(address),))
    thread.start()
    thread.join()
    assert "DeviceAllocation.free" not in calls
    device.allocate(8)
    assert "DeviceAllocation.free" in calls


def test_a_fork_of_the_process_is_refused(driver, at_exit, monkeypatch):
    made, _ = driver
    device = CudaDevice(made)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for call in (device.wait, device.close):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "cuda.forked"
    for ended in at_exit:
        ended()


def test_end_of_the_process_lets_go_of_the_context(pycuda, calls, at_exit):
    CudaDevice(pycuda[0])
    (ended,) = at_exit
    ended()
    assert calls[-1] == "Context.detach"
    assert not at_exit


def test_device_that_half_opens_lets_go_of_the_context(pycuda, calls, at_exit):
    made, answers = pycuda

    def refuse(flags):
        raise PycudaError("cuStreamCreate failed: out of memory")

    answers["Stream()"] = refuse
    with pytest.raises(BackendError) as error:
        CudaDevice(made)
    assert error.value.code == "cuda.out-of-memory"
    assert calls[-1] == "Context.detach"
    assert not at_exit


def test_driver_older_than_graphs_is_refused(pycuda, calls):
    made, answers = pycuda
    answers["get_driver_version"] = lambda: 11020
    with pytest.raises(BackendError, match=r"CUDA 11.4 or newer, got one for 11.2") as error:
        CudaDevice(made)
    assert error.value.code == "cuda.old-driver"
    assert calls[-1] == "Context.detach"


def test_ranges_outside_an_allocation_are_refused(pycuda):
    made, _ = pycuda
    device = CudaDevice(made)
    address = device.allocate(8)
    for call in (
        lambda: device.upload(address + 4, np.zeros(2, np.float32)),
        lambda: device.download(np.zeros(2, np.float32), address - 1),
        lambda: device.upload(address, np.zeros((2, 4), np.uint8)[:, ::2]),
        lambda: device.upload(address, np.zeros(0)),
        lambda: device.free(address + 1),
        lambda: device.allocate(0),
    ):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "cuda.bad-argument"


def test_image_that_the_driver_refuses_gives_way_to_the_next(pycuda, tmp_path):
    made, answers = pycuda
    (tmp_path / "radbox.ptx").write_bytes(b"ptx")
    (tmp_path / "radbox_sm_87.cubin").write_bytes(b"cubin")
    asked = []

    def refuse(image):
        asked.append(image)
        if image in refused:
            raise PycudaError("cuModuleLoadDataEx failed: device kernel image is invalid - ")
        return Recording("Module", api_names.PYCUDA, [], answers)

    answers["module_from_buffer"] = refuse
    device = CudaDevice(made)
    refused = {b"cubin"}
    assert load_images(device, tmp_path)[1] == "radbox.ptx"
    refused = {b"cubin", b"ptx"}
    with pytest.raises(BackendError, match=r"capability 8.7 that a driver of CUDA 12.6 takes.*cubin.*ptx") as error:
        load_images(device, tmp_path)
    assert error.value.code == "cuda.bad-image"
    assert asked == [b"cubin", b"ptx"] * 2
    device.close()
