"""What the value of a board file's key may be: each rule reads a TOML value, and says itself in JSON Schema and words.

`read` gives our value or raises ValueError("expected ..."). `schema` is JSON Schema 2020-12; it may accept a little
more than `read` where that language has no words (an IP network, a path that can be followed), never less.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

KIB, MIB, GIB = 2**10, 2**20, 2**30
_NO_BOUND: Final = 2**40  # from here on a limit only keeps numbers sane
_NOT_EMPTY, _NUL = r"\S", "\\u0000"


class Rule(Protocol):
    """One kind of value."""

    def read(self, value: object) -> Any:
        """The value as the board holds it. Raises ValueError("expected ...")."""

    def schema(self) -> dict[str, Any]:
        """The same in JSON Schema 2020-12."""

    def words(self) -> str:
        """Type and bounds for the table of keys."""


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def words(self) -> str:
        return "true, false"


@dataclass(frozen=True)
class Whole:
    """A whole number, bounds included."""

    low: int
    high: int

    def read(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError(f"expected a whole number from {self.low} to {self.high}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def words(self) -> str:
        return f"{in_units(self.low)} or more" if self.high >= _NO_BOUND else _span(self.low, self.high)


@dataclass(frozen=True)
class Number:
    """A number of `unit`, bounds included; a whole one becomes a float."""

    low: float
    high: float
    unit: str = "seconds"

    def read(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"expected a number of {self.unit} from {self.low:g} to {self.high:g}")
        return float(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def words(self) -> str:
        return _span(self.low, self.high)


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    choices: tuple[str, ...]

    def read(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError(f"expected one of {', '.join(self.choices)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.choices)}

    def words(self) -> str:
        return ", ".join(f"`{word}`" for word in self.choices)


@dataclass(frozen=True)
class Text:
    """A text with something in it."""

    what: str = "text"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("expected a text that is not empty")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": _NOT_EMPTY}

    def words(self) -> str:
        return self.what


@dataclass(frozen=True)
class OptionalText:
    """A text, perhaps none; outer white space goes."""

    what: str = "text"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("expected a text")
        return value.strip()

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "not": {"pattern": _NUL}}

    def words(self) -> str:
        return self.what


@dataclass(frozen=True)
class Shaped:
    """A text of a certain form. `pattern`: of the whole text, understood alike by Python and ECMA-262."""

    pattern: str
    longest: int
    expected: str  # the form, in words
    what: str

    def read(self, value: object) -> str:
        text = Text().read(value)
        if len(text) > self.longest or re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"expected {self.expected}")
        return text

    def schema(self) -> dict[str, Any]:
        # Python's $ also matches before a last line feed, ECMA-262's does not.
        whole = f"^(?:{self.pattern})$(?!\\n)"
        return {"type": "string", "maxLength": self.longest, "allOf": [{"pattern": _NOT_EMPTY}, {"pattern": whole}]}

    def words(self) -> str:
        return self.what


AE_TITLE: Final = Shaped(
    r"[!-\[\]-~](?:[ -\[\]-~]*[!-\[\]-~])?",
    16,
    "an AE title: 1 to 16 printable ASCII characters, no backslash, no outer spaces",
    "1 to 16 characters",
)
TOPIC: Final = Shaped(
    r"[^+#$/\u0000](?:[^+#$\u0000]*[^+#$/\u0000])?",
    100,
    "an MQTT topic of at most 100 characters without + # $ and without outer slashes",
    "MQTT topic",
)
OPTION: Final = Shaped(
    r"[^=\u0000]*[^=\s\u0000][^=\u0000]*=[^\u0000]*",
    1000,
    'options of the form "key=value", at most 1000 characters each',
    "`key=value`",
)


@dataclass(frozen=True)
class Url:
    """Nothing, or an address of one of `schemes`."""

    schemes: tuple[str, ...]

    def read(self, value: object) -> str:
        text = OptionalText().read(value)
        expected = f"expected nothing or an address that begins with {' or '.join(f'{s}://' for s in self.schemes)}"
        try:
            parts = urlsplit(text)
        except ValueError:
            raise ValueError(expected) from None
        if text and (not re.match(self._start(), text) or not parts.hostname):
            raise ValueError(expected)
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": rf"^\s*({self._start()}|$)", "not": {"pattern": _NUL}}

    def words(self) -> str:
        return "URL"

    def _start(self) -> str:
        return f"(?:{'|'.join(self.schemes)})://"


@dataclass(frozen=True)
class Address:
    """An IP address."""

    def read(self, value: object) -> str:
        try:
            return str(ipaddress.ip_address(Text().read(value)))
        except ValueError:
            raise ValueError("expected an IP address such as 0.0.0.0 or 127.0.0.1") from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:.]*:[^\s/]*)$"}

    def words(self) -> str:
        return "IP address"


@dataclass(frozen=True)
class Network:
    """An IP network, or an address as a network of one."""

    def read(self, value: object) -> str:
        try:
            return str(ipaddress.ip_network(Text().read(value)))
        except ValueError:
            raise ValueError("expected a network such as 192.168.1.0/24 or an IP address") from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(?:%[^\s/]+)?(?:/[0-9.]+)?$"}

    def words(self) -> str:
        return "networks"


@dataclass(frozen=True)
class Folder:
    """A path; a relative one counts from the current folder."""

    def read(self, value: object) -> Path:
        text = Text().read(value)
        try:
            if "\0" in text:
                raise ValueError
            return Path(text).expanduser().resolve()
        except (OSError, RuntimeError, ValueError):  # no such user, a loop of links, NUL
            raise ValueError("expected a path that can be followed") from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": _NOT_EMPTY, "not": {"pattern": _NUL}}

    def words(self) -> str:
        return "path"


@dataclass(frozen=True)
class ListOf:
    """Different texts, each after a rule."""

    item: Rule
    what: str
    fewest: int = 0

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) < self.fewest or len(set(map(str, value))) != len(value):
            raise ValueError(f"expected a list of at least {self.fewest} different texts")
        return tuple(self.item.read(one) for one in value)

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(), "minItems": self.fewest, "uniqueItems": True}

    def words(self) -> str:
        return f"list of {self.what}"


def in_units(number: float) -> str:
    """A number as people read it: whole MiB and GiB by name, "4 GiB - 1" for the largest size of 32 bits."""
    if isinstance(number, int) and number >= GIB and number % (GIB // 4) == 0:
        return f"{number / GIB:g} GiB"
    if isinstance(number, int) and number >= MIB and number % MIB == 0:
        return f"{number // MIB} MiB"
    if isinstance(number, int) and number >= GIB and (number + 1) % GIB == 0:
        return f"{(number + 1) // GIB} GiB - 1"
    return f"{number:g}" if number < 10_000 else f"{number:.0f}"


def default_in_words(default: object) -> str:
    """A default for the table of keys."""
    if isinstance(default, int | float) and not isinstance(default, bool):
        return in_units(default)
    if isinstance(default, bool):
        return json.dumps(default)
    return f"`{default or json.dumps(default)}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _span(low: float, high: float) -> str:
    return f"{in_units(low)} to {in_units(high)}"


Keys = Mapping[str, "Key"]


@dataclass(frozen=True)
class Key:
    """One key: its rule, its default or REQUIRED, and what it is, for people."""

    rule: Rule
    default: object
    about: str


REQUIRED: Final = object()
