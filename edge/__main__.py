"""The command line: `radbox <command>`, or `python -m edge <command>` in the checkout.

The one border where errors become words on a terminal and exit codes: 0 done, 1 failed, 2 wrong use or a board file
that must not start the box, 130 stopped with Ctrl-C. Commands import what they run only when they run.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.board import Board, load_board
from edge.errors import ConfigError, RadboxError

CHECKOUT = Path(__file__).resolve().parent.parent
SIMULATED_BOARD = Path("board_configs", "sim.toml")
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
PR_SET_PDEATHSIG = 1  # prctl(2): the signal this process gets when its parent dies

DESCRIPTION = """\
radbox turns a chest X-ray that arrives by DICOM into a draft report on a page of the local network.
A research device, not a medical device: every report is a draft until a clinician signs it."""

EXAMPLES = """\
examples:
  radbox up                        start the whole simulated box and read one sample study
  radbox up --once chest.jpg       the same with a file of yours, then stop
  radbox read chest.dcm            read a file without any service running; prints the draft report
  radbox read --json images/       one JSON object for each study and line, with every score
  radbox simulate --finding effusion --side left --out effusion.dcm
  radbox doctor                    what works on this box, and what to do about the rest

The board is --board, else $RADBOX_BOARD, else board_configs/sim.toml of the checkout (keys: board_configs/README.md).
`radbox COMMAND --help` tells the options of one command."""

Parser = argparse.ArgumentParser
Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's own) and return the exit code; SystemExit on wrong use."""
    parsed = parser().parse_args(arguments)
    run: Command = parsed.run
    try:
        code = run(parsed)
        sys.stdout.flush()
        return code
    except RadboxError as error:
        print(f"radbox: {error.message} [{error.code}]", file=sys.stderr)
        return WRONG_USE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser() -> Parser:
    """All commands with their options."""
    whole = Parser(
        "radbox", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--version", action="version", version=f"radbox {importlib.metadata.version('radbox')}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, summary: str) -> Parser:
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(run=run)
        command.add_argument("--board", metavar="FILE", type=Path, default=os.environ.get("RADBOX_BOARD"), help="board file")
        command.add_argument("--data-dir", metavar="DIR", type=Path, help="keep studies here, not in the board's data_dir")
        return command

    _up(add("up", _run_up, "start the whole simulated box, send it one study by DICOM and show its draft report"))
    _read(add("read", _run_read, "read files without any service running"))
    _simulate(add("simulate", _run_simulate, "make a chest X-ray of a computed thorax and save it or send it by DICOM"))
    _json(add("doctor", _run_doctor, "check this box and say in plain words what to do"))
    _bench(add("bench", _run_bench, "measure seconds for each stage and memory for each process"))
    for name, summary in (
        ("receive", "service: take studies in over DICOM"),
        ("worker", "service: read the studies that came in"),
        ("web", "service: the page"),
    ):
        _service(add(name, _run_service, summary), name)
    return whole


def _json(command: Parser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON for machines")


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError(text)
    return port
