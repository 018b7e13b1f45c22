"""edge.reading.backends.cuda_device.Driver over kernels/cuda/shim_run.cpp: the GPU's kernels run on this CPU.

The decoder's own host code (cuda_decoder.py) so drives the very kernels, also in the builds with sanitizers.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.reading.backends.cuda_device import Bytes, CudaDevice, DeviceFacts

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "cuda_shim"
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # the stacks are the fibers'
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
}


class ShimError(Exception):
    """The program refused a request, or ended; the text is its sentence or what a sanitizer printed."""


class ShimDriver:
    """One running shim program. A capture records the calls here and makes them when the graph is launched."""

    name = "shim"
    failures: tuple[type[Exception], ...] = (ShimError,)

    def __init__(self, program: Path) -> None:
        self._program = program
        self._recorded: list[Callable[[], None]] | None = None

    def open(self, ordinal: int) -> DeviceFacts:
        self._child = subprocess.Popen(
            [self._program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | SANITIZERS,
        )
        return DeviceFacts(f"shim {ordinal}", (0, 0), 0)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            self._child.communicate(timeout=10)

    def allocate(self, size_bytes: int) -> int:
        self._ask(b"A" + _number(size_bytes))
        return self._number()

    def free(self, address: int) -> None:
        self._ask(b"F" + _number(address))

    def host_memory(self, size_bytes: int) -> Bytes:
        return np.zeros(size_bytes, np.uint8)

    def copy_in(self, address: int, source: Bytes) -> None:
        self._do(lambda: self._ask(b"W" + _number(address, source.size), source.tobytes()))

    def copy_out(self, target: Bytes, address: int) -> None:
        def copy() -> None:
            self._ask(b"R" + _number(address, target.size))
            target[:] = np.frombuffer(self._read(target.size), np.uint8)

        self._do(copy)

    def load(self, image: bytes) -> object:
        return image

    def kernel(self, module: object, name: str) -> object:
        return name

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        arguments: Sequence[np.number[Any]],
    ) -> None:
        name = kernel.encode()
        request = b"L" + _number(len(name)) + name + _number(*grid, threads, shared_bytes, len(arguments))
        request += b"".join(_number(value.nbytes) + value.tobytes() for value in arguments)
        self._do(lambda: self._ask(request))

    def mark(self) -> object:
        return None

    def elapsed_s(self, start: object, end: object) -> float:
        return 0.0

    def wait(self) -> None:
        """Every request has been answered already."""

    def begin_capture(self) -> None:
        self._recorded = []

    def end_capture(self) -> object:
        recorded, self._recorded = self._recorded, None
        return recorded

    def launch_graph(self, graph: Any) -> None:
        for call in graph:
            call()

    def free_graph(self, graph: object) -> None:
        """Nothing is held but the list."""

    def _do(self, call: Callable[[], None]) -> None:
        if self._recorded is None:
            call()
        else:
            self._recorded.append(call)

    def _ask(self, request: bytes, more: bytes = b"") -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(request + more)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        if sentence := self._read(self._number()):
            raise ShimError(sentence.decode())

    def _number(self) -> int:
        return int(struct.unpack("<Q", self._read(8))[0])

    def _read(self, size: int) -> bytes:
        assert self._child.stdout is not None
        got = self._child.stdout.read(size)
        if len(got) < size:
            raise self._ended()
        return got

    def _ended(self) -> ShimError:
        """A fault like a GPU's: CudaDevice refuses everything after it."""
        assert self._child.stderr is not None
        said = self._child.stderr.read().decode(errors="replace")
        return ShimError(f"unspecified launch failure, the shim ended with {self._child.wait(10)}: {said}")


def _number(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def open_shim(program: Path = BUILD / "shim_run") -> CudaDevice:
    """The CPU as a CudaDevice; build it first with tools/check_cuda_shim or tests/test_cuda_shim.py."""
    return CudaDevice(ShimDriver(program))


def build_shim(target: str = "shim_run", build: Path = BUILD, source: Path | None = None) -> Path:
    """Compile one of the shim's programs (kernels/cuda/CMakeLists.txt) and return its path."""
    configure: list[str | Path] = ["cmake", "-S", ROOT / "kernels" / "cuda", "-B", build, "-G", "Ninja"]
    if source is not None:
        configure.append(f"-DRADBOX_CUDA_SOURCE={source}")
    compile_it: list[str | Path] = ["cmake", "--build", build, "--target", target]
    for command in (configure, compile_it):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{done.stderr}")
    return build / target
