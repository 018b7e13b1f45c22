"""Which plan belongs to which box: an engine runs only where, and with what, it was built.

A key is the sha256 over everything that makes a plan another one: the model file, TensorRT's version, the GPU's compute
capability and name, the L4T release (of a Jetson's system) and the builder's flags (NVIDIA TensorRT developer guide,
"Engine Compatibility"). The power mode is not in it: it changes the speed, not the plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends.cuda_driver import DeviceFacts
from edge.reading.backends.setup import Setup

Precision = Literal["fp16", "int8"]

L4T_FILE: Final = Path("/etc/nv_tegra_release")
LAYOUT: Final = 1  # of what this code keeps; another number and nothing kept before is found
OPTIMISATION_LEVEL: Final = 3  # 0 to 5; TensorRT's default
KEY_DIGITS: Final = 32
_L4T: Final = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")

# File in the bundle, and the prefix of its outputs in golden.safetensors; the first that the bundle has is taken.
FILES: Final[Mapping[Precision, tuple[tuple[str, str], ...]]] = {
    "fp16": (("encoder.fp16.onnx", "fp16"),),
    "int8": (("encoder.int8.onnx", "int8"), ("encoder.onnx", "onnx")),
}
ACCURATE: Final = "fp16"  # the emission that int8 is measured against


@dataclass(frozen=True)
class Facts:
    """Of this box. l4t: such as "36.4.3", "" on what is no Jetson; capability: such as "8.7"."""

    tensorrt: str
    capability: str
    gpu: str
    l4t: str


@dataclass(frozen=True)
class Flags:
    """What the builder is told. The network is always strongly typed: the types are those of the file."""

    level: int
    workspace_bytes: int


@dataclass(frozen=True)
class PlanSpec:
    """One plan to build. file, emission: see FILES; sha256: of the model file; key: names the plan's file."""

    precision: Precision
    file: str
    emission: str
    sha256: str
    key: str


def box_facts(version: str, device: DeviceFacts, l4t_file: Path = L4T_FILE) -> Facts:
    """version: TensorRT's own."""
    return Facts(version, f"{device.capability[0]}.{device.capability[1]}", device.name, l4t_release(l4t_file))


def l4t_release(path: Path = L4T_FILE) -> str:
    """From a line such as "# R36 (release), REVISION: 4.3, ..." 36.4.3; empty where there is no such file or line."""
    try:
        found = _L4T.search(path.read_text(errors="replace"))
    except OSError:
        return ""
    return f"{found[1]}.{found[2]}" if found else ""


def builder_flags(setup: Setup) -> Flags:
    """Those that the board asks for."""
    return Flags(OPTIMISATION_LEVEL, setup.workspace_bytes)


def plan_specs(bundle: Bundle, setup: Setup, facts: Facts) -> tuple[PlanSpec, ...]:
    """The plans that this board wants and this bundle has a file for, float16 first.

    Raises BackendError (backend.load) where there is none.
    """
    wanted: tuple[Precision, ...] = ("fp16", "int8") if setup.precision == "auto" else (setup.precision,)
    specs = []
    for precision in wanted:
        for file, emission in FILES[precision]:
            if file in bundle.manifest.files:
                sha256 = bundle.manifest.files[file]
                key = _key({"model": sha256, **asdict(facts), **asdict(builder_flags(setup))})
                specs.append(PlanSpec(precision, file, emission, sha256, key))
                break
    if not specs:
        raise BackendError(f"The model bundle has no ONNX file for {' or '.join(wanted)}.", code="backend.load")
    return tuple(specs)


def choice_key(bundle: Bundle, setup: Setup, specs: tuple[PlanSpec, ...]) -> str:
    """Of the decision between plans: those, what they are measured with, and what the board asked for."""
    golden = bundle.manifest.files.get("golden.safetensors", "")
    tolerance = bundle.manifest.golden.tolerance
    plans = [spec.key for spec in specs]
    return _key({"plans": plans, "golden": golden, "tolerance": tolerance, "wanted": setup.precision})


def timing_key(facts: Facts) -> str:
    """Of the timing cache: it outlives models, not another TensorRT, GPU or system."""
    return _key(asdict(facts))


def _key(parts: Mapping[str, Any]) -> str:
    document = json.dumps({"layout": LAYOUT, **parts}, sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:KEY_DIGITS]
