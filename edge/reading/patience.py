"""How long the worker waits for what, in seconds of the monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass

from edge.reading.backends import PROBE_TIMEOUT_S
from edge.reading.decode_child import START_TIMEOUT_S

BUDGET_TIMES = 3.0  # a stage may take this many times what the whole study takes at its 95th percentile


@dataclass(frozen=True)
class Patience:
    """The defaults are those of a box; tests are in more of a hurry."""

    stage_limit_s: float = 60.0  # for a stage of a model whose maker promised no time
    stage_least_s: float = 20.0  # of a model whose maker promised one: a slow card stalls now and then
    load_limit_s: float = 60.0  # for the files of one model, and for one backend in this process
    probe_timeout_s: float = PROBE_TIMEOUT_S  # for one backend in a child
    retry_model_s: float = 30.0  # before a model that did not open, or a full disk, is tried again
    sign_of_life_s: float = 10.0
    probe_first_s: float = 60.0  # before a lost backend is tried again; then twice as long each time, up to:
    probe_most_s: float = 900.0
    start_first_s: float = 1.0  # before a model is opened after one death at once; then twice as long, up to:
    start_most_s: float = 60.0
    steady_s: float = 60.0  # a worker that served that long did not die at once
    decoder_idle_s: float = 60.0  # before the decoding child is sent home
    wishes_every_s: float = 2.0  # between looks at what others want of the worker
    heat_stale_s: float = 60.0  # care says it every five seconds; older than this it says nothing

    def stage_s(self, budget_p95_s: float | None) -> float:
        """The limit of one stage. budget_p95_s: what the model's maker promises for a whole study on this board."""
        if budget_p95_s is None:
            return self.stage_limit_s
        return max(self.stage_least_s, BUDGET_TIMES * budget_p95_s)

    def decode_s(self, file_timeout_s: float) -> float:
        """The limit for decoding a file, whose child has a limit of its own and may have to be started."""
        return file_timeout_s + START_TIMEOUT_S + self.stage_limit_s

    def open_s(self) -> float:
        """The limit for trying one backend: once in a child, once here."""
        return self.probe_timeout_s + self.load_limit_s

    def start_pause_s(self, deaths: int) -> float:
        """What a worker waits after `deaths` workers in a row died at once."""
        return min(self.start_most_s, self.start_first_s * 2.0 ** (min(deaths, 30) - 1)) if deaths else 0.0

    def probe_pause_s(self, number: int) -> float:
        """What a lost backend is left alone for before it is tried for the `number`th time, from 1."""
        return min(self.probe_most_s, self.probe_first_s * 2.0 ** min(max(number - 1, 0), 30))
