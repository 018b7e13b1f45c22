"""Checks of what is beside the box or inside its reader: machines, AI, models, printer, video, panel, MQTT. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edge.care.issues.habits import DAY_S, silences
from edge.care.issues.seen import Seen
from edge.store_rows import IssueFacts, ServiceRow

# Sending that breaks off: of the associations in the last hour. One that breaks off happens (somebody pulls a plug).
ABORTED_LEAST: Final = 3
ABORTED_SHARE: Final = 0.3
ABORTED_STILL: Final = 0.15  # the issue goes only below this share
BACKEND: Final = "backend."  # codes of the worker's row
NOT_BUILT: Final = "backend.not-built"  # an engine that is being built
SOON: Final = ("media-low", "toner-low")  # reasons of the printer
PICTURES: Final = ("ok", "frozen")  # states of the frame grabber
NOISY_PANEL: Final = "panel.noise"  # it answers, with errors
TOO_HOT: Final = "worker.too-hot"


def modality_silent(seen: Seen) -> Iterator[IssueFacts]:
    """A machine that used to send, silent for much longer than ever before while the box was on."""
    for silence in silences(seen.notes.habits, seen.machines, seen.age_s):
        days = int(silence.silent_s // DAY_S)
        yield IssueFacts("issue.modality-silent", silence.calling_ae, "warning", {"silent_days": days})


def modality_aborting(seen: Seen) -> Iterator[IssueFacts]:
    """Many of the last hour's associations broke off before they ended."""
    every, aborted = seen.recent.get("associations", 0), seen.recent.get("associations_aborted", 0)
    share = aborted / max(1, every, aborted)
    still = seen.is_open("issue.modality-aborting") and aborted > 0 and share >= ABORTED_STILL
    if still or (aborted >= ABORTED_LEAST and share >= ABORTED_SHARE):
        yield IssueFacts("issue.modality-aborting", "", "warning", {"aborted_percent": 5 * round(20 * share)})


def accelerator_lost(seen: Seen) -> Iterator[IssueFacts]:
    """A device node of the board is gone, or the worker had to pass a backend over."""
    nodes = seen.facts.get("hardware", {}).get("accelerators", {})
    gone = [str(node) for node, there in nodes.items() if not there]
    for name in gone or _passed_over(seen):
        yield IssueFacts("issue.accelerator-lost", name, "warning")


def _passed_over(seen: Seen) -> list[str]:
    """Backends that the board prefers to the one at work, by the worker's fact "escalation", else by its row.

    One whose engine is being built is not lost.
    """
    fact = seen.facts.get("escalation", {})
    order, at_work = list(fact.get("order", ())), fact.get("at_work", "")
    better = order[: order.index(at_work)] if at_work in order else []
    health = {name: fact.get("backend", {}).get(name, {}) for name in better}
    lost = [str(name) for name, one in health.items() if one.get("lost") and one.get("code") != NOT_BUILT]
    worker = _alive(seen, "worker")
    told = worker is not None and worker.state == "degraded" and worker.code.startswith(BACKEND)
    return lost or ([""] if told else [])


def ai_paused(seen: Seen) -> Iterator[IssueFacts]:
    """No backend or no model passes its checks. Heat has an issue of its own."""
    worker = _alive(seen, "worker")
    if worker is not None and worker.state == "paused" and worker.code != TOO_HOT:
        yield IssueFacts("issue.ai-paused", "", "critical", {"reason": worker.code})


def update_rolled_back(seen: Seen) -> Iterator[IssueFacts]:
    """The box took a new model back by itself, and nobody took note yet."""
    if seen.failure is not None:
        yield IssueFacts("issue.update-rolled-back", "", "warning", {"reason": seen.failure.code})


def printer(seen: Seen) -> Iterator[IssueFacts]:
    """The printer stands, does not answer, or needs something now; that it will need something soon can wait."""
    fact = seen.facts.get("printer", {})
    reasons = [reason for reason in fact.get("reasons", ()) if reason not in SOON]
    if seen.board.printer.uri and (reasons or fact.get("state") in ("stopped", "offline")):
        yield IssueFacts("issue.printer", "", "warning", {"problem": str(fact.get("message", ""))})


def grabber_no_signal(seen: Seen) -> Iterator[IssueFacts]:
    """Nothing that could be captured comes from the frame grabber. One that stands still was frozen by a person."""
    state = str(seen.facts.get("grabber", {}).get("state", "ok"))
    if seen.board.grabber.source and state not in PICTURES:
        yield IssueFacts("issue.grabber-no-signal", "", "warning", {"problem": state})


def panel_lost(seen: Seen) -> Iterator[IssueFacts]:
    """The panel that the board names does not answer."""
    row = _alive(seen, "panel")
    if seen.board.panel.device and row is not None and row.state != "ok" and row.code != NOISY_PANEL:
        yield IssueFacts("issue.panel-lost", "", "info")


def mqtt_lost(seen: Seen) -> Iterator[IssueFacts]:
    """The broker does not answer."""
    if seen.board.mqtt.host and seen.facts.get("mqtt", {}).get("connected") is False:
        yield IssueFacts("issue.mqtt-lost", "", "info")


def outbox_full(seen: Seen) -> Iterator[IssueFacts]:
    """More reports than the outbox holds waited for the broker; the oldest went, in the last hour."""
    if seen.board.mqtt.host and seen.recent.get("mqtt_dropped", 0):
        yield IssueFacts("issue.outbox-full", "", "info")


def _alive(seen: Seen, service: str) -> ServiceRow | None:
    """What the service says of itself in this boot, if it is not silent."""
    row: Any = seen.services.get(service)
    return row if row is not None and row.boot_id == seen.boot_id and not seen.silent(service) else None
