"""Graph capture by ctypes on NVIDIA's driver library: pycuda has no call for it, and a stream is a stream to both."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint64, c_void_p
from typing import Final

LIBRARY: Final = "libcuda.so.1"
THREAD_LOCAL: Final = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating

_SIGNATURES: Final = {
    "cuStreamBeginCapture_v2": [c_void_p, c_int],
    "cuStreamEndCapture": [c_void_p, POINTER(c_void_p)],
    "cuGraphInstantiateWithFlags": [POINTER(c_void_p), c_void_p, c_uint64],
    "cuGraphDestroy": [c_void_p],
    "cuGraphLaunch": [c_void_p, c_void_p],
    "cuGraphExecDestroy": [c_void_p],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
}


class GraphError(Exception):
    """A call of the driver library that failed; the text is the call and CUDA's name of the error."""


class StreamGraphs:
    """Capture and launch on one stream of the current context (CUDA 11.4 and newer).

    stream: its CUstream as a number. Raises GraphError where the library or a call is missing, or a call fails.
    """

    def __init__(self, stream: int, library: str = LIBRARY) -> None:
        self._stream = c_void_p(stream)
        try:
            self._cuda = ctypes.CDLL(library)
            for name, types in _SIGNATURES.items():
                function = getattr(self._cuda, name)
                function.argtypes, function.restype = types, c_int
        except OSError as error:
            raise GraphError(f"NVIDIA driver library is not found: {error}") from error
        except AttributeError as error:
            raise GraphError(f"NVIDIA driver library without graphs, older than CUDA 11.4: {error}") from error

    def begin(self) -> None:
        """What is put on the stream from here on is recorded, not run."""
        self._check("cuStreamBeginCapture_v2", self._stream, THREAD_LOCAL)

    def end(self) -> int:
        """The recorded work, ready to launch: a CUgraphExec as a number."""
        graph, ready = c_void_p(), c_void_p()
        self._check("cuStreamEndCapture", self._stream, byref(graph))
        try:
            self._check("cuGraphInstantiateWithFlags", byref(ready), graph, 0)
        finally:
            self._check("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def launch(self, ready: int) -> None:
        """Run it, ordered on the stream."""
        self._check("cuGraphLaunch", c_void_p(ready), self._stream)

    def free(self, ready: int) -> None:
        """Give it back."""
        self._check("cuGraphExecDestroy", c_void_p(ready))

    def _check(self, name: str, *arguments: object) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            text = c_char_p()
            self._cuda.cuGetErrorName(status, byref(text))
            raise GraphError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")
