"""The command line as a person meets it: real processes, real peers, what it prints and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pydicom
import pytest

from edge.__main__ import SERVICES, main, parser
from edge.doctor import LIBRARIES
from edge.simulate.echo import echo
from edge.toml import load_toml

SIMULATED = ("receive", "worker", "web", "care")  # the simulated box has no broker, panel or grabber
COMMANDS = (
    *(
        "up",
        "read",
        "simulate",
        "doctor",
        "bench",
        "selftest",
        "update",
        "fsck",
        "backup",
        "restore",
        "board",
        "engine",
    ),
    *SERVICES,
)


def radbox(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def board(tmp_path: Path, root: Path) -> Path:
    """The simulated board with a short quiet time and a data folder of its own."""
    text = (root / "board_configs" / "sim.toml").read_text()
    text = text.replace('"var/sim"', f'"{tmp_path / "studies"}"').replace("quiet_time_s = 2.0", "quiet_time_s = 0.2")
    assert "quiet_time_s = 0.2" in text
    path = tmp_path / "board.toml"
    path.write_text(text)
    return path


@pytest.fixture
def storescp(tmp_path: Path, free_port: int) -> Iterator[tuple[int, Path]]:
    """DCMTK's receiver: its port and the folder where it puts what it got."""
    folder = tmp_path / "received"
    folder.mkdir()
    command = ["storescp", "--output-directory", str(folder), "--accept-all", str(free_port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not echo("127.0.0.1", free_port, "ANY"):
            assert process.poll() is None
            time.sleep(0.05)
        yield free_port, folder
        process.terminate()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"radbox {command}" in text
    assert "--board FILE" in text


def test_whole_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {command} " in text for command in COMMANDS)
    assert "not a medical device" in text


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["fly"],
        ["read"],
        ["receive", "--port", "0"],
        ["up", "--port", "65536"],
        ["web", "--port", "no"],
        ["bench", "--studies", "0"],
    ],
)
def test_wrong_use_is_told_and_exits_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    assert "usage: radbox" in capsys.readouterr().err


@pytest.mark.requirement("INST-03")
def test_unknown_key_stops_the_start_with_one_sentence(board: Path) -> None:
    board.write_text(board.read_text().replace("[web]", "[web]\ncolour = 1"))
    for service in SERVICES:
        code, out, err = ended(radbox(service, "--board", board))
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "board.toml" in err
        assert "'colour'" in err
        assert err.endswith("[config.invalid]\n")


def test_board_and_data_folder_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RADBOX_BOARD", str(tmp_path / "absent.toml"))
    assert main(["bench"]) == 2
    assert "absent.toml" in capsys.readouterr().err


def test_the_simulated_box_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    from edge.__main__ import _load_board

    monkeypatch.delenv("RADBOX_BOARD", raising=False)
    monkeypatch.setenv("RADBOX_DATA_DIR", "mine")
    monkeypatch.chdir(tmp_path)
    loaded = _load_board(parser().parse_args(["web", "--port", "8123"]))
    assert loaded.worker.bundle.is_relative_to(root)
    assert loaded.data_dir == tmp_path / "mine"
    assert (loaded.web.port, loaded.receive.port) == (8123, 11112)
    assert Path.cwd() == tmp_path


