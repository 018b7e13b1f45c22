"""What the service `capture` does each round: look at the picture, answer presses, say how it is."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.board import Board
from edge.errors import RadboxError, StorageError, StorageFullError
from edge.intake.grabber.frames import Frame, Frames
from edge.intake.grabber.judge import Judgement, Sight, blank_reason, judge
from edge.intake.grabber.preset import WHOLE_PICTURE, load_preset
from edge.intake.grabber.shelf import Shelf, Taken
from edge.store import RequestRow, Store, boot_id

ACTIONS: Final = "grabber."  # requests that begin so are for this service
FREEZE: Final = "grabber.freeze"
TAKEN: Final = "grabber.frozen"  # the answer to a press that worked
WRITING: Final = "grabber.writing-seen"
TOO_LATE_S: Final = 10.0  # so long ago another picture was meant
_LOOK_S: Final = 0.5  # how often pixels are looked at
_SIGN_OF_LIFE_S: Final = 10.0
_STUDY_WITHIN_S: Final = 60.0  # for the receiver to make the study that an event belongs to
_LOG = logging.getLogger("radbox.capture")


@dataclass(frozen=True)
class _Noticed:
    """Writing in a picture whose study may not be there yet."""

    study_instance_uid: str
    until_s: float


class Duty:
    """One grabber."""

    def __init__(self, board: Board, store: Store) -> None:
        """Raises ConfigError (the preset), StorageError."""
        grabber = board.grabber
        self._store = store
        self._stale_s, self._freeze_s = grabber.stale_s, grabber.freeze_s
        self._preset = load_preset(Path(grabber.preset)) if grabber.preset else WHOLE_PICTURE
        self._boot_id = boot_id()
        self._shelf = Shelf(board.data_dir, self._preset, grabber.modality)
        self._frames = Frames(grabber.source, grabber.fps, grabber.stale_s, self._preset)
        self._frame: Frame | None = None
        self._judgement = self._judge("", None)
        self._blank = ""
        self._look_s = self._said_s = float("-inf")
        self._said = ""
        self._noticed: list[_Noticed] = []

    def close(self) -> None:
        """End the reading process."""
        self._frames.close()

    def step(self) -> None:
        """One round. Raises StoreError, StorageError: then the next one does what is left."""
        self._frames.step()
        requests = self._store.asked(ACTIONS)
        self._look(closely=bool(requests) or time.monotonic() - self._look_s >= _LOOK_S)
        for request in requests:
            code, message = self._do(request)
            self._store.answer(request.request_key, code, message)
            _LOG.info("%s: %s", request.action, code)
        self._tell_of_writing()
        if self._judgement.state != self._said or time.monotonic() - self._said_s >= _SIGN_OF_LIFE_S:
            self._say()

    # --- looking ---

    def _look(self, *, closely: bool) -> None:
        """Age and stillness each time, pixels now and then."""
        if closely:
            self._look_s = time.monotonic()
            self._frame = self._frames.latest()
            self._blank = blank_reason(self._frame.picture) if self._frame is not None else ""
        self._judgement = self._judge(self._blank, self._frame)

    def _judge(self, blank: str, frame: Frame | None) -> Judgement:
        height, width = frame.picture.shape[:2] if frame is not None else (0, 0)
        sight = Sight(
            age_s=self._frames.age_s,
            still_s=self._frames.still_s,
            blank=blank,
            fits=frame is None or self._preset.fits(frame.picture),
            size=(width, height),
        )
        return judge(sight, self._stale_s, self._freeze_s, f"{self._preset.width} x {self._preset.height}")

    # --- presses ---

    def _do(self, request: RequestRow) -> tuple[str, str]:
        """Code and sentence of the answer."""
        if request.boot_id != self._boot_id or time.monotonic() - request.monotonic_s > TOO_LATE_S:
            return "grabber.too-late", "The box was busy or off in between. Press again."
        if request.action != FREEZE:
            return "grabber.unknown", "The frame grabber does not know this request."
        if not self._judgement.is_picture:
            return f"grabber.{self._judgement.state}", self._judgement.message
        if self._frame is None:
            return "grabber.stale", "There is no picture right now. Press again."
        try:
            taken = self._shelf.take(self._frame.picture, *self._date())
        except StorageFullError:
            return "storage.full", "The disk is full. The picture was not taken."
        except RadboxError as error:
            _LOG.error("%s: %s", error.code, error.message)
            return error.code, "The picture could not be taken."
        return TAKEN, self._after(taken)

    def _after(self, taken: Taken) -> str:
        """Count it; the sentence of the answer. The picture is safe already, so nothing here may say otherwise."""
        words = f"Picture {taken.number} of the study was taken."
        try:
            self._store.add_counts({"captures": 1})
        except StorageError as error:
            _LOG.error("a capture was not counted: %s", error.message)
        if taken.writing:
            self._noticed.append(_Noticed(taken.study_instance_uid, time.monotonic() + _STUDY_WITHIN_S))
            words += " There is writing in it; look whether it holds a name."
        return words

    def _date(self) -> tuple[str, str]:
        """Date and time for the object, where the box knows them; a wrong date is worse than none."""
        clock = self._store.facts().get("clock")
        if clock is None or clock.boot_id != self._boot_id or clock.value.get("state") != "set":
            return "", ""
        now = time.localtime()
        return time.strftime("%Y%m%d", now), time.strftime("%H%M%S", now)

    # --- telling ---

    def _tell_of_writing(self) -> None:
        """As an event of the study, once the receiver has made it."""
        waiting = []
        for one in self._noticed:
            study_key = self._store.study_key(one.study_instance_uid)
            if study_key is None and time.monotonic() < one.until_s:
                waiting.append(one)
            else:
                words = "writing seen in the picture; look whether it holds a name"
                self._store.add_event(WRITING, words, study_key)
        self._noticed = waiting

    def _say(self) -> None:
        judgement, age_s = self._judgement, self._frames.age_s
        fact = {
            "state": judgement.state,
            "message": judgement.message,
            "age_s": None if age_s is None else round(age_s, 1),
            "frames": self._frames.count,
            "preset": self._preset.name,
        }
        self._store.set_fact("grabber", fact)
        well = judgement.is_picture or judgement.state == "starting"
        code = "" if well else f"grabber.{judgement.state}"
        self._store.set_service("capture", "ok" if well else "degraded", code, judgement.message)
        if judgement.state != self._said:
            _LOG.info("%s", judgement.message)
        self._said, self._said_s = judgement.state, time.monotonic()
