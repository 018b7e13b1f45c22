"""Closed, typed reading of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from edge.closed import ClosedError, build


@dataclass(frozen=True)
class _Inner:
    name: str
    word: Literal["a", "b"]


@dataclass(frozen=True)
class _Outer:
    count: int
    share: float
    flag: bool
    inner: _Inner
    many: tuple[_Inner, ...]
    table: dict[str, float]
    maybe: str | None


def _good() -> dict[str, Any]:
    inner = {"name": "n", "word": "a"}
    return {
        "count": 1, "share": 1, "flag": True, "inner": inner, "many": [inner, inner],
        "table": {"x": 0.5}, "maybe": None,
    }  # fmt: skip


def test_a_right_document_is_built() -> None:
    built = build(_Outer, _good(), "$")
    assert built == _Outer(1, 1.0, True, _Inner("n", "a"), (_Inner("n", "a"),) * 2, {"x": 0.5}, None)
    assert isinstance(built.share, float)


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("count", 1.5, "$.count"),
        ("count", True, "$.count"),
        ("share", float("nan"), "$.share"),
        ("share", "1", "$.share"),
        ("flag", 1, "$.flag"),
        ("inner", [], "$.inner"),
        ("inner", {"name": "n"}, "$.inner"),
        ("inner", {"name": "n", "word": "c"}, "$.inner.word"),
        ("many", {}, "$.many"),
        ("many", [{"name": 1, "word": "a"}], "$.many[0].name"),
        ("table", {"x": None}, "$.table.'x'"),
        ("surplus", 1, "surplus"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(key: str, value: object, place: str) -> None:
    with pytest.raises(ClosedError) as caught:
        build(_Outer, {**_good(), key: value}, "$")
    assert place in str(caught.value)


def test_the_message_never_quotes_a_value() -> None:
    with pytest.raises(ClosedError) as caught:
        build(_Outer, {**_good(), "count": "Doe^Jane"}, "$")
    assert "Doe" not in str(caught.value)


def test_tables_keep_their_order() -> None:
    built = build(_Outer, {**_good(), "table": {"b": 1.0, "a": 2.0}}, "$")
    assert list(built.table) == ["b", "a"]
