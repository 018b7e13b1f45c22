"""Where NVIDIA's compilers are on this machine: an installed toolkit, or the wheels of build/cuda_venv.

The wheels (nvidia-cuda-nvcc, -nvvm, -crt, -runtime, -nvrtc) are ordinary PyPI packages and need no GPU; pins below.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "cuda_venv"
TOOLKIT_VERSION = "13.5.37"
WHEELS = tuple(
    f"nvidia-{name}=={TOOLKIT_VERSION}"
    for name in ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-runtime", "cuda-nvrtc", "cuda-cuobjdump")
)
NVRTC_12 = "nvidia-cuda-nvrtc-cu12==12.6.85"  # JetPack 6 has CUDA 12.6; of that release no wheel holds nvcc itself
LAUNCHERS = ("cuda-core==1.2.2", "cuda-bindings==13.5.0", "numpy>=2.2")


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


def install() -> None:
    """Make build/cuda_venv with the compilers and cuda.core, from the package index that pip is set up for."""
    venv.create(VENV, with_pip=True, clear=True)
    command: list[str | Path] = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet"]
    command += [*WHEELS, NVRTC_12, *LAUNCHERS]
    subprocess.run(command, check=True)


def wheel_folder() -> Path | None:
    """nvidia/cu13 of build/cuda_venv, or None."""
    found = sorted(VENV.glob("lib/python*/site-packages/nvidia/cu13"))
    return found[0] if found else None


def compilers() -> list[Compiler]:
    """Every nvcc of this machine: $CUDA_HOME, the path, the usual place, the wheels; each version once."""
    wheels = wheel_folder()
    places = [
        Path(os.environ["CUDA_HOME"]) / "bin" / "nvcc" if "CUDA_HOME" in os.environ else None,
        Path(found) if (found := shutil.which("nvcc")) else None,
        Path("/usr/local/cuda/bin/nvcc"),
        wheels / "bin" / "nvcc" if wheels else None,
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
    """nvcc's wheel finds its parts by itself except g++'s headers of the runtime, which lie beside it."""
    folder = compiler.path.resolve().parent
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}


def nvrtc_libraries() -> list[Path]:
    """Every libnvrtc of the wheels, else that of the toolkit in the usual place."""
    of_wheels = sorted(VENV.glob("lib/python*/site-packages/nvidia/*/lib/libnvrtc.so.*[0-9]"))
    return of_wheels or sorted(Path("/usr/local/cuda/lib64").glob("libnvrtc.so.*[0-9]"))[:1]
