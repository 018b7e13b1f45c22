"""The evidence overlay: where the encoder looked, as a transparent picture of the same size as the radiograph.

The same size means that the page lays one picture over the other without any positioning. One hue (orange) whose
opacity alone carries the value: the radiograph under it is grey, so the hue is told apart with every kind of colour
vision, and nothing depends on telling two hues from each other.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.report.schema import Evidence

HUE = (255, 138, 0)
FLOOR = 0.30  # below this share of the map's maximum nothing is drawn
STEPS = 32  # levels of opacity; few enough that the file stays small, many enough to look smooth
OPACITY = 150  # of 255, at the map's maximum: the anatomy under it must stay readable
LIMIT_PIXELS = 4096 * 4096

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def heat_png(evidence: Evidence, width: int, height: int) -> bytes:
    """PNG (8-bit palette with alpha) of `evidence.grid` over a picture of width x height pixels.

    The grid is interpolated bilinearly between its cell centres and covers `evidence.extent` only; everything
    outside and everything below `FLOOR` of the maximum is fully transparent. Raises ValueError for a size that
    is not a picture or a grid that is not a rectangle.
    """
    if width < 1 or height < 1 or width * height > LIMIT_PIXELS:
        raise ValueError(f"expected a picture of at most {LIMIT_PIXELS} pixels, got {width} x {height}")
    return _palette_png(_levels(evidence, width, height))


def png_size(path: Path) -> tuple[int, int] | None:
    """(width, height) in pixels from a PNG's IHDR chunk (PNG specification, 11.2.2); None if it is not a PNG."""
    with path.open("rb") as stream:
        head = stream.read(24)
    if len(head) < 24 or head[:8] != _SIGNATURE or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return int(width), int(height)


def _levels(evidence: Evidence, width: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, width) uint8: 0 transparent to STEPS the map's maximum."""
    if not evidence.grid or len({len(row) for row in evidence.grid}) != 1 or not evidence.grid[0]:
        raise ValueError("expected a rectangular evidence grid, got rows of unequal length or none")
    grid = np.asarray(evidence.grid, dtype=np.float32)  # (rows, columns)
    top = float(grid.max())
    if top <= 0.0:
        return np.zeros((height, width), dtype=np.uint8)
    down = _interpolation(height, grid.shape[0], evidence.extent.y0, evidence.extent.y1)
    across = _interpolation(width, grid.shape[1], evidence.extent.x0, evidence.extent.x1)
    share = np.clip((down @ (grid / top) @ across.T - FLOOR) / (1.0 - FLOOR), 0.0, 1.0)
    levels: npt.NDArray[np.uint8] = np.ceil(share * STEPS).astype(np.uint8)
    return levels


def _interpolation(pixels: int, cells: int, start: float, stop: float) -> npt.NDArray[np.float32]:
    """(pixels, cells) float32 weights of linear interpolation between cell centres; rows outside the extent are 0."""
    weights = np.zeros((pixels, cells), dtype=np.float32)
    if stop <= start:
        return weights
    place = ((np.arange(pixels) + 0.5) / pixels - start) / (stop - start)  # 0 to 1 inside the extent
    centre = np.clip(place * cells - 0.5, 0.0, cells - 1.0)
    low = np.floor(centre).astype(np.intp)
    high = np.minimum(low + 1, cells - 1)
    share = (centre - low).astype(np.float32)
    rows = np.arange(pixels)
    np.add.at(weights, (rows, low), 1.0 - share)
    np.add.at(weights, (rows, high), share)
    weights[(place < 0.0) | (place > 1.0)] = 0.0
    return weights


def _palette_png(levels: npt.NDArray[np.uint8]) -> bytes:
    """PNG specification, 11.2: IHDR (colour type 3), PLTE, tRNS, one IDAT with filter 0 on every row, IEND."""
    height, width = levels.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = levels
    alpha = bytes(round(step / STEPS * OPACITY) for step in range(STEPS + 1))
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(HUE) * (STEPS + 1)),
            _chunk(b"tRNS", alpha),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
