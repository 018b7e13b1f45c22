"""The files of tests/fixtures/composites: random inputs, numpy's answer, and a run with or without the delegate."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as runtime
from ai_edge_litert.tools import flatbuffer_utils

from edge.reading.ops import reference, reference_scan
from tests.kernel_cases import random, scan_arrays

FOLDER = Path(__file__).resolve().parent / "fixtures" / "composites"
CROSS = ("cross_t1_s1_d1_h1", "cross_t3_s5_d15_h5_bias_attention", "cross_t2_s7_d33_h3_bias")
REAL_CROSS = ("cross_t1_s256_d128_h4_bias", "cross_t1_s196_d256_h8_bias")
SCANS = ("scan_h1_w1_c1_n1", "scan_h1_w7_c3_n2", "scan_h5_w3_c17_n16")
REAL_SCAN = "scan_h16_w16_c128_n16"
CHAIN, LAYER = "chain_t2_s7_d33_h3_bias", "layer_t4_s49_d32_h4"

Arrays = list[np.ndarray]


def model(name: str) -> bytes:
    return (FOLDER / f"{name}.tflite").read_bytes()


def sizes(name: str) -> list[int]:
    """The numbers of a file's name in order: T, S, d, heads; or height, width, channels, states."""
    return [int(number) for number in re.findall(r"\d+", name)]


def inputs(name: str, seed: int = 0, scale: float = 1.0) -> Arrays:
    """As the file's graph takes them; every third key but the first is hidden where there is a bias."""
    g = np.random.default_rng(seed)
    if name.startswith("scan"):
        height, width, channels, states = sizes(name)
        arrays = [np.asarray(a, np.float32) for a in scan_arrays(g, height * width, channels, states)]
        arrays[0] = arrays[0] * np.float32(scale)
        return arrays
    rows, tokens, width, _ = sizes(name)
    arrays = [random(g, 1, n, width, scale=scale) for n in (rows, rows, tokens, tokens)]
    arrays += [random(g, width), random(g, 1), random(g, 1)]
    if "bias" in name:
        bias = random(g, 1, tokens)
        bias[0, 1::3] = -np.inf
        arrays.append(bias)
    return arrays


def expected(name: str, arrays: Arrays, kernels: Any = None) -> Arrays:
    """numpy's definition of the file's operator, or what `kernels` make of it."""
    if name.startswith("scan"):
        height, width = sizes(name)[:2]
        return [(kernels or reference_scan).selective_scan_f32(*arrays, height, width)]
    heads = sizes(name)[3]
    a, query, keys, values = (array[0] for array in arrays[:4])
    gate_weight, gate_bias, gate_scale = arrays[4:7]
    bias = arrays[7][0] if len(arrays) == 8 else None
    gate = (gate_weight, float(gate_bias[0]), float(gate_scale[0]))
    per_row = [
        (kernels or reference).gated_cross_attention_f32(row, q, keys, values, bias, *gate, heads)
        for row, q in zip(a, query, strict=True)
    ]
    outputs = [np.stack(column)[None] for column in zip(*per_row, strict=True)]
    return outputs if "attention" in name else outputs[:1]


class Graph:
    """A loaded file. `delegate`: of `custom_ops_library`, or None for the operators inside."""

    def __init__(self, content: bytes, delegate: Any, threads: int = 1) -> None:
        delegates = None if delegate is None else [delegate]
        self.interpreter = runtime.Interpreter(
            model_content=content, num_threads=threads, experimental_delegates=delegates
        )
        self.interpreter.allocate_tensors()

    def __call__(self, *arrays: np.ndarray) -> Arrays:
        """The outputs in order. RuntimeError with the delegate's sentence if it refuses."""
        given = {details["name"]: details["index"] for details in self.interpreter.get_input_details()}
        for number, array in enumerate(arrays):
            index = next(i for name, i in given.items() if f"args_{number}" in name)
            self.interpreter.set_tensor(index, array)
        self.interpreter.invoke()
        outputs = sorted(self.interpreter.get_output_details(), key=lambda d: d["name"])
        return [self.interpreter.get_tensor(details["index"]) for details in outputs]


def edited(content: bytes, change: Callable[[Any, Any, Any], None]) -> bytes:
    """The file after `change(graph, operator, composite)`: its main graph, our operator there and its options."""
    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = parsed.subgraphs[0]
    operator = next(o for o in graph.operators if getattr(o.builtinOptions2, "compositeAttributes", None) is not None)
    change(graph, operator, operator.builtinOptions2)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))
