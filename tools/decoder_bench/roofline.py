"""The limit, as a contestant: reading the bytes of one token, once per turn, in the same run as the decoders."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from tools.decoder_bench.contestant import TURN

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "bench" / "libradbox_roofline.so"


def load() -> ctypes.CDLL:
    """Built for this very machine, if its sources have changed."""
    sources = [Path(__file__).with_suffix(".cpp"), ROOT / "kernels" / "pool.cpp"]
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        LIBRARY.parent.mkdir(parents=True, exist_ok=True)
        flags = [
            "-std=c++17",
            "-O3",
            "-march=native",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            "-Wno-psabi",
            "-pthread",
        ]
        subprocess.run(["c++", *flags, f"-I{ROOT / 'kernels'}", *sources, "-o", LIBRARY], check=True)
    library = ctypes.CDLL(str(LIBRARY))
    library.roofline_create.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.roofline_create.restype = ctypes.c_void_p
    library.roofline_read.argtypes, library.roofline_read.restype = [ctypes.c_void_p], ctypes.c_double
    library.roofline_destroy.argtypes, library.roofline_destroy.restype = [ctypes.c_void_p], None
    library.roofline_int8_products_per_s.argtypes = []
    library.roofline_int8_products_per_s.restype = ctypes.c_double
    return library


class Reading:
    """Reads `working_set_bytes` once per `token()`, with as many threads as the decoder it is the limit of."""

    turn = TURN

    def __init__(self, library: ctypes.CDLL, name: str, working_set_bytes: int, threads: int) -> None:
        self.name, self.kind = name, "limit"
        self._library = library
        self._handle = library.roofline_create(threads, working_set_bytes)

    def __del__(self) -> None:
        self._library.roofline_destroy(self._handle)

    def rewind(self) -> None:
        """Nothing to go back to."""

    def token(self) -> None:
        self._library.roofline_read(self._handle)
