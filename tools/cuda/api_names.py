"""Every name of pycuda and cuda.core that the adapters use, and whether an installed package has it.

    python -m tools.cuda.api_names

tests/test_cuda_device.py gives the adapters recordings that have these names and no other; here the names are looked up
in the real packages. pycuda needs NVIDIA's driver library even to be imported.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

Names = Mapping[str, Sequence[str]]
"""Class -> what is used of it; "" is the module itself."""

PYCUDA: Names = {
    "": (
        *("init", "Error", "Device", "Stream", "Event", "get_driver_version", "mem_alloc", "pagelocked_empty"),
        *("memcpy_htod_async", "memcpy_dtoh_async", "module_from_buffer"),
    ),
    "Device": ("retain_primary_context", "name", "compute_capability"),
    "Context": ("push", "detach"),
    "Stream": ("handle", "synchronize"),
    "DeviceAllocation": ("free", "__int__"),
    "Module": ("get_function",),
    "Function": ("__call__",),
    "Event": ("record", "time_till"),
}
CUDA_CORE: Names = {
    "": ("Device", "Buffer", "LaunchConfig", "ObjectCode", "EventOptions", "LegacyPinnedMemoryResource", "launch"),
    "Device": ("set_current", "create_stream", "compute_capability", "name", "allocate"),
    "Stream": ("handle", "sync", "record", "close"),
    "Buffer": ("from_handle", "handle", "copy_from", "copy_to", "close"),
    "ObjectCode": ("from_cubin", "from_fatbin", "from_ptx", "get_kernel", "handle"),
    "LegacyPinnedMemoryResource": ("allocate",),
    "Event": ("__sub__",),
}
PACKAGES: Mapping[str, Names] = {
    "pycuda.driver": PYCUDA,
    "cuda.core": CUDA_CORE,
    "cuda.bindings.driver": {"": ("cuDriverGetVersion",)},
    "cuda.core._utils.cuda_utils": {"": ("CUDAError",)},
}


def missing(module: object, names: Names) -> list[str]:
    """The names that `module` does not have."""
    absent = [name for name in names[""] if not hasattr(module, name)]
    for owner, members in names.items():
        if owner:
            of_class = getattr(module, owner, None)
            absent += [f"{owner}.{member}" for member in members if not hasattr(of_class, member)]
    return absent


def main() -> int:
    """Exit 1 when an installed package lacks a name."""
    lacking = 0
    for package, names in PACKAGES.items():
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            print(f"{package}: not checked, {error}")
            continue
        absent = missing(module, names)
        lacking += len(absent)
        print(f"{package}: {'lacks ' + ', '.join(absent) if absent else 'has every name'}")
    return min(lacking, 1)


if __name__ == "__main__":
    sys.exit(main())
