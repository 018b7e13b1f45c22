"""The words of one language: phrases by code, from `languages/<code>.toml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edge.errors import ReportError
from edge.report.graph import Node
from edge.report.schema import Side, Statement, Zone
from edge.toml import load_toml

LANGUAGES_PATH = Path(__file__).with_name("languages")


@dataclass(frozen=True)
class Words:
    """phrases: by dotted key ("section.lungs", "finding.effusion.name")."""

    language: str
    phrases: Mapping[str, str]

    def say(self, key: str, **values: object) -> str:
        """The phrase of `key` with its {names} filled in. Raises ReportError where the language has no such phrase."""
        phrase = self.phrases.get(key)
        if phrase is None:
            raise ReportError(f"expected language {self.language} to have the phrase {key!r}, got none")
        return phrase.format(**values) if values else phrase

    def has(self, key: str) -> bool:
        """Whether the language has a phrase of this key."""
        return key in self.phrases

    def name(self, node: Node) -> str:
        """What a finding or device is called inside a sentence."""
        return self.say(f"{node.label}.name")

    def place(self, node: Node, side: Side, zone: Zone) -> str:
        """Where it is, as the sentence goes on after the name; an unknown side is said to be unknown."""
        sided = "one" if side in ("left", "right") else side
        zoned = "part" if zone in ("upper", "middle", "lower") else zone
        style = self.say(f"{node.label}.place")
        key = f"place.{style}.{sided}_{zoned}"
        return self.say(key, side=self.say(f"side.{side}"), zone=self.say(f"zone.{zone}"))

    def percent(self, probability: float) -> str:
        """A probability of 0 to 1 as a whole percentage that never claims certainty. Raises ReportError outside it."""
        if not 0.0 <= probability <= 1.0:
            raise ReportError("expected a probability from 0 to 1, got another number")
        whole = round(probability * 100)
        if whole < 1:
            return self.say("sentence.percent_below")
        return self.say("sentence.percent_above") if whole > 99 else str(whole)

    def statement(self, statement: Statement, node: Node) -> str:
        """One statement as one sentence."""
        sentence = self.say(
            f"sentence.{statement.certainty}",
            finding=self.name(node),
            place=self.place(node, statement.side, statement.zone),
            percent=self.percent(statement.probability),
        )
        return capitalise(sentence)

    def join(self, names: Sequence[str], last: str) -> str:
        """ "a, b or c"; `last` is the key of the final joint (sentence.list_or, sentence.list_and)."""
        if len(names) < 2:
            return "".join(names)
        return self.say("sentence.list_comma").join(names[:-1]) + self.say(last) + names[-1]


def capitalise(sentence: str) -> str:
    """The sentence with its first letter in upper case and nothing else changed."""
    return sentence[:1].upper() + sentence[1:]


@lru_cache(maxsize=16)
def load_words(language: str = "en") -> Words:
    """The words of one language. Raises ReportError: no such language, or a file that is not tables of phrases."""
    path = LANGUAGES_PATH / f"{language}.toml"
    if not (language.isascii() and language.isalpha() and path.is_file()):
        known = ", ".join(sorted(file.stem for file in LANGUAGES_PATH.glob("*.toml")))
        raise ReportError(f"expected one of the languages {known}, got {language[:12]!r}")
    try:
        tables = load_toml(path)
    except ValueError as error:
        raise ReportError(f"expected phrases in TOML in {path.name}, got {error}") from error
    return Words(language, MappingProxyType(dict(_flat(tables, ""))))


def _flat(table: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    phrases: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            phrases += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            phrases.append((f"{prefix}{key}", value))
        else:
            raise ReportError(f"expected {prefix}{key} to be a phrase, got {type(value).__name__}")
    return phrases
