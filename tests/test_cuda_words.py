"""What CUDA says as stable codes, packages that are not there, and graphs through the driver library."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

from edge.errors import BackendError
from edge.reading.backends import cuda_core, cuda_graph, cuda_pycuda
from edge.reading.backends.cuda_device import open_device
from edge.reading.backends.cuda_driver import error_code
from edge.reading.backends.cuda_graph import GraphError, StreamGraphs


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
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver", "cuda.old-driver"),
        ("_driver.so: undefined symbol: cuTensorMapEncodeTiled", "cuda.old-driver"),
        ("libcuda.so.1: cannot open shared object file: No such file or directory", "cuda.absent"),
        ("cuStreamSynchronize failed: device-side assert triggered", "cuda.fault"),
        ("something new", "cuda.failed"),
    ],
)
def test_messages_become_stable_codes(message, code):
    assert error_code(message) == code


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
    with pytest.raises(GraphError, match="NVIDIA driver library is not found") as error:
        StreamGraphs(5, "libno-such-driver.so.1")
    assert error_code(str(error.value)) == "cuda.absent"
    assert cuda_graph.LIBRARY == "libcuda.so.1"


def test_driver_library_without_graphs_is_too_old():
    with pytest.raises(GraphError, match=r"without graphs, older than CUDA 11.4") as error:
        StreamGraphs(5, "libc.so.6")
    assert error_code(str(error.value)) == "cuda.old-driver"
