"""Every name of TensorRT's Python API that the adapter uses, read from its source, so that no list can grow old.

The adapter names its variables after what they hold (OBJECTS); `trt` is the module. A variable that is made by a call
of TensorRT, is asked for an attribute and is not in OBJECTS is an error here.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

ADAPTER: Final = Path("edge", "reading", "backends")
MODULE: Final = "trt"
OBJECTS: Final = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "problem": "ParserError",
    "tensor": "ITensor",
    "config": "IBuilderConfig",
    "timing_cache": "ITimingCache",
    "host_memory": "IHostMemory",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""Variable (a leading underscore and `self.` do not count) -> class of TensorRT."""

Names = dict[str, set[str]]
"""Class ("" for the module, "A.B" for a class in a class) -> its attributes."""


def adapter_files(root: Path) -> list[Path]:
    """Every file of the adapter."""
    return sorted((root / ADAPTER).glob("tensorrt*.py"))


def used_names(files: Iterable[Path]) -> Names:
    """Raises ValueError for a variable whose class cannot be known."""
    names: Names = defaultdict(set)
    for file in files:
        tree = ast.parse(file.read_text())
        for chain in _chains(tree):
            _note(names, chain)
        for owner, method in _overridden(tree):
            names[owner].add(method)
        _refuse_unknown(tree, file.name)
    return dict(names)


def _chain(node: ast.expr) -> list[str]:
    """`self._trt.A.b` -> ["trt", "A", "b"]; [] for what is no plain chain of names."""
    if isinstance(node, ast.Name):
        return [] if node.id == "self" else [node.id.lstrip("_")]
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return [node.attr.lstrip("_")]
        before = _chain(node.value)
        return [*before, node.attr] if before else []
    return []


def _chains(tree: ast.AST) -> Iterator[list[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = _chain(node)
            if len(chain) > 1 and (chain[0] == MODULE or chain[0] in OBJECTS):
                yield chain


def _note(names: Names, chain: list[str]) -> None:
    if chain[0] in OBJECTS:
        names[OBJECTS[chain[0]]].add(chain[1])
        return
    owner = ""
    for name in chain[1:]:
        names[owner].add(name)
        owner = f"{owner}.{name}".removeprefix(".")


def _overridden(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(class of TensorRT, method) of everything our subclasses redefine."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            owners = [chain[1] for chain in map(_chain, node.bases) if len(chain) == 2 and chain[0] == MODULE]
            for owner in owners:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        yield owner, method.name


def _refuse_unknown(tree: ast.AST, file: str) -> None:
    asked = {chain[0] for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (chain := _chain(node))[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            maker = _chain(node.value.func)
            if not maker or not (maker[0] == MODULE or maker[0] in OBJECTS):
                continue
            for target in node.targets:
                made = _chain(target)
                if made and made[0] in asked and made[0] not in OBJECTS:
                    raise ValueError(f"{file}:{node.lineno}: {made[0]!r} holds something of TensorRT's: name its class")
