"""Board files for machines and people: JSON Schema 2020-12 and the table of keys, both made from board_keys.py.

The schema cannot say everything: `load_board` also refuses 3.0 for a whole number, a network or an address whose
figures are wrong, a path that cannot be followed, and what two keys must not say together (`board._check_together`).
"""

from __future__ import annotations

import json
from typing import Any, Final

from edge.board_keys import SECTIONS
from edge.board_rules import REQUIRED, Key, Keys, default_in_words

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
HEADINGS: Final = ("| key | type and bounds | default | what it is |", "|---|---|---|---|")
_BEYOND: Final = (
    "load_board also refuses 3.0 for a whole number, wrong figures in an address, a path that cannot be followed, "
    "storage.reserve_bytes over receive.min_free_bytes, and hardware.slow_c not below hardware.pause_c."
)


def board_schema() -> dict[str, Any]:
    """The schema of a board file, as JSON holds the TOML document."""
    sections = {name: _table(keys) for name, keys in SECTIONS.items() if name}
    top = _table(SECTIONS[""])
    needed = [name for name, table in sections.items() if "required" in table]
    return {
        "$schema": DIALECT,
        "title": "radbox board file",
        "description": "One board: what differs between boards. See board_configs/README.md.",
        "$comment": _BEYOND,
        **top,
        "properties": {**top["properties"], **sections},
        "required": [*top["required"], *needed],
    }


def schema_text() -> str:
    """`board_configs/schema.json`."""
    return json.dumps(board_schema(), indent=1, ensure_ascii=True) + "\n"


def key_table() -> str:
    """The table of board_configs/README.md: every key in the order of the files."""
    rows = [
        _row(f"{section}.{name}".lstrip("."), key) for section, keys in SECTIONS.items() for name, key in keys.items()
    ]
    return "\n".join((*HEADINGS, *rows)) + "\n"


def _row(name: str, key: Key) -> str:
    default = "" if key.default is REQUIRED else default_in_words(key.default)
    return f"| `{name}` | {key.rule.words()} | {default} | {key.about} |".replace("|  |", "| |")


def _table(keys: Keys) -> dict[str, Any]:
    table: dict[str, Any] = {
        "type": "object",
        "properties": {name: _property(key) for name, key in keys.items()},
        "additionalProperties": False,
    }
    required = [name for name, key in keys.items() if key.default is REQUIRED]
    return {**table, "required": required} if required else table


def _property(key: Key) -> dict[str, Any]:
    default = {} if key.default is REQUIRED else {"default": key.default}
    return {"description": key.about, **key.rule.schema(), **default}
