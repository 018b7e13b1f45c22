"""A verdict on a delegate is kept, and tried anew when anything that it depends on changes, or when it is torn."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bundle import Bundle
from edge.errors import BackendError
from edge.reading.backends import delegates, tflite
from edge.reading.backends.delegate_verdict import KEPT_FOR_EACH, Verdict
from edge.reading.backends.setup import Setup
from tests.delegate_library import shipped_bundle, with_delegate

GOOD = Verdict("", "", 120, 195, 10.0, 31.0)
SLOW = Verdict("delegate.not-faster", "It is not.", 17, 195, 30.0, 31.0)


@pytest.fixture
def bundle(root: Path) -> Bundle:
    """The bundle of this release."""
    return shipped_bundle(root)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A board with a library (its bytes are all that matters here) and a cache."""
    library = tmp_path / "lib.so"
    library.write_bytes(b"one")
    return with_delegate(library, "a=b", cache=tmp_path / "accelerator")


class Trials:
    """Stands for the child process: counts, and says `verdict`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.verdict = GOOD
        monkeypatch.setattr(delegates, "try_out", self.try_out)

    def try_out(self, _bundle: Bundle, _setup: Setup, _timeout_s: float) -> Verdict:
        self.count += 1
        return self.verdict


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    """No child is started."""
    return Trials(monkeypatch)


def kept_file(setup: Setup) -> Path:
    return next(Path(setup.cache).glob("delegate-vx-*.json"))


@pytest.mark.parametrize("verdict", [GOOD, SLOW])
def test_a_trial_is_not_repeated(bundle: Bundle, setup: Setup, trials: Trials, verdict: Verdict) -> None:
    trials.verdict = verdict
    assert delegates.judge(bundle, setup) == verdict
    assert delegates.judge(bundle, setup) == verdict
    assert trials.count == 1


def test_a_slow_delegate_stays_absent(bundle: Bundle, setup: Setup, trials: Trials) -> None:
    trials.verdict = SLOW
    for _ in range(2):
        with pytest.raises(BackendError) as caught:
            delegates.load(bundle, setup)
        assert caught.value.code == "delegate.not-faster"
    assert trials.count == 1


CHANGES: dict[str, Callable[[Bundle, Setup], tuple[Bundle, Setup]]] = {
    "options": lambda bundle, setup: (bundle, dataclasses.replace(setup, options=("a=c",))),
    "threads": lambda bundle, setup: (bundle, dataclasses.replace(setup, threads=3)),
    "bundle": lambda bundle, setup: (dataclasses.replace(bundle, sha256="0" * 64), setup),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_a_new_trial(bundle: Bundle, setup: Setup, trials: Trials, change: str) -> None:
    delegates.judge(bundle, setup)
    delegates.judge(*CHANGES[change](bundle, setup))
    assert trials.count == 2


def test_another_library_runtime_model_or_kernel_is_a_new_trial(
    bundle: Bundle, setup: Setup, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegates.judge(bundle, setup)
    Path(setup.library).write_bytes(b"two")
    delegates.judge(bundle, setup)
    assert trials.count == 2
    runtime = dataclasses.replace(tflite.find_runtime(), version="9.9")
    monkeypatch.setattr(tflite, "find_runtime", lambda: runtime)
    delegates.judge(bundle, setup)
    assert trials.count == 3
    monkeypatch.setattr(platform, "release", lambda: "9.9-board")
    delegates.judge(bundle, setup)
    assert trials.count == 4
    files = {**bundle.manifest.files, "encoder.tflite": "0" * 64}
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
    delegates.judge(other, setup)
    delegates.judge(other, setup)
    assert trials.count == 5


def test_a_torn_verdict_is_a_trial_anew(bundle: Bundle, setup: Setup, trials: Trials) -> None:
    delegates.judge(bundle, setup)
    path = kept_file(setup)
    whole = path.read_bytes()
    document = json.loads(whole)
    foreign = {**document, "verdict": {**document["verdict"], "code": "delegate.refused"}}
    nested = b"[" * 60_000
    torn = [whole[:size] for size in (0, 1, len(whole) // 2, len(whole) - 2)]
    odd = [b"\xff\xfe\0", b"null", b"{}", nested, json.dumps(foreign).encode(), whole.replace(b"195", b'"x"')]
    for number, content in enumerate([*torn, *odd], 1):
        path.write_bytes(content)
        assert delegates.judge(bundle, setup) == GOOD
        assert trials.count == 1 + number
        assert path.read_bytes() == whole


@pytest.mark.requirement("KEEP-03")
def test_a_fault_is_not_kept_for_it_may_pass(bundle: Bundle, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(_bundle: Bundle, _setup: Setup, _timeout_s: float) -> Verdict:
        tried.append(1)
        raise BackendError("The accelerator cannot be used: not plugged in", code="delegate.refused")

    monkeypatch.setattr(delegates, "try_out", fails)
    for _ in range(2):
        with pytest.raises(BackendError):
            delegates.judge(bundle, setup)
    assert len(tried) == 2
    assert not Path(setup.cache).exists()


def test_a_cache_that_cannot_be_written_costs_only_trials(
    bundle: Bundle, setup: Setup, trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    Path(setup.cache).write_text("a file where the folder should be")
    assert delegates.judge(bundle, setup) == GOOD
    assert delegates.judge(bundle, setup) == GOOD
    assert trials.count == 2
    assert "could not be kept" in caplog.text


def test_without_a_data_folder_nothing_is_made(bundle: Bundle, setup: Setup, trials: Trials) -> None:
    nowhere = Path(setup.cache) / "box" / "accelerator"
    delegates.judge(bundle, dataclasses.replace(setup, cache=str(nowhere)))
    delegates.judge(bundle, dataclasses.replace(setup, cache=""))
    assert trials.count == 2
    assert not Path(setup.cache).exists()


def test_verdicts_on_models_that_are_long_gone_go(bundle: Bundle, setup: Setup, trials: Trials) -> None:
    for number in range(KEPT_FOR_EACH + 3):
        delegates.judge(dataclasses.replace(bundle, sha256=f"{number}" * 64), setup)
        os.utime(Path(setup.cache) / f"delegate-vx-{str(number) * 12}.json", (number, number))
    found = sorted(path.name[12:13] for path in Path(setup.cache).glob("delegate-vx-*.json"))
    assert found == [f"{number}" for number in range(3, KEPT_FOR_EACH + 3)]


def test_the_cache_folder_can_be_taken_away(bundle: Bundle, setup: Setup, trials: Trials) -> None:
    delegates.judge(bundle, setup)
    shutil.rmtree(setup.cache)
    delegates.judge(bundle, setup)
    assert trials.count == 2
    assert kept_file(setup).exists()
