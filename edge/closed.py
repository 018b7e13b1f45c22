"""Closed, typed, bounded reading of documents: parsed JSON -> frozen dataclass, anything else refused with its path.

Used for everything that arrives as JSON from outside this process: the bundle's manifest and stored reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from math import isfinite
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

LIMIT_TEXT = 2000  # characters of one string
LIMIT_ITEMS = 256  # of one list or table

T = TypeVar("T")
Bounds = Mapping[str, tuple[float, float]]
_NO_BOUNDS: Bounds = MappingProxyType({})


class ClosedError(ValueError):
    """One sentence: "expected <path> ..., got ..."."""


def build(cls: type[T], value: object, path: str, bounds: Bounds = _NO_BOUNDS) -> T:
    """`value` as the dataclass `cls`, every field checked against its annotation.

    Understands bool, int, float (finite; an int is accepted), str, Literal, X | None, tuple[X, ...], dict[str, X] and
    nested dataclasses. bounds: field name -> smallest and largest number. Every key is required.
    Raises ClosedError naming the path of the first thing that is wrong.
    """
    return cast(T, _Builder(bounds).build(value, cls, path, path))


class _Builder:
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def build(self, value: Any, hint: Any, path: str, name: str) -> Any:
        """`value` as the type `hint`. path: for the message; name: the field it belongs to, for its bounds."""
        origin = get_origin(hint)
        if is_dataclass(hint):
            return self._build_dataclass(value, hint, path)
        if origin is Literal:
            return _build_word(value, get_args(hint), path)
        if origin in (Union, UnionType):
            return None if value is None else self.build(value, _not_none(hint), path, name)
        if origin is tuple:
            items = _expect(value, list, "a list", path)
            _expect_length(items, path)
            return tuple(self.build(item, get_args(hint)[0], f"{path}[{i}]", name) for i, item in enumerate(items))
        if origin is dict:
            return self._build_table(value, get_args(hint)[1], path, name)
        if hint is str:
            return _build_text(value, path)
        if hint is bool:
            return _expect(value, bool, "true or false", path)
        return self._build_number(value, hint, path, name)

    def _build_dataclass(self, value: Any, hint: Any, path: str) -> Any:
        table = _expect(value, dict, "an object", path)
        names = [field.name for field in fields(hint)]
        missing, unknown = set(names) - set(table), set(table) - set(names)
        if missing:
            raise ClosedError(f"expected {path} to have {', '.join(sorted(missing))}, got none")
        if unknown:
            raise ClosedError(f"expected only known keys in {path}, got {_short(sorted(unknown)[0])}")
        hints = _hints(hint)
        return hint(**{name: self.build(table[name], hints[name], f"{path}.{name}", name) for name in names})

    def _build_table(self, value: Any, hint: Any, path: str, name: str) -> dict[str, Any]:
        table = _expect(value, dict, "an object", path)
        _expect_length(table, path)
        named = {_build_text(key, path): f"{path}.{_short(key)}" for key in table}
        return {key: self.build(table[key], hint, place, name) for key, place in named.items()}

    def _build_number(self, value: Any, hint: type, path: str, name: str) -> float | int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (hint is float and isinstance(value, float)):
            raise ClosedError(f"expected {path} to be a number of type {hint.__name__}, got {type(value).__name__}")
        low, high = self._bounds.get(name, (float("-inf"), float("inf")))
        if not low <= value <= high or (isinstance(value, float) and not isfinite(value)):
            raise ClosedError(f"expected {path} from {low} to {high}, got {_short(value)}")
        return hint(value)  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _not_none(hint: Any) -> Any:
    return next(option for option in get_args(hint) if option is not NoneType)


def _build_word(value: Any, words: tuple[Any, ...], path: str) -> Any:
    if not isinstance(value, str) or value not in words:
        raise ClosedError(f"expected {path} to be one of {', '.join(words)}, got {_short(value)}")
    return value


def _build_text(value: Any, path: str) -> str:
    text: str = _expect(value, str, "text", path)
    if len(text) > LIMIT_TEXT or any("\ud800" <= character <= "\udfff" for character in text):
        raise ClosedError(f"expected {path} to be at most {LIMIT_TEXT} whole characters, got {len(text)}")
    return text


def _expect(value: Any, kind: type, words: str, path: str) -> Any:
    if not isinstance(value, kind):
        raise ClosedError(f"expected {path} to be {words}, got {type(value).__name__}")
    return value


def _expect_length(items: Any, path: str) -> None:
    if len(items) > LIMIT_ITEMS:
        raise ClosedError(f"expected {path} to have at most {LIMIT_ITEMS} entries, got {len(items)}")


def _short(value: Any) -> str:
    """What was found, for a message: never more than a few characters of foreign text."""
    return repr(value)[:40] if isinstance(value, (str, int, float)) else type(value).__name__
