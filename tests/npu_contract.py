"""A recorded API: what an adapter uses of it, and whether a stand-in is it. The records are tests/npu_*_api.json."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TYPE, LIST = "type ", "list "  # of a record: the class itself, a list of its instances


def record(name: str) -> dict[str, Any]:
    """tests/npu_<name>_api.json."""
    document: dict[str, Any] = json.loads(Path(__file__).with_name(f"npu_{name}_api.json").read_text())
    return document


class Usage(ast.NodeVisitor):
    """Follows values of recorded types through a module; `wrong` names every use that the record does not know."""

    def __init__(self, types: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """known: source text of a name, such as `self._lite` -> recorded type of its value."""
        self._types, self._known = types, known
        self.used: set[str] = set()
        self.wrong: list[str] = []

    def of(self, source: str) -> Usage:
        """Look through a module."""
        self.visit(ast.parse(source))
        return self

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._type(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._type(node)
        self.generic_visit(node)

    def _type(self, node: ast.expr) -> str:
        """Recorded type of an expression; "" if it is none of the API's."""
        if text := self._known.get(ast.unparse(node), ""):
            return text
        if isinstance(node, ast.Attribute):
            return self._member(self._type(node.value), node.attr)[1]
        if isinstance(node, ast.Call):
            return self._called(node)
        return ""

    def _called(self, node: ast.Call) -> str:
        owner = self._type(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if not isinstance(node.func, ast.Attribute) or not owner:
            return ""
        signature, result = self._member(owner, node.func.attr)
        if result.startswith(TYPE):  # a class is called
            signature, result = self._member(result.removeprefix(TYPE), "__init__")
        if signature:
            keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            arguments = [None] * (len(node.args) + signature.startswith("(self"))
            try:
                parsed(signature).bind(*arguments, **keywords)
            except TypeError as error:
                self._note(f"{ast.unparse(node)}: {error}")
        return result

    def _member(self, owner: str, name: str) -> tuple[str, str]:
        """(signature, type) of a member; ("", "") of what is not of the API."""
        owner = owner.removeprefix(TYPE)
        if not owner or owner in ("value", "exception") or owner.startswith(LIST):
            return "", ""
        recorded = self._types[owner]
        if name in recorded.get("methods", {}):
            signature, result = recorded["methods"][name]
            self.used.add(f"{owner}.{name}")
            return signature, result
        if name in recorded.get("attributes", {}):
            self.used.add(f"{owner}.{name}")
            return "", recorded["attributes"][name]
        self._note(f"{owner} has no {name}")
        return "", ""

    def _note(self, what: str) -> None:
        if what not in self.wrong:
            self.wrong.append(what)


def parsed(signature: str) -> inspect.Signature:
    """A signature as it is written in a record."""
    scope: dict[str, Any] = {}
    exec(f"def f{signature}: ...", scope)
    return inspect.signature(scope["f"])


def _plain(signature: inspect.Signature) -> str:
    """Without type hints."""
    empty = inspect.Parameter.empty
    parameters = [parameter.replace(annotation=empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=empty))


def differences(types: Mapping[str, Any], classes: Mapping[str, type]) -> Iterator[str]:
    """Where stand-in classes, by recorded type, are not what the record says: missing, other, or more."""
    for owner, made in classes.items():
        recorded = types[owner]
        methods, attributes = recorded.get("methods", {}), recorded.get("attributes", {})
        for name, (signature, _) in methods.items():
            if (got := _plain(inspect.signature(getattr(made, name)))) != str(parsed(signature)):
                yield f"{owner}.{name}: {got}, recorded {signature}"
        public = {name for name in vars(made) if not name.startswith("_")} | set(getattr(made, "__annotations__", {}))
        yield from (f"{owner}.{name} is not in the record" for name in public - set(methods) - set(attributes))
        yield from (f"{owner}.{name} is missing" for name in set(attributes) - public)
