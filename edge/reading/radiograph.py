"""The words of reading: what a decoded image is, and what a refusal is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

ViewCode = Literal["PA", "AP", "LATERAL", "OTHER"]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Radiograph:
    """One decoded image, ready for `gate` and `image.prepare`.

    pixels: (H, W) float32 in [0, 1]; MONOCHROME2 sense: 0 black (air), 1 white (bone). Colour images are
        luminance (ITU-R BT.601). Multi-frame objects give one Radiograph per frame read (see `frame`).
    The header facts are None where the object does not say (a JPEG says nothing).
    """

    pixels: F32
    modality: str | None = None  # (0008,0060), upper case: CR DX RG US MG CT MR ...
    body_part: str | None = None  # (0018,0015) Body Part Examined, upper case
    view: ViewCode | None = None  # (0018,5101) View Position, or the view code sequence
    age_years: float | None = None  # (0010,1010) Patient's Age
    spacing_mm: tuple[float, float] | None = None  # row, column; (0018,1164) Imager Pixel Spacing else (0028,0030)
    sop_instance_uid: str | None = None
    frame: int = 0  # 0-based
    frames: int = 1
    colour: bool = False  # the source had more than one sample per pixel with real chroma
    source: Literal["dicom", "picture"] = "dicom"


@dataclass(frozen=True)
class Refusal:
    """Why an image or a study is not read. `code` is stable (`gate.not-a-chest-radiograph`), `message` plain words."""

    code: str
    message: str


@dataclass(frozen=True)
class Study:
    """What the pipeline reads: the images of one study in acquisition order, plus those already refused on decoding."""

    radiographs: tuple[Radiograph, ...]
    refusals: tuple[Refusal, ...] = field(default=())
