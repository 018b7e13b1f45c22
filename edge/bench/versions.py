"""What a figure belongs to: the machine, how fast it may run, and the versions of everything that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from typing import Final

from edge.bench_result import Machine
from edge.care.hardware.programs import Run, run_program
from edge.care.hardware.sysfs import Tree, plain_name

PACKAGES: Final = (
    "radbox",
    "numpy",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "tensorrt",
    "pycuda",
    "cuda-core",
    "hailort",
    "rknn-toolkit-lite2",
    "pydicom",
    "pynetdicom",
    "opencv-python-headless",
    "starlette",
)
NOT_KNOWN: Final = "not known"
_MODEL = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
_MEMORY = re.compile(r"^MemTotal:\s*(\d{1,15}) kB$", re.MULTILINE)
_NVPMODEL = re.compile(rb"NV Power Mode:\s*([\w .-]{1,40})")


def machine(tree: Tree | None = None, run: Run = run_program) -> Machine:
    """This machine. tree, run: for tests."""
    tree = tree or Tree()
    processor = _MODEL.search(tree.text("proc/cpuinfo") or "")
    memory = _MEMORY.search(tree.text("proc/meminfo") or "")
    kilohertz = tree.number("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq")
    return Machine(
        name=_board_name(tree),
        processor=plain_name(processor[1]) if processor else NOT_KNOWN,
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=int(memory[1]) * 1024 if memory else 0,
        power_mode=_power_mode(tree, run),
        highest_mhz=kilohertz // 1000 if kilohertz else None,
    )


def _board_name(tree: Tree) -> str:
    """Of the device tree (ARM boards), else of the firmware (DMI)."""
    for path in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        name = plain_name((tree.text(path) or "").strip("\0"))
        if name:
            return name
    return NOT_KNOWN


def _power_mode(tree: Tree, run: Run) -> str:
    found = _NVPMODEL.search(run(("nvpmodel", "-q")) or b"")
    if found:
        return found[1].decode().strip()
    governor = tree.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return f"governor {plain_name(governor)}" if governor else NOT_KNOWN


def software() -> dict[str, str]:
    """Versions by name: what is installed of PACKAGES, Python, the kernel."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
