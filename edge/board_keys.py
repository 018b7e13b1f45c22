"""The keys of a board file: type, bounds, default of each; the whole truth about them.

A reader turns a TOML value into ours or raises ValueError("expected ...").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

KIB, MIB, GIB = 2**10, 2**20, 2**30
KERNELS = ("auto", "numpy", "reference", "avx2", "avx512vnni", "neon", "neon_dotprod", "neon_i8mm", "cuda")


@dataclass(frozen=True)
class Key:
    """One key: `read` turns the TOML value into ours or raises ValueError("expected ..."); `default` or REQUIRED."""

    read: Callable[[object], Any]
    default: object


REQUIRED: Final = object()


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a text that is not empty")
    return value


def _optional_text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("expected a text")
    return value.strip()


def _url(*schemes: str) -> Callable[[object], str]:
    """ "" or an address of one of `schemes`."""

    def read(value: object) -> str:
        text = _optional_text(value)
        parts = urlsplit(text)
        if text and (parts.scheme not in schemes or not parts.hostname):
            raise ValueError(
                f"expected nothing or an address that begins with {' or '.join(f'{s}://' for s in schemes)}"
            )
        return text

    return read


def _topic(value: object) -> str:
    text = _text(value)
    if len(text) > 100 or any(sign in text for sign in "+#$\0") or text.startswith("/") or text.endswith("/"):
        raise ValueError("expected an MQTT topic of at most 100 characters without + # $ and without outer slashes")
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return read


def _seconds(low: float, high: float, unit: str = "seconds") -> Callable[[object], float]:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"expected a number of {unit} from {low:g} to {high:g}")
        return float(value)

    return read


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return value

    return read


def _list_of(item: Callable[[object], str], minimum: int = 0) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) < minimum or len(set(map(str, value))) != len(value):
            raise ValueError(f"expected a list of at least {minimum} different texts")
        return tuple(item(one) for one in value)

    return read


def _option(value: object) -> str:
    text = _text(value)
    key, sign, _ = text.partition("=")
    if not key.strip() or not sign or "\0" in text:
        raise ValueError('expected options of the form "key=value"')
    return text


def _ae_title(value: object) -> str:
    text = _text(value)
    if len(text) > 16 or text != text.strip() or "\\" in text or not text.isascii() or not text.isprintable():
        raise ValueError("expected an AE title: 1 to 16 printable ASCII characters, no backslash, no outer spaces")
    return text


def _address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise ValueError("expected an IP address such as 0.0.0.0 or 127.0.0.1") from None


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(_text(value)))
    except ValueError:
        raise ValueError("expected a network such as 192.168.1.0/24 or an IP address") from None


def _path(value: object) -> Path:
    text = _text(value)
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # no such user, a loop of links, NUL
        raise ValueError("expected a path that can be followed") from None


BOX_KEYS: Final[Mapping[str, Key]] = {
    "name": Key(_text, REQUIRED),
    "data_dir": Key(_path, REQUIRED),
}
RECEIVE_KEYS: Final[Mapping[str, Key]] = {
    "host": Key(_address, "127.0.0.1"),
    "port": Key(_whole(1, 65535), 11112),
    "ae_title": Key(_ae_title, "RADBOX"),
    "called_ae_check": Key(_flag, False),
    "calling_ae": Key(_list_of(_ae_title), []),
    "addresses": Key(_list_of(_network), []),
    "max_associations": Key(_whole(1, 64), 10),
    "network_timeout_s": Key(_seconds(1, 600), 30.0),
    "pdu_bytes": Key(_whole(4 * KIB, MIB), 128 * KIB),
    "quiet_time_s": Key(_seconds(0.1, 600), 10.0),
    "max_object_bytes": Key(_whole(MIB, 4 * GIB - 1), GIB),
    "min_free_bytes": Key(_whole(MIB, 2**50), 512 * MIB),
    "processes": Key(_whole(1, 8), 2),
}
WORKER_KEYS: Final[Mapping[str, Key]] = {
    "bundle": Key(_path, REQUIRED),
    "backends": Key(_list_of(_text, 1), ["tflite", "onnxruntime"]),
    "threads": Key(_whole(1, 64), 2),
    "kernels": Key(_one_of(*KERNELS), "auto"),
    "precision": Key(_one_of("f32", "q8", "q4"), "f32"),
    "kernel_threads": Key(_whole(1, 16), 1),
    "decode_timeout_s": Key(_seconds(1, 600), 30.0),
    "decode_memory_bytes": Key(_whole(256 * MIB, 64 * GIB), 3 * GIB // 2),
    "max_attempts": Key(_whole(1, 10), 3),
    "poll_s": Key(_seconds(0.01, 10), 0.2),
}
ACCELERATOR_KEYS: Final[Mapping[str, Key]] = {
    "library": Key(_optional_text, ""),
    "options": Key(_list_of(_option), []),
    "precision": Key(_one_of("auto", "int8", "fp16"), "auto"),
    "workspace_bytes": Key(_whole(16 * MIB, 16 * GIB), 256 * MIB),
    "build_timeout_s": Key(_seconds(10, 86_400), 1800.0),
}
BUDGET_KEYS: Final[Mapping[str, Key]] = {
    "report_s": Key(_seconds(0, 600), 0.0),
    "memory_bytes": Key(_whole(0, 64 * GIB), 0),
    "power_w": Key(_seconds(0, 1000, "watts"), 0.0),
}
WEB_KEYS: Final[Mapping[str, Key]] = {
    "host": Key(_address, "127.0.0.1"),
    "port": Key(_whole(1, 65535), 8080),
}
STORAGE_KEYS: Final[Mapping[str, Key]] = {
    "clean_percent": Key(_whole(1, 99), 75),
    "warn_percent": Key(_whole(1, 99), 90),
    "retention_days": Key(_seconds(0, 36_500, "days"), 365.0),
    "keep_studies": Key(_whole(0, 1_000_000), 200),
    "quarantine_bytes": Key(_whole(0, 2**50), GIB),
    "reserve_bytes": Key(_whole(MIB, 2**40), 64 * MIB),
}
UPDATE_KEYS: Final[Mapping[str, Key]] = {
    "confirm": Key(_flag, True),
    "shadow_cases": Key(_whole(0, 1000), 100),
    "probation_cases": Key(_whole(1, 1000), 20),
    "crash_limit": Key(_whole(1, 10), 2),
    "slow_limit": Key(_whole(1, 1000), 3),
}
HARDWARE_KEYS: Final[Mapping[str, Key]] = {
    "kind": Key(_one_of("linux", "sim"), "linux"),
    "state_file": Key(_optional_text, ""),
    "slow_c": Key(_seconds(30, 120, "degrees Celsius"), 75.0),
    "pause_c": Key(_seconds(30, 120, "degrees Celsius"), 90.0),
    "wear_percent": Key(_whole(1, 100), 80),
    "leds": Key(_list_of(_text), []),
    "fan": Key(_optional_text, ""),
    "accelerators": Key(_list_of(_text), []),
}
PANEL_KEYS: Final[Mapping[str, Key]] = {
    "device": Key(_optional_text, ""),
    "baud": Key(_whole(1200, 4_000_000), 115_200),
    "columns": Key(_whole(8, 80), 20),
    "rows": Key(_whole(2, 16), 4),
    "footswitch": Key(_flag, True),
}
GRABBER_KEYS: Final[Mapping[str, Key]] = {
    "source": Key(_optional_text, ""),
    "preset": Key(_optional_text, ""),
    "fps": Key(_seconds(0.2, 60, "frames a second"), 10.0),
    "stale_s": Key(_seconds(0.2, 60), 2.0),
    "freeze_s": Key(_seconds(0.5, 600), 5.0),
    "modality": Key(_one_of("US", "XA", "RF", "ES", "OT"), "US"),
}
MQTT_KEYS: Final[Mapping[str, Key]] = {
    "host": Key(_optional_text, ""),
    "port": Key(_whole(1, 65535), 8883),
    "tls": Key(_flag, True),
    "ca_file": Key(_optional_text, ""),
    "username": Key(_optional_text, ""),
    "password_file": Key(_optional_text, ""),
    "topic": Key(_topic, "radbox"),
    "home_assistant": Key(_flag, False),
    "interval_s": Key(_seconds(1, 86_400), 60.0),
    "outbox": Key(_whole(1, 100_000), 1000),
}
PRINTER_KEYS: Final[Mapping[str, Key]] = {
    "uri": Key(_url("ipp", "ipps", "http"), ""),
}
STICK_KEYS: Final[Mapping[str, Key]] = {
    "import_images": Key(_flag, True),
    "largest_bytes": Key(_whole(MIB, 4 * GIB - 1), GIB),
    "most_files": Key(_whole(1, 1_000_000), 20_000),
}
SECTIONS: Final[Mapping[str, Mapping[str, Key]]] = {
    "": BOX_KEYS,
    "receive": RECEIVE_KEYS,
    "worker": WORKER_KEYS,
    "accelerator": ACCELERATOR_KEYS,
    "budget": BUDGET_KEYS,
    "web": WEB_KEYS,
    "storage": STORAGE_KEYS,
    "update": UPDATE_KEYS,
    "hardware": HARDWARE_KEYS,
    "panel": PANEL_KEYS,
    "grabber": GRABBER_KEYS,
    "mqtt": MQTT_KEYS,
    "printer": PRINTER_KEYS,
    "stick": STICK_KEYS,
}
