"""Who reads the file: the box's own reader in each precision, and the steps put together from the usual libraries.

`composed` is what one writes first: pydicom's pixels through its look-up tables as float, the runtime's interpreter,
the decoder token by token in numpy or in plain C++. Gate, input and report are the same code, so all end at one place.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from edge.bundle import Bundle
from edge.reading.backends import load_backend
from edge.reading.backends.setup import Setup
from edge.reading.decoding import Decoding
from edge.reading.pipeline import Reader
from edge.reading.radiograph import Radiograph, Study
from edge.reading.read_file import read_file
from edge.reading.stages import StageClock
from edge.report.render import render_text
from edge.report.schema import Report

TURN = (1, 1)
STAGES = ("file", "prepare", "encode", "generate", "evidence", "check", "text")


class FromFile:
    """Reads one file over and over; `stages`: seconds by stage of every reading."""

    turn = TURN

    def __init__(
        self, name: str, reader: Reader, open_file: Callable[[Path], tuple[Radiograph, ...]], path: Path
    ) -> None:
        self.name, self.kind = name, "pipeline"
        self._reader, self._open, self._path = reader, open_file, path
        self.stages: list[dict[str, float]] = []
        self.text = ""

    def rewind(self) -> None:
        """Every reading is the same."""

    def token(self) -> float:
        """One report; its seconds."""
        clock, began_s = StageClock(), time.perf_counter()
        clock.stage("file")
        study = Study(self._open(self._path))
        reading = self._reader.read(study, clock.stage)
        clock.stage("text")
        if not isinstance(reading.outcome, Report):
            raise RuntimeError(f"expected a report, got {reading.outcome.code}")
        self.text = render_text(reading.outcome, self._reader.graph)
        self.stages.append(clock.stop())
        return time.perf_counter() - began_s


def ours(bundle: Bundle, backend: str, precision: str, threads: int, path: Path, kernels: str = "auto") -> FromFile:
    """The box's reader; `threads` of encoder and quantised decoder."""
    encoder = load_backend(backend, bundle, Setup(threads=threads))
    decoding = dataclasses.replace(Decoding(), kernels=kernels, precision=precision, threads=threads)  # type: ignore[arg-type]
    name = f"radbox {backend}, decoder {precision} ({kernels})"
    return FromFile(name, Reader(bundle, encoder, decoding), read_file, path)


def composed(bundle: Bundle, backend: str, kernels: str, threads: int, path: Path) -> FromFile:
    """The usual parts. What our reader finds in the header is given to them for nothing."""
    encoder = load_backend(backend, bundle, Setup(threads=threads))
    reader = Reader(bundle, encoder, Decoding(kernels=kernels))
    (known,) = read_file(path)

    def open_file(file: Path) -> tuple[Radiograph, ...]:
        dataset = pydicom.dcmread(file)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
        low, high = float(values.min()), float(values.max())
        pixels = (values - low) / max(high - low, 1e-6)
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        return (dataclasses.replace(known, pixels=1.0 - pixels if inverted else pixels),)

    return FromFile(f"pydicom, {backend}, decoder in {kernels}", reader, open_file, path)
