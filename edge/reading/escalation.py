"""What follows when a backend fails: try again, start the worker afresh, go on with the next backend, pause.

Pure: a state in, a state out. Health belongs to one boot; a new boot begins with a clean slate.

    an error, once             the same again (rung 1)
    an error, twice            a fresh worker process (rung 2)
    a death of the worker      counts as that fresh process (rung 2)
    and once more              the backend is lost: the next one that passes the golden case reads on
    none is left               "AI paused, images safe"; each is tried again, with growing pauses
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Step = Literal["retry", "restart", "next"]
PauseS = Callable[[int], float]  # number of the try -> seconds before it

RETRIED, RESTARTED, LOST = 1, 2, 3  # the rungs
RUNGS = LOST
GOOD_IN_A_ROW = 20  # studies after which a backend's earlier failures are forgotten


@dataclass(frozen=True)
class Health:
    """Of one backend. rung: how far up it is; code, message: the last fault; next_probe_s: monotonic time from which
    on it may be tried again. probes: how often it was tried since it was last well; each makes the next pause longer.
    """

    rung: int = 0
    code: str = ""
    message: str = ""
    probes: int = 0
    next_probe_s: float = 0.0

    @property
    def lost(self) -> bool:
        """True while it must not read."""
        return self.rung >= LOST


@dataclass(frozen=True)
class Escalation:
    """backends: those that have a history, by name. at_work: the one that reads, "" before the first."""

    backends: Mapping[str, Health] = field(default_factory=dict)
    at_work: str = ""

    def of(self, name: str) -> Health:
        """The health of a backend; perfect if nothing is known."""
        return self.backends.get(name, Health())

    def healthy(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of `names` that may read, in their order."""
        return tuple(name for name in names if not self.of(name).lost)

    def due(self, names: Sequence[str], now_s: float) -> tuple[str, ...]:
        """Lost ones that may be tried again now, in their order."""
        return tuple(name for name in names if self.of(name).lost and self.of(name).next_probe_s <= now_s)

    def may_open(self, names: Sequence[str], now_s: float) -> tuple[str, ...]:
        """What to open a model with: the healthy ones; if there is none, what may be tried again.

        One that was lost by count and never tried since is tried at once when nothing else is left.
        """
        if healthy := self.healthy(names):
            return healthy
        return tuple(name for name in names if self.of(name).probes == 0 or self.of(name).next_probe_s <= now_s)

    def wait_s(self, names: Sequence[str], now_s: float) -> float:
        """Seconds until `may_open` names one; 0 if it does."""
        if self.may_open(names, now_s):
            return 0.0
        return max(0.0, min(self.of(name).next_probe_s for name in names) - now_s)

    def preferred(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of `names` before the one at work: worth going back to."""
        return tuple(names[: names.index(self.at_work)]) if self.at_work in names else ()


def failed(
    state: Escalation, name: str, code: str, message: str, now_s: float, pause_s: PauseS
) -> tuple[Escalation, Step]:
    """A study broke in backend `name`."""
    before = state.of(name)
    after = _blamed(before, before.rung + 1, code, message, now_s, pause_s)
    steps: dict[int, Step] = {RETRIED: "retry", RESTARTED: "restart"}
    return _with(state, name, after), steps.get(after.rung, "next")


def died(state: Escalation, name: str, code: str, message: str, now_s: float, pause_s: PauseS) -> Escalation:
    """The worker died in backend `name`, and is a fresh process now."""
    before = state.of(name)
    return _with(state, name, _blamed(before, max(before.rung + 1, RESTARTED), code, message, now_s, pause_s))


def refused(state: Escalation, name: str, code: str, message: str, now_s: float, pause_s: PauseS) -> Escalation:
    """Backend `name` did not pass the golden case, or did not even load."""
    probes = state.of(name).probes + 1
    return _with(state, name, Health(LOST, code, message, probes, now_s + pause_s(probes)))


def opened(state: Escalation, name: str) -> Escalation:
    """Backend `name` passed the golden case and reads."""
    return dataclasses.replace(found(state, name) if state.of(name).lost else state, at_work=name)


def found(state: Escalation, name: str) -> Escalation:
    """A lost backend passed the golden case again. It has one chance: some fail only at work."""
    health = state.of(name)
    again = dataclasses.replace(health, rung=RESTARTED, probes=health.probes + 1, next_probe_s=0.0)
    return _with(state, name, again)


def due_now(state: Escalation, now_s: float) -> Escalation:
    """Every lost backend may be tried again at `now_s`."""
    backends = {
        name: dataclasses.replace(health, next_probe_s=now_s) if health.lost else health
        for name, health in state.backends.items()
    }
    return dataclasses.replace(state, backends=backends)


def forgiven(state: Escalation, name: str) -> Escalation:
    """Backend `name` has read well for long enough."""
    return dataclasses.replace(state, backends={other: h for other, h in state.backends.items() if other != name})


def _blamed(before: Health, rung: int, code: str, message: str, now_s: float, pause_s: PauseS) -> Health:
    next_probe_s = now_s + pause_s(before.probes + 1) if rung >= LOST else 0.0
    return Health(min(rung, LOST), code, message, before.probes, next_probe_s)


def _with(state: Escalation, name: str, health: Health) -> Escalation:
    return dataclasses.replace(state, backends={**state.backends, name: health})


# --- as a fact in the store ---


def as_fact(state: Escalation, names: Sequence[str]) -> dict[str, Any]:
    """{"at_work", "order": the board's, "backend": {name: {"lost", "rung", "code", "message", "probes", ...}}}."""
    backends = {name: {**dataclasses.asdict(health), "lost": health.lost} for name, health in state.backends.items()}
    return {"at_work": state.at_work, "order": list(names), "backend": backends}


def from_fact(value: Mapping[str, Any]) -> Escalation:
    """The state of `as_fact`. Raises ValueError for anything else."""
    try:
        backends = {str(name): _health(one) for name, one in value["backend"].items()}
        return Escalation(backends, str(value["at_work"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected the state of the backends, got a document without {error}") from error


def _health(one: Mapping[str, Any]) -> Health:
    return Health(
        rung=int(one["rung"]),
        code=str(one["code"]),
        message=str(one["message"]),
        probes=int(one["probes"]),
        next_probe_s=float(one["next_probe_s"]),
    )
