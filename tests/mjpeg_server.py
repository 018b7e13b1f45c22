"""A camera on the network for tests: MJPEG over HTTP that can stall, freeze, go black, break off and come back."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

SIZE = (320, 240)  # width, height
BOUNDARY = b"radboxframe"


def live_picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Speckle that differs from picture to picture; `number` can be read back from the brightness of its left edge."""
    noise = np.random.default_rng(number).integers(0, 120, (size[1], size[0]), dtype=np.uint8)
    picture = cv2.cvtColor(cv2.GaussianBlur(noise, (5, 5), 0), cv2.COLOR_GRAY2BGR)
    picture[:, :16] = number % 8 * 32
    return picture


class MjpegServer:
    """`mode`: "live", "frozen", "black", "bars", "stalled" (open, but silent) or "gone" (closes every connection)."""

    def __init__(self, fps: float = 25.0) -> None:
        self.mode = "live"
        self.size = SIZE
        self.connections = 0
        self._interval_s = 1.0 / fps
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    server._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._stopping = False

    @property
    def url(self) -> str:
        """What the box opens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/stream.mjpg"

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        if self.mode == "gone":
            return
        self.connections += 1
        handler.send_response(200)
        handler.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}")
        handler.end_headers()
        number = 0
        while not self._stopping and self.mode != "gone":
            if self.mode != "stalled":
                number += self.mode == "live"
                jpeg = cv2.imencode(".jpg", self._picture(number))[1].tobytes()
                head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (BOUNDARY, len(jpeg))
                handler.wfile.write(head + jpeg + b"\r\n")
            time.sleep(self._interval_s)

    def _picture(self, number: int) -> np.ndarray:
        width, height = self.size
        if self.mode == "black":
            return np.zeros((height, width, 3), np.uint8)
        if self.mode == "bars":
            return colour_bars(width, height)
        return live_picture(number, self.size)


def colour_bars(width: int, height: int, level: int = 191) -> np.ndarray:
    """Eight upright bars: white, yellow, cyan, green, magenta, red, blue, black."""
    bars = [[(code >> bit & 1) * level for bit in (0, 2, 1)] for code in range(7, -1, -1)]
    edges = np.linspace(0, 8, width, endpoint=False).astype(int)
    return np.broadcast_to(np.array(bars, np.uint8)[edges], (height, width, 3)).copy()
