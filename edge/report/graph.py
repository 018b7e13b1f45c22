"""The graph of what a chest report may say (`graph.toml`): closed, typed, with every name resolved on loading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from edge.errors import ReportError
from edge.report.schema import Certainty, Population, Side, Zone
from edge.toml import parse_toml

GRAPH_PATH = Path(__file__).with_name("graph.toml")
GRAPH_VERSION = 1

NodeKind = Literal["organ", "region", "finding", "device"]
Urgency = Literal["critical", "urgent", "routine"]
Where = Literal["anywhere", "same-side", "same-place"]
STATABLE: tuple[NodeKind, ...] = ("finding", "device")

# What one row of each kind of rule must say besides id, kind, text and doubt: key -> allowed words, or a type.
_STATED_SETS = ("stated", "absent", "not_validated", "disagreements")
_FINDING = "a finding or device of the graph"
RULE_PARAMETERS: Mapping[str, Mapping[str, tuple[str, ...] | type | str]] = MappingProxyType(
    {
        "known-finding": {},
        "modality-allowed": {},
        "side-allowed": {},
        "zone-allowed": {},
        "stated-once": {},
        "excludes": {"where": get_args(Where)},
        "implied-not-absent": {},
        "not-both": {"first": _STATED_SETS, "second": _STATED_SETS},
        "accounted-for": {},
        "probability-of-score": {},
        "threshold": {},
        "least-probability": {"certainty": get_args(Certainty), "least": float},
        "evidence-present": {},
        "evidence-inside": {},
        "side-agrees": {},
        "side-supported": {},
        "zone-agrees": {},
        "in-impression": {"urgency": get_args(Urgency)},
        "limit-given": {"when": ("always", "one-image", "view-unknown", "age-unknown"), "limit": str},
        "only-possible-on-view": {"finding": _FINDING, "view": str},
        "no-side-on-view": {"view": str},
        "population-only": {"finding": _FINDING, "population": get_args(Population)},
        "images-read": {"least": int},
        "graph-version": {},
    }
)


@dataclass(frozen=True)
class Code:
    """One code of a public terminology. scheme: coding scheme designator of DICOM PS3.16 section 8 (SCT, DCM)."""

    scheme: str
    value: str
    meaning: str
    verified_by: str


@dataclass(frozen=True)
class Exclusion:
    """`finding` cannot be stated beside the node that carries this, at `where`. Holds both ways."""

    finding: str
    where: Where


@dataclass(frozen=True)
class Node:
    """One organ, region, finding or device. `label` is the key of its words in languages/*.toml."""

    code: str
    kind: NodeKind
    label: str
    section: str
    parent: str | None
    located_in: tuple[str, ...]
    sides: tuple[Side, ...]
    zones: tuple[Zone, ...]
    modalities: tuple[str, ...]
    urgency: Urgency
    implies: tuple[str, ...]
    excludes: tuple[Exclusion, ...]
    overlaps: tuple[str, ...]
    codes: tuple[Code, ...]


@dataclass(frozen=True)
class Rule:
    """One row of the rules table. `parameters` are the keys that RULE_PARAMETERS names for the kind."""

    id: str
    kind: str
    text: str
    doubt: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """nodes: by code, in file order. sections: organ sections in report order. sha256: of the bytes of the file."""

    version: int
    sections: tuple[str, ...]
    nodes: Mapping[str, Node]
    rules: tuple[Rule, ...]
    sha256: str

    def statable(self, code: str) -> Node:
        """The finding or device with this code. Raises ReportError where there is none."""
        node = self.nodes.get(code)
        if node is None or node.kind not in STATABLE:
            raise ReportError(f"expected the code of a finding or device of the graph, got {code!r}")
        return node

    def overlap(self, one: str, other: str) -> bool:
        """Whether readers use the words of both findings for one shadow. Raises ReportError for an unknown code."""
        return other in self.statable(one).overlaps or one in self.statable(other).overlaps


def load_graph(path: Path | None = None) -> Graph:
    """The graph of `path`, by default the one shipped beside this module (read once per process).

    Raises ReportError: unreadable, not TOML, an unknown key, a wrong type, a name that nothing has, a repeated id.
    """
    return _shipped() if path is None else _load(path)


@lru_cache(maxsize=1)
def _shipped() -> Graph:
    return _load(GRAPH_PATH)


def _load(path: Path) -> Graph:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReportError(f"expected a readable graph at {path.name}, got {type(error).__name__}") from error
    return parse_graph(content)


def parse_graph(content: bytes) -> Graph:
    """`load_graph` of bytes already read."""
    try:
        tables = parse_toml(content)
    except ValueError as error:
        raise ReportError(f"expected a graph in TOML, got {error}") from error
    _close(tables, "the graph", required={"version", "modalities", "sections", "finding", "rule"}, optional=_NODE_KINDS)
    if type(tables["version"]) is not int or tables["version"] != GRAPH_VERSION:
        raise ReportError(f"expected graph version {GRAPH_VERSION}, got {tables['version']!r}")
    sections = _words(tables["sections"], "sections")
    modalities = _words(tables["modalities"], "modalities")
    nodes: dict[str, Node] = {}
    for kind in get_args(NodeKind):
        for code, table in _table(tables.get(kind, {}), kind).items():
            if code in nodes:
                raise ReportError(f"expected one node named {code!r}, got a {nodes[code].kind} and a {kind}")
            nodes[code] = _node(kind, code, table, sections, modalities)
    _resolve(nodes)
    rules = tuple(_rule(row, nodes) for row in _rows(tables["rule"], "rule"))
    _once([rule.id for rule in rules], "rule id")
    return Graph(GRAPH_VERSION, sections, MappingProxyType(nodes), rules, hashlib.sha256(content).hexdigest())


_NODE_KINDS = set(get_args(NodeKind))
_PLACE_KEYS = {"section", "parent", "sides", "zones", "codes"}
_STATED_KEYS = {"located_in", "modalities", "urgency", "implies", "excludes", "overlaps"}


def _node(kind: NodeKind, code: str, value: Any, sections: tuple[str, ...], modalities: tuple[str, ...]) -> Node:
    where = f"{kind}.{code}"
    table = _table(value, where)
    if kind in STATABLE:
        required = {"section", "located_in", "sides", "zones", "urgency"}
        optional = _PLACE_KEYS | _STATED_KEYS
    else:
        required = {"parent", "sides", "zones"} if kind == "region" else {"section"}
        optional = _PLACE_KEYS
    _close(table, where, required, optional)
    section = table.get("section")
    if section is not None and section not in sections:
        raise ReportError(f"expected {where}.section to be one of {', '.join(sections)}, got {section!r}")
    return Node(
        code=code,
        kind=kind,
        label=f"{kind}.{code}",
        section=section or "",  # a region takes its parent's, in _resolve
        parent=_optional_word(table.get("parent"), f"{where}.parent"),
        located_in=_words(table.get("located_in", []), f"{where}.located_in"),
        sides=_choices(table.get("sides", []), get_args(Side), f"{where}.sides"),
        zones=_choices(table.get("zones", []), get_args(Zone), f"{where}.zones"),
        modalities=_words(table["modalities"], f"{where}.modalities") if "modalities" in table else modalities,
        urgency=_choice(table.get("urgency", "routine"), get_args(Urgency), f"{where}.urgency"),
        implies=_words(table.get("implies", []), f"{where}.implies"),
        excludes=tuple(_exclusion(row, where) for row in _rows(table.get("excludes", []), f"{where}.excludes")),
        overlaps=_words(table.get("overlaps", []), f"{where}.overlaps"),
        codes=tuple(_code(row, where) for row in _rows(table.get("codes", []), f"{where}.codes")),
    )


def _exclusion(row: dict[str, Any], where: str) -> Exclusion:
    _close(row, f"{where}.excludes", {"finding", "where"}, set())
    finding = _word(row["finding"], f"{where}.excludes.finding")
    return Exclusion(finding, _choice(row["where"], get_args(Where), f"{where}.excludes.where"))


def _code(row: dict[str, Any], where: str) -> Code:
    keys = ("scheme", "value", "meaning", "verified_by")
    _close(row, f"{where}.codes", set(keys), set())
    return Code(*(_word(row[key], f"{where}.codes.{key}") for key in keys))


def _resolve(nodes: dict[str, Node]) -> None:
    """Check every name against `nodes`, and give each region its parent's section."""
    for node in list(nodes.values()):
        places = (*node.located_in, *([node.parent] if node.parent else []))
        _named(nodes, places, ("organ", "region"), node)
        _named(nodes, (*node.implies, *node.overlaps, *(e.finding for e in node.excludes)), STATABLE, node)
        if not node.section and node.parent:
            nodes[node.code] = replace(node, section=nodes[node.parent].section)
        if node.kind in STATABLE and not (node.sides and node.zones and node.located_in):
            raise ReportError(f"expected {node.label} to have sides, zones and a place, got an empty list")
    _paired([frozenset((n.code, e.finding)) for n in nodes.values() for e in n.excludes], "exclusion")
    _paired([frozenset((n.code, other)) for n in nodes.values() for other in n.overlaps], "overlap")


def _paired(pairs: list[frozenset[str]], word: str) -> None:
    for pair in pairs:
        if len(pair) == 1 or pairs.count(pair) > 1:
            raise ReportError(f"expected each {word} once and between two findings, got {' and '.join(sorted(pair))}")


def _named(nodes: dict[str, Node], codes: tuple[str, ...], kinds: tuple[NodeKind, ...], node: Node) -> None:
    for code in codes:
        if code not in nodes or nodes[code].kind not in kinds:
            raise ReportError(f"expected {node.label} to name a node of kind {' or '.join(kinds)}, got {code!r}")


def _rule(row: dict[str, Any], nodes: dict[str, Node]) -> Rule:
    where = f"rule {row.get('id', '(no id)')}"
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in RULE_PARAMETERS:
        raise ReportError(f"expected {where} to have a kind of {', '.join(RULE_PARAMETERS)}, got {kind!r}")
    wanted = RULE_PARAMETERS[kind]
    _close(row, where, {"id", "kind", "text", *wanted}, {"doubt"})
    for key, choice in wanted.items():
        _parameter(row[key], choice, nodes, f"{where}, {key}")
    return Rule(
        id=_word(row["id"], where),
        kind=kind,
        text=_word(row["text"], f"{where}, text"),
        doubt=_word(row.get("doubt", "doubt.rule-failed"), f"{where}, doubt"),
        parameters=MappingProxyType({key: row[key] for key in wanted}),
    )


def _parameter(value: Any, choice: tuple[str, ...] | type | str, nodes: dict[str, Node], where: str) -> None:
    if isinstance(choice, tuple):
        _choice(value, choice, where)
    elif choice == _FINDING:
        if not isinstance(value, str) or value not in nodes or nodes[value].kind not in STATABLE:
            raise ReportError(f"expected {where} to be {_FINDING}, got {value!r}")
    elif isinstance(choice, type) and type(value) is not choice:
        raise ReportError(f"expected {where} to be of type {choice.__name__}, got {type(value).__name__}")


def _close(table: dict[str, Any], where: str, required: set[str], optional: set[str]) -> None:
    missing, unknown = required - set(table), set(table) - required - optional
    if missing:
        raise ReportError(
            f"expected {where} to have {', '.join(sorted(missing))}, got only {', '.join(table) or 'nothing'}"
        )
    if unknown:
        raise ReportError(f"expected only known keys in {where}, got {', '.join(sorted(unknown))}")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ReportError(f"expected {where} to be a table, got {type(value).__name__}")
    return value


def _rows(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ReportError(f"expected {where} to be a list of tables, got {type(value).__name__}")
    return [_table(row, where) for row in value]


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ReportError(f"expected {where} to be a word, got {value!r}")
    return value


def _optional_word(value: Any, where: str) -> str | None:
    return None if value is None else _word(value, where)


def _words(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ReportError(f"expected {where} to be a list of words, got {type(value).__name__}")
    words = [_word(word, where) for word in value]
    _once(words, where)
    return tuple(words)


def _choice(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    if value not in allowed:
        raise ReportError(f"expected {where} to be one of {', '.join(allowed)}, got {value!r}")
    return value


def _choices(value: Any, allowed: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    return tuple(_choice(word, allowed, where) for word in _words(value, where))


def _once(words: list[str], where: str) -> None:
    repeated = sorted({word for word in words if words.count(word) > 1})
    if repeated:
        raise ReportError(f"expected each {where} once, got {', '.join(repeated)} again")
