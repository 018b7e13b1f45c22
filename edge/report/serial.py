"""A report as one JSON document and back: closed, typed, bounded, the same bytes for the same report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, NoReturn

from edge.closed import ClosedError, build
from edge.errors import ReportError
from edge.report.schema import SCHEMA_VERSION, Report

LIMIT_BYTES = 1 << 20
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
    readable = _report(_plain(asdict(report)))
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
        raise ReportError(f"expected schema_version {SCHEMA_VERSION}, got {repr(version)[:40]}")
    return _report(tree)


def _report(tree: object) -> Report:
    try:
        return build(Report, tree, "report", _BOUNDS)
    except ClosedError as error:
        raise ReportError(str(error)) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
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
