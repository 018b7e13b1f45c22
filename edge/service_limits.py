"""How long each service may give no sign of life before people are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Seconds. All give a sign every ten, but the worker not while a stage of reading lasts (it is ended after a minute or
# two), nor care while it cleans or repairs.
SILENT_AFTER_S: Final[Mapping[str, float]] = {
    "receive": 60.0,
    "worker": 240.0,
    "care": 900.0,
    "link": 60.0,
    "panel": 60.0,
    "capture": 60.0,
}
