"""Building an engine and reading with it, with a stand-in for TensorRT: the children, the record, the box around it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from edge.__main__ import main as radbox
from edge.bundle import Bundle
from edge.care import selftest
from edge.errors import BackendError
from edge.reading.backends import probe_in_child, tensorrt_children
from edge.reading.backends.setup import Setup
from edge.reading.backends.tensorrt_background import Building
from edge.reading.backends.tensorrt_cache import Cache, Choice
from edge.reading.backends.tensorrt_engine import make
from tests.scenario_box import scenario_box
from tests.tensorrt_box import MODE, one_plan, stand_in, two_plans
from tests.worker_process import wait, worker_board


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The stand-in, and a folder of the test."""
    stand_in(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return one_plan(tmp_path / "bundle")


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(backend="tensorrt", cache=str(tmp_path / "accelerator"), build_timeout_s=60.0)


def refused(bundle: Bundle, setup: Setup) -> str:
    """The code with which the backend does not load."""
    with pytest.raises(BackendError) as caught:
        probe_in_child("tensorrt", bundle, setup)
    return caught.value.code


def records(setup: Setup) -> list[Choice]:
    cache = Cache(Path(setup.cache))
    found = [cache.choice(path.stem.removeprefix("tensorrt-")) for path in cache.files() if path.suffix == ".json"]
    return [one for one in found if one is not None]


def test_without_tensorrt_it_is_absent(bundle: Bundle, setup: Setup) -> None:
    with pytest.raises(BackendError) as caught:
        make(bundle, setup)
    assert caught.value.code == refused(bundle, setup) == "backend.absent"
    assert records(setup) == []


@pytest.mark.usefixtures("there")
def test_it_is_built_with_progress_then_reads_and_stays(bundle: Bundle, setup: Setup) -> None:
    assert refused(bundle, setup) == "backend.not-built"
    steps: list[tuple[str, int, int]] = []
    choice = make(bundle, setup, lambda *step: steps.append(step))
    assert steps == [("int8: Tactic Selection", done, 5) for done in range(6)]
    assert (choice.kept, choice.facts.tensorrt, choice.facts.capability) == ("int8", "10.3.0", "8.7")
    (trial,) = choice.trials
    assert trial.p50_s > 0
    assert set(trial.errors) == set(bundle.manifest.golden.tolerance)
    assert "not captured" in trial.graph, "the stand-in has no graphs, and that does not matter"
    assert records(setup) == [choice], "which was kept and why lies beside the plan"
    probe_in_child("tensorrt", bundle, setup)
    steps.clear()
    assert make(bundle, setup, lambda *step: steps.append(step)).trials[0].sha256 == trial.sha256
    assert steps == [], "what is there is not built again"
    make(bundle, setup, lambda *step: steps.append(step), again=True)
    assert steps
    timing = next(Path(setup.cache).glob("*.timing"))
    assert len(timing.read_bytes()) == 2, "the second build began with the timing cache of the first"


@pytest.mark.usefixtures("there")
def test_both_plans_are_built_and_the_faster_one_is_kept(tmp_path: Path, setup: Setup) -> None:
    bundle = two_plans(tmp_path / "two")
    choice = make(bundle, setup)
    fp16, int8 = choice.trials
    assert (fp16.precision, int8.precision) == ("fp16", "int8")
    assert fp16.code == int8.code == int8.accuracy == ""
    assert set(int8.accuracy_errors) == set(bundle.manifest.golden.tolerance)
    assert choice.kept == ("int8" if int8.p50_s < fp16.p50_s else "fp16")
    wish = dataclasses.replace(setup, precision="fp16")
    assert make(bundle, wish).kept == "fp16"
    probe_in_child("tensorrt", bundle, wish)


@pytest.mark.usefixtures("there")
def test_int8_far_from_fp16_says_so(tmp_path: Path, setup: Setup) -> None:
    fp16, int8 = make(two_plans(tmp_path / "two", offset=9.0), setup).trials
    assert fp16.code == "backend.golden"
    assert int8.code == ""
    assert "is off by" in int8.accuracy
    assert int8.accuracy_errors == {}


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("crash", "backend.crashed"),
        ("refuse", "tensorrt.refused"),
        ("no-resource", "tensorrt.builder-resource"),
        ("no-memory", "tensorrt.out-of-memory"),
        ("torn-plan", "tensorrt.plan-refused"),
        ("wrong", "backend.golden"),
    ],
)
def test_a_build_that_fails_is_told_and_not_repeated_in_this_boot(
    bundle: Bundle, setup: Setup, monkeypatch: pytest.MonkeyPatch, mode: str, code: str
) -> None:
    monkeypatch.setenv(MODE, mode)
    choice = make(bundle, setup)
    assert (choice.kept, choice.code, choice.trials[0].code) == ("", code, code)
    monkeypatch.delenv(MODE)
    assert refused(bundle, setup) == code
    cache = Cache(Path(setup.cache))
    (record,) = [path for path in cache.files() if path.suffix == ".json"]
    cache.keep_choice(record.stem.removeprefix("tensorrt-"), dataclasses.replace(choice, boot="another"))
    assert refused(bundle, setup) == "backend.not-built", "the next boot tries again"


@pytest.mark.usefixtures("there")
def test_a_cancelled_build_leaves_nothing(bundle: Bundle, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, "slow")
    steps: list[int] = []
    with pytest.raises(BackendError) as caught:
        make(bundle, setup, lambda _phase, done, _of: steps.append(done), lambda: len(steps) > 3)
    assert caught.value.code == "tensorrt.cancelled"
    assert records(setup) == []
    assert refused(bundle, setup) == "backend.not-built"


