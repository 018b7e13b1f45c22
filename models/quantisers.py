"""Where the quantisers of a QDQ ONNX file stand: in front of int8 convolutions, and nowhere else."""

from __future__ import annotations

from typing import Any


def quantised_inputs_only(model: Any) -> Any:
    """Keep the quantisers in front of int8 convolutions, drop those behind them.

    ONNX Runtime puts one behind each convolution, too, in front of its Clip: the range is then that before the
    clipping, and most of the 255 steps are lost on what is clipped away. On the golden inputs the tokens of the shipped
    file gain 6 dB without them (tools/check_tensorrt prints both).
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    restored = {  # output of an activation's DequantizeLinear -> what was quantised
        node.output[0]: makers[node.input[0]].input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants
    }
    for node in graph.node:
        weight = makers.get(node.input[1]) if node.op_type == "Conv" else None
        if node.op_type == "DequantizeLinear" or (weight is not None and weight.op_type == "DequantizeLinear"):
            continue
        for i in range(len(node.input)):
            while node.input[i] in restored:
                node.input[i] = restored[node.input[i]]
    _drop_unused(graph)
    return model


def _drop_unused(graph: Any) -> None:
    """Remove nodes that nothing reads any more, and then their constants."""
    outputs = {value.name for value in graph.output}
    while True:
        read = outputs | {name for node in graph.node for name in node.input}
        unused = [node for node in graph.node if read.isdisjoint(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
