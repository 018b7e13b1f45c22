"""The null delegate (tests/native/null_delegate.c) as a library, and what tests set up around it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.bundle import Bundle, load_bundle
from edge.reading.backends.setup import Setup

SOURCE = Path(__file__).resolve().parent / "native" / "null_delegate.c"
# Its own arithmetic must beat the CPU's path by far: vector code, at the full width of the machine.
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
RIGHT = "ops=add,floor_mod"  # all that the model of tests.delegate_models consists of


def compiler() -> str:
    """The C compiler; skips the test where there is none."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler")
    return found


def build_null_delegate(folder: Path) -> Path:
    """Compile it into `folder`; skips the test where that cannot be."""
    if platform.architecture()[0] != "64bit":
        pytest.skip("the interface is declared for 64-bit machines")
    library = folder / "libnull_delegate.so"
    subprocess.run([compiler(), *FLAGS, "-fvisibility=hidden", "-o", str(library), str(SOURCE), "-lm"], check=True)
    return library


def shipped_bundle(root: Path) -> Bundle:
    """The one of models/bundles."""
    return load_bundle(next((root / "models" / "bundles").glob("*/manifest.json")).parent)


def with_delegate(library: Path, *options: str, name: str = "vx", cache: Path | None = None) -> Setup:
    """A board whose delegate is that library."""
    return Setup(backend=name, library=str(library), options=options, cache=str(cache) if cache else "")
