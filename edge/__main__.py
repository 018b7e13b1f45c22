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
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge.board import Board, load_board
from edge.board_files import board_path
from edge.board_simulated import simulated
from edge.errors import ConfigError, RadboxError

CHECKOUT = Path(__file__).resolve().parent.parent
SIMULATED_BOARD = Path("board_configs", "sim.toml")
SIMULATED_BUNDLE = Path("models", "bundles", "chest")
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that this process gets when its parent dies

DESCRIPTION = """\
radbox turns a chest X-ray that arrives by DICOM into a draft report on a page of the local network.
A research device, not a medical device: every report is a draft until a clinician signs it."""

EXAMPLES = """\
examples:
  radbox up                      start the whole simulated box and read one sample study
  radbox up --once chest.jpg     the same with a file of yours, then stop
  radbox read chest.dcm          read a file without any service running; prints the draft report
  radbox read --json images/     one JSON object for each study and line, with every score
  radbox simulate --finding effusion --side left --out effusion.dcm
  radbox doctor                  what works on this box, and what to do about the rest

The board is --board, else $RADBOX_BOARD, else board_configs/sim.toml of the checkout (keys: board_configs/README.md).
"radbox COMMAND --help" tells the options of one command.
Exit codes: 0 done, 1 failed, 2 wrong use or a wrong board file, 130 stopped with Ctrl-C."""

