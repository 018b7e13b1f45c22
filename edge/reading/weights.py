"""Named tensors from a safetensors file. Nothing is executed on load, unlike pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edge.errors import BundleError


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every tensor of the file by name. Raises BundleError (bundle.weights)."""
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"The model bundle's file {path.name!r} cannot be read.", code="bundle.weights") from error
