"""Our operators inside TFLite graphs: the operators inside the composite and the delegate's kernels against numpy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from ai_edge_litert import interpreter as runtime

from edge.errors import BackendError
from edge.reading.backends import custom_ops
from edge.reading.ops import reference
from edge.reading.ops.native import NativeKernels
from models.custom_operators import as_custom_operators
from tests.composite_files import (
    CHAIN,
    CROSS,
    FOLDER,
    LAYER,
    REAL_CROSS,
    REAL_SCAN,
    SCANS,
    Graph,
    expected,
    inputs,
    model,
    sizes,
)
from tests.kernel_sets import SETS, chosen

TOLERANCE = 1e-5
GREATEST_FILE = 100_000
ROUTES = ("inside", "composite", "custom")


@pytest.fixture(scope="module")
def delegate(root):
    subprocess.run([root / "tools" / "build_kernels"], check=True)
    loaded = custom_ops.custom_ops_library(runtime)
    assert loaded.reason == ""
    return loaded.delegate


def graph(name: str, route: str, delegate: object) -> Graph:
    content = model(name)
    return Graph(
        as_custom_operators(content) if route == "custom" else content, None if route == "inside" else delegate
    )


def assert_same(got: np.ndarray, wanted: np.ndarray) -> None:
    """Normalised error: the greatest difference relative to the greatest expected value."""
    assert got.shape == wanted.shape
    scale = max(float(np.abs(wanted).max()), 1e-30)
    assert float(np.abs(got.astype(np.float64) - wanted).max()) / scale <= TOLERANCE


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("name", [*CROSS, *SCANS])
def test_every_route_computes_what_numpy_defines(delegate, name, scale, route):
    run = graph(name, route, delegate)
    for seed in range(3):
        arrays = inputs(name, seed, scale)
        for got, wanted in zip(run(*arrays), expected(name, arrays), strict=True):
            assert_same(got, wanted)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", [*REAL_CROSS, REAL_SCAN])
def test_every_route_at_real_sizes(delegate, name, route):
    arrays = inputs(name)
    assert_same(graph(name, route, delegate)(*arrays)[0], expected(name, arrays)[0])


@pytest.mark.parametrize("route", ["composite", "custom"])
@pytest.mark.parametrize(("name", "nodes"), [(CROSS[2], 1), (SCANS[2], 1), (CHAIN, 2)])
def test_the_delegate_takes_the_nodes_and_computes_them(delegate, name, nodes, route):
    taken, computed = custom_ops.nodes_taken(), custom_ops.nodes_computed()
    run = graph(name, route, delegate)
    assert custom_ops.nodes_taken() - taken == nodes
    for _ in range(3):
        run(*inputs(name))
    assert custom_ops.nodes_computed() - computed == 3 * nodes


def test_without_the_delegate_it_computes_nothing(delegate):
    taken, computed = custom_ops.nodes_taken(), custom_ops.nodes_computed()
    graph(CROSS[2], "inside", delegate)(*inputs(CROSS[2]))
    assert (custom_ops.nodes_taken(), custom_ops.nodes_computed()) == (taken, computed)


def test_a_graph_without_our_operators_is_left_alone(delegate):
    taken = custom_ops.nodes_taken()
    name = f"{REAL_CROSS[0]}_plain"
    arrays = inputs(name)
    assert_same(graph(name, "composite", delegate)(*arrays)[0], expected(name, arrays)[0])
    assert custom_ops.nodes_taken() == taken


@pytest.mark.parametrize("route", ROUTES)
def test_two_composites_one_after_the_other(delegate, route):
    arrays = inputs(CHAIN)
    first = expected(CHAIN, arrays)[0]
    assert_same(graph(CHAIN, route, delegate)(*arrays)[0], expected(CHAIN, [first, *arrays[1:]])[0])


@pytest.mark.parametrize("route", ROUTES)
def test_between_other_operators_with_weights_of_the_file(delegate, route):
    """The decoder's cross layer: projections stay with the runtime, gate weights are constants of the file."""
    w = {name: np.ascontiguousarray(value) for name, value in np.load(FOLDER / f"{LAYER}.npz").items()}
    rows, tokens, width, heads = sizes(LAYER)
    g = np.random.default_rng(5)
    x, visual, bias = (g.standard_normal(s).astype(np.float32) for s in ((rows, width), (tokens, width), (tokens,)))
    query = reference.linear_f32(x, w["q.weight"], w["q.bias"])
    both = reference.linear_f32(visual, w["kv.weight"], w["kv.bias"])
    keys, values = (np.ascontiguousarray(half) for half in np.split(both, 2, axis=1))
    gate = (w["gate_weight"], float(w["gate_bias"][0]), float(w["gate_scale"][0]))
    mixed = [
        reference.gated_cross_attention_f32(a, q, keys, values, bias, *gate, heads)[0]
        for a, q in zip(x, query, strict=True)
    ]
    wanted = x + reference.linear_f32(np.stack(mixed), w["out.weight"], w["out.bias"])
    assert_same(graph(LAYER, route, delegate)(x[None], visual[None], bias[None])[0], wanted[None])


