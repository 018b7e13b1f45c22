"""The page: what any phone on the local network sees of the box.

It reads the store; what a person may decide here, about the model, is in `edge.desk.update_pages`.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import starlette
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edge.board import Board
from edge.desk import overlay, report_view, views
from edge.desk.bench_pages import BenchPages
from edge.desk.grabber_pages import GrabberPages
from edge.desk.health_pages import HealthPages
from edge.desk.issue_pages import IssuePages
from edge.desk.network_pages import NetworkPages
from edge.desk.report_view import Fact
from edge.desk.sbom_pages import SbomPages
from edge.desk.server import serve
from edge.desk.shield import Shield, log
from edge.desk.update_pages import UpdatePages
from edge.errors import ReportError
from edge.report.graph import load_graph
from edge.report.render import render_text
from edge.report.schema import Report
from edge.report.serial import from_json
from edge.service import Stop
from edge.store import InstanceRow, Store, StudyDetail, StudySummary, boot_id, database_key, open_store

PAGES = Path(__file__).with_name("pages")
ASSETS = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
LAST_PAGE = 1_000_000
LARGEST_KEY = 2**63 - 1  # of an SQLite row

ERRORS = {
    403: ("Not done", "This can only be done on the box's own page. Open the page again and try once more."),
    404: ("Not found", "There is no such page or study on this box, or the address is wrong."),
    405: ("Not possible", "This address cannot be used that way."),
    409: ("Not done", "The box has changed since this page was opened. Open the page again and look once more."),
    421: ("Wrong address", "Open this page by the box's own name or IP address."),
    500: ("Something went wrong", "The box could not show this page. The images are safe. Try again in a moment."),
    503: ("Not available now", "The box cannot read its records at the moment. The images are safe. Try again soon."),
}
CODES = {404: "web.not-found", 405: "web.method-not-allowed"}


def create_app(board: Board) -> Starlette:
    """The ASGI application over the board's store. Raises StoreError, StorageError, ReportError (graph)."""
    desk = Desk(board, open_store(board.data_dir, key=database_key()))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        desk.store.close()

    application = Starlette(
        routes=[
            Route("/", desk.studies),
            Route("/live", desk.live),
            Route("/quarantine", desk.quarantine),
            Route("/about", desk.about),
            Route("/healthz", desk.healthz),
            Route("/study/{key:int}", desk.study),
            Route("/study/{key:int}/image.png", desk.image),
            Route("/study/{key:int}/evidence/{index:int}.png", desk.evidence),
            Route("/study/{key:int}/report.txt", desk.report_text),
            Route("/study/{key:int}/report.json", desk.report_json),
            Route("/static/{name}", desk.asset),
            *desk.updates.routes(),
            *desk.issues.routes(),
            *desk.health.routes(),
            *desk.grabber.routes(),
            *desk.network.routes(),
            *desk.software.routes(),
            *desk.bench.routes(),
        ],
        middleware=[Middleware(Shield, host=board.web.host, error_page=desk.error)],
        exception_handlers={HTTPException: desk.http_error},
        lifespan=lifespan,
    )
    application.state.read_store = desk.store.services
    return application


