"""Results of radbox bench: closed documents, kept durably, compared only with their like."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bench.command import main_compare, report
from edge.bench_compare import MATTERS, UnlikeError, compare, differences, interval, table, told
from edge.bench_kept import FOLDER, MOST_KEPT, keep, kept, previous_like
from edge.bench_plot import COLOURS, plot
from edge.bench_result import LARGEST_BYTES, Result, from_json, spread, to_json
from edge.errors import ConfigError, RadboxError
from tests.bench_results import NAMES, result

SVG = "{http://www.w3.org/2000/svg}"


def test_a_result_comes_back_as_it_was_written() -> None:
    for one in (result(), result(energy=None, energy_absent="No sensor."), result(states=("throttled",))):
        assert from_json(to_json(one)) == one


def damaged() -> list[tuple[str, object]]:
    return [
        ("schema", 2),
        ("colour", "red"),
        ("seconds", {"lukewarm": {}}),
        ("queue", None),
        ("peak_bytes", {"worker": 1.5}),
        ("load_before", float("nan")),
        ("budgets", [{"budget": "beauty", "limit": 1.0, "measured": None, "kept": None, "words": ""}]),
    ]


@pytest.mark.parametrize(("name", "value"), damaged())
def test_another_document_is_refused(name: str, value: object) -> None:
    document = {**json.loads(to_json(result())), name: value}
    with pytest.raises(RadboxError) as refused:
        from_json(json.dumps(document))
    assert refused.value.code == "bench.result"


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"\xff", b"null", b" " * (LARGEST_BYTES + 1)])
def test_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(RadboxError) as refused:
        from_json(content)
    assert refused.value.code == "bench.result"


def test_percentiles_are_by_nearest_rank() -> None:
    one = spread([float(number) for number in range(20, 0, -1)])
    assert (one.p50, one.p95) == (10.5, 19.0)
    assert one.samples[0] == 20.0
    assert spread([3.0]) == spread([3.0])
    assert (spread([3.0]).p50, spread([3.0]).p95) == (3.0, 3.0)


# --- kept ---


def test_the_newest_is_first_and_the_oldest_goes(tmp_path: Path) -> None:
    for number in range(MOST_KEPT + 2):
        keep(tmp_path, result(taken=f"{number}"))
    found = kept(tmp_path)
    assert [one.taken for one in found.results] == [str(number) for number in range(MOST_KEPT + 1, 1, -1)]
    assert found.unreadable == 0


def test_what_cannot_be_read_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    keep(tmp_path, result())
    (tmp_path / FOLDER / "000009.json").write_text("{}")
    (tmp_path / FOLDER / "notes.json").write_text("{}")
    assert (len(kept(tmp_path).results), kept(tmp_path).unreadable) == (1, 1)
    assert keep(tmp_path, result()).name == "000010.json"
    assert kept(tmp_path / "absent").results == ()


def test_the_previous_like_run_skips_unlike_ones() -> None:
    oldest, other, newest = result(1.1), result(setting=replace(result().setting, threads=1)), result(0.9)
    assert previous_like((newest, other, oldest)) is oldest
    assert previous_like((newest, other)) is None


# --- compared ---


def unlike() -> dict[str, Result]:
    plain = result()
    return {
        "machine": replace(plain, machine=replace(plain.machine, cores=6)),
        "power-mode": replace(plain, machine=replace(plain.machine, power_mode="7W")),
        "board": replace(plain, setting=replace(plain.setting, board="another")),
        "backend": replace(plain, setting=replace(plain.setting, backend="onnxruntime", emission="onnx")),
        "kernels": replace(plain, setting=replace(plain.setting, kernels="neon")),
        "precision": replace(plain, setting=replace(plain.setting, precision="f32")),
        "threads": replace(plain, setting=replace(plain.setting, kernel_threads=1)),
        "model": replace(plain, model=replace(plain.model, sha256="a" * 63 + "b")),
        "image": replace(plain, work=replace(plain.work, image="512 x 512, 16 bit, uncompressed")),
        "studies": replace(plain, work=replace(plain.work, studies=13)),
        "states": result(states=("cold", "throttled")),
    }


def test_every_name_has_an_unlike_run() -> None:
    assert unlike().keys() == MATTERS.keys()


@pytest.mark.parametrize("name", list(MATTERS))
def test_unlike_runs_are_refused_by_name_and_allowed_by_that_name_only(name: str) -> None:
    plain, other = result(), unlike()[name]
    with pytest.raises(UnlikeError) as refused:
        compare(plain, other)
    assert refused.value.code == "bench.unlike"
    assert f"differ in {name}: " in refused.value.message
    across = compare(plain, other, name).across
    assert across is not None
    assert across.name == name
    another = "image" if name != "image" else "threads"
    with pytest.raises(UnlikeError):
        compare(plain, other, another)


def test_two_differences_are_both_named_and_one_permission_is_not_enough() -> None:
    plain = result()
    other = replace(unlike()["threads"], model=replace(plain.model, version="2.0.0"))
    with pytest.raises(UnlikeError) as refused:
        compare(plain, other)
    assert "threads: " in refused.value.message
    assert "model: " in refused.value.message
    with pytest.raises(UnlikeError) as refused:
        compare(plain, other, "model")
    assert "model: " not in refused.value.message


def test_every_field_of_machine_setting_model_and_work_matters_or_is_listed() -> None:
    plain, free = result(), {"memory_bytes"}
    for part in ("machine", "setting", "model", "work"):
        inner = getattr(plain, part)
        for field in dataclasses.fields(inner):
            value = getattr(inner, field.name)
            other = replace(
                plain, **{part: replace(inner, **{field.name: value + (1 if value != f"{value}" else "x")})}
            )
            assert bool(differences(plain, other)) == (field.name not in free), field.name


def test_ratios_stand_in_their_interval() -> None:
    comparison = compare(result(1.0), result(0.5))
    by_name = {(one.state, one.stage): one for one in comparison.ratios}
    total = by_name["warm", "total"]
    assert total.ratio == pytest.approx(0.5, rel=0.01)
    assert total.low is not None
    assert total.high is not None
    assert total.low <= total.ratio <= total.high
    assert by_name["cold", "ready"].low is None  # three starts are too few
    assert len(comparison.ratios) == 2 * len(NAMES) + 2
    assert "too few samples" in table(comparison)
    assert "0.50 times" in told(result(1.0), result(0.5))


def test_an_interval_is_the_same_twice_and_none_for_little_or_nothing() -> None:
    samples = [1.0, 1.1, 0.9, 1.3, 1.0, 1.2]
    assert interval(samples, samples) == interval(samples, samples)
    assert interval(samples[:4], samples) == (None, None)
    assert interval([0.0] * 6, samples) == (None, None)


def test_versions_that_differ_are_told_and_refuse_nothing() -> None:
    comparison = compare(result(), result(software={"python": "3.12.1"}))
    assert [one.name for one in comparison.also] == ["numpy", "python"]
    assert "also different: numpy: 2.4.6 against none" in table(comparison)


def test_the_command_compares_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(to_json(result()))
    second.write_text(to_json(unlike()["model"]))
    assert main_compare(first, second, "model") == 0
    assert capsys.readouterr().out.startswith("across model: ")
    with pytest.raises(UnlikeError):
        main_compare(first, second, None)
    with pytest.raises(ConfigError) as refused:
        main_compare(first, second, "mood")
    assert refused.value.code == "bench.across"
    with pytest.raises(ConfigError) as refused:
        main_compare(first, tmp_path / "absent.json", None)
    assert refused.value.code == "bench.file"


# --- told and drawn ---


def test_the_terminal_says_what_was_not_seen_and_not_kept() -> None:
    text = report(result())
    for part in (
        "throttled: not seen in this run",
        "budget report_s: kept",
        "budget memory_bytes: NOT KEPT",
        "budget power_w: not decided, No sensor.",
        "1.90 J a report, 1.10 J above idle",
        "4000 tokens/s",
        "4.00 images/s",
    ):
        assert part in text


@pytest.mark.parametrize("states", [("warm",), ("cold", "warm"), ("cold", "warm", "throttled"), ()])
def test_the_plot_is_well_formed_and_inside_its_frame(states: tuple[str, ...]) -> None:
    tree = ET.fromstring(plot(result(states=states)))
    _, _, width, height = (float(part) for part in tree.attrib["viewBox"].split())
    title = tree.find(f"{SVG}title")
    assert title is not None
    assert title.attrib["id"] == tree.attrib["aria-labelledby"]
    assert "style" not in "".join(name for one in tree.iter() for name in one.attrib)
    for mark in tree.iter(f"{SVG}circle"):
        assert 0 < float(mark.attrib["cx"]) < width
        assert 0 < float(mark.attrib["cy"]) < height
    drawn = {one.attrib.get("fill") for one in tree.iter()}
    assert {state for state, colour in COLOURS.items() if colour in drawn} == set(states)
    labels = {one.text for one in tree.iter(f"{SVG}text")}
    assert set(states) <= labels
    assert not states or set(NAMES) <= labels


def test_a_stage_that_takes_no_time_is_drawn_at_the_edge() -> None:
    plain = result(states=("warm",))
    plain.seconds["warm"]["check"] = spread([0.0, 0.0])
    ET.fromstring(plot(plain))
