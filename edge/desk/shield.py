"""The border of the page: who may ask (Host header), what every answer carries, and what an error may say.

An exception's text can hold a patient's name, so neither the answer nor the log repeats it: both get the error's code,
the log also its type and the place in the code. This sits inside Starlette's own error layer, which would pass the
exception on to the server and its traceback into the log.
"""

from __future__ import annotations

import ipaddress
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.errors import RadboxError

log = logging.getLogger("radbox.web")

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
NO_STORE = "no-store"

ErrorPage = Callable[[Request, int, str], Response]


class Shield:
    """ASGI middleware: the Host check, the security headers, and errors without patient data."""

    def __init__(self, app: ASGIApp, host: str, error_page: ErrorPage) -> None:
        self.app = app
        self.host = host
        self.error_page = error_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; anything that is not HTTP passes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _dress(MutableHeaders(scope=message))
            await send(message)

        request = Request(scope)
        if not host_allowed(Headers(scope=scope).get("host", ""), self.host):
            await self.error_page(request, 421, "web.wrong-host")(scope, receive, dressed)
            return
        try:
            await self.app(scope, receive, dressed)
        except Exception as error:
            code = error.code if isinstance(error, RadboxError) else "web.failed"
            log.error("%s: %s in %s", code, type(error).__name__, place(error))
            if not started:
                status = 503 if isinstance(error, RadboxError) else 500
                await self.error_page(request, status, code)(scope, receive, dressed)


def host_allowed(header: str, configured: str) -> bool:
    """True for IP literals, localhost, *.local (RFC 6762) and the configured host.

    A page of the internet can point its own name at this box (DNS rebinding) and would then read it as its own origin;
    with its name in the Host header the box does not answer.
    """
    name = header.rsplit(":", 1)[0] if not header.endswith("]") and ":" in header else header
    name = name.strip().lower().rstrip(".")
    if name.startswith("[") and name.endswith("]"):
        return _is_address(name[1:-1], 6)
    return name in ("localhost", configured.lower()) or name.endswith(".local") or _is_address(name, 4)


def _is_address(name: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(name).version == version
    except ValueError:
        return False


def place(error: BaseException) -> str:
    """Where an exception was raised: file name, line and function, without any value."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"


def _dress(headers: MutableHeaders) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", NO_STORE)
