"""What every way to an NVIDIA GPU has in common: the calls of a Python package, and stable codes for what CUDA says."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class DeviceFacts:
    """What the driver says of the GPU. capability: (8, 7) is an Orin; driver_version: 13000 is CUDA 13.0."""

    name: str
    capability: tuple[int, int]
    driver_version: int


class Driver(Protocol):
    """The calls of one Python package, unchecked. Addresses are the device's; every call is ordered on one stream."""

    name: str
    failures: tuple[type[Exception], ...]
    """What its calls raise when CUDA says no."""

    def open(self, ordinal: int) -> DeviceFacts: ...
    def close(self) -> None: ...
    def allocate(self, size_bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def host_memory(self, size_bytes: int) -> Bytes: ...
    def copy_in(self, address: int, source: Bytes) -> None: ...
    def copy_out(self, target: Bytes, address: int) -> None: ...
    def load(self, image: bytes) -> object: ...
    def kernel(self, module: object, name: str) -> object: ...
    def launch(
        self,
        kernel: object,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        arguments: Sequence[np.number[Any]],
    ) -> None: ...
    def mark(self) -> object: ...
    def elapsed_s(self, start: object, end: object) -> float: ...
    def wait(self) -> None: ...
    def begin_capture(self) -> None: ...
    def end_capture(self) -> object: ...
    def launch_graph(self, graph: object) -> None: ...
    def free_graph(self, graph: object) -> None: ...


# CUresult: pycuda prints the description, cuda.core and our own calls the name.
_CODES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "cuda.old-driver",
        (
            "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
            "unsupported display driver",
            "forward compatibility was attempted on non supported HW",
            "driver version is insufficient",
            "undefined symbol: cu",
            "without graphs",
        ),
    ),
    ("cuda.absent", ("NVIDIA driver library", "is not found", "CUDA_ERROR_STUB_LIBRARY", "cannot open shared object")),
    ("cuda.out-of-memory", ("CUDA_ERROR_OUT_OF_MEMORY", "out of memory")),
    (
        "cuda.no-device",
        ("CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE", "no CUDA-capable device", "invalid device ordinal"),
    ),
    (
        "cuda.bad-image",
        (
            "CUDA_ERROR_INVALID_IMAGE",
            "CUDA_ERROR_NO_BINARY_FOR_GPU",
            "CUDA_ERROR_INVALID_PTX",
            "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
            "kernel image is invalid",
            "no kernel image is available",
            "PTX JIT compilation failed",
            "PTX was compiled with an unsupported toolchain",
        ),
    ),
    ("cuda.unknown-kernel", ("CUDA_ERROR_NOT_FOUND", "named symbol not found")),
    (
        "cuda.fault",
        (
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "CUDA_ERROR_MISALIGNED_ADDRESS",
            "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            "CUDA_ERROR_LAUNCH_FAILED",
            "CUDA_ERROR_LAUNCH_TIMEOUT",
            "CUDA_ERROR_ECC_UNCORRECTABLE",
            "CUDA_ERROR_HARDWARE_STACK_ERROR",
            "CUDA_ERROR_INVALID_ADDRESS_SPACE",
            "CUDA_ERROR_INVALID_PC",
            "CUDA_ERROR_ASSERT",
            "illegal memory access",
            "misaligned address",
            "illegal instruction",
            "unspecified launch failure",
            "launch timed out",
            "uncorrectable ECC error",
            "hardware stack error",
            "operation not supported on global/shared address space",
            "invalid program counter",
            "device-side assert",
        ),
    ),
    (
        "cuda.bad-argument",
        (
            "CUDA_ERROR_INVALID_VALUE",
            "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
            "invalid argument",
            "too many resources requested",
        ),
    ),
)


def error_code(message: str) -> str:
    """The stable code of a driver's message; `cuda.failed` for what the table does not know."""
    for code, phrases in _CODES:
        if any(phrase in message for phrase in phrases):
            return code
    return "cuda.failed"


def load_package(name: str, package: str) -> Any:
    """Import a CUDA package's module.

    Raises BackendError `cuda.absent`: not installed, or NVIDIA's driver is not; `cuda.old-driver`: it lacks a call.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: cuda.core without libcuda
        code = "cuda.old-driver" if error_code(str(error)) == "cuda.old-driver" else "cuda.absent"
        raise BackendError(f"expected {package} and NVIDIA's driver, got: {error}", code=code) from error
