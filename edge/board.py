"""`board_configs/*.toml` -> frozen `Board`: closed, typed, bounded.

`board_keys.py` is the whole truth about keys: rule, default, meaning. An unknown section or key, a wrong type
or a value out of bounds stops the start with one sentence that names file, section and key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.board_keys import REQUIRED, SECTIONS
from edge.errors import ConfigError
from edge.toml import parse_toml


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
    kernels: str  # a name of `edge.reading.ops.CHOICES`
    precision: Literal["f32", "q8", "q4"]  # what the decoder's weights are rounded to
    kernel_threads: int  # of the decoder
    decode_timeout_s: float
    decode_memory_bytes: int
    max_attempts: int
    poll_s: float


@dataclass(frozen=True)
class Accelerator:
    """What the backends of an accelerator need; the others do not look at it."""

    library: str  # of a TFLite delegate; "": where its maker puts it
    options: tuple[str, ...]  # of a TFLite delegate, "key=value"
    precision: Literal["auto", "int8", "fp16"]  # of a TensorRT engine; auto: both are built, the better one is kept
    workspace_bytes: int  # what the building of an engine may take of the GPU's memory
    build_timeout_s: float


@dataclass(frozen=True)
class Budget:
    """What this board is expected to keep; `radbox bench` says whether it does. Zero: nothing is promised."""

    report_s: float  # last byte received to draft stored, 95th percentile
    memory_bytes: int  # of each service
    power_w: float  # of the whole board while it reads


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
class Hardware:
    """What the box is made of, and from which heat on it holds back. `state_file`: of the simulated hardware."""

    kind: Literal["linux", "sim"]
    state_file: str  # "": a healthy simulated box
    slow_c: float
    pause_c: float
    wear_percent: int
    leds: tuple[str, ...]  # names below /sys/class/leds
    fan: str  # "": none that the box steers
    accelerators: tuple[str, ...]  # device nodes such as /dev/hailo0


@dataclass(frozen=True)
class Panel:
    """A status panel on a serial line."""

    device: str  # "": none
    baud: int
    columns: int
    rows: int
    footswitch: bool


@dataclass(frozen=True)
class Grabber:
    """A frame grabber between the box and a machine without DICOM. `source`: device, file or URL; "" is none."""

    source: str
    preset: str  # path of a preset (crop, masks); "": the whole picture
    fps: float
    stale_s: float  # without a new frame for so long there is no signal
    freeze_s: float  # the same picture for so long is a frozen one
    modality: str


@dataclass(frozen=True)
class Mqtt:
    """Status for a broker on the LAN; off while `host` is empty. The password comes as a systemd credential."""

    host: str
    port: int
    tls: bool
    ca_file: str
    username: str
    password_file: str
    topic: str
    home_assistant: bool
    interval_s: float
    outbox: int  # so many messages wait while the broker is away


@dataclass(frozen=True)
class Printer:
    """A printer whose trouble is told (IPP, RFC 8011); "" is none."""

    uri: str


@dataclass(frozen=True)
class Stick:
    """What is taken from a USB stick beside updates."""

    import_images: bool
    largest_bytes: int
    most_files: int


@dataclass(frozen=True)
class Board:
    """One box: what differs between boards, and nothing else."""

    name: str
    data_dir: Path
    receive: Receive
    worker: Worker
    accelerator: Accelerator
    budget: Budget
    web: Web
    storage: Storage
    update: Update
    hardware: Hardware
    panel: Panel
    grabber: Grabber
    mqtt: Mqtt
    printer: Printer
    stick: Stick


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
        accelerator=Accelerator(**section("accelerator")),
        budget=Budget(**section("budget")),
        web=Web(**section("web")),
        storage=Storage(**section("storage")),
        update=Update(**section("update")),
        hardware=Hardware(**section("hardware")),
        panel=Panel(**section("panel")),
        grabber=Grabber(**section("grabber")),
        mqtt=Mqtt(**section("mqtt")),
        printer=Printer(**section("printer")),
        stick=Stick(**section("stick")),
    )
    _check_together(file, board)
    return board


def _check_together(file: str, board: Board) -> None:
    """What two keys must not say together. Raises ConfigError."""
    if board.storage.reserve_bytes > board.receive.min_free_bytes:
        place = f"{file}: section [storage], key 'reserve_bytes'"
        limit = f"at most receive.min_free_bytes ({board.receive.min_free_bytes})"
        raise ConfigError(
            f"{place}: expected {limit}, else new images would take the room that the reserve gives back; "
            f"got {board.storage.reserve_bytes}"
        )
    if board.hardware.slow_c >= board.hardware.pause_c:
        place = f"{file}: section [hardware], key 'slow_c'"
        raise ConfigError(
            f"{place}: expected less than pause_c ({board.hardware.pause_c:g}), got {board.hardware.slow_c:g}"
        )


def _section(file: str, name: str, table: object) -> dict[str, Any]:
    keys = SECTIONS[name]
    place = f"{file}: section [{name}]" if name else f"{file}: top of the file"
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: expected a section, got {type(table).__name__}")
    for key in table:
        if key not in keys:
            raise ConfigError(f"{place}: expected only the keys {', '.join(keys)}, got unknown {key!r}")
    values = {}
    for key, known in keys.items():
        if key not in table and known.default is REQUIRED:
            raise ConfigError(f"{place}: expected key {key!r}, got none")
        value = table.get(key, known.default)
        try:
            values[key] = known.rule.read(value)
        except ValueError as error:
            raise ConfigError(f"{place}, key {key!r}: {error}, got {value!r}") from None
    return values
