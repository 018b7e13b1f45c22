"""Where NVIDIA's compilers are on this machine: an installed toolkit, or the wheels of requirements/cuda.txt.

The wheels (NVRTC of CUDA 12.6 and of 13, cuda.core) need no GPU; `install` puts them into build/cuda_site, away from
what the box runs with. About 100 MB are fetched, once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "cuda_site"
LOCK = ROOT / "requirements" / "cuda.txt"


@dataclass(frozen=True)
class Compiler:
    """An nvcc that answers. version: as it prints it, e.g. 13.0.88."""

    path: Path
    version: str

    @property
    def release(self) -> tuple[int, int]:
        """(13, 0)"""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


def _wanted() -> str:
    return hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()


def installed() -> bool:
    """Whether build/cuda_site holds what the lock says."""
    stamp = SITE / "radbox.stamp"
    return stamp.is_file() and stamp.read_text() == _wanted()


def install() -> None:
    """Fill build/cuda_site from the lock, by hash; does nothing when it is filled. Raises CalledProcessError."""
    if installed():
        return
    shutil.rmtree(SITE, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    command: list[str | Path] = [sys.executable, "-m", "pip", "install", *options, "--target", SITE]
    subprocess.run([*command, "--requirement", LOCK], check=True)
    (SITE / "radbox.stamp").write_text(_wanted())


def compilers() -> list[Compiler]:
    """Every nvcc of this machine: $CUDA_HOME, the path, the usual place; each version once."""
    places = [
        Path(os.environ["CUDA_HOME"]) / "bin" / "nvcc" if "CUDA_HOME" in os.environ else None,
        Path(found) if (found := shutil.which("nvcc")) else None,
        Path("/usr/local/cuda/bin/nvcc"),
    ]
    answered: dict[str, Compiler] = {}
    for place in places:
        if place is not None and (version := _version(place)):
            answered.setdefault(version, Compiler(place, version))
    return list(answered.values())


def _version(nvcc: Path) -> str | None:
    if not nvcc.is_file():
        return None
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\bV(\d+\.\d+\.\d+)", said)
    return match.group(1) if match else None


def environment(compiler: Compiler) -> dict[str, str]:
    """nvcc finds its parts beside itself."""
    folder = compiler.path.resolve().parent
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}


def nvrtc_libraries() -> list[Path]:
    """Every libnvrtc of the wheels, else that of the toolkit in the usual place."""
    of_wheels = sorted(SITE.glob("nvidia/*/lib/libnvrtc.so.*[0-9]"))
    return of_wheels or sorted(Path("/usr/local/cuda/lib64").glob("libnvrtc.so.*[0-9]"))[:1]
