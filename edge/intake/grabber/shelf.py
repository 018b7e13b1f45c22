"""From a frozen picture to an object in the receiver's inbox, and which study it belongs to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.durable import make_directory, sweep, write_file
from edge.errors import RadboxError
from edge.intake.grabber.preset import Picture, Preset
from edge.intake.inbox_folder import SUFFIX, inbox_folder

SOURCE: Final = "GRABBER"
SAME_STUDY_S: Final = 30.0  # a press this soon after the last adds to its study


@dataclass(frozen=True)
class Taken:
    """A picture that is the receiver's now. `number`: of its study; `writing`: how many rows of writing were seen."""

    study_instance_uid: str
    number: int
    writing: int


@dataclass
class _Open:
    """The study that the next picture may belong to."""

    study_uid: str
    series_uid: str
    pictures: int
    last_s: float


class Shelf:
    """Takes pictures. For one thread."""

    def __init__(
        self, data_dir: Path, preset: Preset, modality: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises StorageError."""
        self._folder = inbox_folder(data_dir, SOURCE)
        self._preset = preset
        self._modality = modality
        self._clock = clock
        self._open: _Open | None = None
        make_directory(self._folder)
        sweep(self._folder)

    def take(self, picture: Picture, date: str = "", time_of_day: str = "") -> Taken:
        """Crop, mask, look for writing, wrap, hand in. The picture must fit the preset.

        Raises StorageError, StorageFullError; then nothing was taken.
        """
        import cv2  # late: 60 MB that a grabber nobody presses a button for never needs

        from edge.intake.grabber.text import find_writing
        from edge.intake.wrap import PictureFacts, new_uid, wrap_picture

        if not self._preset.fits(picture):
            raise RadboxError("expected a picture that fits the preset, got another", code="grabber.geometry")
        kept = self._preset.keep(picture)
        writing = find_writing(kept, self._preset.overlooked(picture))
        now_s = self._clock()
        study = self._open
        if study is None or now_s - study.last_s > SAME_STUDY_S:
            study = _Open(new_uid(), new_uid(), 0, now_s)
        number = study.pictures + 1
        facts = PictureFacts(
            modality=self._modality,
            conversion_type="DV",
            # Where none was seen nothing is promised: the attribute stays out.
            burned_in="YES" if writing else "",
            study_instance_uid=study.study_uid,
            series_instance_uid=study.series_uid,
            instance_number=number,
            date=date,
            time=time_of_day,
        )
        done, png = cv2.imencode(".png", kept, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise RadboxError("expected a picture that can be coded, got another", code="grabber.unreadable")
        content = wrap_picture(png.tobytes(), facts)
        name = f"{time.monotonic_ns():020d}-{hashlib.sha256(content).hexdigest()[:16]}{SUFFIX}"
        write_file(self._folder / name, content)
        self._open = _Open(study.study_uid, study.series_uid, number, now_s)
        return Taken(study.study_uid, number, len(writing))