@pytest.mark.usefixtures("there")
def test_a_build_that_hangs_is_given_up(bundle: Bundle, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, "hang")
    monkeypatch.setattr(tensorrt_children, "GRACE_S", 0.1)
    choice = make(bundle, dataclasses.replace(setup, build_timeout_s=2.0))
    assert choice.code == "tensorrt.too-slow"


@pytest.mark.usefixtures("there")
def test_a_torn_plan_and_another_version_are_built_again(bundle: Bundle, setup: Setup) -> None:
    make(bundle, setup)
    plan = next(Path(setup.cache).glob("*.plan"))
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-100])
    assert refused(bundle, setup) == "backend.not-built"
    steps: list[int] = []
    make(bundle, setup, lambda _phase, done, _of: steps.append(done))
    assert steps
    assert plan.read_bytes() == whole
    probe_in_child("tensorrt", bundle, setup)
    other = dataclasses.replace(setup, workspace_bytes=1 << 24)
    assert refused(bundle, other) == "backend.not-built"


@pytest.mark.usefixtures("there")
def test_a_bundle_without_expected_outputs_is_refused(tmp_path: Path, setup: Setup) -> None:
    bundle = two_plans(tmp_path / "two")
    for spelt in ("fp16", "onnx"):
        bundle = _renamed(tmp_path / spelt, bundle, spelt)
    choice = make(bundle, setup)
    assert {trial.code for trial in choice.trials} == {"backend.load"}


def _renamed(folder: Path, bundle: Bundle, emission: str) -> Bundle:
    """The bundle, its golden outputs of one emission under another name."""
    import hashlib
    import shutil

    from safetensors.numpy import load_file, save_file

    from edge.bundle import load_bundle

    shutil.copytree(bundle.path, folder)
    golden = load_file(folder / "golden.safetensors")
    save_file({name.replace(f"{emission}.", "none."): v for name, v in golden.items()}, folder / "golden.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["golden.safetensors"] = hashlib.sha256((folder / "golden.safetensors").read_bytes()).hexdigest()
    document = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(document)
    return load_bundle(folder, trusted_manifest_sha256=hashlib.sha256(document).hexdigest())


# --- beside the reading ---


@pytest.mark.usefixtures("there")
def test_the_background_build_ends_well_and_can_be_stopped(
    bundle: Bundle, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODE, "slow")
    building = Building("tensorrt", bundle, setup)
    building.stop()
    assert building.ended()
    building.stop()
    assert records(setup) == []
    monkeypatch.delenv(MODE)
    building = Building("tensorrt", bundle, setup)
    wait(building.ended)
    assert building.result() == (True, "int8 is the only one to build.")
    probe_in_child("tensorrt", bundle, setup)
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].split(os.pathsep, 1)[1])
    building = Building("tensorrt", bundle, setup)
    wait(building.ended)
    well, message = building.result()
    assert not well
    assert message.startswith("TensorRT's Python package is not installed")


@pytest.mark.requirement("KEEP-03")
def test_the_box_reads_on_while_the_engine_is_built_and_then_with_it(there: Path, free_port: int) -> None:
    with scenario_box(there, ["tensorrt", "tflite"], free_port, {"probe_first_s": 600.0, "probe_most_s": 600.0}) as box:
        box.arrive()
        box.tend()
        wait(lambda: box.reads_with() == "tflite")

        def told() -> list[str]:
            return [
                event.code for event in reversed(box.store.events(limit=50)) if event.code.startswith(("eng", "back"))
            ]

        wait(lambda: "backend.changed" in told())
        assert told() == [
            *("backend.set-aside", "engine.build-started", "engine.built", "backend.found-again", "backend.changed"),
        ]
        box.arrive()
        wait(lambda: box.reads_with() == "tensorrt")


# --- for people ---


def board_file(folder: Path) -> Path:
    file = folder / "board.toml"
    backends = '["tensorrt", "tflite"]'
    bundle = json.dumps(str(worker_board(folder).worker.bundle))
    data = json.dumps(str(folder / "data"))
    file.write_text(f'name = "engine"\ndata_dir = {data}\n\n[worker]\nbundle = {bundle}\nbackends = {backends}\n')
    return file


def test_the_command_builds_shows_and_clears(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = str(board_file(there))
    assert radbox(["engine", "status", "--board", board]) == 1
    assert capsys.readouterr().out.startswith("not built")
    assert radbox(["engine", "build", "--board", board]) == 0
    told = capsys.readouterr()
    assert "int8: Tactic Selection" in told.err
    assert told.out.startswith("TensorRT 10.3.0, compute capability 8.7")
    assert radbox(["engine", "status", "--json", "--board", board]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] in ("int8", "fp16")
    assert radbox(["engine", "clear", "--board", board]) == 0
    assert radbox(["engine", "status", "--board", board]) == 1


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert radbox(["engine", "status", "--board", str(board_file(tmp_path))]) == 1
    assert "backend.absent" in capsys.readouterr().err


def test_the_selftest_tells_of_the_engine(there: Path) -> None:
    board = worker_board(there / "data", backends=("tensorrt", "tflite"))
    before = next(step for step in selftest.run(board) if step.name == "tensorrt")
    assert (before.passed, before.code, before.needed) == (False, "backend.not-built", False)
    assert radbox(["engine", "build", "--board", str(board_file(there))]) == 0
    step = next(step for step in selftest.run(board) if step.name == "tensorrt")
    assert step.passed, step.message
    for word in ("TensorRT 10.3.0", "compute capability 8.7", "kept: ", "median", "golden error", "proves TensorRT"):
        assert word in step.message
