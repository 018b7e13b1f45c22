"""From stored pixel values to grey in [0, 1]: the greyscale transformation sequence of PS3.4 N.2.

modality LUT or rescale (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> polarity (C.7.6.3.1.2, Presentation LUT Shape).
Integers of up to 16 bits go through one table, computed in float64 from the transformations composed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from edge.errors import DecodeError
from edge.reading.colour import has_chroma, luminance
from edge.reading.dicom_header import first, items, number, word
from edge.reading.dicom_pixels import Stored
from edge.reading.radiograph import F32

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5  # of the values of an image without VOI LUT or window
_STATISTICS_SIDE = 512  # percentiles are taken from about this many pixels a side
_ROWS_AT_ONCE = 128  # table look-up makes 64-bit indices: keep them small

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Table:
    """A look-up table (C.11.1.1, C.11.2.1.1): the first stored value mapped, entries, bits of an entry."""

    first: float
    entries: F64
    bits: int

    def __call__(self, values: F64) -> F64:
        index = np.clip(values - self.first, 0, len(self.entries) - 1)
        return self.entries[np.rint(index).astype(np.int64)]


def grey(ds: Dataset, stored: Stored, frame: int) -> tuple[F32, bool]:
    """Stored values of one frame -> (H, W) float32 in [0, 1], 0 black, and whether the image has real colour.

    Raises DecodeError `dicom.pixels-unreadable` for a photometric interpretation this box does not know.
    """
    single = stored.values.ndim == 2
    if single and stored.photometric in ("MONOCHROME1", "MONOCHROME2"):
        return _monochrome(ds, stored, frame), False
    if single and stored.photometric == "PALETTE COLOR":
        return _palette(ds, stored)
    if not single and stored.values.shape[2] == 3:
        return _colour(stored)
    raise DecodeError("expected a known photometric interpretation for this number of samples, got another")


def _monochrome(ds: Dataset, stored: Stored, frame: int) -> F32:
    modality = _modality(ds, stored, frame)
    padding = _padding(ds)
    voi = _voi(ds, stored, frame) or _full_range(stored, modality, padding)
    inverse = stored.photometric == "MONOCHROME1" or word(ds, "PresentationLUTShape") == "INVERSE"

    def shown(values: F64) -> F64:
        result = np.clip(voi(modality(values)), 0.0, 1.0)
        if inverse:
            result = 1.0 - result
        if padding is not None:
            result[(values >= padding[0]) & (values <= padding[1])] = 0.0
        return result

    return _map(stored.values, shown)


def _map(values: npt.NDArray[Any], transform: Callable[[F64], F64]) -> F32:
    """Apply a pointwise transform; through a table of the values that occur where there are at most 65536."""
    low, high = int(values.min()), int(values.max())
    if high - low >= 1 << 16:
        return transform(values.astype(np.float64)).astype(np.float32)
    table = transform(np.arange(low, high + 1, dtype=np.float64)).astype(np.float32)
    result = np.empty(values.shape, np.float32)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        np.take(table, values[rows].astype(np.int64) - low, out=result[rows], mode="clip")
    return result


def _modality(ds: Dataset, stored: Stored, frame: int) -> Callable[[F64], F64]:
    for item in items(ds, "ModalityLUTSequence"):
        return _lut(ds, item, stored.signed)
    source = _functional_group(ds, frame, "PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if not slope:  # absent, or zero, which would blank the image
        return lambda values: values
    offset = intercept or 0.0
    return lambda values: values * slope + offset


def _voi(ds: Dataset, stored: Stored, frame: int) -> Callable[[F64], F64] | None:
    """The first VOI LUT, else the first window, else None (C.11.2.1: only one of them is applied)."""
    for item in items(ds, "VOILUTSequence"):
        table = _lut(ds, item, stored.signed)
        top = max(float(2**table.bits - 1), float(table.entries.max()))
        return lambda values: table(values) / top
    source = _functional_group(ds, frame, "FrameVOILUTSequence", "WindowCenter")
    centre, width = number(source, "WindowCenter"), number(source, "WindowWidth")
    if centre is None or width is None:
        return None
    return _window(centre, width, word(source, "VOILUTFunction") or "LINEAR")


def _window(centre: float, width: float, function: str) -> Callable[[F64], F64] | None:
    """C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT; None for a width the standard forbids."""
    if function == "SIGMOID" and width > 0:
        return lambda values: 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT" and width > 0:
        return lambda values: (values - centre) / width + 0.5
    if function not in ("SIGMOID", "LINEAR_EXACT") and width >= 1:
        slope_width = max(width - 1.0, 1e-9)  # a width of 1 is a threshold
        return lambda values: (values - (centre - 0.5)) / slope_width + 0.5
    return None


def _full_range(
    stored: Stored, modality: Callable[[F64], F64], padding: tuple[float, float] | None
) -> Callable[[F64], F64]:
    step = max(1, min(stored.values.shape) // _STATISTICS_SIDE)
    sample = stored.values[::step, ::step].astype(np.float64).ravel()
    if padding is not None:
        kept = sample[(sample < padding[0]) | (sample > padding[1])]
        sample = kept if kept.size else sample
    low, high = np.percentile(modality(sample), (LOW_PERCENTILE, HIGH_PERCENTILE))
    width = float(high - low) or 1.0
    return lambda values: (values - low) / width


def _padding(ds: Dataset) -> tuple[float, float] | None:
    """Stored values that are no image: Pixel Padding Value and its Range Limit (C.7.5.1.1.2)."""
    padding = number(ds, "PixelPaddingValue")
    if padding is None:
        return None
    limit = number(ds, "PixelPaddingRangeLimit")
    other = padding if limit is None else limit
    return min(padding, other), max(padding, other)


def _lut(ds: Dataset, item: Dataset, signed: bool) -> _Table:
    """LUT Descriptor: entries (0 means 65536), first value mapped, bits (C.11.1.1.1, C.11.2.1.1)."""
    count, start, bits = (int(part) for part in item.LUTDescriptor)
    count = count or 1 << 16
    if signed and start >= 1 << 15:  # written as US though the pixels are signed
        start -= 1 << 16
    raw = item.LUTData
    if isinstance(raw, bytes):
        entry = np.dtype("u1") if len(raw) in (count, count + 1) else np.dtype("<u2" if _little(ds) else ">u2")
        entries = np.frombuffer(raw[: len(raw) // entry.itemsize * entry.itemsize], entry)
    else:
        entries = np.atleast_1d(np.asarray(raw, dtype=np.int64))
    if not entries.size or not 1 <= bits <= 16:
        raise DecodeError("expected a look-up table with entries of 1 to 16 bits, got another")
    return _Table(float(start), entries[:count].astype(np.float64), bits)


def _little(ds: Dataset) -> bool:
    return bool(ds.original_encoding[1])


def _functional_group(ds: Dataset, frame: int, group: str, keyword: str) -> Dataset:
    """Where an attribute stands: the object itself, or the frame's or shared functional groups (C.7.6.16)."""
    if first(ds, keyword) is not None:
        return ds
    for number_of_item, item in enumerate(items(ds, "PerFrameFunctionalGroupsSequence")):
        if number_of_item == frame:
            for found in items(item, group):
                return found
            break
    for item in items(ds, "SharedFunctionalGroupsSequence"):
        for found in items(item, group):
            return found
    return ds


