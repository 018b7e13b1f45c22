"""CudaDevice and its two adapters, against recordings of the drivers' API; compiling; packing. No GPU is needed."""

from __future__ import annotations

import importlib
import subprocess
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from edge.errors import BackendError
from edge.reading.backends import cuda_core, cuda_graph, cuda_pycuda
from edge.reading.backends.cuda_device import CudaDevice, Kernels, error_code, open_device, read_image
from edge.reading.backends.cuda_graph import GraphError, StreamGraphs
from edge.reading.backends.cuda_launches import Launches, Matrix
from edge.reading.backends.cuda_weights import Arena, restored, store_rows
from tools.cuda import api_names, toolkit
from tools.cuda.compile import REGISTER_LIMITS, Usage, check_compiler, check_nvrtc, read_usage


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
        "pagelocked_empty": lambda size, dtype: np.empty(size, dtype),
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
    order = ["init", "Device", "Device.retain_primary_context", "Context.push", "Stream", "Context.pop"]
    assert [call for call in calls if call in order] == order


def test_cuda_core_takes_ptx_for_what_is_no_cubin(core, calls):
    made, _ = core
    CudaDevice(made).load(b"// PTX")
    assert "ObjectCode.from_ptx" in calls


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("cuMemAlloc failed: out of memory", "cuda.out-of-memory"),
        ("CUDA_ERROR_OUT_OF_MEMORY: The API call failed", "cuda.out-of-memory"),
        ("cuInit failed: no CUDA-capable device is detected", "cuda.no-device"),
        ("cuModuleLoadDataEx failed: no kernel image is available for execution", "cuda.bad-image"),
        ("cuModuleLoadDataEx failed: the provided PTX was compiled with an unsupported toolchain.", "cuda.bad-image"),
        ("CUDA_ERROR_NOT_FOUND: symbol", "cuda.unknown-kernel"),
        ("cuCtxSynchronize failed: an illegal memory access was encountered", "cuda.fault"),
        ("cuLaunchKernel failed: invalid argument", "cuda.bad-argument"),
        ("something new", "cuda.failed"),
    ],
)
def test_messages_become_stable_codes(message, code):
    assert error_code(message) == code


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
    answers["Stream.synchronize" if made.name == "pycuda" else "Stream.sync"] = fault
    for call in (device.wait, lambda: device.allocate(1), device.mark):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "cuda.fault"
    answers.pop("Stream.sync", None)
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
    device, ended = CudaDevice(made), []
    monkeypatch.setattr(made, "end_capture", lambda: ended.append(True))

    def record():
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        device.capture(record)
    assert ended == [True]


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


def test_unknown_and_absent_drivers_are_named(monkeypatch):
    with pytest.raises(BackendError) as error:
        open_device(("opencl",))
    assert error.value.code == "cuda.unknown-driver"

    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(
        BackendError, match=r"expected pycuda and NVIDIA's driver, got: No module named 'pycuda.driver'"
    ):
        cuda_pycuda.load()
    with pytest.raises(BackendError) as error:
        cuda_core.load()
    assert error.value.code == "cuda.absent"


def test_image_is_the_gpus_own_else_ptx(tmp_path):
    with pytest.raises(BackendError) as error:
        read_image(tmp_path, (8, 7))
    assert error.value.code == "cuda.no-image"
    (tmp_path / "radbox.ptx").write_bytes(b"ptx")
    (tmp_path / "radbox_sm_87.cubin").write_bytes(b"cubin")
    assert read_image(tmp_path, (8, 7)) == b"cubin"
    assert read_image(tmp_path, (8, 6)) == b"ptx"


GRAPH_STUB = """
#include <stdint.h>
static int open_, live_;
int cuStreamBeginCapture_v2(void *stream, int mode) { open_ = 1; return stream == (void *)5 && mode == 1 ? 0 : 1; }
int cuStreamEndCapture(void *stream, void **graph) { *graph = (void *)11; return open_-- == 1 ? 0 : 901; }
int cuGraphInstantiateWithFlags(void **ready, void *graph, uint64_t flags) {
    *ready = (void *)12; return graph == (void *)11 && flags == 0 ? 0 : 1; }
int cuGraphDestroy(void *graph) { live_ = 1; return graph == (void *)11 ? 0 : 1; }
int cuGraphLaunch(void *ready, void *stream) { return live_ && ready == (void *)12 && stream == (void *)5 ? 0 : 400; }
int cuGraphExecDestroy(void *ready) { live_ = 0; return ready == (void *)12 ? 0 : 1; }
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_INVALID_HANDLE"; return error == 0; }
"""


