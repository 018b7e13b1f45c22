"""A stand-in for NVIDIA's driver library (fake_driver.c), to run the real cuda.core and pycuda on without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_driver.c")


def build(folder: Path, extensions: Sequence[Path] = ()) -> Path:
    """libcuda.so.1 in `folder`, which is returned for LD_LIBRARY_PATH.

    extensions: modules linked against the driver (pycuda's); calls that they need and the stand-in has not, fail.
    """
    have = set(re.findall(r"^(?:static )?int (cu\w+)\(", SOURCE.read_text(), re.MULTILINE))
    needed: set[str] = set()
    for extension in extensions:
        listed = subprocess.run(["nm", "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
        needed |= set(re.findall(r"\b(cu[A-Z]\w+)$", listed.stdout, re.MULTILINE))
    others = folder / "others.c"
    others.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(needed - have)))
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, "-o", folder / "libcuda.so.1", SOURCE, others], check=True)
    return folder


def environment(folder: Path, wrong: str = "", log: Path | None = None) -> dict[str, str]:
    """For a process that finds the stand-in where NVIDIA's library would be; wrong: see fake_driver.c."""
    return os.environ | {
        "LD_LIBRARY_PATH": str(folder),
        "RADBOX_FAKE_CUDA": wrong,
        "RADBOX_FAKE_CUDA_LOG": str(log or ""),
    }
