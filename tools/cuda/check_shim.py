"""The kernels on this CPU under AddressSanitizer, UBSan and ThreadSanitizer, and faults that these must find.

    python -m tools.cuda.check_shim [--every-barrier]

A fault is one change to a copy of kernels/cuda; a run that does not report it fails the check. Without the option one
barrier is taken out, with it each in turn.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edge.errors import BackendError
from tools.cuda.cases import all_cases
from tools.cuda.decoder_cases import SMALL, decode
from tools.cuda.rig import Rig
from tools.cuda.shim_device import BUILD, ROOT, build_shim, open_shim

KERNELS = ROOT / "kernels" / "cuda"
BARRIER = re.compile(r"__syncthreads\(\);")


@dataclass(frozen=True)
class Fault:
    """A change to one file and the words that the program must end with."""

    name: str
    file: str
    before: str
    after: str
    program: str
    report: str


FAULTS = (
    Fault(
        "rows beyond the matrix",
        "linear.h",
        "    if (row < rows) {\n        const W *from",
        "    {\n        const W *from",
        "shim_run_asan",
        "heap-buffer-overflow",
    ),
    Fault(
        "every block writes the first rows",
        "linear.h",
        "row = blockIdx.x * kRows + ",
        "row = blockIdx.x * 0 * kRows + ",
        "shim_run_tsan",
        "data race",
    ),
    Fault(
        "lanes that leave a loop with shuffles early",
        "attention.h",
        "for (int start = first; start < last;",
        "for (int start = first; start + group < last;",
        "shim_run",
        "cannot go on",
    ),
    Fault(
        "shared memory read before it is written",
        "linear.h",
        "    clear_tail<W, kLanes>(input, columns);\n    __syncthreads();\n}\n\n// input := LayerNorm",
        "    __syncthreads();\n}\n\n// input := LayerNorm",
        "shim_run",
        "linear_add",
    ),
)


def run_all(program: Path) -> None:
    """Every case and a small decoder on one build. Raises AssertionError or BackendError on the first that fails."""
    device = open_shim(program)
    try:
        rig = Rig(device, device.load(b""))
        for name, case in all_cases().items():
            try:
                case(rig)
            except (AssertionError, BackendError) as error:
                raise AssertionError(f"{name}: {error}") from error
        for storage in ("f16", "i8"):
            decode(device, rig.kernels, SMALL, storage)
    finally:
        device.close()


def barriers() -> list[Fault]:
    """Each barrier of the kernels taken out."""
    faults = []
    for path in sorted(KERNELS.glob("*.h")):
        if path.name.startswith("shim"):
            continue
        text = path.read_text()
        for match in BARRIER.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            without = text[: match.start()] + text[match.end() :]
            faults.append(
                Fault(f"no barrier at {path.name}:{line}", path.name, text, without, "shim_run_tsan", "data race")
            )
    return faults


def found(fault: Fault) -> bool:
    """Build a copy with the fault and run it; whether it was reported as expected."""
    folder, build = BUILD / "fault" / "kernels", BUILD / "fault" / "build"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(KERNELS, folder, ignore=shutil.ignore_patterns("shim*", "CMakeLists.txt"))
    shutil.copy(KERNELS / "shim.h", folder)
    text = (folder / fault.file).read_text()
    if text.count(fault.before) != 1:
        raise SystemExit(f"{fault.name}: expected its text once in {fault.file}, got {text.count(fault.before)}")
    (folder / fault.file).write_text(text.replace(fault.before, fault.after))
    program = build_shim(fault.program, build, folder)
    try:
        run_all(program)
    except AssertionError as error:
        return fault.report in str(error)
    return False


def main() -> int:
    """Exit 0 when the kernels are clean and every fault was found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--every-barrier", action="store_true")
    every = options.parse_args().every_barrier
    failed = 0
    for target in ("shim_run", "shim_run_asan", "shim_run_tsan"):
        try:
            run_all(build_shim(target))
            print(f"{target}: clean")
        except AssertionError as error:
            failed += 1
            print(f"{target}: {error}", file=sys.stderr)
    for fault in (*FAULTS, *(barriers() if every else barriers()[:1])):
        seen = found(fault)
        failed += not seen
        print(f"fault '{fault.name}': {'found' if seen else 'NOT FOUND'}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