def _palette(ds: Dataset, stored: Stored) -> tuple[F32, bool]:
    """PALETTE COLOR (C.7.6.3.1.5, C.7.9): the luminance of each palette entry is the table."""
    low, high = int(stored.values.min()), int(stored.values.max())
    rgb = apply_color_lut(np.arange(low, high + 1)[None], ds)[0, :, :3]
    top = 65535.0 if rgb.dtype.itemsize == 2 and rgb.max() > 255 else 255.0
    entries = (rgb / top).astype(np.float32)
    table = luminance(entries)
    step = max(1, min(stored.values.shape) // _STATISTICS_SIDE)
    sample = entries[stored.values[::step, ::step].astype(np.int64) - low]
    pixels = _map(stored.values, lambda values: table[values.astype(np.int64) - low].astype(np.float64))
    return pixels, has_chroma(sample)


def _colour(stored: Stored) -> tuple[F32, bool]:
    """RGB and the YBR forms (C.7.6.3.1.2). Y of YBR_FULL is the luminance itself."""
    top = np.float32(2**stored.bits_stored - 1)
    step = max(1, min(stored.values.shape[:2]) // _STATISTICS_SIDE)
    sample = stored.values[::step, ::step].astype(np.float32) / top
    if stored.photometric == "RGB":
        return luminance(stored.values.astype(np.float32) / top), has_chroma(sample)
    if stored.photometric in ("YBR_FULL", "YBR_FULL_422"):
        chroma = cv2.cvtColor(np.ascontiguousarray(sample[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
        return np.ascontiguousarray(stored.values[..., 0].astype(np.float32) / top), has_chroma(chroma)
    raise DecodeError("expected RGB or YBR_FULL samples, got another photometric interpretation")
