"""uvicorn as one of the box's services: ended by `Stop`, silent but for errors, announced to systemd."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from edge.errors import ConfigError
from edge.service import Stop, notify

log = logging.getLogger("radbox.web")

MOST_REQUESTS = 100  # at once; more get 503
GRACE_S = 3  # for answers under way when the service stops


class Server(uvicorn.Server):
    """uvicorn that ends when `stop` is set and leaves the process's signals to `stop`."""

    def __init__(self, config: uvicorn.Config, stop: Stop) -> None:
        super().__init__(config)
        self.stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Signals belong to `Stop`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell systemd."""
        await super().startup(sockets)
        notify("READY=1")

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        return await super().on_tick(counter) or self.stop.is_set()


def serve(app: ASGIApp, host: str, port: int, stop: Stop) -> None:
    """Serve `app` until `stop`, in this thread. Raises ConfigError (`config.port`) if the address is taken."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_REQUESTS,
        timeout_graceful_shutdown=GRACE_S,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        told = f"expected {host} port {port} to be free for the page, got: {error.strerror}"
        raise ConfigError(told, code="config.port") from None
    log.info("page on http://%s:%d/", host, port)
    with listening:
        Server(config, stop).run(sockets=[listening])
