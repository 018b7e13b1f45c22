"""tools/bench encoder, pipeline and kernels: what they print holds together; no speed is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load_bundle
from edge.reading.ops.native import _SIGNATURES, NativeKernels
from edge.reading.ops.shape import DecoderShape
from tools.decoder_bench.sizes import Size, random_model
from tools.encoder_bench import main as encoder_bench
from tools.encoder_bench.contestants import LiteRtInterpreter, Ours, _median_ms, contestants, image
from tools.kernel_bench import main as kernel_bench
from tools.kernel_bench.contestants import Repeated
from tools.kernel_bench.operators import operators
from tools.kernel_bench.steps import Step
from tools.pipeline_bench import main as pipeline_bench
from tools.pipeline_bench.readers import STAGES, composed, ours

TINY = Size("T", DecoderShape(64, 32, 2, 2, 64, 128, 16), 9)


@pytest.fixture(scope="module", autouse=True)
def built(root: Path) -> None:
    subprocess.run([root / "tools" / "build_kernels"], check=True)


@pytest.fixture(scope="module")
def bundle(root: Path):
    return load_bundle(root / "models" / "bundles" / "chest")


# --- encoder ---


def test_the_encoder_run_names_every_contestant_and_its_ratio(capfd: pytest.CaptureFixture[str]) -> None:
    assert encoder_bench.main(["--json", "--quick", "--seconds", "0", "--threads", "1"]) == 0
    result = json.loads(capfd.readouterr().out)
    (run,) = result["runs"]
    assert {"radbox tflite", "LiteRT Interpreter, invoke only"} <= run["contestants"].keys()
    assert run["contestants"]["radbox onnxruntime"]["file"] == "encoder.onnx"
    assert all(row["median_ms"] > 0 and row["samples"] >= 6 for row in run["contestants"].values())
    for ours_name, ratio in run["time_against_its_runtime"].items():
        rival = run["contestants"][encoder_bench.RIVALS[ours_name]]
        assert ratio == pytest.approx(run["contestants"][ours_name]["median_ms"] / rival["median_ms"], abs=2e-3)
    assert "ms per image" in encoder_bench.table(result)


def test_both_sides_run_the_same_file_to_the_same_numbers(bundle) -> None:
    mine, bare = Ours("tflite", bundle, 1), LiteRtInterpreter(bundle, 1)
    assert mine.kind == bare.kind
    details = bare._interpreter.get_input_details()[0]
    scale, zero = details["quantization"]
    picture = image(bundle)
    if scale:
        limits = np.iinfo(details["dtype"])
        picture = np.clip(np.round(picture / scale) + zero, limits.min, limits.max)
    bare._interpreter.set_tensor(details["index"], picture.astype(details["dtype"]))
    bare.run()
    (chest,) = (one for one in bare._interpreter.get_output_details() if "output_3" in one["name"])
    got = bare._interpreter.get_tensor(chest["index"]).astype(np.float32)
    scale, zero = chest["quantization"]
    got = (got - zero) * np.float32(scale) if scale else got
    np.testing.assert_allclose(mine._encoder.run(image(bundle))["chest"], got, rtol=1e-5)


def test_a_runtime_that_is_missing_is_named(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    missing: set[str] = set()
    names = [one.name for one in contestants(bundle, 1, missing)]
    assert "radbox onnxruntime" not in names
    assert missing == {"onnxruntime", "ONNX Runtime is not installed."}


def test_the_median_is_found_wherever_the_tool_puts_it() -> None:
    assert _median_ms({"model": "m", "inference": {"avg_ms": 2.0, "median_ms": 1.5}}) == 1.5
    assert _median_ms({"inference_median_ms": 3}) == 3.0
    assert _median_ms({"inference": {}}) is None


# --- pipeline ---


def test_the_pipeline_run_has_every_stage_of_every_reader(capfd: pytest.CaptureFixture[str]) -> None:
    assert pipeline_bench.main(["--json", "--quick", "--seconds", "0", "--threads", "1"]) == 0
    result = json.loads(capfd.readouterr().out)
    (run,) = result["runs"]
    assert len(run["readers"]) == 5
    for row in run["readers"].values():
        assert list(row["stages_ms"]) == list(STAGES)
        assert all(value >= 0 for value in row["stages_ms"].values())
    assert run["usual_parts_over_ours"] > 0
    assert "the usual parts take" in pipeline_bench.table(result)


def test_all_readers_end_at_the_same_report(bundle, tmp_path: Path) -> None:
    file = pipeline_bench._phantom(tmp_path / "phantom.dcm", small=True)
    readers = [ours(bundle, "tflite", "f32", 1, file), composed(bundle, "tflite", "numpy", 1, file)]
    texts = []
    for reader in readers:
        assert reader.token() > 0
        texts.append(reader.text)
    assert texts[0]
    assert texts[0].splitlines()[0] == texts[1].splitlines()[0]


# --- kernels ---


def test_every_operator_of_the_library_is_measured() -> None:
    known = {name.removeprefix("radbox_") for name in _SIGNATURES} - {"kernels_select"}
    assert {one.name for one in operators(TINY)} == known


@pytest.mark.parametrize("operator", list(operators(TINY)), ids=lambda one: f"{one.name} {one.shape}")
def test_an_operator_runs_by_a_set_and_reads_what_it_says(operator) -> None:
    assert operator.bytes > 0
    operator.call(NativeKernels("reference"))


def test_calls_are_repeated_and_the_set_is_chosen_for_each_sample() -> None:
    calls: list[str] = []
    one = Repeated("test", "ours", lambda: calls.append("call"), lambda: calls.append("choose"))
    calls.clear()
    one.token()
    assert calls == ["choose", *["call"] * one.repeats]


@pytest.mark.parametrize("count", [1, 4])
def test_a_step_goes_back_to_the_same_tokens(count: int) -> None:
    model = random_model(TINY)
    step = Step(NativeKernels("reference"), model, model.quantised("q8"), count)
    seen = []
    for _ in range(2):
        step.rewind()
        logits = step._session.step_batch([1] * count, range(count))
        seen.append(logits.copy())
    np.testing.assert_array_equal(seen[0], seen[1])
    assert all((row == seen[0][0]).all() for row in seen[0])


def test_the_kernel_run_prints_rates_and_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(kernel_bench, "SIZES", {"T": TINY})
    arguments = ["--quick", "--sizes", "T", "--kernels", "reference"]
    assert kernel_bench.main(["--json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["not_installed"] == ["torch"]
    assert [one["shape"] for one in result["operators"][:4]] == ["1 token", "4 tokens"] * 2
    for row in result["operators"]:
        names = [one["name"] for one in row["contestants"]]
        assert names[0] == "radbox reference"
        assert row["limit_us"] is None or row["bytes"] >= kernel_bench.LEAST_BYTES
        for one in row["contestants"]:
            assert (one["us"] is None) == (one["samples"] == 0)
    assert kernel_bench.main([*arguments, "--operators", "gelu_tanh_f32"]) == 0
    out = capsys.readouterr().out
    assert "T gelu_tanh_f32 64" in out
    assert "layer_norm" not in out
    assert "not installed, not measured: torch" in out


def test_an_unknown_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kernel_bench.main(["--sizes", "XXL"])
    assert "expected sizes of S, M, got XXL" in capsys.readouterr().err


def test_the_script_knows_its_benchmarks(root: Path) -> None:
    done = subprocess.run([root / "tools" / "bench", "beauty"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == "bench: expected decoder, encoder, pipeline, kernels, tflite-op, receive or backup, got 'beauty'\n"
    )
