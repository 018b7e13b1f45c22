"""Compile kernels/cuda ahead: a cubin per GPU of TARGETS and PTX for any other, with limits on what a kernel may use.

    python -m tools.cuda.compile [--install] [--out build/cuda]

Every nvcc and NVRTC on this machine compiles all of it; the first nvcc's files are kept. A kernel that spills, or needs
more registers than its limit, fails the check: it would run at a fraction of its speed without anyone noticing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.cuda import toolkit
from tools.cuda.nvrtc import Nvrtc, NvrtcError

SOURCE = toolkit.ROOT / "kernels" / "cuda"
OUT = toolkit.ROOT / "build" / "cuda"
TARGETS = {"sm_87": (11, 5), "sm_90": (11, 8), "sm_110": (13, 0)}
"""Orin, Hopper (the developers'), Thor; and the first CUDA release that knows each by this name."""
PTX_TARGET = "compute_80"
REGISTER_LIMITS = {"attend": 96, "": 64}
"""By the first word of a kernel's name, "" for the rest. Five blocks of 128 threads and 96 registers fit one SM."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel."""

    kernel: str
    registers: int
    spill_bytes: int
    stack_bytes: int

    def fault(self) -> str:
        """A sentence when it is beyond its limit, else ""."""
        first = self.kernel.removeprefix("radbox_").split("_")[0]
        limit = REGISTER_LIMITS.get(first, REGISTER_LIMITS[""])
        if self.spill_bytes or self.stack_bytes:
            return f"{self.kernel}: expected no spills, got {self.spill_bytes} bytes and a stack of {self.stack_bytes}"
        if self.registers > limit:
            return f"{self.kernel}: expected at most {limit} registers, got {self.registers}"
        return ""


_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def read_usage(said: str) -> list[Usage]:
    """The kernels in the output of `ptxas -v`."""
    usages, kernel, stack, spill = [], "", 0, 0
    for line in said.splitlines():
        if match := _FUNCTION.search(line):
            kernel = match.group(1)
        elif match := _SPILL.search(line):
            stack, spill = int(match.group(1)), int(match.group(2)) + int(match.group(3))
        elif (match := _REGISTERS.search(line)) and kernel:
            usages.append(Usage(kernel, int(match.group(1)), spill, stack))
            kernel = ""
    return usages


def nvcc(compiler: toolkit.Compiler, target: str, output: Path) -> str:
    """Compile to `output` (.cubin or .ptx); what the compiler said. Raises CalledProcessError with its words."""
    kind = ["-cubin", f"-arch={target}"] if target.startswith("sm_") else ["-ptx", f"-arch={target}"]
    options = ["-std=c++17", *kind, "-Xptxas", "-v", "--Werror", "all-warnings"]
    command: list[str | Path] = [compiler.path, *options, "-o", output, SOURCE / "cuda.cu"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=toolkit.environment(compiler),
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, [str(c) for c in command], done.stdout, done.stderr)
    return done.stderr


def expected_kernels() -> int:
    """How many entry points cuda.cu has: 2 storages of 17, and 4 without one."""
    return 2 * (2 * 4 + 4 * 2 + 1) + 4


def check_compiler(compiler: toolkit.Compiler, out: Path) -> list[str]:
    """Compile for every target it knows; the faults found."""
    out.mkdir(parents=True, exist_ok=True)
    faults = []
    for target, since in TARGETS.items():
        if compiler.release < since:
            print(f"nvcc {compiler.version}: {target} is not known to it, left out")
            continue
        try:
            usages = read_usage(nvcc(compiler, target, out / f"radbox_{target}.cubin"))
        except subprocess.CalledProcessError as error:
            faults.append(f"nvcc {compiler.version} {target}: {error.stderr}")
            continue
        if len(usages) != expected_kernels():
            faults.append(f"nvcc {compiler.version} {target}: expected {expected_kernels()} kernels, got {len(usages)}")
        faults += [f"nvcc {compiler.version} {target} {fault}" for usage in usages if (fault := usage.fault())]
        most = max(usages, key=lambda usage: usage.registers)
        print(f"nvcc {compiler.version} {target}: {len(usages)} kernels, no more than {most.registers} registers")
    nvcc(compiler, PTX_TARGET, out / "radbox.ptx")
    print(f"nvcc {compiler.version} {PTX_TARGET}: PTX")
    return faults


def check_nvrtc(library: Path) -> list[str]:
    """Compile for every target without a toolkit's headers; the faults found."""
    nvrtc, faults = Nvrtc(library), []
    for target, since in (*TARGETS.items(), (PTX_TARGET, (11, 0))):
        if nvrtc.release < since:
            print(f"NVRTC {nvrtc.version}: {target} is not known to it, left out")
            continue
        try:
            size = len(nvrtc.compile(SOURCE, "cuda.cu", target))
            print(f"NVRTC {nvrtc.version} {target}: {size} bytes")
        except NvrtcError as error:
            faults.append(f"NVRTC {nvrtc.version} {target}: {error}")
    return faults


def main() -> int:
    """Exit 0 when all compiled within their limits, or when no compiler is here (a sentence says so)."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--install", action="store_true", help="first fetch the compilers into build/cuda_venv")
    options.add_argument("--out", type=Path, default=OUT)
    chosen = options.parse_args()
    if chosen.install:
        toolkit.install()
    found, libraries = toolkit.compilers(), toolkit.nvrtc_libraries()
    if not found and not libraries:
        print("check_cuda: skipped, no nvcc and no NVRTC on this machine; tools/check_cuda --install fetches them")
        return 0
    faults = check_compiler(found[0], chosen.out) if found else []
    for compiler in found[1:]:
        with tempfile.TemporaryDirectory() as folder:
            faults += check_compiler(compiler, Path(folder))
    for library in libraries:
        faults += check_nvrtc(library)
    for fault in faults:
        print(fault, file=sys.stderr)
    return min(len(faults), 1)


if __name__ == "__main__":
    sys.exit(main())
