"""The real cuda.core and pycuda over a stand-in for NVIDIA's driver library, each in a process of its own.

cuda.core comes with `tools/check_cuda --install`; pycuda is built for a machine and tried where it is found.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from edge.errors import BackendError
from edge.reading.backends import cuda_kernels
from edge.reading.backends.cuda_image import FOLDER
from edge.reading.ops import Guarded, Kernels, load_kernels
from edge.reading.ops.native import NativeKernels
from tools.cuda import fake_driver
from tools.cuda.toolkit import SITE

PACKAGES = {"pycuda": "pycuda", "cuda-core": "cuda/core"}
USE = """
import json, sys
import numpy as np
from edge.errors import BackendError
from edge.reading.backends.cuda_device import open_device

def main(name, end):
    device = open_device((name,))
    address, host = device.allocate(64), device.host_memory(64)
    device.upload(address, np.arange(16, dtype=np.float32))
    back = np.zeros(16, np.float32)
    device.download(back, address)
    kernels = device.load(b"\\x7fELF" + bytes(64))
    arguments = [np.uint64(address), np.int32(1), np.float32(2.0)]
    kernels.launch("radbox_embed", (1, 1, 1), 128, 0, arguments)
    start = device.mark()
    device.wait()

    def record():
        device.copy_in(address, host)
        kernels.launch("radbox_embed", (1, 1, 1), 128, 0, arguments)
        device.copy_out(host, address)

    graph = device.capture(record)
    graph.launch()
    device.wait()
    said = {"facts": [*device.facts.capability, device.facts.driver_version], "back": back.tolist()}
    said["elapsed_s"] = device.elapsed_s(start, device.mark())
    graph.free()
    device.free(address)
    other = open_device((name,))
    if end == "close":
        device.close()
        other.upload(other.allocate(8), np.zeros(2, np.float32))
        other.close()
    return said

try:
    print(json.dumps(main(*sys.argv[1:])))
except BackendError as error:
    print(json.dumps({"code": error.code, "message": error.message}))
"""


def has(name: str) -> bool:
    """Whether a process with build/cuda_site on its path could import it."""
    top = PACKAGES[name].split("/")[0]
    return (SITE / PACKAGES[name]).is_dir() or (name == "pycuda" and importlib.util.find_spec(top) is not None)


@pytest.fixture(params=PACKAGES)
def package(request) -> str:
    name: str = request.param
    if not has(name):
        pytest.skip(f"{name} is not installed: tools/check_cuda --install brings cuda.core, pycuda is built by hand")
    return name


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    extensions = []
    if (found := importlib.util.find_spec("pycuda")) and found.origin:
        extensions = list(Path(found.origin).parent.glob("_driver*.so"))
    return fake_driver.build(tmp_path_factory.mktemp("driver"), extensions)


def environment(library: Path | None, wrong: str = "", log: Path | None = None) -> dict[str, str]:
    places = [str(SITE), os.environ.get("PYTHONPATH", "")]
    base = fake_driver.environment(library, wrong, log) if library else dict(os.environ)
    return base | {"PYTHONPATH": os.pathsep.join(filter(None, places))}


def use(package: str, library: Path | None, wrong: str = "", log: Path | None = None, end: str = "close") -> dict:
    command = [sys.executable, "-c", USE, package, end]
    how = environment(library, wrong, log)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=how)
    assert done.returncode == 0, done.stderr
    if wrong != "fault":  # after it every clean-up fails, which pycuda tells
        assert "PyCUDA" not in done.stderr, done.stderr
    said: dict = json.loads(done.stdout.splitlines()[-1])
    return said


def test_real_package_makes_every_call(package, library, tmp_path):
    log = tmp_path / "calls"
    said = use(package, library, log=log)
    assert said == {"facts": [8, 7, 13000], "back": list(range(16)), "elapsed_s": 0.0025}
    calls = log.read_text().split()
    graph = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy"]
    graph += ["cuGraphLaunch", "cuGraphExecDestroy"]
    assert [call for call in calls if call.startswith(("cuGraph", "cuStreamBegin", "cuStreamEnd"))] == graph
    at = calls.index("cuStreamBeginCapture_v2")
    assert "cuModuleGetFunction" not in calls[at : calls.index("cuStreamEndCapture")]
    assert calls.count("cuMemAlloc_v2") + calls.count("cuMemHostAlloc") == (
        calls.count("cuMemFree_v2") + calls.count("cuMemFreeHost")
    )


def test_process_that_ends_without_closing_ends_well(package, library, tmp_path):
    log = tmp_path / "calls"
    assert use(package, library, log=log, end="")["facts"] == [8, 7, 13000]
    if package == "pycuda":
        calls = log.read_text().split()
        assert calls.count("cuDevicePrimaryCtxRetain") == calls.count("cuDevicePrimaryCtxRelease_v2") == 2


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("no-device", "cuda.no-device"),
        ("mismatch", "cuda.old-driver"),
        ("old-driver", "cuda.old-driver"),
        ("out-of-memory", "cuda.out-of-memory"),
        ("bad-image", "cuda.bad-image"),
        ("fault", "cuda.fault"),
    ],
)
def test_what_the_driver_says_has_a_code(package, library, wrong, code):
    said = use(package, library, wrong)
    assert said.get("code") == code, said


def test_without_the_driver_library_it_is_absent(package):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has NVIDIA's driver")
    assert use(package, None)["code"] == "cuda.absent"


# ---- the board's `worker.kernels = "cuda"` over it -------------------------------------------------------------------


@pytest.fixture
def box(library, tmp_path, monkeypatch):
    """This process's children find the stand-in and an image to load; sets what is wrong with it."""
    if not any(has(name) for name in PACKAGES):
        pytest.skip("neither cuda.core nor pycuda is installed: tools/check_cuda --install")
    (tmp_path / "radbox.ptx").write_text("// PTX")
    monkeypatch.setenv(FOLDER, str(tmp_path))

    def with_driver(wrong: str) -> None:
        for name, value in environment(library, wrong).items():
            monkeypatch.setenv(name, value)

    return with_driver


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ("no-device", "cuda.no-device", "No CUDA device can be used"),
        ("old-driver", "cuda.old-driver", "driver for CUDA 11.4 or newer, got one for 11.2"),
        ("bad-image", "cuda.bad-image", "expected kernels for compute capability 8.7 that a driver of CUDA 13.0 takes"),
        ("abort", "cuda.crashed", "ended the child that tried it .signal 6."),
        ("fault", "cuda.fault", "illegal memory access|CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("", "kernels.", "expected"),  # its kernels do nothing, and that is noticed
    ],
)
def test_a_child_tells_what_the_gpu_is_like(box, wrong, code, words):
    box(wrong)
    with pytest.raises(BackendError, match=words) as error:
        cuda_kernels.probe()
    assert error.value.code.startswith(code)


def test_the_cpu_decodes_when_the_gpu_computes_nothing(box):
    box("")
    kernels = load_kernels("cuda")
    assert isinstance(kernels, Guarded)
    assert cast(Kernels, kernels).name == NativeKernels().name
    assert kernels.fault_code.startswith("kernels.")


def test_without_kernels_for_the_gpu_the_build_is_named(box, monkeypatch, tmp_path):
    box("")
    monkeypatch.setenv(FOLDER, str(tmp_path / "nothing"))
    with pytest.raises(BackendError, match=r"radbox_sm_87.cubin or radbox.ptx.*tools/build_cuda") as error:
        cuda_kernels.probe()
    assert error.value.code == "cuda.no-image"
