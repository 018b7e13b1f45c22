"""The keys of a board file: rule, default and meaning of each; the whole truth about them.

What a rule may be is in board_rules.py. The JSON Schema and the table of keys in board_configs/README.md are made from
here (board_schema.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge.board_rules import (
    AE_TITLE,
    GIB,
    KIB,
    MIB,
    OPTION,
    REQUIRED,
    TOPIC,
    Address,
    Flag,
    Folder,
    Key,
    Keys,
    ListOf,
    Network,
    Number,
    OneOf,
    OptionalText,
    Text,
    Url,
    Whole,
)

__all__ = ["BACKENDS", "GIB", "KERNELS", "KIB", "MIB", "REQUIRED", "SECTIONS", "Key"]

KERNELS = ("auto", "numpy", "reference", "avx2", "avx512vnni", "neon", "neon_dotprod", "neon_i8mm", "cuda")
CPU_BACKENDS = ("tflite", "onnxruntime")
ACCELERATED_BACKENDS = ("tensorrt", "edgetpu", "vx", "ethosu", "teflon", "qnn", "armnn", "hailo", "rknn")
BACKENDS = (*CPU_BACKENDS, *ACCELERATED_BACKENDS, "null", "simulated-npu")
"""Every name that `edge.reading.backends` knows."""

BOX_KEYS: Final[Keys] = {
    "name": Key(Text(), REQUIRED, "the board's name on the page"),
    "data_dir": Key(
        Folder(),
        REQUIRED,
        "database, images and reports; the environment variable `RADBOX_DATA_DIR` overrides it",
    ),
}
RECEIVE_KEYS: Final[Keys] = {
    "host": Key(Address(), "127.0.0.1", "address the DICOM receiver listens on; `0.0.0.0` is every network of the box"),
    "port": Key(Whole(1, 65535), 11112, "its TCP port"),
    "ae_title": Key(AE_TITLE, "RADBOX", "its AE title"),
    "called_ae_check": Key(Flag(), False, "reject a sender that calls the box by another AE title"),
    "calling_ae": Key(ListOf(AE_TITLE, "AE titles"), [], "senders that may connect, by AE title; empty: any"),
    "addresses": Key(
        ListOf(Network(), "networks"),
        [],
        "senders that may connect, by address, such as `192.168.1.0/24`; empty: any",
    ),
    "max_associations": Key(Whole(1, 64), 10, "associations at once; one more is rejected and may try again"),
    "network_timeout_s": Key(Number(1, 600), 30.0, "an association that says nothing for so long is aborted"),
    "pdu_bytes": Key(
        Whole(4 * KIB, MIB),
        128 * KIB,
        "largest PDU the box asks for; 128 KiB halves the work against 16 KiB",
    ),
    "quiet_time_s": Key(
        Number(0.1, 600),
        10.0,
        "a study is complete when its last association ended and so much time passed without another image",
    ),
    "max_object_bytes": Key(Whole(MIB, 4 * GIB - 1), GIB, "a larger object is answered with 0xA700"),
    "min_free_bytes": Key(Whole(MIB, 2**50), 512 * MIB, "with less free disk every object is answered with 0xA700"),
    "processes": Key(Whole(1, 8), 2, "processes that share the port"),
}
WORKER_KEYS: Final[Keys] = {
    "bundle": Key(Folder(), REQUIRED, "folder of the model bundle"),
    "backends": Key(
        ListOf(OneOf(BACKENDS), "names", 1),
        ["tflite", "onnxruntime"],
        "runtimes in order of preference; each must pass the bundle's golden case; `simulated-npu` obeys "
        "`hardware.state_file`",
    ),
    "threads": Key(Whole(1, 64), 2, "threads of the runtime and the kernels"),
    "kernels": Key(
        OneOf(KERNELS),
        "auto",
        "decoder kernels; `auto` is the best set for this CPU, and one that it lacks is replaced by `reference`",
    ),
    "precision": Key(
        OneOf(("f32", "q8", "q4")),
        "f32",
        "what the decoder's weights are rounded to: not at all, int8, or int4 in groups of 32",
    ),
    "kernel_threads": Key(Whole(1, 16), 1, "threads of an int8 or int4 decoder; no result depends on them"),
    "decode_timeout_s": Key(Number(1, 600), 30.0, "an image that takes longer to decode is refused"),
    "decode_memory_bytes": Key(Whole(256 * MIB, 64 * GIB), 3 * GIB // 2, "memory of the process that decodes"),
    "max_attempts": Key(Whole(1, 10), 3, "a study that so many workers died on is not tried again"),
    "poll_s": Key(Number(0.01, 10), 0.2, "how often the worker looks for a study"),
}
ACCELERATOR_KEYS: Final[Keys] = {
    "library": Key(OptionalText(), "", "library of a TFLite delegate; empty: where its maker puts it"),
    "options": Key(
        ListOf(OPTION, "`key=value`"),
        [],
        "of a TFLite delegate (`backend:key=value` for one of several); also `rknn:core_mask=0_1_2`, `graph=off`",
    ),
    "precision": Key(
        OneOf(("auto", "int8", "fp16")),
        "auto",
        "TensorRT engine; `auto` builds both and keeps int8 only if it is faster and accurate enough",
    ),
    "workspace_bytes": Key(Whole(16 * MIB, 16 * GIB), 256 * MIB, "memory that the building of an engine may use"),
    "build_timeout_s": Key(Number(10, 86_400), 1800.0, "an engine that is not built by then is given up"),
}
BUDGET_KEYS: Final[Keys] = {
    "report_s": Key(
        Number(0, 600),
        0.0,
        "expected seconds from the last byte received to the draft, 95th percentile; 0: nothing is promised",
    ),
    "memory_bytes": Key(Whole(0, 64 * GIB), 0, "expected peak memory of each service; 0: nothing is promised"),
    "power_w": Key(
        Number(0, 1000, "watts"),
        0.0,
        "expected power of the whole board while it reads, in watts; 0: nothing is promised",
    ),
}
WEB_KEYS: Final[Keys] = {
    "host": Key(Address(), "127.0.0.1", "address the page is served on; `0.0.0.0` lets phones of the LAN in"),
    "port": Key(Whole(1, 65535), 8080, "its TCP port"),
}
STORAGE_KEYS: Final[Keys] = {
    "clean_percent": Key(Whole(1, 99), 75, "from this share of the disk in use on, exported and expired studies go"),
    "warn_percent": Key(Whole(1, 99), 90, "from here on the page warns, and second versions of an object are refused"),
    "retention_days": Key(
        Number(0, 36_500, "days"),
        365.0,
        "running time (not calendar time) for which an exported study stays",
    ),
    "keep_studies": Key(Whole(0, 1_000_000), 200, "so many of the newest studies stay, whatever their age"),
    "quarantine_bytes": Key(Whole(0, 2**50), GIB, "size of the quarantine; the oldest bytes go"),
    "reserve_bytes": Key(
        Whole(MIB, 2**40),
        64 * MIB,
        "a file that is given back when the database finds no room; at most `receive.min_free_bytes`",
    ),
}
UPDATE_KEYS: Final[Keys] = {
    "confirm": Key(Flag(), True, "ask a person before a new model that would change local drafts is used"),
    "shadow_cases": Key(Whole(0, 1000), 100, "so many of the newest local cases are compared before"),
    "probation_cases": Key(Whole(1, 1000), 20, "so many good cases make a new model permanent"),
    "crash_limit": Key(Whole(1, 10), 2, "so many crashes or hangs in probation bring the earlier model back"),
    "slow_limit": Key(Whole(1, 1000), 3, "so do so many cases over the time budget"),
}
HARDWARE_KEYS: Final[Keys] = {
    "kind": Key(
        OneOf(("linux", "sim")),
        "linux",
        "where temperatures, wear and lights come from; `sim` is the simulated box",
    ),
    "state_file": Key(OptionalText(), "", "what the simulated hardware reads; empty: a healthy box"),
    "slow_c": Key(
        Number(30, 120, "degrees Celsius"),
        75.0,
        "from this temperature in degrees Celsius on the box reads more slowly, on purpose",
    ),
    "pause_c": Key(
        Number(30, 120, "degrees Celsius"),
        90.0,
        "from here on it stops reading until it is cool; more than `slow_c`",
    ),
    "wear_percent": Key(Whole(1, 100), 80, "from this share of the storage's life in use on the page warns"),
    "leds": Key(ListOf(Text(), "names"), [], "lights of `/sys/class/leds` that show the box's state"),
    "fan": Key(
        OptionalText(),
        "",
        "a fan that the box steers: name of its folder in `/sys/class/hwmon` or `/sys/class/thermal`; empty: none",
    ),
    "accelerators": Key(ListOf(Text(), "paths"), [], "device nodes that must be there, such as `/dev/hailo0`"),
}
PANEL_KEYS: Final[Keys] = {
    "device": Key(OptionalText(), "", "serial line of the status panel; empty: none"),
    "baud": Key(Whole(1200, 4_000_000), 115_200, "its speed"),
    "columns": Key(Whole(8, 80), 20, "characters of a line"),
    "rows": Key(Whole(2, 16), 4, "lines"),
    "footswitch": Key(Flag(), True, "listen to its foot switch"),
}
GRABBER_KEYS: Final[Keys] = {
    "source": Key(OptionalText(), "", "`/dev/video0`, a file, or an address of a stream; empty: no frame grabber"),
    "preset": Key(
        OptionalText(),
        "",
        "crop and masks of the machine (`board_configs/grabbers/`); empty: the whole picture",
    ),
    "fps": Key(Number(0.2, 60, "frames a second"), 10.0, "pictures looked at each second"),
    "stale_s": Key(Number(0.2, 60), 2.0, "without a new picture for so long there is no signal"),
    "freeze_s": Key(Number(0.5, 600), 5.0, "the same picture for so long is a frozen one"),
    "modality": Key(OneOf(("US", "XA", "RF", "ES", "OT")), "US", "DICOM modality of what it takes"),
}
MQTT_KEYS: Final[Keys] = {
    "host": Key(OptionalText(), "", "broker that hears the box's state; empty: none"),
    "port": Key(Whole(1, 65535), 8883, "its TCP port"),
    "tls": Key(Flag(), True, "encrypt, and check the broker's certificate"),
    "ca_file": Key(OptionalText(), "", "certificate authority of the broker; empty: those of the system"),
    "username": Key(OptionalText(), "", "empty: no password is sent"),
    "password_file": Key(
        OptionalText(),
        "",
        "its first line is the password; the systemd credential `mqtt-password` comes first",
    ),
    "topic": Key(TOPIC, "radbox", "first part of every topic"),
    "home_assistant": Key(Flag(), False, "announce the box to Home Assistant"),
    "interval_s": Key(Number(1, 86_400), 60.0, "how often the state is said again"),
    "outbox": Key(Whole(1, 100_000), 1000, "so many messages wait while the broker is away; the oldest go"),
}
PRINTER_KEYS: Final[Keys] = {
    "uri": Key(
        Url(("ipp", "ipps", "http")),
        "",
        "printer whose trouble is told, such as `ipp://192.168.1.9/ipp/print`; empty: none",
    ),
}
STICK_KEYS: Final[Keys] = {
    "import_images": Key(Flag(), True, "take images from a USB stick"),
    "largest_bytes": Key(Whole(MIB, 4 * GIB - 1), GIB, "a larger file stays on the stick"),
    "most_files": Key(Whole(1, 1_000_000), 20_000, "so many files of one stick are looked at"),
}
SECTIONS: Final[Mapping[str, Keys]] = {
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
