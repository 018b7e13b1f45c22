"""What a grabber's picture is worth: live, frozen, no signal, or none at all. Pure: numbers and pixels in, words out.

A grabber without a signal delivers frames all the same: black, blue, colour bars or snow. The rules for these are
below, each with its limits; a maker's own "no signal" picture with a logo is not among them and passes as a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edge.intake.grabber.preset import Picture

State = Literal["starting", "ok", "frozen", "no-signal", "stale", "geometry"]

_LOOK_PIXELS: Final = 160 * 120  # about as many are looked at, evenly spread
_UNIFORM_LEVELS, _UNIFORM_SHARE = 8, 0.998  # black, grey, white: nothing to see at all
_BLUE_LEVELS, _BLUE_SHARE = 24, 0.80  # a blue screen has a line of writing or a logo on it
_BAR_COUNTS: Final = (7, 8)  # SMPTE EG 1, EBU and most generators
_BAR_LEVELS, _BAR_SHARE, _BAR_DISTANCE = 24, 0.85, 60
_SATURATED: Final = 90  # largest minus smallest channel
_COLOURED_BARS: Final = 5
_SNOW_SPREAD, _SNOW_CORRELATION = 30.0, 0.3  # grey levels; of neighbouring pixels (speckle has 0.6 and more)
_SNOW_PATCHES: Final = 5


@dataclass(frozen=True)
class Sight:
    """What is known of the source now. Ages in seconds.

    `age_s`: of the newest frame, None before the first; `still_s`: how long frames have been identical; `blank`: why
    the picture shows nothing (`blank_reason`); `fits`: it has the preset's geometry.
    """

    age_s: float | None
    still_s: float = 0.0
    blank: str = ""
    fits: bool = True
    size: tuple[int, int] = (0, 0)  # width, height


@dataclass(frozen=True)
class Judgement:
    """The state and one sentence for people."""

    state: State
    message: str

    @property
    def is_picture(self) -> bool:
        """Whether what is there now may be captured."""
        return self.state in ("ok", "frozen")


def judge(sight: Sight, stale_s: float, freeze_s: float, expected: str = "") -> Judgement:
    """The worst that holds. expected: the preset's geometry in words."""
    if sight.age_s is None:
        return Judgement("starting", "The frame grabber is being opened; no picture has come yet.")
    if sight.age_s > stale_s:
        message = f"No picture comes from the frame grabber for {sight.age_s:.0f} s. Check its cable and its USB plug."
        return Judgement("stale", message)
    if sight.blank:
        message = f"The frame grabber sees no signal ({sight.blank}). Is the machine on and its monitor cable plugged?"
        return Judgement("no-signal", message)
    if not sight.fits:
        got = f"{sight.size[0]} x {sight.size[1]}"
        message = (
            f"The picture is {got} pixels, the preset is for {expected}. Nothing is captured: the masks would miss."
        )
        return Judgement("geometry", message)
    if sight.still_s >= freeze_s:
        return Judgement("frozen", f"The picture stands still for {sight.still_s:.0f} s: frozen on the machine.")
    return Judgement("ok", "The picture is live.")


def blank_reason(picture: Picture) -> str:
    """Why a picture shows nothing: "black", "blank", "blue", "colour bars", "snow"; "" if it shows something."""
    step = max(1, int((picture.shape[0] * picture.shape[1] / _LOOK_PIXELS) ** 0.5))
    seen = picture[step // 2 :: step, step // 2 :: step]
    colour = _median(seen)
    if _share(seen, colour, _UNIFORM_LEVELS) >= _UNIFORM_SHARE:
        return "black" if colour.max() < 32 else "blue" if _is_blue(colour) else "blank"
    if _is_blue(colour) and _share(seen, colour, _BLUE_LEVELS) >= _BLUE_SHARE:
        return "blue"
    if _is_colour_bars(seen):
        return "colour bars"
    return "snow" if _is_snow(picture) else ""


def _median(values: Picture) -> npt.NDArray[np.int64]:
    colour: npt.NDArray[np.int64] = np.median(values.reshape(-1, 3), axis=0).astype(np.int64)
    return colour


def _share(values: Picture, colour: npt.NDArray[np.int64], levels: int) -> float:
    """Of pixels no channel of which differs from `colour` by more than `levels`."""
    return float((np.abs(values.astype(np.int64) - colour) <= levels).all(axis=-1).mean())


def _is_blue(colour: npt.NDArray[np.int64]) -> bool:
    blue, green, red = colour.tolist()
    return bool(blue >= 80 and blue >= 2 * max(green, red))


def _is_colour_bars(seen: Picture) -> bool:
    """Upright bars of different strong colours over the upper half, each of one colour but for a little writing."""
    half = seen[: seen.shape[0] // 2]
    for count in _BAR_COUNTS:
        edges = np.linspace(0, half.shape[1], count + 1)
        bars = [half[:, int(a + (b - a) * 0.2) : max(int(b - (b - a) * 0.2), 1)] for a, b in pairwise(edges)]
        if any(bar.size == 0 for bar in bars):
            continue
        colours = [_median(bar) for bar in bars]
        even = all(_share(bar, colour, _BAR_LEVELS) >= _BAR_SHARE for bar, colour in zip(bars, colours, strict=True))
        strong = [one for one in colours if np.ptp(one) >= _SATURATED]
        if even and len(strong) >= _COLOURED_BARS and _all_differ(strong):
            return True
    return False


def _all_differ(colours: list[npt.NDArray[np.int64]]) -> bool:
    return all(np.abs(a - b).max() >= _BAR_DISTANCE for a, b in combinations(colours, 2))


def _is_snow(picture: Picture) -> bool:
    """Noise without any structure in every patch that is looked at: an analogue input without a signal."""
    height, width = picture.shape[:2]
    side = min(64, height // 2, width // 2)
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)][:_SNOW_PATCHES]
    for down, across in places:
        y, x = int(height * down) - side // 2, int(width * across) - side // 2
        grey = picture[max(y, 0) : y + side, max(x, 0) : x + side].mean(axis=-1)
        if grey.std() < _SNOW_SPREAD or _neighbour_correlation(grey) > _SNOW_CORRELATION:
            return False
    return True


def _neighbour_correlation(grey: npt.NDArray[np.floating]) -> float:
    """Of pixels one above the other: lines of an analogue signal are independent, pixels within one may not be."""
    centred = grey - grey.mean()
    return float((centred[1:] * centred[:-1]).mean() / max(float((centred**2).mean()), 1e-9))
