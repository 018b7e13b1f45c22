"""Where the GPU's compiled kernels lie, and which of them a GPU takes.

tools/build_cuda writes radbox_sm_<capability>.cubin per GPU and radbox.ptx for any other into build/cuda; the package
has the same files in edge/cuda.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge.errors import BackendError
from edge.reading.backends.cuda_device import CudaDevice, Kernels

FOLDER: Final = "RADBOX_CUDA_KERNELS"
"""Environment: another folder, which is never replaced."""
BUILD_COMMAND: Final = "tools/build_cuda"

_PACKAGE: Final = Path(__file__).resolve().parents[2]
_CHECKOUT: Final = _PACKAGE.parent


def image_folder() -> Path:
    """RADBOX_CUDA_KERNELS, else build/cuda of the checkout, else cuda of the package, whether or not it exists."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    built = _CHECKOUT / "build" / "cuda"
    return built if built.is_dir() else _PACKAGE / "cuda"


def images(folder: Path, capability: tuple[int, int]) -> list[Path]:
    """What a GPU may run, best first: its own cubin, then PTX, which the driver compiles.

    Raises BackendError `cuda.no-image` when the folder has neither.
    """
    cubin, ptx = folder / f"radbox_sm_{capability[0]}{capability[1]}.cubin", folder / "radbox.ptx"
    if found := [path for path in (cubin, ptx) if path.is_file()]:
        return found
    raise BackendError(
        f"expected {cubin.name} or {ptx.name} in {folder}, got neither; build them with {BUILD_COMMAND}",
        code="cuda.no-image",
    )


def load_images(device: CudaDevice, folder: Path) -> tuple[Kernels, str]:
    """The first image that the driver takes, and its name: a cubin of a newer CUDA than the driver's is passed over.

    Raises BackendError `cuda.no-image`, `cuda.bad-image` with what the driver said of each.
    """
    reasons: list[str] = []
    for path in images(folder, device.facts.capability):
        try:
            return device.load(path.read_bytes()), path.name
        except BackendError as error:
            if error.code != "cuda.bad-image":
                raise
            reasons.append(f"{path.name}: {error.message}")
    release = device.facts.driver_version
    raise BackendError(
        f"expected kernels for compute capability {device.facts.capability[0]}.{device.facts.capability[1]} that a "
        f"driver of CUDA {release // 1000}.{release % 1000 // 10} takes, got: {'; '.join(reasons)}",
        code="cuda.bad-image",
    )
