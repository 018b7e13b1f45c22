"""NVRTC by ctypes, the compiler that a program can carry: shows that the kernels need no header of a toolkit."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path


class NvrtcError(Exception):
    """A compilation that failed; the text is the compiler's log."""


class Nvrtc:
    """One libnvrtc."""

    def __init__(self, library: Path) -> None:
        self._nvrtc = ctypes.CDLL(str(library))
        self._nvrtc.nvrtcDestroyProgram.argtypes = [POINTER(c_void_p)]
        for name in ("nvrtcGetProgramLogSize", "nvrtcGetCUBINSize", "nvrtcGetPTXSize"):
            getattr(self._nvrtc, name).argtypes = [c_void_p, POINTER(c_size_t)]
        for name in ("nvrtcGetProgramLog", "nvrtcGetCUBIN", "nvrtcGetPTX"):
            getattr(self._nvrtc, name).argtypes = [c_void_p, c_char_p]
        major, minor = c_int(), c_int()
        self._nvrtc.nvrtcVersion(byref(major), byref(minor))
        self.release = major.value, minor.value
        self.version = f"{major.value}.{minor.value}"

    def compile(self, folder: Path, source: str, architecture: str) -> tuple[bytes, str]:
        """A cubin for sm_NN, PTX for compute_NN, of `source` in `folder`, and the log with what ptxas said.

        The folder's headers are given by name. Raises NvrtcError.
        """
        headers = {path.name: path.read_bytes() for path in folder.glob("*.h")}
        program = c_void_p()
        texts = (c_char_p * len(headers))(*headers.values())
        names = (c_char_p * len(headers))(*(name.encode() for name in headers))
        text = (folder / source).read_bytes()
        self._check(self._nvrtc.nvrtcCreateProgram(byref(program), text, source.encode(), len(headers), texts, names))
        kind = "CUBIN" if architecture.startswith("sm_") else "PTX"
        words = [f"--gpu-architecture={architecture}", "--std=c++17"]
        if kind == "CUBIN":
            words.append("--ptxas-options=-v")
        options = (c_char_p * len(words))(*(word.encode() for word in words))
        try:
            status = self._nvrtc.nvrtcCompileProgram(program, len(options), options)
            log = self._text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").rstrip(b"\0").decode()
            if status:
                raise NvrtcError(log)
            return self._text(program, f"nvrtcGet{kind}Size", f"nvrtcGet{kind}"), log
        finally:
            self._nvrtc.nvrtcDestroyProgram(byref(program))

    def _text(self, program: c_void_p, size_call: str, call: str) -> bytes:
        size = c_size_t()
        self._check(getattr(self._nvrtc, size_call)(program, byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._nvrtc, call)(program, text))
        return text.raw

    def _check(self, status: int) -> None:
        if status:
            raise NvrtcError(f"expected NVRTC to accept a call, got its status {status}")
