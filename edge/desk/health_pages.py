"""How the box is: the page /health for people, and /metrics for machines. Both only read."""

from __future__ import annotations

import platform
import time
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge.bundle import parse_manifest
from edge.desk import health_view, metrics, views
from edge.desk.update_pages import Frame
from edge.errors import RadboxError
from edge.link.snapshot import Snapshot, take, version
from edge.slots import FACTORY, Slots
from edge.store import boot_id


class HealthPages:
    """Looks at the store at every request."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._board, self._store = frame.board, frame.store
        self._boot_id, self._start_s = boot_id(), time.monotonic()
        self._slots = Slots(frame.board.data_dir, frame.board.worker.bundle)
        self._factory = lru_cache(maxsize=1)(self._read_factory)

    def routes(self) -> list[Route]:
        """Addresses of the page and of the metrics."""
        return [Route("/health", self.health), Route("/metrics", self.metrics)]

    def health(self, request: Request) -> Response:
        """State, services, hardware, history of the last day or week."""
        spans = {span.key: span for span in health_view.SPANS}
        span = spans.get(request.query_params.get("span", ""), health_view.SPANS[0])
        snapshot, now = self._look(), self._frame.now()
        history = {one.name: self._store.samples(one.name) for one in health_view.MEASURES}
        content = self._frame.render(
            "health.html",
            here="health",
            health=health_view.health(snapshot, span, history),
            services=[views.service_line(row, now) for row in snapshot.services],
            silent={row.name for row in snapshot.services if snapshot.is_silent(row)},
            issues=len(snapshot.issues),
            span=span,
            spans=health_view.SPANS,
            width=health_view.WIDTH,
            height=health_view.HEIGHT,
            margin=health_view.MARGIN,
        )
        return self._frame.answer(request, content)

    def metrics(self, _request: Request) -> Response:
        """Prometheus text."""
        versions = metrics.Versions(version(), platform.python_version(), self._model())
        told = metrics.metrics(self._look(), versions, self._store.modalities(), self._board.receive.calling_ae)
        return PlainTextResponse(metrics.exposition(told), headers={"Content-Type": metrics.CONTENT_TYPE})

    def _look(self) -> Snapshot:
        return take(self._store, self._boot_id, self._start_s)

    def _model(self) -> str:
        slot = self._slots.read().active
        if slot == FACTORY:
            return self._factory()
        offer = self._slots.offer(slot)
        return f"{offer.id} {offer.label}" if offer else slot[:12]

    def _read_factory(self) -> str:
        try:
            manifest = parse_manifest((self._board.worker.bundle / "manifest.json").read_bytes())
        except (OSError, RadboxError):
            return "unknown"
        return f"{manifest.id} {manifest.version}"
