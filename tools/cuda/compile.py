"""Compile kernels/cuda ahead: a cubin per GPU of TARGETS and PTX for any other, with limits on what a kernel may use.

    python -m tools.cuda.compile [--install] [--check] [--out build/cuda]

Each target is compiled by the oldest CUDA here that knows it, since a driver takes no cubin or PTX of a newer CUDA than
its own: JetPack 6 has 12.6. --check compiles with every compiler that is found, not only the one whose file is kept.
A kernel that spills, or needs more registers than its limit, fails: it would run at a fraction of its speed without
anyone noticing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.cuda import toolkit
from tools.cuda.nvrtc import Nvrtc, NvrtcError
from tools.cuda.usage import faults, read_usage

SOURCE = toolkit.ROOT / "kernels" / "cuda"
OUT = toolkit.ROOT / "build" / "cuda"
PTX_TARGET = "compute_80"
TARGETS = {"sm_87": (11, 5), "sm_90": (11, 8), "sm_110": (13, 0), PTX_TARGET: (11, 0)}
"""Orin, Hopper (the developers'), Thor, any other; and the first CUDA release that knows each by this name."""


class CompileError(Exception):
    """What a compiler said instead of an answer."""


class Compiler(Protocol):
    """nvcc or NVRTC of one release."""

    @property
    def name(self) -> str: ...

    @property
    def release(self) -> tuple[int, int]: ...

    def compile(self, target: str) -> tuple[bytes, str]:
        """The cubin of sm_NN or the PTX of compute_NN, and what ptxas said. Raises CompileError."""
        ...


@dataclass(frozen=True)
class WithNvcc:
    """An installed toolkit's."""

    nvcc: toolkit.Compiler
    out: Path

    @property
    def name(self) -> str:
        return f"nvcc {self.nvcc.version}"

    @property
    def release(self) -> tuple[int, int]:
        return self.nvcc.release

    def compile(self, target: str) -> tuple[bytes, str]:
        """See Compiler."""
        kind = "-cubin" if target.startswith("sm_") else "-ptx"
        output = self.out / f"{target}.nvcc"
        options = ["-std=c++17", kind, f"-arch={target}", "-Xptxas", "-v", "--Werror", "all-warnings"]
        command: list[str | Path] = [self.nvcc.path, *options, "-o", output, SOURCE / "cuda.cu"]
        environment = toolkit.environment(self.nvcc)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise CompileError(f"{done.stdout}\n{done.stderr}")
        image = output.read_bytes()
        output.unlink()
        return image, done.stderr


class WithNvrtc:
    """A wheel's or a toolkit's; needs no header of either."""

    def __init__(self, library: Path) -> None:
        self._nvrtc = Nvrtc(library)

    @property
    def name(self) -> str:
        return f"NVRTC {self._nvrtc.version}"

    @property
    def release(self) -> tuple[int, int]:
        return self._nvrtc.release

    def compile(self, target: str) -> tuple[bytes, str]:
        """See Compiler."""
        try:
            return self._nvrtc.compile(SOURCE, "cuda.cu", target)
        except NvrtcError as error:
            raise CompileError(str(error)) from error


def found_compilers(out: Path) -> list[Compiler]:
    """Every one of this machine, the oldest release first."""
    found: list[Compiler] = [WithNvcc(nvcc, out) for nvcc in toolkit.compilers()]
    found += [WithNvrtc(library) for library in toolkit.nvrtc_libraries()]
    return sorted(found, key=lambda compiler: compiler.release)


def image_name(target: str) -> str:
    """Of the file in build/cuda and in the package."""
    return "radbox.ptx" if target == PTX_TARGET else f"radbox_{target}.cubin"


def build(
    compilers: Sequence[Compiler], out: Path, targets: Mapping[str, tuple[int, int]], every: bool = False
) -> list[str]:
    """Compile each target with the oldest compiler that knows it (every: with each, the oldest's kept); the faults.

    targets: as TARGETS.
    """
    wrong = []
    for target, since in targets.items():
        able = [compiler for compiler in compilers if compiler.release >= since]
        if not able:
            newest = ".".join(map(str, since))
            print(f"{target}: left out, expected a compiler of CUDA {newest} or newer, got none")
        for number, compiler in enumerate(able if every else able[:1]):
            try:
                image, said = compiler.compile(target)
            except CompileError as error:
                wrong.append(f"{compiler.name} {target}: {error}")
                continue
            wrong += _examined(compiler, target, image, said)
            if number == 0:
                (out / image_name(target)).write_bytes(image)
    return wrong


def _examined(compiler: Compiler, target: str, image: bytes, said: str) -> list[str]:
    if target == PTX_TARGET:  # no registers are chosen yet
        print(f"{compiler.name} {target}: PTX of {len(image)} bytes")
        return []
    usages = read_usage(said)
    most = max((usage.registers for usage in usages), default=0)
    print(f"{compiler.name} {target}: {len(usages)} kernels, no more than {most} registers, {len(image)} bytes")
    return faults(usages, f"{compiler.name} {target}")


def main() -> int:
    """Exit 0 when all compiled within their limits; 2 when no compiler is here."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--install", action="store_true", help="first fetch NVRTC and cuda.core into build/cuda_site")
    options.add_argument("--check", action="store_true", help="compile with every compiler that is found")
    options.add_argument("--out", type=Path, default=OUT)
    chosen = options.parse_args()
    if chosen.install:
        toolkit.install()
    chosen.out.mkdir(parents=True, exist_ok=True)
    compilers = found_compilers(chosen.out)
    if not compilers:
        print("no nvcc and no NVRTC on this machine; --install fetches NVRTC", file=sys.stderr)
        return 2
    wrong = build(compilers, chosen.out, TARGETS, chosen.check)
    for fault in wrong:
        print(fault, file=sys.stderr)
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
