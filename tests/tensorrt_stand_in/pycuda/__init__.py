"""A stand-in for pycuda; see `driver`."""

from __future__ import annotations