class Desk:
    """The answers. Every method named in `create_app` runs in a thread of its own; the store allows that."""

    def __init__(self, board: Board, store: Store) -> None:
        self.board = board
        self.store = store
        self.graph = load_graph()
        self.boot_id = boot_id()
        self.updates = UpdatePages(self)
        self.issues = IssuePages(self)
        self.health = HealthPages(self)
        self.grabber = GrabberPages(self)
        self.network = NetworkPages(self)
        self.software = SbomPages(self)
        self.bench = BenchPages(self)
        self.last_instance = lru_cache(maxsize=1024)(self._last_instance)
        self.assets = {name: (PAGES / name).read_bytes() for name in ASSETS}
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(PAGES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        marks: Any = self.templates.get_template("marks.html").module
        self.templates.globals.update(mark=marks.mark, bar=marks.bar, asset=self.asset_path, box_name=board.name)

    # --- pages ---

    def studies(self, request: Request) -> Response:
        """The list of studies, newest first."""
        return HTMLResponse(self.render("studies.html", here="list", **self.list_context(request)))

    def live(self, request: Request) -> Response:
        """The list alone, for live.js; 304 while nothing changed."""
        return self.answer(request, self.render("studies_live.html", **self.list_context(request)))

    def list_context(self, request: Request) -> dict[str, Any]:
        """What both forms of the list show."""
        number = _page_number(request.query_params.get("page", "1"))
        found = self.store.studies(limit=views.PAGE_ROWS + 1, offset=(number - 1) * views.PAGE_ROWS)
        now = self.now()
        return {
            "rows": [self.list_row(summary, now) for summary in found[: views.PAGE_ROWS]],
            "page": views.page_of(number, len(found)),
            "banner": self.updates.banner(),
            "issue_banner": self.issues.banner(),
            "grabber": self.grabber.present,
            "notices": views.notices(self.store.services(), now),
            "quarantined": len(self.store.quarantine(limit=1000)),
            "receive": self.board.receive,
        }

    def list_row(self, summary: StudySummary, now: views.Now) -> views.ListRow:
        """One line of the list with the most urgent finding of its report."""
        report = _report(summary.report_json)
        top = report_view.top_finding(report, self.graph) if report else None
        last = self.last_instance(summary.study_key, summary.instance_count)
        late = now.long_wait(summary.state, last) if last else ""
        note = late or report_view.list_note(summary.report_json, report, self.graph)
        return views.list_row(summary, now.age_of(last) if last else "", top, note)

    def _last_instance(self, study_key: int, _count: int) -> InstanceRow | None:
        """The newest object of a study. The count is in the cache's key: more objects, another newest one."""
        detail = self.store.study(study_key)
        return detail.instances[-1] if detail and detail.instances else None

    def study(self, request: Request) -> Response:
        """One study."""
        detail = self.detail(request)
        now = self.now()
        study = views.study_view(detail, now)
        notices = views.notices(self.store.services(), now) if study.unsettled else ()
        facts = (detail.state, detail.attempt, len(detail.instances), detail.report_json, detail.code)
        tag = f'W/"{hashlib.sha256(repr((facts, study.late, notices)).encode()).hexdigest()[:24]}"'
        return _tagged(request, tag, lambda: self.study_page(detail, study, notices, tag))

    def study_page(
        self, detail: StudyDetail, study: views.StudyView, notices: tuple[views.Notice, ...], tag: str
    ) -> str:
        """The HTML of one study."""
        report = _report(detail.report_json)
        if detail.report_json and report is None:
            notices = (*notices, views.UNREADABLE)
        path = self.picture(detail)
        size = overlay.png_size(path) if path else None
        return self.render(
            "study.html",
            here="study",
            study=study,
            report=report_view.report_view(report, self.graph) if report else None,
            image=report_view.image_view(report, self.graph, size) if size else None,
            notices=notices,
            tag=tag,
        )

    def quarantine(self, _request: Request) -> Response:
        """Files that could not be kept as images."""
        now = self.now()
        rows = [views.quarantine_line(row, now) for row in self.store.quarantine(limit=200)]
        return HTMLResponse(self.render("quarantine.html", here="quarantine", rows=rows))

    def about(self, _request: Request) -> Response:
        """Research notice, versions, services."""
        now = self.now()
        services = self.store.services()
        return HTMLResponse(
            self.render(
                "about.html",
                here="about",
                versions=self.versions(),
                services=[views.service_line(row, now) for row in services],
            )
        )

    def versions(self) -> list[Fact]:
        """Of the program, the newest report's model, and what it stands on."""
        newest = next((r for s in self.store.studies(limit=views.PAGE_ROWS) if (r := _report(s.report_json))), None)
        model = f"{newest.model.bundle} {newest.model.version}" if newest else "no report yet"
        return [
            Fact("Box", self.board.name),
            Fact("radbox", _own_version()),
            Fact("Model of the newest report", model),
            Fact("Rules of the report", self.graph.sha256[:12]),
            Fact("Python", platform.python_version()),
            Fact("Starlette", starlette.__version__),
        ]

    # --- files of a study ---

    def image(self, request: Request) -> Response:
        """The picture that the worker prepared, draft mark burned in."""
        path = self.picture(self.detail(request))
        if path is None:
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type="image/png")

    def evidence(self, request: Request) -> Response:
        """The evidence overlay of one statement, as large as the picture."""
        detail = self.detail(request)
        report, path, index = _report(detail.report_json), self.picture(detail), request.path_params["index"]
        size = overlay.png_size(path) if path else None
        if report is None or size is None or index >= len(report.statements):
            raise HTTPException(404)
        evidence = report.statements[index].evidence
        if evidence is None:
            raise HTTPException(404)
        return Response(_heat(evidence, *size), media_type="image/png")

    def report_text(self, request: Request) -> Response:
        """The report as plain text."""
        report = _report(self.detail(request).report_json)
        if report is None:
            raise HTTPException(404)
        return PlainTextResponse(render_text(report, self.graph))

    def report_json(self, request: Request) -> Response:
        """The report document as it is stored."""
        detail = self.detail(request)
        if not detail.report_json:
            raise HTTPException(404)
        return Response(detail.report_json, media_type="application/json")

    # --- the box ---

    def healthz(self, _request: Request) -> Response:
        """The services' states for a machine; no patient data. The worst state is the box's."""
        now = self.now()
        rows = self.store.services()
        ranks = ("ok", "degraded", "paused")
        state = ranks[max((ranks.index(row.state) for row in rows), default=0)]
        services = [
            {
                "name": row.name,
                "state": row.state,
                "code": row.code,
                "message": row.message,
                "age_s": round(now.monotonic_s - row.monotonic_s, 1) if row.boot_id == now.boot_id else None,
            }
            for row in rows
        ]
        return JSONResponse({"state": state, "services": services})

    def asset(self, request: Request) -> Response:
        """One of the three fixed files; their addresses carry their content's hash, so they may be kept."""
        name = request.path_params["name"]
        if name not in ASSETS:
            raise HTTPException(404)
        lasting = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self.assets[name], media_type=ASSETS[name], headers=lasting)

    def asset_path(self, name: str) -> str:
        """The address of a fixed file."""
        return f"/static/{name}?v={hashlib.sha256(self.assets[name]).hexdigest()[:12]}"

    # --- errors ---

    def error(self, _request: Request, status: int, code: str) -> Response:
        """An error in plain words with its stable code and nothing of what caused it."""
        title, text = ERRORS.get(status, ERRORS[500])
        content = self.render("error.html", here="error", title=title, text=text, code=code)
        return HTMLResponse(content, status_code=status)

    def http_error(self, request: Request, error: Exception) -> Response:
        """Starlette's own refusals: no such route, wrong method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        response = self.error(request, status, CODES.get(status, "web.failed"))
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        return response

    # --- shared ---

    def render(self, template: str, **context: Any) -> str:
        """A template of `pages`, everything escaped, an unknown name an error."""
        return self.templates.get_template(template).render(**context)

    def answer(self, request: Request, content: str) -> Response:
        """A page whose ETag is its content's."""
        return _tagged(request, f'"{hashlib.sha256(content.encode()).hexdigest()[:24]}"', lambda: content)

    def now(self) -> views.Now:
        """The moment of this answer."""
        return views.Now(time.monotonic(), self.boot_id, time.time())

    def detail(self, request: Request) -> StudyDetail:
        """The study of the address, or 404."""
        key = request.path_params["key"]
        detail = self.store.study(key) if key <= LARGEST_KEY else None
        if detail is None:
            raise HTTPException(404)
        return detail

    def picture(self, detail: StudyDetail) -> Path | None:
        """The prepared picture's path: named by the store only, and below the data folder; None if it is not there."""
        if not detail.rendered:
            return None
        top = self.board.data_dir.resolve()
        path = (top / detail.rendered / "image.png").resolve()
        if not path.is_relative_to(top):
            log.error("web.picture-outside: study %d has a picture outside the data folder", detail.summary.study_key)
            return None
        return path if path.is_file() else None


def run(board: Board, stop: Stop) -> None:
    """Serve the page on the board's address until `stop`. Raises ConfigError (port), else as `create_app`."""
    application = create_app(board)
    serve(application, board.web.host, board.web.port, stop, read=application.state.read_store)


def _page_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= LAST_PAGE:
        raise HTTPException(404)
    return int(text[:9])


def _tagged(request: Request, tag: str, content: Callable[[], str]) -> Response:
    """200 with an ETag, or 304 where the reader has this state already (RFC 9110 13.1.2)."""
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(content(), headers={"ETag": tag})


@lru_cache(maxsize=128)
def _report(text: str) -> Report | None:
    """The report of a row; None where there is none, or none that this version can show (the page then says so)."""
    if not text:
        return None
    try:
        report = from_json(text)
        render_text(report, load_graph())
        return report
    except ReportError as error:
        log.error("%s: a stored report cannot be shown", error.code)
        return None


_heat = lru_cache(maxsize=32)(overlay.heat_png)


def _own_version() -> str:
    try:
        return metadata.version("radbox")
    except metadata.PackageNotFoundError:
        return "from a source folder"
