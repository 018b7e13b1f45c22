"""The JSON Schema of board files: made from the keys, committed, and of one mind with `load_board`."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.board import parse_board
from edge.board_keys import ACCELERATED_BACKENDS, BACKENDS, KERNELS, SECTIONS
from edge.board_rules import Address, Folder, Key, ListOf, Network, OneOf, Url, in_units
from edge.board_schema import board_schema, key_table, schema_text
from edge.errors import ConfigError
from edge.reading.backends import KNOWN
from edge.reading.ops import CHOICES
from edge.toml import load_toml

SCHEMA = board_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
MINIMAL: dict[str, Any] = {"name": "x", "data_dir": "var/x", "worker": {"bundle": "var/bundle"}}
PLACES = [(section, name, key) for section, keys in SECTIONS.items() for name, key in keys.items()]
# Where JSON Schema has no words for what the reader checks (see `edge.board_rules.Rule`).
LOOSER = (Address, Network, Url, Folder)


def accepts(document: dict[str, Any]) -> bool:
    return bool(VALIDATOR.is_valid(document))


def loads(document: dict[str, Any]) -> bool:
    """True if every value keeps its rule; what two keys say together is no matter of the schema."""
    try:
        parse_board(toml(document).encode(), "board.toml")
    except ConfigError as error:
        return any(limit in error.message for limit in ("less than pause_c (", "receive.min_free_bytes ("))
    return True


def toml(document: dict[str, Any]) -> str:
    """A TOML document of one level of tables."""
    top = [f"{json.dumps(key)} = {value(one)}" for key, one in document.items() if not isinstance(one, dict)]
    for section, table in document.items():
        if isinstance(table, dict):
            top += [f"[{json.dumps(section)}]", *(f"{json.dumps(key)} = {value(one)}" for key, one in table.items())]
    return "\n".join(top)


def value(one: Any) -> str:
    if isinstance(one, str):
        return '"' + "".join(f"\\U{ord(sign):08x}" for sign in one) + '"'
    if isinstance(one, list):
        return f"[{', '.join(map(value, one))}]"
    return json.dumps(one)


def with_value(section: str, name: str, one: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(MINIMAL))
    (document.setdefault(section, {}) if section else document)[name] = one
    return document


def test_the_schema_is_a_schema_and_the_committed_file_is_what_is_made(root: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    committed = (root / "board_configs" / "schema.json").read_text()
    assert committed == schema_text(), "run: radbox board schema >board_configs/schema.json"


def test_the_table_of_keys_in_the_readme_is_what_is_made(root: Path) -> None:
    readme = (root / "board_configs" / "README.md").read_text()
    assert key_table() in readme, "put what `radbox board keys` prints into board_configs/README.md"


def test_every_shipped_board_is_valid(root: Path) -> None:
    boards = sorted((root / "board_configs").glob("*.toml"))
    assert len(boards) == 10
    for path in boards:
        VALIDATOR.validate(load_toml(path))


def test_every_default_keeps_its_own_rule() -> None:
    for section, name, key in PLACES:
        if "default" in (SCHEMA["properties"][section] if section else SCHEMA)["properties"][name]:
            document = with_value(section, name, key.default)
            assert accepts(document), (section, name)
            assert loads(document), (section, name)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LIKELY = st.sampled_from(
    [
        *(
            "",
            " ",
            "\0",
            "a\0b",
            "auto",
            "q8",
            "sim",
            "US",
            "tflite",
            "RADBOX",
            "SIXTEEN LETTERS.",
            "SEVENTEEN LETTERS",
        ),
        *("a\\b", " padded ", "key=value", "=", "=x", "ipp://printer/ipp", "ipp://", "http:", "ftp://x", "radbox/one"),
        *("/a", "a/", "a#", "0.0.0.0", "::1", "::", "fe80::1%eth0", "1.2.3", "192.168.1.0/24", "2001:db8::/32", "a\n"),
    ]
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-10, 2**51),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer()),
    st.sampled_from([0, 1, 2**20, 2**30, 65535, 65536, 0.1, 0.01, 120, 121, 30, 600]),
    LIKELY,
    TEXTS,
)
VALUES = SCALARS | st.lists(LIKELY | TEXTS | st.integers(0, 3), max_size=3)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(place=st.sampled_from(PLACES), one=VALUES)
def test_schema_and_reader_agree_on_every_value(place: tuple[str, str, Key], one: Any) -> None:
    section, name, key = place
    document = with_value(section, name, one)
    rule = key.rule.item if isinstance(key.rule, ListOf) else key.rule
    if loads(document):
        assert accepts(document)
    elif not isinstance(rule, LOOSER):
        assert not accepts(document)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}.{place[1]}".lstrip("."))
def test_bounds_are_the_same_to_the_last_figure(place: tuple[str, str, Key]) -> None:
    section, name, key = place
    schema = key.rule.schema()
    values: list[Any] = [[], {}, "", None]
    for bound in (schema.get("minimum"), schema.get("maximum")):
        if bound is not None:
            step: list[Any] = [bound - 1, bound, bound + 1] if schema["type"] == "integer" else []
            values += step or [math.nextafter(bound, -math.inf), float(bound), math.nextafter(bound, math.inf)]
    for one in values:
        if one is None or one == {}:  # TOML has no null, and an empty table is a section
            assert not accepts(with_value(section, name, one))
        elif not (isinstance(one, float) and one.is_integer() and schema["type"] == "integer"):
            assert loads(with_value(section, name, one)) == accepts(with_value(section, name, one)), one


@settings(deadline=None, derandomize=True)
@given(section=st.sampled_from([name for name in SECTIONS if name]), key=st.text("abcxyz_", min_size=1, max_size=12))
def test_no_other_key_and_no_other_section(section: str, key: str) -> None:
    if key not in SECTIONS[section]:
        assert not accepts(with_value(section, key, 1))
        assert not loads(with_value(section, key, 1))
    if key not in SECTIONS and key not in SECTIONS[""]:
        assert not accepts({**MINIMAL, key: {}})
        assert not loads({**MINIMAL, key: {}})


@pytest.mark.parametrize("gone", ["name", "data_dir", "worker"])
def test_what_must_be_there(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADBOX_DATA_DIR", raising=False)
    document = {key: one for key, one in MINIMAL.items() if key != gone}
    assert not accepts(document)
    assert not loads(document)


def test_patterns_are_of_the_part_that_every_dialect_has() -> None:
    """ECMA-262 knows no \\A, \\Z, possessive quantifiers or inline flags."""
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', schema_text())
    assert len(patterns) > 10
    assert not [one for one in patterns if re.search(r"\\\\[AZ]|\(\?[aiLmsux]|\(\?P|[*+?]\+", one)]


def test_names_of_the_board_layer_are_those_of_the_layers_above() -> None:
    assert set(KNOWN) == set(BACKENDS)
    assert set(KERNELS) == set(CHOICES)
    assert set(ACCELERATED_BACKENDS) <= set(BACKENDS)


def test_a_backend_that_nobody_knows_stops_the_start() -> None:
    document = with_value("worker", "backends", ["tflite", "tensorflow"])
    with pytest.raises(ConfigError, match="key 'backends': expected one of tflite, onnxruntime"):
        parse_board(toml(document).encode(), "board.toml")


@pytest.mark.parametrize(
    ("number", "words"),
    [(2**30, "1 GiB"), (3 * 2**29, "1.5 GiB"), (2**32 - 1, "4 GiB - 1"), (64 * 2**20, "64 MiB"), (4096, "4096"),
     (0.1, "0.1"), (600.0, "600"), (4_000_000, "4000000"), (36_500, "36500")],
)  # fmt: skip
def test_numbers_in_words(number: float, words: str) -> None:
    assert in_units(number) == words


def test_every_rule_has_words() -> None:
    for _section, _name, key in PLACES:
        assert key.rule.words()
        assert dataclasses.is_dataclass(key.rule)
    assert OneOf(("a", "b")).words() == "`a`, `b`"
