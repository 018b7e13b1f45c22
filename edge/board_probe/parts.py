"""Accelerators: how each shows itself on a machine, and what its backend needs installed.

PCI and USB: the makers' numbers in pci.ids and usb.ids (Coral on USB is 1a6e:089a until its first use, then 18d1:9302).
Device tree: `compatible` of the chip in the kernel's arch/arm64/boot/dts, and in NVIDIA's Jetson Linux. Nodes: gasket
driver (apex), HailoRT driver, nvgpu of Jetson Linux, galcore of NXP's kernel, the kernel's ethosu and accel subsystems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Part:
    """One kind of accelerator and the backend that drives it.

    pci, usb: "vendor:device", lower case. compatible: device tree; a trailing * stands for any ending. nodes,
    libraries: patterns below the root and below the folders of libraries; one of each list is enough. packages: groups
    of Python modules; one of each group is needed. models: files of a bundle, of which one is enough.
    """

    backend: str
    name: str
    pci: tuple[str, ...] = ()
    usb: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    driver: str = ""  # the `DRIVER` of a DRM node, where the number of the node says nothing
    libraries: tuple[str, ...] = ()
    library_name: str = ""  # for people
    packages: tuple[tuple[str, ...], ...] = ()
    models: tuple[str, ...] = ("encoder.tflite",)


PARTS: Final = (
    Part(
        "edgetpu",
        "Coral Edge TPU",
        pci=("1ac1:089a",),
        usb=("1a6e:089a", "18d1:9302"),
        nodes=("dev/apex_*",),
        libraries=("libedgetpu.so.1*",),
        library_name="the Edge TPU runtime",
        models=("encoder.edgetpu.tflite",),
    ),
    Part(
        "hailo",
        "Hailo accelerator",
        pci=("1e60:2864", "1e60:45c4"),
        nodes=("dev/hailo[0-9]*",),
        libraries=("libhailort.so*",),
        library_name="HailoRT",
        packages=(("hailo_platform",),),
        models=("encoder.hef",),
    ),
    Part(
        "tensorrt",
        "Jetson GPU",
        compatible=("nvidia,tegra234", "nvidia,tegra264"),
        nodes=("dev/nvgpu/igpu*", "dev/nvhost-gpu", "dev/nvidia0"),
        libraries=("libnvinfer.so.*",),
        library_name="TensorRT",
        packages=(("tensorrt",), ("pycuda", "cuda")),
        models=("encoder.fp16.onnx", "encoder.int8.onnx", "encoder.onnx"),
    ),
    Part(
        "vx",
        "NPU of the i.MX 8M Plus",
        compatible=("fsl,imx8mp",),
        nodes=("dev/galcore",),
        libraries=("libvx_delegate.so*",),
        library_name="the VX delegate",
    ),
    Part(
        "ethosu",
        "Ethos-U65 of the i.MX 93",
        compatible=("fsl,imx93",),
        nodes=("dev/ethosu[0-9]*",),
        libraries=("libethosu_delegate.so*",),
        library_name="the Ethos-U delegate",
        models=("encoder.vela.tflite",),
    ),
    Part(
        "rknn",
        "NPU of the RK3588, the maker's driver",
        compatible=("rockchip,rk3588*",),
        nodes=("dev/rknpu",),
        driver="RKNPU",
        libraries=("librknnrt.so",),
        library_name="the RKNN runtime",
        packages=(("rknnlite",),),
        models=("encoder.rknn",),
    ),
    Part(
        "teflon",
        "NPU of the RK3588, the kernel's own driver",
        compatible=("rockchip,rk3588*",),
        nodes=("dev/accel/accel[0-9]*",),
        libraries=("libteflon.so",),
        library_name="Mesa's Teflon delegate",
    ),
)
RUNTIMES: Final = {"tflite": ("ai_edge_litert", "tflite_runtime"), "onnxruntime": ("onnxruntime",)}
"""Backends of the CPU -> Python modules, of which one is enough."""
