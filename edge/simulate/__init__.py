"""The simulator: a procedural chest phantom, its DICOM objects, and a client that sends them."""

from __future__ import annotations
