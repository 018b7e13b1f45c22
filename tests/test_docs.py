"""The documents are tested: commands in them exist, links lead somewhere, and what they show is what is printed."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.__main__ import SERVICES, parser
from edge.board_keys import SECTIONS
from edge.toml import load_toml

LEFT_OUT = {".venv", ".venv-train", "build", "var", "train", ".git", "node_modules"}
LINK = re.compile(r"\[[^\]]+\]\(([^)\s#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHOWN = re.compile(r"<!-- what `tools/run --once` prints: begin -->\n```\n(.*?)```\n<!-- what .* end -->", re.DOTALL)


def documents(root: Path) -> list[Path]:
    found = [path for path in root.rglob("*.md") if not LEFT_OUT & set(path.relative_to(root).parts)]
    assert root / "README.md" in found
    return found


def typed(root: Path) -> Iterator[tuple[str, str]]:
    """(file, command line) of everything in the documents that a reader may type."""
    for path in documents(root):
        text = path.read_text()
        lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
        for line in lines + INLINE.findall(FENCE.sub("", text)):
            command = line.split("  #")[0].removeprefix("$ ").strip()
            if command.startswith(("radbox ", "tools/")) and not command.startswith("radbox: "):
                yield path.name, command


def test_commands_of_the_documents_parse(root: Path) -> None:
    commands = [(file, command) for file, command in typed(root) if command.startswith("radbox ")]
    assert len(commands) >= 10
    for file, command in commands:
        words = shlex.split(command)[1:]
        if words == ["--help"] or "..." in words or "COMMAND" in words or "<command>" in words:
            continue
        words += {"read": ["x.dcm"]}.get(words[0], []) if len(words) == 1 else []
        try:
            parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{file}: {command!r} is not a valid command")


def test_scripts_of_the_documents_exist(root: Path) -> None:
    scripts = {shlex.split(command)[0] for _file, command in typed(root) if command.startswith("tools/")}
    assert {"tools/run", "tools/test"} <= scripts
    for script in scripts - {"tools/"}:
        assert (root / script).is_file(), script


def test_options_of_the_scripts_are_real(root: Path) -> None:
    for file, command in typed(root):
        script, *words = shlex.split(command)
        if script == "tools/run":
            try:
                parser().parse_args(["up", *words])
            except SystemExit:
                pytest.fail(f"{file}: {command!r} is not a valid command")
        elif script in ("tools/test", "tools/check"):
            assert words in ([], ["--quick"]), command


def test_links_lead_somewhere(root: Path) -> None:
    broken = [
        f"{path.relative_to(root)}: {link}"
        for path in documents(root)
        for link in LINK.findall(FENCE.sub("", path.read_text()))
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert broken == []


def test_every_board_key_is_described(root: Path) -> None:
    text = (root / "board_configs" / "README.md").read_text()
    for section, keys in SECTIONS.items():
        for key in keys:
            name = f"{section}.{key}" if section else key
            assert f"`{name}`" in text, name


def test_every_board_file_says_every_key(root: Path) -> None:
    """A board file is read by people: nothing in it is left to a default."""
    sim = load_toml(root / "board_configs" / "sim.toml")
    for section, keys in SECTIONS.items():
        assert set(keys) <= set(sim[section] if section else sim), section


def test_operations_name_every_service(root: Path) -> None:
    text = (root / "docs" / "operations.md").read_text()
    assert all(f"`radbox {service}`" in text for service in SERVICES)


def test_changelog_is_about_this_version(root: Path) -> None:
    version = load_toml(root / "pyproject.toml")["project"]["version"]
    headings = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version
    assert len(headings) == len(set(headings))


def test_every_command_is_in_the_readme_or_the_operations(root: Path) -> None:
    text = (root / "README.md").read_text() + (root / "docs" / "operations.md").read_text()
    (commands,) = [one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)]
    assert all(f"radbox {command}" in text for command in commands.choices)


def skeleton(text: str) -> list[str]:
    """The lines that every run prints, without numbers and paths: what the box says, headings, addresses."""
    text = re.sub(r"(kept in) .*", r"\1 PATH", text)
    lines = [re.sub(r"\d+(\.\d+)?", "N", line).rstrip() for line in text.strip().splitlines()]
    frame = [line for line in lines if line.startswith(("radbox: ", "Study ", "Page: ")) or line.isupper()]
    return [line for line in frame if not line.startswith("radbox: waiting")]


def test_readme_shows_what_run_prints(root: Path, tmp_path: Path) -> None:
    """The main job: one study from C-STORE to a draft, as `tools/run --once` does after its set-up."""
    shown = SHOWN.search((root / "README.md").read_text())
    assert shown
    command = [sys.executable, "-m", "edge", "up", "--once", "--port=0", "--web-port=0", f"--data-dir={tmp_path}"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, cwd=root, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "Study 1: draft" in done.stdout
    assert "IMPRESSION" in done.stdout
    assert skeleton(shown[1]) == skeleton(done.stdout), f"run tools/show_run; got:\n{done.stdout}"
