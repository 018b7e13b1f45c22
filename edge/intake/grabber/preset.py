"""A preset: which part of a machine's picture is kept and what of it is blanked. A closed TOML document.

Boxes are [x, y, width, height] in pixels of the whole picture as the grabber delivers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.closed import ClosedError, build
from edge.errors import ConfigError
from edge.toml import load_toml

Picture = npt.NDArray[np.uint8]  # (H, W, 3), BGR as OpenCV has it
Box = tuple[int, int, int, int]
WIDTH_LIMIT, HEIGHT_LIMIT = 4096, 2304  # pixels of a source
_BOUNDS: Final = {
    "width": (16.0, float(WIDTH_LIMIT)),
    "height": (16.0, float(HEIGHT_LIMIT)),
    "crop": (0.0, float(WIDTH_LIMIT)),
    "masks": (0.0, float(WIDTH_LIMIT)),
    "writing": (0.0, float(WIDTH_LIMIT)),
}


@dataclass(frozen=True)
class Preset:
    """One machine. `width` x `height`: the only picture it is good for; 0 x 0: any (no preset).

    `crop`: what is kept, None for everything. `masks`: blanked, such as the line with the patient's name. `writing`:
    where the machine writes what names nobody (depth, gain), so that the text finder does not look there.
    """

    name: str
    width: int
    height: int
    crop: Box | None = None
    masks: tuple[Box, ...] = ()
    writing: tuple[Box, ...] = ()

    def fits(self, picture: Picture) -> bool:
        """Whether a picture has the geometry that the boxes were made for."""
        return self.width == 0 or picture.shape[:2] == (self.height, self.width)

    def keep(self, picture: Picture) -> Picture:
        """The kept part of a picture that fits, masks blanked; a copy."""
        kept = picture.copy()
        for x, y, width, height in self.masks:
            kept[y : y + height, x : x + width] = 0
        return np.ascontiguousarray(kept[self._window()])

    def overlooked(self, picture: Picture) -> npt.NDArray[np.bool_]:
        """(h, w) of the kept part: where the text finder does not look (masks and known writing)."""
        where = np.zeros(picture.shape[:2], dtype=np.bool_)
        for x, y, width, height in (*self.masks, *self.writing):
            where[y : y + height, x : x + width] = True
        return where[self._window()]

    def _window(self) -> tuple[slice, slice]:
        if self.crop is None:
            return slice(None), slice(None)
        x, y, width, height = self.crop
        return slice(y, y + height), slice(x, x + width)


WHOLE_PICTURE: Final = Preset("whole picture", 0, 0)


@dataclass(frozen=True)
class _Document:
    """The keys of a file."""

    name: str
    width: int
    height: int
    crop: tuple[int, ...]
    masks: tuple[tuple[int, ...], ...]
    writing: tuple[tuple[int, ...], ...]


def load_preset(path: Path) -> Preset:
    """The preset of a TOML file. Raises ConfigError with a sentence that names file and key."""
    try:
        document = build(_Document, load_toml(path), path.name, _BOUNDS)
    except OSError as error:
        raise ConfigError(f"{path.name}: expected a readable preset, got: {error.strerror}") from None
    except ClosedError as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        raise ConfigError(f"{path.name}: expected TOML in UTF-8, got: {error}") from None

    def boxes(key: str, values: tuple[tuple[int, ...], ...]) -> tuple[Box, ...]:
        for value in values:
            if len(value) != 4 or not _is_inside(value, document.width, document.height):
                place = f"{path.name}, key {key!r}"
                size = f"{document.width} x {document.height}"
                raise ConfigError(f"{place}: expected [x, y, width, height] inside {size} pixels, got {list(value)}")
        return tuple((x, y, width, height) for x, y, width, height in values)

    (crop,) = boxes("crop", (document.crop,))
    masks, writing = boxes("masks", document.masks), boxes("writing", document.writing)
    return Preset(document.name, document.width, document.height, crop, masks, writing)


def _is_inside(value: tuple[int, ...], width: int, height: int) -> bool:
    x, y, w, h = value
    return w > 0 and h > 0 and x + w <= width and y + h <= height
