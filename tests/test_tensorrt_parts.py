"""What decides about an engine, without one: keys, the cache on disk, the choice between plans, the look at a file."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from edge.errors import BackendError, StorageFullError
from edge.reading.backends.cuda_driver import DeviceFacts
from edge.reading.backends.setup import Setup
from edge.reading.backends.tensorrt_api import refusal
from edge.reading.backends.tensorrt_cache import SCHEMA, Cache, Choice, Trial, failed, storage_refusal
from edge.reading.backends.tensorrt_choice import choose
from edge.reading.backends.tensorrt_key import (
    Facts,
    Flags,
    box_facts,
    choice_key,
    l4t_release,
    plan_specs,
    timing_key,
)
from edge.reading.backends.tensorrt_onnx import check_file
from tests.tensorrt_box import one_plan, two_plans
from tests.update_box import BUNDLE

FACTS = Facts("10.3.0", "8.7", "Orin", "36.4.3")
PLAN = b"a plan" * 100


def trial(precision: str = "int8", p50_s: float = 0.004, **changes: object) -> Trial:
    plain = Trial("int8", "encoder.onnx", "onnx", "k" * 32, hashlib.sha256(PLAN).hexdigest(), len(PLAN), 60.0, p50_s)
    return dataclasses.replace(plain, precision=precision, **changes)  # type: ignore[arg-type]


def choice(*trials: Trial, kept: str = "int8") -> Choice:
    plain = Choice(SCHEMA, "int8", "why", "", "boot", "2026-11-22T10:00:00+00:00", FACTS, Flags(3, 1 << 28), trials)
    return dataclasses.replace(plain, kept=kept)  # type: ignore[arg-type]


# --- keys ---


def test_the_l4t_release_is_that_of_nvidias_file(tmp_path: Path) -> None:
    file = tmp_path / "nv_tegra_release"
    file.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n")
    assert l4t_release(file) == "36.4.3"
    assert box_facts("10.3.0", DeviceFacts("Orin", (8, 7), 12060), file) == FACTS
    file.write_text("something else")
    assert l4t_release(file) == ""
    assert l4t_release(tmp_path / "none") == ""


def test_every_part_of_the_key_makes_another_plan(tmp_path: Path) -> None:
    bundle, setup = two_plans(tmp_path / "bundle"), Setup(cache=str(tmp_path))
    specs = plan_specs(bundle, setup, FACTS)
    assert [(spec.precision, spec.file, spec.emission) for spec in specs] == [
        ("fp16", "encoder.fp16.onnx", "fp16"),
        ("int8", "encoder.onnx", "onnx"),
    ]
    others = [
        *(dataclasses.replace(FACTS, **{field: "other"}) for field in ("tensorrt", "capability", "gpu", "l4t")),
    ]
    keys = {plan_specs(bundle, setup, facts)[1].key for facts in (FACTS, *others)}
    keys.add(plan_specs(bundle, dataclasses.replace(setup, workspace_bytes=1 << 24), FACTS)[1].key)
    assert len(keys) == 6
    assert len({timing_key(facts) for facts in (FACTS, *others)}) == 5
    assert plan_specs(bundle, dataclasses.replace(setup, threads=4), FACTS) == specs, "the CPU's threads are no part"


def test_the_model_file_is_in_the_key_and_a_bundle_may_have_one_plan_only(tmp_path: Path) -> None:
    one, two = one_plan(tmp_path / "one"), two_plans(tmp_path / "two")
    setup = Setup(cache=str(tmp_path))
    (only,) = plan_specs(one, setup, FACTS)
    assert only.file == "encoder.onnx"
    assert only.sha256 == one.manifest.files["encoder.onnx"]
    assert choice_key(one, setup, (only,)) != choice_key(two, setup, plan_specs(two, setup, FACTS))
    int8 = dataclasses.replace(setup, precision="int8")
    assert choice_key(one, setup, (only,)) != choice_key(one, int8, (only,)), "what the board asks for is in it"
    with pytest.raises(BackendError) as caught:
        plan_specs(one, dataclasses.replace(setup, precision="fp16"), FACTS)
    assert caught.value.code == "backend.load"


# --- the cache ---


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "accelerator")
    assert cache.choice("c") is None
    cache.keep_plan("k" * 32, PLAN)
    cache.keep_timing("t", b"timing")
    cache.keep_choice("c", choice(trial()))
    assert cache.choice("c") == choice(trial())
    assert cache.plan(trial()) == PLAN
    assert cache.timing("t") == b"timing"
    assert cache.timing("other") == b""
    assert cache.measured("k" * 32) == trial()
    assert cache.clear() > len(PLAN)
    assert cache.files() == []


@pytest.mark.parametrize("content", [b"", PLAN[:-1], PLAN + b".", b"\0" * len(PLAN)])
def test_a_torn_plan_is_none(tmp_path: Path, content: bytes) -> None:
    cache = Cache(tmp_path)
    cache.keep_plan("k" * 32, PLAN)
    cache.keep_choice("c", choice(trial()))
    cache.plan_path("k" * 32).write_bytes(content)
    assert cache.plan(trial()) is None
    assert cache.measured("k" * 32) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', json.dumps({"schema": 9}), "[" * 5000])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    cache = Cache(tmp_path)
    cache.keep_choice("c", choice(trial()))
    cache.choice_path("c").write_text(content)
    assert cache.choice("c") is None


def test_a_record_of_another_schema_is_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.keep_choice("c", dataclasses.replace(choice(trial()), schema=SCHEMA + 1))
    assert cache.choice("c") is None


def test_a_full_disk_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)

    def full(_handle: int, _content: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFullError) as caught:
        cache.keep_plan("k", PLAN)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert storage_refusal(caught.value).code == "tensorrt.not-kept"


def test_only_one_builder_at_a_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "accelerator")
    with cache.building(), pytest.raises(BackendError) as caught, cache.building():
        pytest.fail("two builders")
    assert caught.value.code == "tensorrt.busy"
    with cache.building():
        assert cache.files() == []


def test_plans_of_old_models_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(8):
        key = f"{number:032d}"
        cache.keep_plan(key, PLAN)
        cache.keep_choice(f"c{number}", choice(trial(key=key)))
        os.utime(cache.choice_path(f"c{number}"), ns=(number, number))
    cache.keep_timing("t", b"timing")
    assert cache.prune() > 4 * len(PLAN)
    left = {path.name for path in cache.files()}
    wanted = {f"tensorrt-{number:032d}.plan" for number in range(4, 8)} | {f"tensorrt-c{n}.json" for n in range(4, 8)}
    assert left == wanted | {"tensorrt-t.timing"}


# --- the choice ---


def test_int8_is_kept_only_if_faster_and_close_enough() -> None:
    fp16 = trial("fp16", 0.005)
    assert choose([fp16, trial("int8", 0.004)])[0] == "int8"
    kept, why = choose([fp16, trial("int8", 0.006)])
    assert kept == "fp16"
    assert why == "int8 is not faster (int8 6.00 ms, fp16 5.00 ms)"
    kept, why = choose([fp16, trial("int8", 0.005)])
    assert kept == "fp16", "as fast is not faster"
    kept, why = choose([fp16, trial("int8", 0.001, accuracy="off by 0.7.")])
    assert kept == "fp16"
    assert why.startswith("int8 is too far from fp16: off by 0.7.")


def test_a_plan_that_failed_is_never_kept() -> None:
    broken = failed(trial("fp16", 0.001), BackendError("It is torn.", code="tensorrt.plan-refused"))
    kept, why = choose([broken, trial("int8", 0.004)])
    assert kept == "int8"
    assert why == "int8 is the only one that passed. fp16: It is torn."
    assert choose([broken])[0] is None
    assert choose([]) == (None, "There is no engine to choose from.")
    assert choose([trial("int8")]) == ("int8", "int8 is the only one to build.")


# --- what TensorRT says, and what is looked at before it ---


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (
            "Unable to load library: libnvinfer_builder_resource_sm87.so.10.3.0: cannot open",
            "tensorrt.builder-resource",
        ),
        ("Error Code 7: BuildCanceled", "tensorrt.cancelled"),
        ("CUDA initialization failure with error: 35", "cuda.no-device"),
        ("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)", "tensorrt.out-of-memory"),
        ("Error Code 10: Could not find any implementation for node conv", "tensorrt.build-failed"),
    ],
)
def test_what_the_builder_says_becomes_a_code(said: str, code: str) -> None:
    error = refusal([said], "tensorrt.build-failed", "TensorRT could not build the engine.")
    assert error.code == code
    assert len(error.message) < 400
    assert refusal([], code, "Nothing.").message == "Nothing."


def test_the_shipped_model_file_passes_and_others_do_not(tmp_path: Path) -> None:
    content = (BUNDLE / "encoder.onnx").read_bytes()
    check_file(BUNDLE / "encoder.onnx")
    bad = tmp_path / "bad.onnx"
    for spoilt in (b"", b"\0", b"\xff" * 64, content[:1000], content[:-1], b"not a model" * 9):
        bad.write_bytes(spoilt)
        with pytest.raises(BackendError) as caught:
            check_file(bad)
        assert caught.value.code == "tensorrt.refused"
    with pytest.raises(BackendError):
        check_file(tmp_path / "none.onnx")


def test_uint8_is_refused_before_tensorrt_sees_it(tmp_path: Path) -> None:
    """Written by hand: a graph of one QuantizeLinear, with a zero point of uint8, then without any."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    bad = tmp_path / "bad.onnx"
    node = field(1, b"x") + field(1, b"scale") + field(1, b"zero") + field(4, b"QuantizeLinear")
    uint8, int8 = bytes([2 << 3, 2]), bytes([2 << 3, 3])
    for inputs, zero, passes in ((node, int8, True), (node, uint8, False), (node[10:], int8, False)):
        bad.write_bytes(field(7, field(1, inputs) + field(5, zero)))
        if passes:
            check_file(bad)
            continue
        with pytest.raises(BackendError) as caught:
            check_file(bad)
        assert "got uint8" in caught.value.message