Parser = argparse.ArgumentParser
Parsed = argparse.Namespace
Command = Callable[[Parsed], int]
SERVICES = {
    "receive": ("edge.intake.receive", "service: take studies in over DICOM"),
    "worker": ("edge.reading.worker", "service: read the studies that came in"),
    "web": ("edge.desk.web", "service: the page"),
    "care": ("edge.care.service", "service: look after disk, heat, age, and what is wrong"),
    "link": ("edge.link.service", "service: tell a broker how the box is, watch the printer"),
    "panel": ("edge.care.panel.service", "service: the status panel on a serial line"),
    "capture": ("edge.intake.capture", "service: take pictures from a frame grabber"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's own) and return the exit code; SystemExit on wrong use."""
    # pydicom's warnings quote attribute values, which may be a patient's.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\b")
    parsed = parser().parse_args(arguments)
    run: Command = parsed.run
    try:
        code = run(parsed)
        sys.stdout.flush()
    except RadboxError as error:
        print(f"radbox: {error.message} [{error.code}]", file=sys.stderr)
        return WRONG_USE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def parser() -> Parser:
    """All commands with their options."""
    whole = Parser(
        "radbox", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--version", action="version", version=f"radbox {_version()}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, summary: str) -> Parser:
        command: Parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(run=run, command=name)
        command.add_argument(
            "--board", metavar="FILE", type=Path, help="board file, or the name of one that came along"
        )
        command.add_argument("--data-dir", metavar="DIR", type=Path, help="use this folder, not the board's data_dir")
        command.add_argument("--simulate", action="store_true", help="play the board on this machine, hardware and all")
        return command

    _up_options(add("up", _up, "start the whole simulated box, send it a study by DICOM and print the draft report"))
    _read_options(add("read", _read, "read DICOM files, JPEG or PNG pictures and folders of them, without any service"))
    _simulate_options(
        add("simulate", _simulate, "make a chest X-ray of a computed thorax and send it by DICOM or save it")
    )
    _json_option(add("doctor", _doctor, "check this box and say in plain words what to do"))
    _bench_options(add("bench", _bench, "measure this box: each stage, tokens, images, memory, energy; compare"))
    _update_options(add("update", _update, "model updates: what is installed, check and install a stick, go back"))
    _fsck_options(add("fsck", _fsck, "compare database and files; rebuild rows from the spool"))
    _json_option(add("selftest", _selftest, "prove that this box reads: kernels, every backend, storage, one study"))
    _backup_options(add("backup", _backup, "write an encrypted archive of the whole box, such as onto a stick"))
    _backup_options(add("restore", _restore, "restore such an archive into an empty data folder"))
    _board_options(add("board", _board, "board files: list, show, check, keys, schema; which one fits this machine"))
    _engine_options(add("engine", _engine, "the TensorRT engine of this box: build it now, show it, remove it"))
    for name, (_module, summary) in SERVICES.items():
        service = add(name, _service, summary)
        if name in ("receive", "web"):
            service.add_argument("--port", metavar="N", type=_port, help="listen here, not on the board's port")
        if name == "panel":
            service.add_argument("--capture", metavar="FILE", type=Path, help="keep what crosses the line, both ways")
        service.add_argument("--parent", metavar="PID", type=int, help=argparse.SUPPRESS)
    return whole


def _json_option(command: Parser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON for machines")


def _bench_options(command: Parser) -> None:
    command.add_argument("--studies", metavar="N", type=_count, default=20, help="how many to read (default: 20)")
    command.add_argument("--cold", metavar="N", type=_count, default=3, help="starts of all services (default: 3)")
    command.add_argument("--queue", metavar="N", type=_count, default=6, help="studies sent at once (default: 6)")
    _json_option(command)
    command.add_argument("--out", metavar="FILE", type=Path, help="write the JSON here, too")
    command.add_argument("--plot", metavar="FILE", type=Path, help="write a plot here (SVG)")
    command.add_argument(
        "--compare", metavar=("A", "B"), nargs=2, type=Path, help="measure nothing; compare two results"
    )
    command.add_argument("--across", metavar="NAME", help="the one thing that may differ between them, such as model")


def _update_options(command: Parser) -> None:
    command.add_argument("action", choices=("list", "verify", "install", "confirm", "rollback"))
    command.add_argument("path", nargs="?", type=Path, help="the mounted stick (verify, install)")
    _json_option(command)


def _fsck_options(command: Parser) -> None:
    command.add_argument("--repair", action="store_true", help="put right what can be; without it only look")
    _json_option(command)


def _backup_options(command: Parser) -> None:
    command.add_argument("path", type=Path, help="the archive")
    command.add_argument(
        "--passphrase-file", metavar="FILE", type=Path, required=True, help="its first line is the passphrase"
    )


def _board_options(command: Parser) -> None:
    command.add_argument("action", choices=("list", "show", "check", "keys", "schema", "probe"))
    command.add_argument("name", nargs="?", help="a board that came along (show), a board file (check)")
    _json_option(command)
    command.add_argument("--write", metavar="FILE", type=Path, help="probe: put a copy of the proposed board here")
    command.add_argument(
        "--root", metavar="DIR", type=Path, help="probe: the copied /sys, /proc ... of another machine"
    )


def _engine_options(command: Parser) -> None:
    command.add_argument("action", choices=("build", "status", "clear"))
    _json_option(command)


def _up_options(command: Parser) -> None:
    command.add_argument("path", nargs="?", type=Path, help="file, folder or JPEG to send (default: the sample study)")
    command.add_argument("--once", action="store_true", help="stop after the report")
    command.add_argument("--port", metavar="N", type=_port_or_free, help="DICOM port; 0 picks a free one")
    command.add_argument("--web-port", metavar="N", type=_port_or_free, help="port of the page; 0 picks a free one")
    command.add_argument("--verbose", action="store_true", help="show what the services log")


def _read_options(command: Parser) -> None:
    command.add_argument(
        "paths", metavar="PATH", nargs="+", type=Path, help="DICOM file, JPEG, PNG, or a folder of them"
    )
    _json_option(command)


def _simulate_options(command: Parser) -> None:
    command.add_argument("path", nargs="?", type=Path, help="send these files instead of a computed thorax")
    command.add_argument("--finding", metavar="CODE", help="put this finding in (effusion, pneumothorax, mass ...)")
    command.add_argument("--side", choices=("left", "right", "bilateral", "midline"), help="the patient's side")
    command.add_argument("--zone", choices=("upper", "middle", "lower", "diffuse"))
    command.add_argument("--seed", metavar="N", type=int, default=0, help="another body (default: 0)")
    command.add_argument("--out", metavar="FILE", type=Path, help="save a DICOM file instead of sending")
    command.add_argument("--host", help="receiver (default: the board's)")
    command.add_argument("--port", metavar="N", type=_port, help="its port (default: the board's)")
    command.add_argument("--called-ae", metavar="TITLE", help="its AE title (default: the board's)")


def _port(text: str) -> int:
    port = _port_or_free(text)
    if port == 0:
        raise argparse.ArgumentTypeError("expected a port from 1 to 65535, got 0")
    return port


def _port_or_free(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _version() -> str:
    try:
        return importlib.metadata.version("radbox")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _board_file(parsed: Parsed) -> Path | None:
    """The board file that was named, or None for the simulated box."""
    named = parsed.board or os.environ.get("RADBOX_BOARD")
    return board_path(named) if named else None


def _same_board(parsed: Parsed) -> tuple[str, ...]:
    """What makes a service load the board that this command loads."""
    file = _board_file(parsed)
    return (*(("--board", str(file)) if file else ()), *(("--simulate",) if parsed.simulate else ()))


def _load_board(parsed: Parsed) -> Board:
    """The board, with what the command line says in its stead. Raises ConfigError."""
    file, here = _board_file(parsed), Path.cwd()
    data_dir = parsed.data_dir or os.environ.get("RADBOX_DATA_DIR")
    if file is None:
        os.chdir(CHECKOUT)  # the simulated box's own paths are those of the checkout, wherever it is started from
    try:
        board = load_board(file or SIMULATED_BOARD)
    finally:
        os.chdir(here)
    folder = Path(data_dir).expanduser().resolve() if data_dir else None
    if parsed.simulate:
        name = (file or SIMULATED_BOARD).stem
        board = simulated(board, name, folder or _simulated_folder(name), CHECKOUT / SIMULATED_BUNDLE)
    elif folder:
        board = dataclasses.replace(board, data_dir=folder)
    if parsed.command in ("receive", "up") and parsed.port is not None:
        board = dataclasses.replace(board, receive=dataclasses.replace(board.receive, port=parsed.port))
    web_port = {"web": "port", "up": "web_port"}.get(parsed.command)
    if web_port and getattr(parsed, web_port) is not None:
        board = dataclasses.replace(board, web=dataclasses.replace(board.web, port=getattr(parsed, web_port)))
    return board


def _simulated_folder(name: str) -> Path:
    """Where a played board keeps its studies. Raises ConfigError where there is no checkout to keep them in."""
    if not (CHECKOUT / SIMULATED_BOARD).is_file():
        raise ConfigError("expected --data-dir with --simulate outside of a checkout, got none")
    return CHECKOUT / "var" / f"simulated-{name}"


def _call(module: str, function: str, *arguments: Any, **options: Any) -> int:
    """Import late, so that `radbox --help` is quick and one broken library stops only what needs it."""
    code: int = getattr(importlib.import_module(module), function)(*arguments, **options)
    return code


def _service(parsed: Parsed) -> int:
    from edge.service import Stop, setup_logging

    if parsed.parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parsed.parent:
            return FAILED
    board = _load_board(parsed)
    setup_logging(parsed.command)
    options = {"capture": parsed.capture} if parsed.command == "panel" else {}
    importlib.import_module(SERVICES[parsed.command][0]).run(board, Stop(), **options)
    return 0


def _up(parsed: Parsed) -> int:
    board, options = _load_board(parsed), _same_board(parsed)
    return _call("edge.box", "up", board, options, parsed.path, once=parsed.once, verbose=parsed.verbose)


def _read(parsed: Parsed) -> int:
    return _call("edge.read", "main", parsed.paths, parsed.json, _load_board(parsed))


def _doctor(parsed: Parsed) -> int:
    return _call("edge.doctor", "main", lambda: _load_board(parsed), parsed.json)


def _bench(parsed: Parsed) -> int:
    if parsed.compare:
        return _call("edge.bench.command", "main_compare", *parsed.compare, parsed.across)
    from edge.bench.command import Wanted
    from edge.bench.plan import Plan

    plan = Plan(studies=parsed.studies, cold_starts=parsed.cold, queued=parsed.queue)
    wanted = Wanted(parsed.json, parsed.out, parsed.plot)
    return _call("edge.bench.command", "main", _load_board(parsed), plan, _same_board(parsed), wanted)


def _update(parsed: Parsed) -> int:
    return _call("edge.care.update.command", "main", _load_board(parsed), parsed.action, parsed.path, parsed.json)


def _fsck(parsed: Parsed) -> int:
    return _call("edge.care.fsck", "main", _load_board(parsed), repair=parsed.repair, as_json=parsed.json)


def _backup(parsed: Parsed) -> int:
    return _call("edge.care.backup", "main", _load_board(parsed), parsed.path, parsed.passphrase_file)


def _restore(parsed: Parsed) -> int:
    return _call("edge.care.restore", "main", _load_board(parsed), parsed.path, parsed.passphrase_file)


def _selftest(parsed: Parsed) -> int:
    return _call("edge.care.selftest", "main", _load_board(parsed), parsed.json)


def _board(parsed: Parsed) -> int:
    from edge.board_command import run

    text, code = run(parsed.action, parsed.name, parsed.json, parsed.write, parsed.root)
    print(text.rstrip())
    return code


def _engine(parsed: Parsed) -> int:
    return _call("edge.engine_command", "main", _load_board(parsed), parsed.action, parsed.json)


def _simulate(parsed: Parsed) -> int:
    return _call(
        "edge.simulate.command",
        "main",
        _load_board(parsed).receive,
        **{
            name: getattr(parsed, name)
            for name in ("path", "finding", "side", "zone", "seed", "out", "host", "port", "called_ae")
        },
    )


if __name__ == "__main__":
    sys.exit(main())