def test_simulate_saves_a_file_that_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "effusion.dcm"
    assert main(["simulate", "--finding", "effusion", "--side", "left", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    saved = pydicom.dcmread(out)
    assert (saved.Modality, saved.BodyPartExamined) == ("DX", "CHEST")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--finding", "effusion", "--zone", "upper"], "zone lower"),
        (["--finding", "gout"], "got 'gout'"),
        (["--side", "left"], "expected --finding"),
    ],
)
def test_simulate_refuses_a_lesion_that_cannot_be(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *options, "--out", str(tmp_path / "x.dcm")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "[simulate.lesion]" in error
    assert not (tmp_path / "x.dcm").exists()


def test_simulate_sends_to_a_real_receiver(
    storescp: tuple[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, folder = storescp
    assert main(["simulate", "--host", "127.0.0.1", "--port", str(port), "--called-ae", "ANY"]) == 0
    first = capsys.readouterr().out
    assert main(["simulate", "--port", str(port)]) == 0
    assert first != capsys.readouterr().out, "each sending is a new study"
    assert len(list(folder.iterdir())) == 2


# pynetdicom 3.0.4 leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_simulate_says_when_nobody_listens(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--port", str(free_port)]) == 1
    assert "[send.no-connection]" in capsys.readouterr().err


def test_echo_is_false_where_nobody_listens(free_port: int) -> None:
    assert echo("127.0.0.1", free_port, "ANY") is False


def test_output_cut_off_is_no_traceback(board: Path) -> None:
    process = radbox("doctor", "--board", board)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.wait(30) == 1
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.requirement("INST-03")
def test_doctor_on_a_box_without_a_bundle(
    board: Path, tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = board.read_text().replace("models/bundles/chest", str(tmp_path / "none"))
    board.write_text(text.replace("11112", str(free_port)))
    assert main(["doctor", "--json", "--board", str(board)]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["bundle"]["verdict"] == "fail"
    assert checks["bundle"]["code"] == "bundle.missing"
    assert "backend" not in checks
    for name in ("python", "libraries", "sqlite", "board", "data", "database", "kernels", "receiver"):
        assert checks[name]["verdict"] in ("ok", "warn"), checks[name]
    assert not (tmp_path / "studies").exists(), "looking leaves nothing behind"


def test_doctor_tells_a_port_that_another_program_holds(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        board.write_text(board.read_text().replace("8080", str(port)))
        assert main(["doctor", "--board", str(board)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert any(f"127.0.0.1:{port}" in line for line in lines)


def test_doctor_with_a_broken_board_says_only_that(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board.write_text("name = 7")
    assert main(["doctor", "--json", "--board", str(board)]) == 1
    *others, last = json.loads(capsys.readouterr().out)
    assert (last["name"], last["verdict"]) == ("board", "fail")
    assert {check["verdict"] for check in others} <= {"ok", "warn"}


def test_doctor_knows_every_library_of_the_box(root: Path) -> None:
    required = load_toml(root / "pyproject.toml")["project"]["dependencies"]
    names = {line.partition(">")[0].partition("[")[0].strip() for line in required if "python_version" not in line}
    assert names == set(LIBRARIES)


def test_up_names_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = ended(radbox("up", "--once", "--port", 0, "--web-port", port, "--data-dir", tmp_path))
    assert (code, out) == (2, "")
    assert f"the page's port {port} to be free" in err
    assert "--web-port" in err
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def staying_box(board: Path) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
    """A box that stays up, and its services."""
    command = [sys.executable, "-m", "edge", "up", "--board", str(board), "--port", "0", "--web-port", "0"]
    log = board.with_name("up.log")
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            while "stays up" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            box = psutil.Process(process.pid)
            services = box.children()
            assert len(services) == len(SIMULATED)
            yield box, services
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            process.wait(30)


def test_ctrl_c_stops_every_service(board: Path) -> None:
    with staying_box(board) as (box, services):
        box.send_signal(signal.SIGINT)
        assert box.wait(20) == 0
        gone, alive = psutil.wait_procs(services, 1)
        assert len(gone) == len(SIMULATED)
        assert not alive


def test_a_dead_service_is_told_and_ends_the_box(board: Path) -> None:
    with staying_box(board) as (box, services):
        (worker,) = [one for one in services if "worker" in one.cmdline()]
        worker.kill()
        assert box.wait(20) == 1
        assert not psutil.wait_procs(services, 1)[1]
    assert "service worker" in board.with_name("up.log").read_text()
    assert "[box.service-died]" in board.with_name("up.log").read_text()


def test_a_killed_box_leaves_no_service_behind(board: Path) -> None:
    with staying_box(board) as (box, services):
        box.kill()
        assert not psutil.wait_procs(services, 10)[1]
