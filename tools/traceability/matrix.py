"""docs/requirements.md, the marks in tests/, and what a run of them showed -> a matrix, and what is wrong with it.

Marks are read from the source (`pytest.mark.requirement("RCV-01")` as decorator or in `pytestmark`), so the matrix can
be built without running anything; the results are what `tests/conftest.py` wrote at the end of a run.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path("var", "test-results.json")
MATRIX: Final = Path("var", "traceability.md")
CATEGORIES: Final = (
    "authentication",
    "authorization",
    "cryptography",
    "integrity",
    "confidentiality",
    "events",
    "resilience",
    "updates",
)
SAFETY: Final = "safety"
_ROW = re.compile(r"\| *([A-Z]+-\d\d) *\|([^|]+)\|([^|]+)\|([^|]+)\|")


@dataclass(frozen=True)
class Requirement:
    """A row of docs/requirements.md."""

    id: str
    text: str
    risk: str
    controls: tuple[str, ...]


@dataclass
class Matrix:
    """Tests by requirement, and sentences about what is wrong."""

    requirements: list[Requirement]
    tests: Mapping[str, Sequence[str]]
    results: Mapping[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def parse_requirements(text: str) -> tuple[list[Requirement], list[str]]:
    """The rows of the document, and what is wrong with them."""
    found: dict[str, Requirement] = {}
    faults = []
    for row in _ROW.finditer(text):
        name, *cells = (cell.strip() for cell in row.groups())
        requirement = Requirement(name, cells[0], cells[1], tuple(part.strip() for part in cells[2].split(",")))
        if name in found:
            faults.append(f"{name} is there twice")
        for control in requirement.controls:
            if control not in (*CATEGORIES, SAFETY):
                faults.append(f"{name}: {control!r} is no category")
        found[name] = requirement
    used = {control for requirement in found.values() for control in requirement.controls}
    faults += [f"no requirement is about {category}" for category in CATEGORIES if category not in used]
    return list(found.values()), faults


def marks_of(source: str, file: str) -> Iterator[tuple[str, str]]:
    """(requirement, test) for every mark of a test file; a test is called `file::name` as pytest does."""
    tree = ast.parse(source)
    whole = [name for node in tree.body if _sets_pytestmark(node) for name in _named(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own = [name for decorator in node.decorator_list for name in _named(decorator)]
            for name in (*whole, *own):
                yield name, f"{file}::{node.name}"


def _sets_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
    )


def _named(node: ast.AST) -> Iterator[str]:
    """The requirements of every `pytest.mark.requirement(...)` below a node."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "requirement":
            yield from (one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def build(requirements: str, sources: Mapping[str, str], results: Mapping[str, str] | None) -> Matrix:
    """The matrix. results: outcome of each test that ran ("passed", "failed", "skipped"), None when nothing ran."""
    found, faults = parse_requirements(requirements)
    known = {requirement.id for requirement in found}
    tests: defaultdict[str, list[str]] = defaultdict(list)
    for file, source in sorted(sources.items()):
        for name, test in marks_of(source, file):
            if name not in known:
                faults.append(f"{test} names {name}, which docs/requirements.md does not have")
            tests[name].append(test)
    for requirement in found:
        named = tests[requirement.id]
        if not named:
            faults.append(f"{requirement.id} has no test")
        elif results is not None and not any(results.get(test) == "passed" for test in named):
            faults.append(f"no test of {requirement.id} passed in this run")
    return Matrix(found, tests, results or {}, faults)


def to_markdown(matrix: Matrix) -> str:
    """The matrix for people."""
    lines = [
        "# Traceability",
        "",
        "Made by `tools/trace_requirements` from `docs/requirements.md` and the marks in `tests/`.",
        "",
        "| requirement | what | risk | control | tests |",
        "|---|---|---|---|---|",
    ]
    for one in matrix.requirements:
        shown = [f"`{test}`{_outcome(matrix.results.get(test))}" for test in matrix.tests[one.id]]
        cells = (one.id, one.text, one.risk, ", ".join(one.controls), "<br>".join(shown) or "**none**")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| control | requirements |", "|---|---|"]
    for category in (*CATEGORIES, SAFETY):
        names = [one.id for one in matrix.requirements if category in one.controls]
        lines.append(f"| {category} | {', '.join(names) or '**none**'} |")
    lines += ["", *(f"- **{fault}**" for fault in matrix.faults)]
    return "\n".join(lines).rstrip() + "\n"


def _outcome(result: str | None) -> str:
    return f" {result}" if result else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the matrix of this checkout; 1 if something is wrong with it."""
    parser = argparse.ArgumentParser("trace_requirements", description=__doc__.splitlines()[0])
    parser.add_argument("--results", action="store_true", help="also ask what the last whole run of the tests showed")
    parsed = parser.parse_args(arguments)
    results = json.loads((ROOT / RESULTS).read_text()) if parsed.results else None
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.glob("tests/test_*.py"))}
    matrix = build((ROOT / "docs" / "requirements.md").read_text(), sources, results)
    (ROOT / MATRIX).parent.mkdir(exist_ok=True)
    (ROOT / MATRIX).write_text(to_markdown(matrix))
    for fault in matrix.faults:
        print(f"trace: {fault}", file=sys.stderr)
    covered = sum(bool(matrix.tests[one.id]) for one in matrix.requirements)
    print(f"trace: {covered} of {len(matrix.requirements)} requirements have tests; the matrix is {MATRIX}")
    return int(bool(matrix.faults))


if __name__ == "__main__":
    sys.exit(main())
