"""`board_configs/*.toml` -> frozen `Board`: closed, typed, bounded.

The tables at the end are the whole truth about keys: type, bounds, default. An unknown section or key, a wrong type
or a value out of bounds stops the start with one sentence that names file, section and key.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from edge.errors import ConfigError
from edge.toml import parse_toml

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Receive:
    """DICOM receiver. AE titles: PS3.5 6.2 (AE, at most 16 characters); `pdu_bytes`: PS3.8 D.1."""

    host: str
    port: int
    ae_title: str
    called_ae_check: bool
    calling_ae: tuple[str, ...]  # empty: any
    addresses: tuple[str, ...]  # CIDR networks; empty: any
    max_associations: int
    network_timeout_s: float
    pdu_bytes: int
    quiet_time_s: float  # after the last association of a study ended
    max_object_bytes: int
    min_free_bytes: int
    processes: int  # that share the port


@dataclass(frozen=True)
class Worker:
    """The reader. `backends` in order of preference; a fall-back must pass the bundle's golden case."""

    bundle: Path
    backends: tuple[str, ...]
    threads: int
    kernels: Literal["auto", "numpy", "reference"]
    decode_timeout_s: float
    decode_memory_bytes: int
    max_attempts: int
    poll_s: float


@dataclass(frozen=True)
class Web:
    """The page."""

    host: str
    port: int


@dataclass(frozen=True)
class Storage:
    """When the disk counts as filling, and what may then go. Percent of the file system's size in use."""

    clean_percent: int
    warn_percent: int
    retention_days: float  # of running time since a study was exported
    keep_studies: int  # the newest ones stay, whatever their age
    quarantine_bytes: int
    reserve_bytes: int  # a file that is given back when a commit finds no room


@dataclass(frozen=True)
class Update:
    """How a new model earns its place."""

    confirm: bool  # a person says yes when it would change drafts of local cases
    shadow_cases: int
    probation_cases: int
    crash_limit: int
    slow_limit: int


@dataclass(frozen=True)
class Board:
    """One box: what differs between boards, and nothing else."""

    name: str
    data_dir: Path
    receive: Receive
    worker: Worker
    web: Web
    storage: Storage
    update: Update


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
    "kernels": Key(_one_of("auto", "numpy", "reference"), "auto"),
    "decode_timeout_s": Key(_seconds(1, 600), 30.0),
    "decode_memory_bytes": Key(_whole(256 * MIB, 64 * GIB), 3 * GIB // 2),
    "max_attempts": Key(_whole(1, 10), 3),
    "poll_s": Key(_seconds(0.01, 10), 0.2),
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
SECTIONS: Final[Mapping[str, Mapping[str, Key]]] = {
    "": BOX_KEYS,
    "receive": RECEIVE_KEYS,
    "worker": WORKER_KEYS,
    "web": WEB_KEYS,
    "storage": STORAGE_KEYS,
    "update": UPDATE_KEYS,
}


def load_board(path: Path) -> Board:
    """`parse_board` of a file. Raises ConfigError with a sentence that names file, section and key."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.name}: expected a readable board file, got: {error.strerror}") from error
    return parse_board(content, path.name)


def parse_board(content: bytes, file: str) -> Board:
    """The board of a document; `file` is what messages call it.

    $RADBOX_DATA_DIR overrides `data_dir`; relative paths are relative to the current folder. Raises ConfigError.
    """
    try:
        document = parse_toml(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: expected TOML in UTF-8, got: {error}") from error
    box = {key: value for key, value in document.items() if key not in SECTIONS}
    override = os.environ.get("RADBOX_DATA_DIR")
    if override:
        box["data_dir"] = override

    def section(name: str) -> dict[str, Any]:
        return _section(file, name, document.get(name, {}))

    board = Board(
        **_section(file, "", box),
        receive=Receive(**section("receive")),
        worker=Worker(**section("worker")),
        web=Web(**section("web")),
        storage=Storage(**section("storage")),
        update=Update(**section("update")),
    )
    if board.storage.reserve_bytes > board.receive.min_free_bytes:
        place = f"{file}: section [storage], key 'reserve_bytes'"
        limit = f"at most receive.min_free_bytes ({board.receive.min_free_bytes})"
        raise ConfigError(
            f"{place}: expected {limit}, else new images would take the room that the reserve gives back; "
            f"got {board.storage.reserve_bytes}"
        )
    return board


def _section(file: str, name: str, table: object) -> dict[str, Any]:
    keys = SECTIONS[name]
    place = f"{file}: section [{name}]" if name else f"{file}: top of the file"
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: expected a section, got {type(table).__name__}")
    for key in table:
        if key not in keys:
            raise ConfigError(f"{place}: expected only the keys {', '.join(keys)}, got unknown {key!r}")
    values = {}
    for key, rule in keys.items():
        if key not in table and rule.default is REQUIRED:
            raise ConfigError(f"{place}: expected key {key!r}, got none")
        value = table.get(key, rule.default)
        try:
            values[key] = rule.read(value)
        except ValueError as error:
            raise ConfigError(f"{place}, key {key!r}: {error}, got {value!r}") from None
    return values
