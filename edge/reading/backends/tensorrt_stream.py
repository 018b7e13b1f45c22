"""A CUDA stream for TensorRT, by ctypes on NVIDIA's driver library, in the context that CudaDevice made current.

TensorRT wants a stream's handle, and never the default stream (it would wait for every other one). Graph capture is
that of `cuda_graph`.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p
from typing import Final

from edge.errors import BackendError
from edge.reading.backends.cuda_driver import error_code
from edge.reading.backends.cuda_graph import LIBRARY

NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING

_SIGNATURES: Final = {
    "cuStreamCreate": [POINTER(c_void_p), c_uint],
    "cuStreamSynchronize": [c_void_p],
    "cuStreamDestroy_v2": [c_void_p],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
}


class Stream:
    """handle: the CUstream as a number. Raises BackendError `cuda.*`."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._cuda = ctypes.CDLL(library)
            for name, types in _SIGNATURES.items():
                function = getattr(self._cuda, name)
                function.argtypes, function.restype = types, c_int
        except (OSError, AttributeError) as error:
            raise BackendError(f"expected NVIDIA's driver library, got: {error}", code="cuda.absent") from error
        made = c_void_p()
        self._check("cuStreamCreate", byref(made), NON_BLOCKING)
        self.handle = int(made.value or 0)

    def wait(self) -> None:
        """Return when everything on the stream is done; a fault of the engine is raised here."""
        self._check("cuStreamSynchronize", c_void_p(self.handle))

    def close(self) -> None:
        """Give it back."""
        self._check("cuStreamDestroy_v2", c_void_p(self.handle))

    def _check(self, name: str, *arguments: object) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            text = c_char_p()
            self._cuda.cuGetErrorName(status, byref(text))
            said = (text.value or b"unknown error").decode()
            raise BackendError(f"expected {name} to work, got {said} ({status})", code=error_code(said))