@pytest.fixture(scope="module")
def graph_library(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("cuda")
    (folder / "stub.c").write_text(GRAPH_STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so", folder / "stub.c"], check=True)
    return str(folder / "libcuda.so")


def test_graphs_call_the_driver_library(graph_library):
    graphs = StreamGraphs(5, graph_library)
    graphs.begin()
    ready = graphs.end()
    graphs.launch(ready)
    graphs.free(ready)
    with pytest.raises(GraphError, match=r"cuGraphLaunch: CUDA_ERROR_INVALID_HANDLE \(400\)"):
        graphs.launch(ready)
    with pytest.raises(GraphError, match="cuStreamEndCapture"):
        graphs.end()


def test_missing_driver_library_is_a_graph_error():
    with pytest.raises(GraphError, match="NVIDIA driver library without graphs") as error:
        StreamGraphs(5, "libno-such-driver.so.1")
    assert error_code(str(error.value)) == "cuda.absent"
    assert cuda_graph.LIBRARY == "libcuda.so.1"


@pytest.mark.parametrize(("storage", "tolerance"), [("f16", 2**-10), ("i8", 1 / 127)])
def test_stored_rows_come_back_within_half_a_step(storage, tolerance):
    weight = np.random.default_rng(1).standard_normal((5, 33)).astype(np.float32)
    weight *= np.array([1e-6, 1.0, 1e6, 0.0, 3.0], np.float32)[:, None]
    stored = store_rows(weight, storage)
    assert stored.rows.shape == (5, 48)
    assert not stored.rows[:, 33:].any()
    error = np.abs(restored(stored, 33) - weight).max(axis=1)
    assert (error <= tolerance / 2 * np.abs(weight).max(axis=1)).all()


def test_arena_keeps_arrays_apart_and_aligned():
    arena = Arena()
    arena.add("first", np.arange(3, dtype=np.int8))
    arena.add("second", np.arange(2, dtype=np.float32))
    assert (arena["first"], arena["second"], arena.size_bytes) == (0, 256, 512)
    assert arena.contents()[256:264].view(np.float32).tolist() == [0.0, 1.0]


def test_heads_and_rows_that_no_kernel_fits_are_refused():
    launches, null = Launches(cast(Kernels, None), "f16", "f16"), np.uint64(0)  # refused before they are launched
    for call in (
        lambda: launches.attention_maps(null, 1, null, 1, 1, 129, 1, null),
        lambda: launches.linear_add(null, Matrix(null, null, null), 8, 20_000, null, null),
    ):
        with pytest.raises(BackendError) as error:
            call()
        assert error.value.code == "kernels.bad-argument"


PTXAS = """
ptxas info    : Compiling entry function 'radbox_attend_f16_h32' for 'sm_87'
ptxas info    : Function properties for radbox_attend_f16_h32
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 97 registers, used 1 barriers, 488 bytes cmem[0]
ptxas info    : Compiling entry function 'radbox_embed' for 'sm_87'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 65 registers, 400 bytes cmem[0]
"""


def test_spills_and_registers_are_read_and_limited():
    attend, embed = read_usage(PTXAS)
    assert attend == Usage("radbox_attend_f16_h32", 97, 16, 8)
    assert "expected no spills, got 16 bytes" in attend.fault()
    assert "expected at most 64 registers, got 65" in embed.fault()
    assert Usage("radbox_attend_f16_h32", REGISTER_LIMITS["attend"], 0, 0).fault() == ""


@pytest.mark.slow
def test_kernels_compile_for_every_gpu(tmp_path):
    compilers, libraries = toolkit.compilers(), toolkit.nvrtc_libraries()
    if not compilers and not libraries:
        pytest.skip("no nvcc and no NVRTC on this machine; tools/check_cuda --install fetches them")
    for compiler in compilers[:1]:
        assert check_compiler(compiler, tmp_path) == []
        assert (tmp_path / "radbox_sm_87.cubin").read_bytes().startswith(b"\x7fELF")
    for library in libraries[:1]:
        assert check_nvrtc(library) == []
