"""Our decoder as the ONNX graph that a careful user would write: one step, keys and values in and out.

q, k and v in one product; keys transposed once, when they are made; one input per layer and tensor, so that nothing is
sliced; LayerNormalization and Gelu as the runtime's own operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.decoder_bench.sizes import Model


class Graph:
    """Nodes, initialisers and the names between them."""

    def __init__(self, helper: Any, numpy_helper: Any) -> None:
        self._helper, self._numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: np.ndarray, name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(self._numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, outputs: list[str] | None = None, **attributes: Any) -> str:
        names = outputs or [f"t{len(self.nodes)}"]
        self.nodes.append(self._helper.make_node(operator, list(inputs), names, **attributes))
        return names[0]


def build(model: Model) -> Any:
    """The step as an ONNX model in float32. Inputs: token (1,), position (1,), bias_l (n,), and per layer past_key
    (heads, dh, t), past_value (heads, t, dh), cross_key (heads, dh, n), cross_value (heads, n, dh)."""
    from onnx import TensorProto, helper, numpy_helper

    shape, weights = model.size.shape, model.weights
    heads, dh = shape.heads, shape.width // shape.heads
    graph = Graph(helper, numpy_helper)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("token", "position")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, shape.vocabulary])]

    def linear(x: str, *names: str, output: str | None = None) -> str:
        weight = np.concatenate([weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([weights[f"{name}.bias"] for name in names])
        product = graph.node("MatMul", x, graph.constant(weight.T, f"w{len(graph.constants)}"))
        return graph.node("Add", product, graph.constant(bias), outputs=[output] if output else None)

    def norm(x: str, name: str) -> str:
        parts = (graph.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.node("LayerNormalization", x, *parts, axis=-1, epsilon=1e-5)

    def attention(query: str, keys: str, values: str, bias: str | None) -> str:
        scores = graph.node("MatMul", query, keys)
        if bias:
            scores = graph.node("Add", scores, bias)
        mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
        return graph.node("Reshape", mixed, flat)

    def state(name: str, dimensions: list[Any]) -> str:
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dimensions))
        return name

    flat = graph.constant(np.array([1, shape.width], np.int64))
    row, column = (graph.constant(np.array(d, np.int64)) for d in ([heads, 1, dh], [heads, dh, 1]))
    embeds = [graph.constant(weights[name], name) for name in ("embed.weight", "position.weight")]
    x = graph.node("Add", graph.node("Gather", embeds[0], "token"), graph.node("Gather", embeds[1], "position"))
    root = graph.constant(np.array(dh**-0.5, np.float32))
    for layer in range(shape.layers):
        p = f"layers.{layer}."
        qkv = linear(norm(x, p + "norm1"), p + "q", p + "k", p + "v")
        parts = [f"{p}{part}" for part in "qkv"]
        graph.node("Split", qkv, outputs=parts, axis=-1, num_outputs=3)
        query = graph.node("Mul", graph.node("Reshape", parts[0], row), root)
        past_key = state(f"past_key_{layer}", [heads, dh, "t"])
        past_value = state(f"past_value_{layer}", [heads, "t", dh])
        new_key = graph.node("Reshape", parts[1], column)
        new_value = graph.node("Reshape", parts[2], row)
        keys = graph.node("Concat", past_key, new_key, outputs=[f"key_{layer}"], axis=2)
        values = graph.node("Concat", past_value, new_value, outputs=[f"value_{layer}"], axis=1)
        outputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (keys, values)]
        a = attention(query, keys, values, None)
        cross_key = state(f"cross_key_{layer}", [heads, dh, model.size.image_tokens])
        cross_value = state(f"cross_value_{layer}", [heads, model.size.image_tokens, dh])
        c = attention(query, cross_key, cross_value, state(f"bias_{layer}", [model.size.image_tokens]))
        gate_weight = graph.constant(weights[p + "gate.weight"].T)
        opening = graph.node("Add", graph.node("MatMul", a, gate_weight), graph.constant(weights[p + "gate.bias"]))
        gate = graph.node("Mul", graph.node("Tanh", opening), graph.constant(weights[p + "gate_scale"]))
        x = graph.node("Add", x, linear(graph.node("Add", a, graph.node("Mul", gate, c)), p + "out"))
        hidden = graph.node("Gelu", linear(norm(x, p + "norm2"), p + "up"), approximate="tanh")
        x = graph.node("Add", x, linear(hidden, p + "down"))
    linear(norm(x, "norm"), "head", output="logits")
    made = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
