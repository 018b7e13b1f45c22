"""When is a study complete? DICOM never says. Here: every association that fed it has ended and a quiet time passed.

Pure: no sockets, no database; the clock is handed in. Time is monotonic seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Arriving:
    """A study that images arrive for: associations that feed it and are open, and when it last got something."""

    last_s: float
    associations: set[int] = field(default_factory=set)


class Completion:
    """Studies by our key, associations by a number of the receiver's."""

    def __init__(self, quiet_time_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_time_s = quiet_time_s
        self._clock = clock
        self._studies: dict[int, _Arriving] = {}

    def received(self, study_key: int, association: int) -> None:
        """`association`, still open, brought an image of the study."""
        study = self._studies.setdefault(study_key, _Arriving(self._clock()))
        study.associations.add(association)
        study.last_s = self._clock()

    def ended(self, association: int) -> None:
        """The association was released, aborted or lost: the quiet time of its studies starts anew."""
        for study in self._studies.values():
            if association in study.associations:
                study.associations.discard(association)
                study.last_s = self._clock()

    def resume(self, study_key: int) -> None:
        """A study left over from before a restart (or that could not be queued yet): a fresh quiet time."""
        self._studies.setdefault(study_key, _Arriving(self._clock())).last_s = self._clock()

    def due(self) -> list[int]:
        """Studies that are complete now, each told once."""
        before_s = self._clock() - self._quiet_time_s
        complete = [key for key, study in self._studies.items() if not study.associations and study.last_s <= before_s]
        for key in complete:
            del self._studies[key]
        return complete
