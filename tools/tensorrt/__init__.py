"""Checks of the TensorRT backend without a GPU; `tools/check_tensorrt`."""

from __future__ import annotations
