"""The custom operators on tflite-runtime 2.14, where `tools/setup_tflite_runtime` made it; skipped without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.custom_operators import as_custom_operators
from tests.composite_files import CROSS, SCANS, expected, inputs, model

TOLERANCE = 1e-5
IN_THE_CHILD = """
import sys
import numpy as np
from tflite_runtime import interpreter as runtime
from edge.reading.backends import custom_ops
loaded = custom_ops.custom_ops_library(runtime)
if loaded.delegate is None:
    sys.exit(loaded.reason)
delegates = [loaded.delegate] if sys.argv[2] == "delegate" else None
graph = runtime.Interpreter(sys.argv[1] + ".tflite", experimental_delegates=delegates)
graph.allocate_tensors()
given = np.load(sys.argv[1] + ".npz")
for number, details in enumerate(sorted(graph.get_input_details(), key=lambda d: d["name"])):
    graph.set_tensor(details["index"], given[f"arr_{number}"])
graph.invoke()
outputs = sorted(graph.get_output_details(), key=lambda d: d["name"])
np.savez(sys.argv[1] + ".out.npz", *(graph.get_tensor(details["index"]) for details in outputs))
"""


@pytest.fixture(scope="module")
def python(root: Path) -> Path:
    """Its interpreter (`RADBOX_TFLITE_RUNTIME` names another)."""
    path = Path(os.environ.get("RADBOX_TFLITE_RUNTIME", root / "build" / "tflite-runtime" / "bin" / "python"))
    if not path.exists():
        pytest.skip("no environment with tflite-runtime: tools/setup_tflite_runtime makes it")
    subprocess.run([root / "tools" / "build_kernels"], check=True)
    return path


def in_the_old_runtime(python: Path, root: Path, stem: Path, content: bytes, what: str) -> tuple[int, str]:
    stem.with_suffix(".tflite").write_bytes(content)
    command = [str(python), "-c", IN_THE_CHILD, str(stem), what]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", [*CROSS, *SCANS])
def test_custom_operators_run_there(python, root, tmp_path, name):
    arrays = inputs(name)
    np.savez(tmp_path / f"{name}.npz", *arrays)
    content = as_custom_operators(model(name))
    status, said = in_the_old_runtime(python, root, tmp_path / name, content, "delegate")
    assert status == 0, said
    outputs = np.load(tmp_path / f"{name}.out.npz")
    for number, wanted in enumerate(expected(name, arrays)):
        error = float(np.abs(outputs[f"arr_{number}"] - wanted).max())
        assert error <= TOLERANCE * max(float(np.abs(wanted).max()), 1e-30)


@pytest.mark.parametrize("what", ["delegate", "alone"])
def test_composites_do_not_load_there(python, root, tmp_path, what):
    status, said = in_the_old_runtime(python, root, tmp_path / CROSS[0], model(CROSS[0]), what)
    assert status != 0
    assert "builtin_code out of range: 206" in said


def test_custom_operators_need_the_delegate_there(python, root, tmp_path):
    content = as_custom_operators(model(CROSS[0]))
    status, said = in_the_old_runtime(python, root, tmp_path / CROSS[0], content, "alone")
    assert status != 0
    assert "unresolved custom op: radbox" in said
