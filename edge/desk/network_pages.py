"""The page of every connection that the box can make or accept: the table of `edge.network_uses`, nothing else."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.desk.update_pages import Frame
from edge.network_uses import uses


class NetworkPages:
    """The board decides; it does not change while the page runs."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[Route]:
        """The address of the page."""
        return [Route("/about/network", self.network)]

    def network(self, request: Request) -> Response:
        """What comes in, what goes out, what could."""
        every = uses(self._frame.board)
        content = self._frame.render(
            "network.html",
            here="about",
            incoming=[use for use in every if use.on and use.direction == "in"],
            outgoing=[use for use in every if use.on and use.direction == "out"],
            off=[use for use in every if not use.on],
        )
        return self._frame.answer(request, content)
