"""The adapter's names against the real bindings of four TensorRT versions, and against the tests' own stand-in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.tensorrt_box import STAND_IN
from tools.tensorrt.bindings import CONTROL, REMOVED_IN, ROOT, VERSIONS, installed, look_up, missing_names
from tools.tensorrt.names import adapter_files, used_names


def test_the_names_are_read_from_the_source() -> None:
    names = used_names(adapter_files(ROOT))
    assert {"execute_async_v3", "set_tensor_address"} <= names["IExecutionContext"]
    assert names["NetworkDefinitionCreationFlag"] == {"STRONGLY_TYPED"}
    assert {"step_complete", "phase_start", "phase_finish"} <= names["IProgressMonitor"]
    assert "BuilderFlag" not in names[""], "precisions are the file's, never a flag's"


def test_a_variable_of_unknown_class_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "tensorrt_more.py"
    file.write_text("def f(trt):\n    refitter = trt.Refitter(None)\n    refitter.refit()\n")
    with pytest.raises(ValueError, match="refitter"):
        used_names([file])
    file.write_text("def f(trt):\n    engine = trt.load()\n    return engine.refit(trt.A.B)\n")
    assert used_names([file]) == {"": {"load", "A"}, "ICudaEngine": {"refit"}, "A": {"B"}}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_real_bindings_have_every_name(version: str) -> None:
    if version not in installed():
        pytest.skip(f"the bindings of TensorRT {version} are not installed (tools/check_tensorrt --install)")
    found = look_up(version, used_names(adapter_files(ROOT)))
    assert found["missing"] == []
    assert found["version"].startswith(version)
    assert found["builder"] == "cuda.no-device", "no GPU is an error of ours, not a crash"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_api_that_was_removed_is_noticed(version: str) -> None:
    if version not in installed():
        pytest.skip(f"the bindings of TensorRT {version} are not installed (tools/check_tensorrt --install)")
    gone = ["BuilderFlag.FP16", "BuilderFlag.INT8", "IBuilderConfig.int8_calibrator"]
    removed = int(version.split(".")[0]) >= REMOVED_IN
    assert look_up(version, CONTROL)["missing"] == (gone if removed else [])


def test_the_stand_in_has_what_the_adapter_calls() -> None:
    """Not the other way round either: it must not have what no TensorRT has."""
    spec = importlib.util.spec_from_file_location("tensorrt_stand_in", STAND_IN / "tensorrt.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = used_names(adapter_files(ROOT))
    modules = {"": names[""], **{owner: names[owner] for owner in ("DataType", "TensorIOMode", "MemoryPoolType")}}
    assert missing_names(module, modules) == []
    assert missing_names(module, CONTROL) != []
