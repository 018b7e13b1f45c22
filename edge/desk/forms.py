"""Forms of the box's own page, and why nobody else's are taken.

A decision is a POST from the box's own page: the Origin header must name the address that was asked, and the form must
carry the token of this process. A page of another site can send a form here, but can forge neither.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from edge.errors import RadboxError

LARGEST_FORM_BYTES = 4096

Form = dict[str, str]
ErrorPage = Callable[[Request, int, str], Response]


class Forms:
    """One set of forms with one token, which every form must carry in its field `token`."""

    def __init__(self, error: ErrorPage, *conflicts: str) -> None:
        """conflicts: codes of errors that say that the box has changed since the page was opened (409)."""
        self.token = secrets.token_urlsafe(24)
        self._error = error
        self._conflicts = conflicts

    def action(self, act: Callable[[Form], str]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that does `act` in a thread and sends the reader on to the address that it returns."""

        async def answer(request: Request) -> Response:
            if not same_origin(request.headers):
                return self._error(request, 403, "web.other-site")
            form = await read_form(request)
            if form is None or not hmac.compare_digest(form.get("token", "").encode(), self.token.encode()):
                return self._error(request, 403, "web.old-form")
            try:
                address = await run_in_threadpool(act, form)
            except RadboxError as error:
                if error.code not in self._conflicts:
                    raise
                return self._error(request, 409, error.code)
            return RedirectResponse(address, 303)

        return answer


def same_origin(headers: Headers) -> bool:
    """True if a browser says that the form was on a page of the very address it was sent to.

    Browsers send Origin with every POST (Fetch standard, 3.2), and Sec-Fetch-Site only over HTTPS or from localhost.
    """
    origin = urlsplit(headers.get("origin", ""))
    named = origin.scheme in ("http", "https") and origin.netloc.lower() == headers.get("host", "").lower() != ""
    return named and headers.get("sec-fetch-site", "same-origin") == "same-origin"


async def read_form(request: Request) -> Form | None:
    """The fields of a small urlencoded form, the last value of each; None for anything else."""
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        return None
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_FORM_BYTES:
            return None
    try:
        fields = parse_qs(content.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        return None
    return {name: values[-1] for name, values in fields.items()}
