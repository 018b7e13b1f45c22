"""A TFLite file with custom operators for radbox composites, for runtimes that know none (tflite-runtime 2.14).

    python -m models.custom_operators IN.tflite OUT.tflite        (any environment with ai-edge-litert)

Such a file has no operators inside to fall back on: it loads only with the delegate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edge.reading.backends.custom_ops import OPERATORS

FLEXBUFFERS = 0
"""The one CustomOptionsFormat of the TFLite schema: the bytes that composites keep their attributes in."""


def as_custom_operators(model: bytes) -> bytes:
    """`model` with every radbox composite of its main graph as a custom operator of the same name and attributes.

    The graphs inside the composites are dropped. ValueError if the file has none, or graphs or composites of others.
    """
    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    main, inside = parsed.subgraphs[0], set()
    for operator in main.operators:
        if operator.builtinOptions2Type != schema.BuiltinOptions2.StableHLOCompositeOptions:
            continue
        composite = operator.builtinOptions2
        name = composite.name.decode()
        if name not in OPERATORS:
            raise ValueError(f"expected composites named one of {', '.join(OPERATORS)}, got {name}")
        inside.add(composite.decompositionSubgraphIndex)
        operator.opcodeIndex = _custom_code(parsed, name)
        operator.customOptions = composite.compositeAttributes
        operator.customOptionsFormat = FLEXBUFFERS
        operator.builtinOptions2Type, operator.builtinOptions2 = schema.BuiltinOptions2.NONE, None
    if not inside or inside != set(range(1, len(parsed.subgraphs))):
        raise ValueError("expected composites of radbox and no other graphs beside the main one, got something else")
    parsed.subgraphs = [main]
    _drop_composite_code(parsed)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


def _custom_code(parsed: schema.ModelT, name: str) -> int:
    for index, code in enumerate(parsed.operatorCodes):
        if code.builtinCode == schema.BuiltinOperator.CUSTOM and code.customCode == name.encode():
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = name.encode(), 1
    parsed.operatorCodes.append(code)
    return len(parsed.operatorCodes) - 1


def _drop_composite_code(parsed: schema.ModelT) -> None:
    """tflite-runtime 2.14 refuses a file that only names the composite's code."""
    used = [c for c in parsed.operatorCodes if c.builtinCode != schema.BuiltinOperator.STABLEHLO_COMPOSITE]
    for operator in parsed.subgraphs[0].operators:
        operator.opcodeIndex = used.index(parsed.operatorCodes[operator.opcodeIndex])
    parsed.operatorCodes = used


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    options.target.write_bytes(as_custom_operators(options.source.read_bytes()))


if __name__ == "__main__":
    main()
