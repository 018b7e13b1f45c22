"""A report as one JSON document and back: closed, typed, bounded, the same bytes for the same report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from math import isfinite
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, cast, get_args, get_origin, get_type_hints

from edge.errors import ReportError
from edge.report.schema import SCHEMA_VERSION, Report

LIMIT_BYTES = 1 << 20
LIMIT_TEXT = 2000  # characters of one string
LIMIT_ITEMS = 256  # of one list or table
PROBABILITY_PLACES = 4

_FRACTION = (0.0, 1.0)
# Field name -> smallest and largest value; every other number is unbounded but finite.
_BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        **dict.fromkeys(("probability", "scores", "thresholds", "x0", "y0", "x1", "y1"), _FRACTION),
        "grid": (0, 255),
        "images": (0, 10_000),
    }
)


def to_json(report: Report) -> str:
    """The JSON document of `report`: keys in schema order, scores by name, floats rounded to 4 places, no NaN.

    Raises ReportError where `from_json` would not read the result back: what is stored can be read.
    """
    readable = _build(_plain(asdict(report)), Report, "report", "report")
    text = json.dumps(asdict(readable), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    _bound(text)
    return text


def from_json(text: str) -> Report:
    """The report of a JSON document. Raises ReportError, naming the path, for anything that is not exactly one:

    other schema version, unknown, missing or repeated key, wrong type, word, range or length, not JSON, over 1 MiB.
    """
    _bound(text)
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ReportError("expected a report in JSON, got one nested too deeply") from error
    except ValueError as error:
        raise ReportError("expected a report in JSON, got text that is not JSON") from error
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if isinstance(tree, dict) and (type(version) is not int or version != SCHEMA_VERSION):
        raise ReportError(f"expected schema_version {SCHEMA_VERSION}, got {_short(version)}")
    return cast(Report, _build(tree, Report, "report", "report"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(float(value), PROBABILITY_PLACES) + 0.0  # + 0.0: never -0.0
    return value


def _bound(text: str) -> None:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ReportError("expected a report in Unicode text, got half of a character") from error
    if size > LIMIT_BYTES:
        raise ReportError(f"expected a report of at most {LIMIT_BYTES} bytes, got {size}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ReportError("expected each key once, got a key twice")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ReportError(f"expected finite numbers, got {name}")


def _build(value: Any, hint: Any, path: str, name: str) -> Any:
    """`value` as the type `hint`. path: for the message; name: the field it belongs to, for its bounds."""
    origin = get_origin(hint)
    if is_dataclass(hint):
        return _build_dataclass(value, hint, path)
    if origin is Literal:
        return _build_word(value, get_args(hint), path)
    if origin in (Union, UnionType):
        return None if value is None else _build(value, _not_none(hint), path, name)
    if origin is tuple:
        items = _expect(value, list, "a list", path)
        _expect_length(items, path)
        return tuple(_build(item, get_args(hint)[0], f"{path}[{i}]", name) for i, item in enumerate(items))
    if origin is dict:
        return _build_table(value, get_args(hint)[1], path, name)
    if hint is str:
        return _build_text(value, path)
    if hint is bool:
        return _expect(value, bool, "true or false", path)
    return _build_number(value, hint, path, name)


def _not_none(hint: Any) -> Any:
    return next(option for option in get_args(hint) if option is not NoneType)


def _build_dataclass(value: Any, hint: Any, path: str) -> Any:
    table = _expect(value, dict, "an object", path)
    names = [field.name for field in fields(hint)]
    missing, unknown = set(names) - set(table), set(table) - set(names)
    if missing:
        raise ReportError(f"expected {path} to have {', '.join(sorted(missing))}, got none")
    if unknown:
        raise ReportError(f"expected only known keys in {path}, got {_short(sorted(unknown)[0])}")
    hints = get_type_hints(hint)
    return hint(**{name: _build(table[name], hints[name], f"{path}.{name}", name) for name in names})


def _build_table(value: Any, hint: Any, path: str, name: str) -> dict[str, Any]:
    table = _expect(value, dict, "an object", path)
    _expect_length(table, path)
    return {_build_text(key, path): _build(table[key], hint, f"{path}.{_short(key)}", name) for key in sorted(table)}


def _build_word(value: Any, words: tuple[Any, ...], path: str) -> Any:
    if not isinstance(value, str) or value not in words:
        raise ReportError(f"expected {path} to be one of {', '.join(words)}, got {_short(value)}")
    return value


def _build_text(value: Any, path: str) -> str:
    text: str = _expect(value, str, "text", path)
    if len(text) > LIMIT_TEXT or any("\ud800" <= character <= "\udfff" for character in text):
        raise ReportError(f"expected {path} to be at most {LIMIT_TEXT} whole characters, got {len(text)}")
    return text


def _build_number(value: Any, hint: type, path: str, name: str) -> float | int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (hint is float and isinstance(value, float)):
        raise ReportError(f"expected {path} to be a number of type {hint.__name__}, got {type(value).__name__}")
    low, high = _BOUNDS.get(name, (float("-inf"), float("inf")))
    if not low <= value <= high or (isinstance(value, float) and not isfinite(value)):
        raise ReportError(f"expected {path} from {low} to {high}, got {_short(value)}")
    return hint(value)  # type: ignore[no-any-return]


def _expect(value: Any, kind: type, words: str, path: str) -> Any:
    if not isinstance(value, kind):
        raise ReportError(f"expected {path} to be {words}, got {type(value).__name__}")
    return value


def _expect_length(items: Any, path: str) -> None:
    if len(items) > LIMIT_ITEMS:
        raise ReportError(f"expected {path} to have at most {LIMIT_ITEMS} entries, got {len(items)}")


def _short(value: Any) -> str:
    """What was found, for a message: never more than a few characters of foreign text."""
    return repr(value)[:40] if isinstance(value, (str, int, float)) else type(value).__name__
