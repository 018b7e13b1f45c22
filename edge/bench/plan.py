"""What a run consists of, and whether the box may be measured at this moment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from edge.bench_result import MOST_SAMPLES
from edge.board import Board
from edge.care.hardware import Hardware, hottest_c, open_hardware
from edge.care.thermal_policy import ThermalState, decide
from edge.errors import ConfigError, RadboxError
from edge.simulate.phantom import Lesion, Phantom, PhantomOptions, make_phantom

HEIGHT, WIDTH = 2500, 2048
IMAGE: Final = f"{WIDTH} x {HEIGHT}, 16 bit, uncompressed"
BODIES: Final = 3  # phantoms that take turns
MOST_QUEUED: Final = 64


@dataclass(frozen=True)
class Plan:
    """cold_starts: times that all services are started for one study each. queued: studies sent at once."""

    studies: int = 20
    warm_up: int = 2
    cold_starts: int = 3
    queued: int = 6
    idle_s: float = 5.0  # of the power at rest, where a sensor exists

    def __post_init__(self) -> None:
        """Raises ConfigError (bench.plan)."""
        for name, low, high in (
            ("studies", 1, MOST_SAMPLES),
            ("cold_starts", 1, MOST_SAMPLES),
            ("queued", 2, MOST_QUEUED),
        ):
            if not low <= getattr(self, name) <= high:
                words = f"expected {name.replace('_', ' ')} from {low} to {high}, got {getattr(self, name)}"
                raise ConfigError(words, code="bench.plan")


def phantoms(height: int = HEIGHT, width: int = WIDTH) -> tuple[Phantom, ...]:
    """Different bodies, every second one with a finding."""
    return tuple(
        make_phantom(
            PhantomOptions(
                seed=seed,
                size=(height, width),
                lesion=Lesion("effusion", "left", "lower", 0.8) if seed % 2 else None,
            )
        )
        for seed in range(BODIES)
    )


class Heat:
    """Whether the box is held back now, by its processor or by its own policy (`edge.care.thermal_policy`)."""

    def __init__(self, board: Board, hardware: Hardware | None = None) -> None:
        """hardware: for tests."""
        self._board = board
        self._hardware = hardware or open_hardware(board)
        self._state: ThermalState = "ok"

    def held_back(self) -> bool:
        """Look now. Raises RadboxError (bench.too-hot) where the box would not read at all."""
        readings, limits = self._hardware.read(), self._board.hardware
        thermal = decide(hottest_c(readings), self._state, limits.slow_c, limits.pause_c)
        self._state = thermal.state
        if thermal.state == "pause":
            raise RadboxError(f"Expected a box that can be measured, got: {thermal.message}", code="bench.too-hot")
        return readings.throttled or thermal.state == "slow"


def board_options() -> tuple[str, ...]:
    """What makes the services load the same board."""
    named = os.environ.get("RADBOX_BOARD")
    return ("--board", named) if named else ()
