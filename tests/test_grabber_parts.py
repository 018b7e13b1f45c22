"""The grabber's pure parts: presets, what a picture is worth, the text finder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.errors import ConfigError
from edge.intake.grabber.judge import Sight, blank_reason, judge
from edge.intake.grabber.preset import WHOLE_PICTURE, load_preset
from edge.intake.grabber.text import find_writing
from tests.grabber_pictures import example, measure, speckle, write
from tests.mjpeg_server import colour_bars, live_picture

PRESET = """
name = "test"
width = 320
height = 240
crop = [40, 20, 200, 180]
masks = [[0, 0, 320, 40], [100, 100, 10, 10]]
writing = [[60, 60, 20, 20]]
"""

# --- presets ---


def saved(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "machine.toml"
    path.write_text(text)
    return path


@pytest.mark.requirement("RCV-10")
def test_a_preset_crops_and_masks(tmp_path: Path) -> None:
    preset = load_preset(saved(tmp_path, PRESET))
    picture = np.full((240, 320, 3), 200, np.uint8)
    kept = preset.keep(picture)
    assert kept.shape == (180, 200, 3)
    assert (kept[:20] == 0).all()  # rows 20 to 39 of the whole picture
    assert (kept[80:90, 60:70] == 0).all()
    assert (kept[20:80] == 200).all()
    assert (picture == 200).all()
    overlooked = preset.overlooked(picture)
    assert overlooked.sum() == 20 * 200 + 100 + 400
    assert overlooked[45, 30]
    assert preset.fits(picture)
    assert not preset.fits(picture[:, :-1])
    assert WHOLE_PICTURE.fits(picture[:, :-1])
    assert np.array_equal(WHOLE_PICTURE.keep(picture), picture)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("width = 320", "width = 320\ncolour = 1", "colour"),
        ('name = "test"', "", "name"),
        ("width = 320", 'width = "320"', "width"),
        ("width = 320", "width = 100000", "width"),
        ("[40, 20, 200, 180]", "[40, 20, 200]", "crop"),
        ("[40, 20, 200, 180]", "[200, 20, 200, 180]", "inside 320 x 240"),
        ("[40, 20, 200, 180]", "[40, 20, 0, 180]", "crop"),
        ("[100, 100, 10, 10]", "[-5, 100, 10, 10]", "masks"),
        ("[100, 100, 10, 10]", "[100, 235, 10, 10]", "masks"),
        ("masks = ", "masks ", "TOML"),
    ],
)
def test_a_wrong_preset_is_refused_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(saved(tmp_path, PRESET.replace(old, new)))
    assert words in caught.value.message
    assert "machine.toml" in caught.value.message


def test_a_missing_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="readable"):
        load_preset(tmp_path / "none.toml")


def test_the_shipped_presets_are_whole(root: Path) -> None:
    paths = sorted((root / "board_configs" / "grabbers").glob("*.toml"))
    assert len(paths) >= 3
    for path in paths:
        preset = load_preset(path)
        assert preset.keep(np.zeros((preset.height, preset.width, 3), np.uint8)).size > 0
        assert path.name.startswith("generic-")


# --- judging ---


def blue_screen() -> np.ndarray:
    picture = np.full((480, 640, 3), (200, 20, 10), np.uint8)
    cv2.putText(picture, "NO SIGNAL", (150, 250), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (255, 255, 255), 4)
    return picture


def snow() -> np.ndarray:
    grey = np.random.default_rng(0).integers(0, 256, (480, 640), dtype=np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def with_clock(picture: np.ndarray) -> np.ndarray:
    cv2.putText(picture, "12:00:01", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    return picture


def jpeg(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture)[1], cv2.IMREAD_COLOR))


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((480, 640, 3), np.uint8), "black"),
        (np.full((480, 640, 3), 16, np.uint8), "black"),
        (np.full((480, 640, 3), 128, np.uint8), "blank"),
        (blue_screen(), "blue"),
        (jpeg(blue_screen()), "blue"),
        (colour_bars(640, 480), "colour bars"),
        (with_clock(jpeg(colour_bars(1280, 720, 255))), "colour bars"),
        (colour_bars(640, 480)[:, :560], "colour bars"),  # seven of the eight
        (snow(), "snow"),
    ],
)
def test_pictures_without_a_signal(picture: np.ndarray, reason: str) -> None:
    assert blank_reason(picture) == reason


def test_pictures_of_a_machine_are_no_blanks() -> None:
    dark = np.zeros((720, 1280, 3), np.uint8)  # a probe in air: nothing but the machine's own marks
    dark[:, 1240:1252] = 180
    with_clock(dark)
    for picture in (dark, live_picture(1), live_picture(1, (1920, 1080)), *(example(s, named=False) for s in range(4))):
        assert blank_reason(picture) == ""


def test_the_worst_is_said() -> None:
    def state(**facts: Any) -> str:
        return judge(Sight(**{"age_s": 0.1, **facts}), 2.0, 5.0, "1920 x 1080").state

    assert state(age_s=None) == "starting"
    assert state() == "ok"
    assert state(age_s=2.1, blank="black") == "stale"
    assert state(blank="black", fits=False, still_s=9.0) == "no-signal"
    assert state(fits=False, still_s=9.0) == "geometry"
    assert state(still_s=5.0) == "frozen"
    assert state(still_s=4.9) == "ok"
    assert all(judge(Sight(0.1, still_s), 2.0, 5.0).is_picture for still_s in (0.0, 6.0))
    wrong = judge(Sight(0.1, fits=False, size=(640, 480)), 2.0, 5.0, "1920 x 1080")
    assert "640 x 480" in wrong.message
    assert "1920 x 1080" in wrong.message
    assert not wrong.is_picture


# --- the text finder ---


def test_writing_is_found_where_it_is_and_not_where_it_is_allowed() -> None:
    chance = np.random.default_rng(5)
    picture = speckle(chance)
    cv2.putText(picture, "SEEDED, NAME 123", (60, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    boxes = find_writing(picture)
    assert boxes
    assert all(x >= 50 and y >= 5 and x + width <= 420 and y + height <= 60 for x, y, width, height in boxes)
    allowed = np.zeros(picture.shape[:2], bool)
    allowed[:60, :420] = True
    assert find_writing(picture, allowed) == []
    masked = picture.copy()
    masked[allowed] = 0
    assert find_writing(masked, allowed) == []


def test_small_pictures_are_looked_at_too() -> None:
    assert find_writing(np.zeros((4, 4, 3), np.uint8)) == []
    picture = np.zeros((60, 300, 3), np.uint8)
    write(picture, "SILVA, ANNA", np.random.default_rng(1), over_image=False)
    assert find_writing(picture)


@pytest.mark.requirement("RCV-10")
def test_the_finder_keeps_what_was_measured() -> None:
    """A small part of what `docs/grabber.md` reports; seeds that its thresholds were not set on."""
    measured = measure(8, 200_000)
    assert measured["found"] >= 0.75
    assert measured["false_alarms"] <= 0.1
