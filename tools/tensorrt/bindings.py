"""The adapter's names, looked up in the real Python bindings of each TensorRT that a board may have.

The bindings come as wheels (requirements/tensorrt-*.txt), without NVIDIA's libraries; a stub in their place is enough
to import them.

    python -m tools.tensorrt.bindings --all    every version that is installed in build/tensorrt
    python -m tools.tensorrt.bindings          the process of one: names as JSON in, what is missing as JSON out
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tools.tensorrt.names import Names, adapter_files, used_names

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "build" / "tensorrt"
VERSIONS: Final = ("10.3", "10.13", "10.16", "11.4")
MODEL: Final = ROOT / "models" / "bundles" / "chest" / "encoder.onnx"
LIBRARIES: Final = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")
# Gone in 11.0; the look-up must notice that, or it notices nothing.
CONTROL: Final[Names] = {"BuilderFlag": {"INT8", "FP16"}, "IBuilderConfig": {"int8_calibrator"}}
REMOVED_IN: Final = 11


def installed(folder: Path = FOLDER) -> list[str]:
    """Versions whose bindings are there and are for this Python."""
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
    found = []
    for version in VERSIONS:
        libraries = list((folder / version / "tensorrt_bindings").glob("tensorrt*.so"))
        if any(tag in path.name or path.name == "tensorrt.so" for path in libraries):
            found.append(version)
    return found


def build_stub(folder: Path, major: str) -> Path:
    """The folder of the three stand-ins for TensorRT `major`, compiled where they are not there."""
    place = folder / "stub" / major
    place.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        library = place / f"{name}.so.{major}"
        if not library.is_file():
            source = str(Path(__file__).with_name("stub.c"))
            soname = f"-Wl,-soname,{library.name}"
            subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", soname, "-o", library, source], check=True)
    return place


def look_up(version: str, names: Names, folder: Path = FOLDER) -> dict[str, Any]:
    """{"version", "missing", "builder"}: missing as "Class.name"; builder: our code for a builder without a driver."""
    stub = build_stub(folder, version.split(".")[0])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stub), "PYTHONPATH": f"{folder / version}{os.pathsep}{ROOT}"}
    listed = json.dumps({owner: sorted(attributes) for owner, attributes in names.items()})
    done = subprocess.run(
        [sys.executable, "-m", "tools.tensorrt.bindings"],
        input=listed, capture_output=True, text=True, env=environment, cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"TensorRT {version}: the bindings did not load: {done.stderr[-800:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def missing_names(trt: Any, names: Names) -> list[str]:
    """Those that this module does not have."""
    missing = []
    for owner, attributes in sorted(names.items()):
        holder: Any = trt
        for part in filter(None, owner.split(".")):
            holder = getattr(holder, part, None)
        missing += [f"{owner}.{name}".removeprefix(".") for name in sorted(attributes) if not hasattr(holder, name)]
    return missing


def check(report: Any = print) -> int:
    """0 when every version that is installed has every name, and the control finds what it must."""
    names = used_names(adapter_files(ROOT))
    for version in sorted(set(VERSIONS) - set(installed()), key=VERSIONS.index):
        report(f"bindings {version}: not installed (--install): left out")
    total = sum(map(len, names.values()))
    failures = 0
    for version in installed():
        found, control = look_up(version, names), look_up(version, CONTROL)
        gone = len(control["missing"]) == sum(map(len, CONTROL.values()))
        noticed = gone if int(version.split(".")[0]) >= REMOVED_IN else not control["missing"]
        well = not found["missing"] and found["builder"] == "cuda.no-device" and noticed
        failures += not well
        words = "every name found" if not found["missing"] else f"missing: {', '.join(found['missing'])}"
        held = "noticed" if gone else "there" if not control["missing"] else f"in part: {control['missing']}"
        report(f"bindings {found['version']}: {total} names, {words}; removed ones {held}; no GPU: {found['builder']}")
    return 1 if failures else 0


def one() -> int:
    """The process of one version."""
    names = {owner: set(attributes) for owner, attributes in json.loads(sys.stdin.read()).items()}
    trt = importlib.import_module("tensorrt_bindings")

    from edge.errors import BackendError
    from edge.reading.backends.tensorrt_build import Wanted, build_plan
    from edge.reading.backends.tensorrt_key import Flags

    try:
        build_plan(trt, MODEL, Wanted({}, {}), Flags(3, 1 << 20), _prepare, _report, _never)
        builder = "made"
    except BackendError as error:
        builder = error.code
    version = re.sub(r"[^\w.]", "", trt.__version__)
    print(json.dumps({"version": version, "missing": missing_names(trt, names), "builder": builder}))
    return 0


def _prepare(_trt: Any, _config: Any) -> None:
    raise AssertionError("expected no builder without a GPU")


def _report(_phase: str, _done: int, _of: int) -> None:
    raise AssertionError("expected no build without a GPU")


def _never() -> bool:
    return False


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["--all"] else one())
