"""What the worker and its decoding child say to each other over a socket: no pickle, every length checked.

A message is a 4-byte big-endian length, that many bytes of JSON, and for images the raw float32 pixels after it.
"""

from __future__ import annotations

import json
import socket
import time
from types import NoneType
from typing import Any

import numpy as np

from edge.errors import DecodeError, DicomError, RadboxError, StorageError
from edge.reading.limits import READ_LIMIT_PIXELS
from edge.reading.radiograph import Radiograph

LONGEST_JSON_BYTES = 1 << 20
_ERRORS: dict[str, type[RadboxError]] = {kind.__name__: kind for kind in (DicomError, DecodeError, StorageError)}
_FACTS: dict[str, tuple[type, ...]] = {
    "modality": (str, NoneType),
    "body_part": (str, NoneType),
    "view": (str, NoneType),
    "age_years": (float, NoneType),
    "spacing_mm": (list, NoneType),
    "sop_instance_uid": (str, NoneType),
    "frame": (int,),
    "frames": (int,),
    "colour": (bool,),
    "source": (str,),
}


class WireError(Exception):
    """The other side is gone, late, or talks nonsense."""


def send_json(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one JSON message."""
    content = json.dumps(message, allow_nan=False).encode("ascii")
    sock.sendall(len(content).to_bytes(4, "big") + content)


def receive_json(sock: socket.socket, deadline_s: float | None = None) -> dict[str, Any]:
    """Receive one JSON object; `deadline_s` on the monotonic clock. Raises WireError, TimeoutError."""
    length = int.from_bytes(_receive(sock, bytearray(4), deadline_s), "big")
    if length > LONGEST_JSON_BYTES:
        raise WireError("message too long")
    content = _receive(sock, bytearray(length), deadline_s)
    try:
        message = json.loads(content)
    except ValueError:
        raise WireError("not JSON") from None
    if not isinstance(message, dict):
        raise WireError("not an object")
    return message


def send_images(sock: socket.socket, images: tuple[Radiograph, ...]) -> None:
    """Send Radiographs: their facts as JSON, then the pixels of each in turn."""
    described = [{"shape": image.pixels.shape, **{name: getattr(image, name) for name in _FACTS}} for image in images]
    send_json(sock, {"images": described})
    for image in images:
        sock.sendall(np.ascontiguousarray(image.pixels, np.float32).data.cast("B"))


def receive_images(sock: socket.socket, deadline_s: float) -> tuple[Radiograph, ...]:
    """Receive Radiographs, or raise the child's RadboxError. Raises WireError, TimeoutError."""
    message = receive_json(sock, deadline_s)
    if "error" in message:
        raise _error(message["error"])
    described = message.get("images")
    if not isinstance(described, list) or not described or not all(isinstance(one, dict) for one in described):
        raise WireError("no images")
    shapes = [_shape(one.pop("shape", None)) for one in described]
    if sum(height * width for height, width in shapes) > READ_LIMIT_PIXELS:
        raise WireError("images too large")
    result = []
    for facts, shape in zip(described, shapes, strict=True):
        pixels = np.empty(shape, np.float32)
        _receive(sock, pixels.data.cast("B"), deadline_s)
        if not (pixels.min() >= 0.0 and pixels.max() <= 1.0):
            raise WireError("pixels out of range")
        result.append(_radiograph(pixels, facts))
    return tuple(result)


def error_message(error: RadboxError) -> dict[str, Any]:
    """The message that makes `receive_images` raise `error` again."""
    kind = type(error).__name__
    return {"error": {"kind": kind if kind in _ERRORS else "DecodeError", "code": error.code, "message": error.message}}


def _error(described: Any) -> RadboxError:
    if not isinstance(described, dict):
        raise WireError("no error")
    kind, code, message = (described.get(key) for key in ("kind", "code", "message"))
    if kind not in _ERRORS or not isinstance(code, str) or not isinstance(message, str):
        raise WireError("no error")
    return _ERRORS[kind](message, code=code)


def _radiograph(pixels: Any, facts: dict[str, Any]) -> Radiograph:
    if set(facts) != set(_FACTS) or not all(isinstance(facts[name], kinds) for name, kinds in _FACTS.items()):
        raise WireError("unknown facts")
    spacing = facts.pop("spacing_mm")
    if spacing is not None and (len(spacing) != 2 or not all(isinstance(one, float) for one in spacing)):
        raise WireError("unknown facts")
    return Radiograph(pixels=pixels, spacing_mm=None if spacing is None else (spacing[0], spacing[1]), **facts)


def _shape(found: Any) -> tuple[int, int]:
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(n, int) and 0 < n < 1 << 16 for n in found):
        raise WireError("no shape")
    return found[0], found[1]


def _receive(sock: socket.socket, target: Any, deadline_s: float | None) -> Any:
    view = memoryview(target)
    while view:
        if deadline_s is not None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            sock.settimeout(left_s)
        try:
            count = sock.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise WireError("closed")
        view = view[count:]
    return target
