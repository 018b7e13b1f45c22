"""The files of machines that nobody here has, for `radbox board probe`: laid out below a folder.

Written from documentation, not copied from boards. Models and compatibles: arch/arm64/boot/dts of the Linux kernel
(bcm2712-rpi-5-b.dts, imx8mp-evk.dts, rk3588-rock-5b.dts), and for NVIDIA's boards what their owners reported
(rbonghi/jetson_stats issues 711 and 864, adafruit/Adafruit_Python_PlatformDetect pull request 379). PCI and USB
numbers: see edge/board_probe/parts.py. MemTotal is what a kernel leaves of the memory that the board is sold with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.care.hardware.sysfs import Tree

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
JAMMY, NOBLE = 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n', 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n'
SITE = "usr/local/lib/python3.11/dist-packages"
JETSON_LIBRARIES = "usr/lib/aarch64-linux-gnu"
RUNTIMES = (f"{SITE}/ai_edge_litert/__init__.py", f"{SITE}/onnxruntime/__init__.py")


@dataclass(frozen=True)
class Machine:
    """parts: CPU part -> how many. files: that only have to be there; contents: with what is in them."""

    model: str
    compatible: tuple[str, ...]
    parts: dict[int, int]
    memory_kib: int
    system: str = DEBIAN
    l4t: str = ""
    pci: tuple[str, ...] = ()
    usb: tuple[str, ...] = ()
    files: tuple[str, ...] = RUNTIMES
    contents: dict[str, str] = field(default_factory=dict)


def _pi(**more) -> Machine:
    compatible = ("raspberrypi,5-model-b", "brcm,bcm2712")
    return Machine("Raspberry Pi 5 Model B Rev 1.0", compatible, {0xD0B: 4}, 8_245_888, **more)


def _jetson(model: str, compatible: tuple[str, ...], release: str, system: str, libraries: tuple[str, ...], **more):
    files = (*(f"{JETSON_LIBRARIES}/{name}" for name in libraries), f"{SITE}/pycuda/__init__.py", *RUNTIMES)
    tensorrt = "usr/lib/python3/dist-packages/tensorrt/__init__.py"
    return Machine(model, compatible, system=system, l4t=release, files=(*files, tensorrt), **more)


_NANO = ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234")
_NANO_MODEL = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
_R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"
_R39 = "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64"
_R38 = "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64"
_IGPU = "dev/nvgpu/igpu0/ctrl"
_ROCK = ("radxa,rock-5b", "rockchip,rk3588")

MACHINES = {
    "raspberry-pi-5": _pi(),
    "raspberry-pi-5-coral": _pi(
        usb=("18d1:9302",), files=("usr/lib/aarch64-linux-gnu/libedgetpu.so.1", *RUNTIMES)
    ),
    "raspberry-pi-5-hailo": _pi(
        pci=("1de4:0001", "1e60:2864"),
        files=("dev/hailo0", "usr/lib/libhailort.so.4.20.0", f"{SITE}/hailo_platform/__init__.py", *RUNTIMES),
    ),
    "jetson-orin-nano-jp6": _jetson(
        _NANO_MODEL, _NANO, _R36, JAMMY, ("libnvinfer.so.10",), parts={0xD42: 6}, memory_kib=7_802_000,
        contents={_IGPU: ""},
    ),
    "jetson-orin-nano-jp7": _jetson(
        _NANO_MODEL, _NANO, _R39, NOBLE, ("libnvinfer.so.10",), parts={0xD42: 6}, memory_kib=7_802_000,
        contents={_IGPU: ""},
    ),
    "jetson-agx-thor": _jetson(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        _R38, NOBLE, ("libnvinfer.so.10",), parts={0xD83: 14}, memory_kib=128_800_000,
        contents={"dev/nvgpu/igpu-0000:01:00.0/ctrl": ""},
    ),
    "imx8mp": Machine(
        "NXP i.MX8MPlus EVK board", ("fsl,imx8mp-evk", "fsl,imx8mp"), {0xD03: 4}, 5_900_000,
        'PRETTY_NAME="NXP i.MX Release Distro 6.6-scarthgap"\n',
        files=("dev/galcore", "usr/lib/libvx_delegate.so", *RUNTIMES),
    ),
    "rk3588": Machine(
        "Radxa ROCK 5B", _ROCK, {0xD05: 4, 0xD0B: 4}, 16_100_000,
        files=("usr/lib/librknnrt.so", f"{SITE}/rknnlite/__init__.py", *RUNTIMES),
        contents={"sys/class/drm/renderD129/device/uevent": "DRIVER=RKNPU\nOF_NAME=npu\n"},
    ),
    "generic-x86": Machine("", (), {}, 8_000_000, contents={
        "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) N100\n",
    }),
}  # fmt: skip
"""Board file -> a machine that it is made for, with everything installed."""


def lay_out(machine: Machine, root: Path) -> Tree:
    """The files of `machine` below `root`."""
    contents = {
        "proc/meminfo": f"MemTotal:       {machine.memory_kib} kB\nMemFree:  1000 kB\n",
        "proc/cpuinfo": _cpuinfo(machine.parts),
        "etc/os-release": machine.system,
        **dict.fromkeys(machine.files, ""),
        **machine.contents,
    }
    if machine.compatible:
        contents["proc/device-tree/model"] = machine.model + "\0"
        contents["proc/device-tree/compatible"] = "".join(f"{name}\0" for name in machine.compatible)
    if machine.l4t:
        contents["etc/nv_tegra_release"] = machine.l4t + "\n"
    for bus, names, numbers in (
        ("pci", ("vendor", "device"), machine.pci),
        ("usb", ("idVendor", "idProduct"), machine.usb),
    ):
        for place, number in enumerate(numbers):
            for name, value in zip(names, number.split(":"), strict=True):
                contents[f"sys/bus/{bus}/devices/{place}/{name}"] = ("0x" if bus == "pci" else "") + value + "\n"
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root)


def _cpuinfo(parts: dict[int, int]) -> str:
    one = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0x{:03x}\n\n"
    return "".join(one.format(part) * count for part, count in parts.items())
