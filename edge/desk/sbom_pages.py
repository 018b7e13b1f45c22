"""The page of the installed software: every part with its version and licence, from the package's CycloneDX list.

A box that runs from a source folder has no such list, and the page says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

INSTALLED: Final = Path(sys.prefix, "share", "sbom.cdx.json")
LARGEST_BYTES: Final = 16 << 20
GROUPS: Final = (
    ("The model", "machine-learning-model"),
    ("Libraries", "library"),
    ("Needed of the system", "needed"),
)
NEEDED: Final = "need:"  # begins the reference of a package that Debian brings


@dataclass(frozen=True)
class Part:
    """A line of the page. within: the part that brought it along, "" for one of its own.

    source_open: a licence of the GPL family, under which whoever hands on the box must offer this part's source.
    """

    name: str
    version: str
    licence: str
    within: str
    source_open: bool


class Frame(Protocol):
    """What this page uses of the rest of the desk."""

    def render(self, template: str, **context: Any) -> str:
        """A template as text."""
        ...

    def answer(self, request: Request, content: str) -> Response:
        """A page with an ETag."""
        ...


class SbomPages:
    """Reads the list once; it changes only with the package, and then the service starts anew."""

    def __init__(self, frame: Frame, path: Path = INSTALLED) -> None:
        """path: the list; by default where the package puts it, beside the running Python's environment."""
        self._frame = frame
        self._content = _read(path)
        self._groups = _groups(json.loads(self._content)) if self._content else []

    def routes(self) -> list[Route]:
        """Addresses of the page and of the list itself."""
        return [Route("/about/software", self.software), Route("/about/software.json", self.as_json)]

    def software(self, request: Request) -> Response:
        """Every part, in groups."""
        content = self._frame.render("sbom.html", here="about", groups=self._groups)
        return self._frame.answer(request, content)

    def as_json(self, _request: Request) -> Response:
        """The list as it was made, for tools; 404 where there is none."""
        if not self._content:
            raise HTTPException(404)
        return Response(self._content, media_type="application/vnd.cyclonedx+json")


def _read(path: Path) -> bytes:
    """The list, or nothing where the box was not installed from a package."""
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST_BYTES)
    except FileNotFoundError:
        return b""


def _groups(document: Mapping[str, Any]) -> list[tuple[str, list[Part]]]:
    kinds: dict[str, list[Part]] = {kind: [] for _, kind in GROUPS}
    for component in document["components"]:
        kind = "needed" if component["bom-ref"].startswith(NEEDED) else component["type"]
        kinds.setdefault(kind, []).extend(_parts(component))
    return [(title, kinds[kind]) for title, kind in GROUPS if kinds[kind]]


def _parts(component: Mapping[str, Any]) -> Iterator[Part]:
    """The component, and what it brought along; files of a model are no lines of their own."""
    yield _part(component, "")
    for inner in component.get("components", ()):
        if inner["type"] != "file":
            yield _part(inner, component["name"])


def _part(component: Mapping[str, Any], within: str) -> Part:
    words = [choice.get("expression") or choice["license"]["name"] for choice in component.get("licenses", ())]
    licence = "; ".join(words)
    source_open = any(word.startswith(("GPL", "LGPL", "AGPL")) for word in licence.replace("(", " ").split())
    return Part(component["name"], component.get("version", ""), licence, within, source_open)
