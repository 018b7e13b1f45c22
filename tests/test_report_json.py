"""A report survives its JSON unchanged; anything else is refused with the path of what is wrong."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ReportError
from edge.report.check import check
from edge.report.graph import load_graph
from edge.report.schema import Report
from edge.report.serial import LIMIT_BYTES, from_json, to_json
from tests.report_examples import REPEATABLE, evidence, report, reports, statement

CHECKED = check(report(statement("effusion", "right", "lower"), statement("edema", evidence=None)), load_graph())


def tree() -> dict:
    loaded: dict = json.loads(to_json(CHECKED))
    return loaded


@REPEATABLE
@given(reports())
def test_round_trip(draft):
    text = to_json(draft)
    assert from_json(text) == draft
    assert to_json(from_json(text)) == text


def test_a_checked_report_of_the_usual_size_round_trips():
    grid = tuple(tuple((row * column) % 256 for column in range(16)) for row in range(16))
    stated = statement("effusion", "left", "lower", evidence=replace(evidence("left", "lower"), grid=grid))
    checked = check(report(stated), load_graph())
    assert from_json(to_json(checked)) == checked


def test_fractions_are_rounded_and_keys_are_in_one_order():
    one = report(scores={"b": 1 / 3, "a": -0.0}, thresholds={}, absent=())
    other = report(scores={"a": 0.0, "b": 0.33331}, thresholds={}, absent=())
    assert '"scores":{"a":0.0,"b":0.3333}' in to_json(one)
    assert to_json(one) == to_json(other)
    assert list(json.loads(to_json(one)))[:2] == ["technique", "statements"]


def changed(path: str, value: object) -> str:
    """The JSON of the checked report with the value at a dotted path replaced."""
    whole = tree()
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: object = whole
    for step in way:
        place = place[step]  # type: ignore[index]
    place[last] = value  # type: ignore[index]
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "expected schema_version 1, got 2"),
        ("schema_version", "1", "expected schema_version 1, got '1'"),
        ("schema_version", True, "expected schema_version 1, got True"),
        ("colour", 1, "only known keys in report, got 'colour'"),
        ("technique.age", 70, "only known keys in report.technique, got 'age'"),
        ("technique", [], "report.technique to be an object, got list"),
        ("technique.population", "dog", "report.technique.population to be one of adult, child, got 'dog'"),
        ("technique.images", 1.5, "report.technique.images to be a number of type int, got float"),
        ("technique.images", True, "report.technique.images to be a number of type int, got bool"),
        ("technique.images", -1, "report.technique.images from 0 to"),
        ("statements.0.side", None, "report.statements[0].side to be one of left, right"),
        ("statements.0.side", ["left"], "report.statements[0].side to be one of left, right"),
        ("statements.0.probability", 1.01, "report.statements[0].probability from 0.0 to 1.0, got 1.01"),
        ("statements.0.probability", "0.5", "report.statements[0].probability to be a number of type float, got str"),
        ("statements.0.probability", 10**400, "report.statements[0].probability from 0.0 to 1.0"),
        ("statements.0.evidence.grid.0.1", 256, "report.statements[0].evidence.grid[0][1] from 0 to 255, got 256"),
        ("statements.0.evidence.grid.0", 3, "report.statements[0].evidence.grid[0] to be a list, got int"),
        ("statements.0.evidence.box.x1", 1.2, "report.statements[0].evidence.box.x1 from 0.0 to 1.0"),
        ("statements.1.evidence", {}, "report.statements[1].evidence to have box, extent, grid"),
        ("statements.0.finding", "x" * 3000, "report.statements[0].finding to be at most 2000 whole characters"),
        ("statements.0.finding", "\ud800", "report.statements[0].finding to be at most 2000 whole characters"),
        ("absent", ["a"] * 300, "report.absent to have at most 256 entries, got 300"),
        ("scores.effusion", -0.1, "report.scores.'effusion' from 0.0 to 1.0"),
        ("scores", None, "report.scores to be an object, got NoneType"),
        ("status", "final", "report.status to be one of draft, signed"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(path, value, message):
    with pytest.raises(ReportError) as caught:
        from_json(changed(path, value))
    assert message in caught.value.message
    assert caught.value.code == "report.invalid"


@pytest.mark.parametrize("key", sorted(tree()))
def test_every_key_must_be_there(key):
    whole = tree()
    del whole[key]
    with pytest.raises(ReportError, match=key):
        from_json(json.dumps(whole))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "report to be an object, got list"),
        ("3", "report to be an object, got int"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 1}', "a key twice"),
        ('{"schema_version": NaN}', "got NaN"),
        ('{"schema_version": ' + "9" * 5000 + "}", "not JSON|schema_version 1"),
        (" " * (LIMIT_BYTES + 1), "at most 1048576 bytes"),
        ('"\ud800"', "half of a character"),
    ],
)
def test_what_is_no_report_at_all(text, message):
    with pytest.raises(ReportError, match=message):
        from_json(text)


@pytest.mark.parametrize(
    "broken",
    [
        report(statement("effusion", probability=float("nan"))),
        report(scores={"effusion": float("inf")}),
        report(statement("effusion", probability=np.float32(0.5))),  # type: ignore[arg-type]
        report(absent=tuple("a" for _ in range(300))),
        report(status="final"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(broken):
    with pytest.raises(ReportError, match="expected report"):
        to_json(broken)


VALUES: tuple[object, ...] = (None, True, 0, -1, 1.5, 1e308, 10**30, "", "left", "\x00<b>", [], [[]], {}, {"x": 1})


def mutate(value: object, chance: random.Random) -> object:
    """`value` with one place in it replaced, removed, repeated or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        action = chance.randrange(8)
        if action == 0:
            del value[key]
        elif action == 1:
            value[chance.choice("abc")] = value.pop(key)
        else:
            value[key] = mutate(value[key], chance)
        return value
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        if chance.randrange(6) == 0:
            value.insert(at, copy.deepcopy(value[at]))
        else:
            value[at] = mutate(value[at], chance)
        return value
    return chance.choice(VALUES)


@REPEATABLE
@given(st.integers(0, 2**32))
def test_any_mutation_is_a_report_or_a_report_error(seed):
    chance = random.Random(seed)
    mutant = tree()
    for _ in range(chance.randrange(1, 4)):
        mutant = mutate(mutant, chance)  # type: ignore[assignment]
    read_or_refused(json.dumps(mutant))


@REPEATABLE
@given(st.integers(0, 2**32))
def test_any_damaged_text_is_a_report_or_a_report_error(seed):
    chance = random.Random(seed)
    text = to_json(CHECKED)
    start = chance.randrange(len(text))
    read_or_refused(text[:start] + chance.choice(["", "\x00", '"', "{", "]", "\u2028", "1e999"]) + text[start + 2 :])


def read_or_refused(text: str) -> None:
    try:
        read = from_json(text)
    except ReportError as error:
        assert error.message.startswith("expected ")  # noqa: PT017
    else:
        assert isinstance(read, Report)
        assert from_json(to_json(read)) == from_json(to_json(from_json(to_json(read))))
