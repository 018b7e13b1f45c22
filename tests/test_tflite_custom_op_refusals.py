"""What the delegate refuses: files edited wrong, numbers that are none; an error with a sentence, never a crash."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from ai_edge_litert import interpreter as runtime
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers  # type: ignore[import-untyped]

from edge.errors import BackendError
from edge.reading.backends import custom_ops
from models.custom_operators import as_custom_operators
from tests.composite_files import CROSS, LAYER, SCANS, Graph, edited, expected, inputs, model

CROSS_FILE, SCAN_FILE = CROSS[2], SCANS[2]
CROSS_SHAPES = ("query", "keys", "values", "gate_weight", "gate_bias", "gate_scale", "bias")
SCAN_SHAPES = ("delta", "a", "b", "c", "d")
CROSS_MAP = {"version": 1, "heads": 3, "gate": "scaled-tanh", "bias": True}
SCAN_MAP = {"version": 1, "directions": 4, "height": 5, "width": 3}


@pytest.fixture(scope="module")
def delegate(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)
    loaded = custom_ops.custom_ops_library(runtime)
    assert loaded.reason == ""
    return loaded.delegate


def assert_refused(content: bytes, delegate: object, words: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=words):
        Graph(content, delegate)


def reshaped(name: str, place: int, axis: int, *, output: bool = False) -> bytes:
    def change(graph, operator, composite):
        tensors = operator.outputs if output else operator.inputs
        graph.tensors[tensors[place]].shape[axis] += 1

    return edited(model(name), change)


@pytest.mark.parametrize(
    ("name", "place", "what"),
    [(CROSS_FILE, i, w) for i, w in enumerate(CROSS_SHAPES, 1)]
    + [(SCAN_FILE, i, w) for i, w in enumerate(SCAN_SHAPES, 1)],
)
def test_a_tensor_of_another_shape(delegate, name, place, what):
    axis = 1 if what == "a" else -1  # the last axis of `a` is what tells the states
    assert_refused(reshaped(name, place, axis), delegate, f"{name_of(name)}: expected {what} as float32 of shape")


@pytest.mark.parametrize("place", [0, 2, 3])
def test_more_than_one_study_at_a_time(delegate, place):
    """The leading axis is 1: a batch has no meaning of its own here."""
    assert_refused(reshaped(CROSS_FILE, place, 0), delegate, "as float32 of shape")


@pytest.mark.parametrize("name", [CROSS_FILE, SCAN_FILE])
def test_an_output_of_another_shape(delegate, name):
    assert_refused(reshaped(name, 0, -1, output=True), delegate, "expected y as float32 of shape")


@pytest.mark.parametrize("kind", [schema.TensorType.INT8, schema.TensorType.FLOAT16, schema.TensorType.INT32])
@pytest.mark.parametrize(("name", "places"), [(CROSS_FILE, 8), (SCAN_FILE, 6)])
def test_a_tensor_of_another_type(delegate, name, places, kind):
    for place in range(places):

        def change(graph, operator, composite, place=place):
            graph.tensors[operator.inputs[place]].type = kind

        assert_refused(edited(model(name), change), delegate, f"float32 of shape .*type {kind}")


@pytest.mark.parametrize("name", [CROSS_FILE, SCAN_FILE])
@pytest.mark.parametrize("less", [True, False])
def test_an_input_too_few_or_too_many(delegate, name, less):
    def change(graph, operator, composite):
        given = [int(index) for index in operator.inputs]
        operator.inputs = given[:-1] if less else [*given, given[0]]

    assert_refused(edited(model(name), change), delegate, r"expected \d inputs, got \d")


def test_an_input_left_out(delegate):
    def change(graph, operator, composite):
        operator.inputs = [-1, *[int(index) for index in operator.inputs][1:]]

    assert_refused(edited(model(CROSS_FILE), change), delegate, "expected a as float32 .* got no tensor")


def with_attributes(name: str, attributes: bytes) -> bytes:
    def change(graph, operator, composite):
        composite.compositeAttributes = list(attributes)

    return edited(model(name), change)


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize(
    ("name", "whole", "key", "value", "words"),
    [
        (CROSS_FILE, CROSS_MAP, "version", 2, "version .* got 2"),
        (CROSS_FILE, CROSS_MAP, "heads", 0, "heads .* got 0"),
        (CROSS_FILE, CROSS_MAP, "heads", 2, "heads that divide a width of 33, got 2"),
        (CROSS_FILE, CROSS_MAP, "heads", 2**40, f"heads .* got {2**40}"),
        (CROSS_FILE, CROSS_MAP, "heads", -3, "heads .* got -3"),
        (CROSS_FILE, CROSS_MAP, "heads", "3", "heads .* got something else"),
        (CROSS_FILE, CROSS_MAP, "gate", "sigmoid", "gate .* got another text"),
        (CROSS_FILE, CROSS_MAP, "gate", 7, "gate .* got something else"),
        (CROSS_FILE, CROSS_MAP, "bias", False, "expected 7 inputs, got 8"),
        (CROSS_FILE, CROSS_MAP, "bias", None, "expected 4 attributes, got 3"),
        (CROSS_FILE, CROSS_MAP, "window", 1, "expected 4 attributes, got 5"),
        (SCAN_FILE, SCAN_MAP, "directions", 1, "directions .* got 1"),
        (SCAN_FILE, SCAN_MAP, "height", 4, "expected x as float32 of shape"),
        (SCAN_FILE, SCAN_MAP, "width", 2**40, "width .* got"),
    ],
)
def test_other_attributes(delegate, name, whole, key, value, words, custom):
    changed = {k: v for k, v in (whole | {key: value}).items() if v is not None}
    content = with_attributes(name, bytes(flexbuffers.Dumps(changed)))
    assert_refused(as_custom_operators(content) if custom else content, delegate, words)


@pytest.mark.parametrize("attributes", [b"", b"\x00", b"\xff" * 40, bytes(flexbuffers.Dumps([1, 2, 3]))])
def test_attributes_that_are_no_map(delegate, attributes):
    assert_refused(with_attributes(CROSS_FILE, attributes), delegate, "as a FlexBuffers map, got other bytes")


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_attributes_of_any_width_are_read(delegate, width):
    """A map is stored as wide as its widest number or offset."""
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in CROSS_MAP.items():
            builder.Key(key)
            builder.Int(value, width) if type(value) is int else builder.Add(value)
    attributes = bytes(builder.Finish())
    assert flexbuffers.Loads(attributes) == CROSS_MAP
    arrays = inputs(CROSS_FILE)
    got = Graph(with_attributes(CROSS_FILE, attributes), delegate)(*arrays)[0]
    np.testing.assert_array_equal(got, Graph(model(CROSS_FILE), delegate)(*arrays)[0])


def name_of(file: str) -> str:
    return custom_ops.SELECTIVE_SCAN if file.startswith("scan") else custom_ops.CROSS_ATTENTION


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("name", [CROSS_FILE, SCAN_FILE])
def test_numbers_that_are_none_are_an_error_and_the_next_image_is_read(delegate, name, number):
    run = Graph(model(name), delegate)
    good = inputs(name)
    before = run(*good)[0]
    for place in range(len(good)):
        bad = [array.copy() for array in good]
        bad[place].flat[0] = number
        try:
            wanted = expected(name, bad)
        except BackendError:
            with pytest.raises(RuntimeError, match=f"{name_of(name)}: .*expected finite"):
                run(*bad)
        else:
            assert number == np.inf  # of the gate's bias, say: its tanh is 1
            np.testing.assert_allclose(run(*bad)[0], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run(*good)[0], before)


@pytest.mark.parametrize("name", [CROSS_FILE, SCAN_FILE])
def test_an_overflow_is_an_error(delegate, name):
    huge = inputs(name)
    huge[0][...] = huge[1][...] = huge[3][...] = 3e38
    with pytest.raises(RuntimeError, match=f"{name_of(name)}: .*expected finite"):
        Graph(model(name), delegate)(*huge)


def test_a_nan_is_silent_only_without_the_delegate(delegate):
    """Why the reader's own check of a backend's outputs stays: the operators inside pass a NaN on."""
    bad = inputs(CROSS_FILE)
    bad[0].flat[0] = np.nan
    assert np.isnan(Graph(model(CROSS_FILE), None)(*bad)[0]).any()
    with pytest.raises(RuntimeError, match="expected finite numbers"):
        Graph(model(CROSS_FILE), delegate)(*bad)


def test_all_keys_hidden(delegate):
    hidden = inputs(CROSS_FILE)
    hidden[7][:] = -np.inf
    with pytest.raises(RuntimeError, match=custom_ops.CROSS_ATTENTION):
        Graph(model(CROSS_FILE), delegate)(*hidden)


def test_a_resized_input(delegate):
    run = Graph(model(CROSS_FILE), delegate)
    first = run.interpreter.get_input_details()[0]
    run.interpreter.resize_tensor_input(first["index"], [1, 5, 33])
    with pytest.raises(RuntimeError, match=custom_ops.CROSS_ATTENTION):
        run.interpreter.allocate_tensors()


@pytest.mark.parametrize("name", [CROSS_FILE, LAYER])
def test_a_custom_operator_needs_the_delegate(name):
    with pytest.raises(RuntimeError, match="unresolved custom op: radbox"):
        Graph(as_custom_operators(model(name)), None)


def test_only_files_with_our_composites_become_custom_operators():
    with pytest.raises(ValueError, match="expected composites of radbox"):
        as_custom_operators(model("cross_t1_s256_d128_h4_bias_plain"))
