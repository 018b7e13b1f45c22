"""uvicorn as one of the box's services: ended by `Stop`, silent but for errors, announced to systemd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from edge.errors import ConfigError, RadboxError
from edge.service import Stop, notify

log = logging.getLogger("radbox.web")

MOST_REQUESTS = 100  # at once; more get 503
GRACE_S = 3  # for answers under way when the service stops
TICKS_A_PING = 50  # uvicorn ticks ten times a second


def _nothing() -> None:
    """Default for `read`: only the event loop and the worker threads are watched."""


class Server(uvicorn.Server):
    """uvicorn that ends when `stop` is set and leaves the process's signals to `stop`.

    systemd hears WATCHDOG=1 only when the event loop ran and `read` came back from a worker thread: a page whose
    threads all hang in the store answers nobody, though its loop still runs.
    """

    def __init__(self, config: uvicorn.Config, stop: Stop, read: Callable[[], object] = _nothing) -> None:
        super().__init__(config)
        self.stop = stop
        self.read = read
        self.ping: asyncio.Task[None] | None = None

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
        if counter % TICKS_A_PING == 0 and (self.ping is None or self.ping.done()):
            self.ping = asyncio.create_task(self.watchdog())
        return await super().on_tick(counter) or self.stop.is_set()

    async def watchdog(self) -> None:
        """One read in a thread of the pool that answers requests; then a sign of life. An error is an answer too."""
        with contextlib.suppress(RadboxError):  # whoever asks for a page is told; a restart would not mend it
            await run_in_threadpool(self.read)
        notify("WATCHDOG=1")


def serve(app: ASGIApp, host: str, port: int, stop: Stop, read: Callable[[], object] = _nothing) -> None:
    """Serve `app` until `stop`, in this thread. Raises ConfigError (`config.port`) if the address is taken.

    read: a short read of the store, for the watchdog.
    """
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
        Server(config, stop, read).run(sockets=[listening])
