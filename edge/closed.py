"""Closed, typed reading of documents: mapping -> frozen dataclass, unknown or missing keys refused with their path.

Used for everything that arrives as JSON from outside this process: the bundle's manifest and stored reports.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class ClosedError(ValueError):
    """`path: expected X, got Y`."""


def build(cls: type[T], value: object, path: str = "$") -> T:
    """Build dataclass `cls` from a mapping; every field is checked against its annotation.

    Understands bool, int, float (finite; an int is accepted), str, Literal, X | None, tuple[X, ...], fixed tuples,
    dict[str, X] and nested dataclasses. Raises ClosedError naming the path of the first thing that is wrong.
    """
    if not isinstance(value, dict):
        raise ClosedError(f"{path}: expected an object, got {_kind(value)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise ClosedError(f"{path}: expected one of {', '.join(fields)}, got the unknown key {unknown[0]!r}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{path}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ClosedError(f"{path}: expected the key {name!r}, got none")
    return cls(**arguments)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, path)
    if origin is typing.Literal:
        if value not in arguments or isinstance(value, bool):
            raise ClosedError(f"{path}: expected one of {', '.join(map(str, arguments))}, got {_kind(value)}")
        return value
    if origin is tuple:
        return _sequence(arguments, value, path)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise ClosedError(f"{path}: expected an object, got {_kind(value)}")
        return {k: _convert(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, path)
    return _scalar(hint, value, path)


def _sequence(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ClosedError(f"{path}: expected a list, got {_kind(value)}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise ClosedError(f"{path}: expected {len(arguments)} values, got {len(value)}")
    return tuple(_convert(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise ClosedError(f"{path}: expected {getattr(hint, '__name__', hint)}, got {_kind(value)}")


def _kind(value: object) -> str:
    """What `value` is, without quoting it: it may hold a patient's name."""
    return "null" if value is None else type(value).__name__