@pytest.mark.parametrize("name", [CROSS[2], SCANS[2]])
@pytest.mark.parametrize("kernels", SETS)
def test_the_set_that_the_process_chose_is_the_one_that_computes(delegate, kernels, name):
    own = chosen(kernels)
    try:
        arrays = inputs(name)
        np.testing.assert_array_equal(
            graph(name, "composite", delegate)(*arrays)[0], expected(name, arrays, kernels=own)[0]
        )
    finally:
        NativeKernels()


ONE_RUN = """
import sys
import numpy as np
from edge.reading.backends import custom_ops
from tests.composite_files import Graph, inputs, model, runtime
loaded = custom_ops.custom_ops_library(runtime)
if loaded.delegate is None:
    sys.exit(loaded.reason)
np.save(sys.argv[2], Graph(model(sys.argv[1]), loaded.delegate)(*inputs(sys.argv[1]))[0])
"""


def in_a_child(root, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ONE_RUN, *arguments]
    return subprocess.run(command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("name", [CROSS[2], SCANS[2]])
def test_the_reference_set_by_the_environment(delegate, root, tmp_path, name):
    done = in_a_child(root, name, str(tmp_path / "y.npy"), RADBOX_KERNELS="reference")
    assert done.returncode == 0, done.stderr
    try:
        arrays = inputs(name)
        wanted = expected(name, arrays, kernels=NativeKernels("reference"))[0]
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted)
    finally:
        NativeKernels()


def test_unknown_kernels_make_no_delegate(delegate, root, tmp_path):
    done = in_a_child(root, CROSS[2], str(tmp_path / "y.npy"), RADBOX_KERNELS="fastest")
    assert done.returncode == 1
    assert "expected kernels named one of" in done.stderr


def test_the_library_is_found_beside_the_kernels_and_shares_the_loaded_ones(delegate, root, tmp_path):
    """As in the package, one folder; and a delegate alone in a folder, beside which no kernels lie."""
    alone = tmp_path / "alone" / custom_ops.LIBRARY
    alone.parent.mkdir()
    alone.write_bytes(custom_ops.library_path().read_bytes())
    done = in_a_child(root, CROSS[2], str(tmp_path / "y.npy"), RADBOX_TFLITE_LIBRARY=str(alone))
    assert done.returncode == 0, done.stderr


def test_a_missing_or_foreign_library_is_told(delegate, tmp_path, monkeypatch):
    monkeypatch.setenv("RADBOX_TFLITE_LIBRARY", str(tmp_path / "none.so"))
    missing = custom_ops.custom_ops_library(runtime)
    assert missing.delegate is None
    assert "tools/build_kernels" in missing.reason
    with pytest.raises(BackendError) as raised:
        custom_ops.library_path()
    assert raised.value.code == "backend.absent"
    (tmp_path / "none.so").write_bytes(b"not a library")
    foreign = custom_ops.custom_ops_library(runtime)
    assert foreign.delegate is None
    assert custom_ops.LIBRARY in foreign.reason


def test_which_files_have_our_operators():
    assert custom_ops.operators_in(model(CROSS[0])) == (custom_ops.CROSS_ATTENTION,)
    assert custom_ops.operators_in(as_custom_operators(model(SCANS[1]))) == (custom_ops.SELECTIVE_SCAN,)
    assert custom_ops.operators_in(model(f"{REAL_CROSS[0]}_plain")) == ()


@pytest.mark.parametrize("name", [CROSS[2], SCANS[2]])
def test_two_interpreters_on_two_threads(delegate, name):
    """One delegate, one graph per thread: each gets the bits that it gets alone."""
    runs = [graph(name, "composite", delegate) for _ in range(2)]
    arrays = [inputs(name, seed) for seed in range(2)]
    alone = [run(*given)[0] for run, given in zip(runs, arrays, strict=True)]
    wrong: list[int] = []
    together = threading.Barrier(2)

    def work(number: int) -> None:
        together.wait()
        for _ in range(200):
            if not np.array_equal(runs[number](*arrays[number])[0], alone[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_fixtures_stay_small():
    assert all(path.stat().st_size < GREATEST_FILE for path in FOLDER.iterdir())
