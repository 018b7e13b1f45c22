"""Every board file played on this machine: what is replaced, what reads, and one whole box."""

from __future__ import annotations

import ipaddress
import time
import urllib.request
from pathlib import Path

import pytest

from edge.__main__ import _load_board, main, parser
from edge.board import Board, load_board
from edge.board_files import shipped
from edge.board_keys import ACCELERATED_BACKENDS
from edge.board_simulated import simulated
from edge.box import running, service_names, wait_until_ready
from edge.bundle import Bundle, load_bundle
from edge.care.hardware import open_hardware
from edge.errors import BackendError, ConfigError
from edge.reading.backends import open_encoder
from edge.reading.backends.setup import board_setup
from edge.reading.decoding import board_decoding
from edge.reading.pipeline import Reader
from edge.reading.radiograph import Radiograph, Study
from edge.report.schema import Report
from edge.report.serial import from_json
from edge.service import Stop
from edge.simulate.command import SAMPLE
from edge.simulate.objects import phantom_dataset
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.simulate.send import send

BOARDS = sorted(shipped())
LIMIT_S = 90.0


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return load_bundle(root / "models" / "bundles" / "chest")


@pytest.fixture(scope="module")
def thorax() -> Study:
    phantom = make_phantom(PhantomOptions(seed=3, size=512, detail="fast"))
    return Study((Radiograph(phantom.pixels, modality="DX", body_part="CHEST", view="AP", age_years=50.0),))


def play(name: str, folder: Path, root: Path) -> Board:
    return simulated(load_board(shipped()[name]), name, folder, root / "models" / "bundles" / "chest")


@pytest.mark.parametrize("name", BOARDS)
def test_a_played_board_reads(name: str, tmp_path: Path, root: Path, bundle: Bundle, thorax: Study) -> None:
    board = play(name, tmp_path, root)
    opened = open_encoder(bundle, board.worker.backends, board_setup(board), probe=False)
    accelerated = set(load_board(shipped()[name]).worker.backends) & set(ACCELERATED_BACKENDS)
    assert opened.passed_over == ()
    assert opened.encoder.name == ("simulated-npu" if accelerated else "tflite")
    report = Reader(bundle, opened.encoder, board_decoding(board)).read(thorax).outcome
    assert isinstance(report, Report)
    assert report.model.backend == opened.encoder.name


@pytest.mark.parametrize("name", BOARDS)
def test_a_played_board_stays_on_this_machine(name: str, tmp_path: Path, root: Path) -> None:
    real, board = load_board(shipped()[name]), play(name, tmp_path, root)
    assert board.name == f"{name} (simulated)"
    assert board.data_dir == tmp_path
    assert all(ipaddress.ip_address(host).is_loopback for host in (board.receive.host, board.web.host))
    assert service_names(board) == ("receive", "worker", "web", "care")
    assert board.worker.bundle.is_dir()
    assert (board.budget, board.storage, board.receive.port) == (real.budget, real.storage, real.receive.port)
    readings = open_hardware(board).read()
    assert readings.accelerators == dict.fromkeys(real.hardware.accelerators, True)


@pytest.mark.parametrize("name", ["raspberry-pi-5-hailo", "imx8mp"])
def test_its_accelerator_can_be_lost(name: str, tmp_path: Path, root: Path, bundle: Bundle) -> None:
    board = play(name, tmp_path, root)
    (tmp_path / "hardware.toml").write_text('[accelerator]\nstate = "lost"\n')
    assert not any(open_hardware(board).read().accelerators.values())
    opened = open_encoder(bundle, board.worker.backends, board_setup(board), probe=False)
    assert opened.encoder.name == "tflite"
    ((lost, error),) = opened.passed_over
    assert (lost, error.code) == ("simulated-npu", "backend.lost")


def test_senders_and_machines_around_a_real_box_are_left_out(tmp_path: Path, root: Path) -> None:
    text = shipped()["rk3588"].read_text()
    for old, new in (
        ("calling_ae = []", 'calling_ae = ["CR1"]'),
        ("addresses = []", 'addresses = ["192.168.1.0/24"]'),
        ('source = ""', 'source = "/dev/video0"'),
        ('uri = ""', 'uri = "ipp://192.168.1.9/ipp/print"'),
        ('kernels = "auto"', 'kernels = "neon_dotprod"'),
        ('library = ""', 'library = "/opt/delegate.so"'),
    ):
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "board.toml"
    file.write_text(text)
    board = simulated(load_board(file), "mine", tmp_path, root / "models" / "bundles" / "chest")
    assert (board.receive.calling_ae, board.receive.addresses, board.worker.kernels) == ((), (), "auto")
    assert (board.accelerator.library, board.grabber.source, board.printer.uri) == ("", "", "")


def test_a_bundle_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "board.toml").write_text(f'name = "x"\ndata_dir = "x"\n[worker]\nbundle = "{tmp_path / "bundle"}"\n')
    assert simulated(load_board(tmp_path / "board.toml"), "x", tmp_path, tmp_path).worker.bundle == tmp_path / "bundle"


def test_the_command_line_plays_a_board(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADBOX_DATA_DIR", raising=False)
    played = _load_board(parser().parse_args(["up", "--simulate", "--board", "jetson-agx-thor", "--port", "0"]))
    assert (played.name, played.receive.port) == ("jetson-agx-thor (simulated)", 0)
    assert played.data_dir == root / "var" / "simulated-jetson-agx-thor"
    words = ["doctor", "--simulate", "--board", str(shipped()["imx8mp"]), "--data-dir", str(tmp_path)]
    assert _load_board(parser().parse_args(words)).data_dir == tmp_path
    assert _load_board(parser().parse_args(["up", "--simulate"])).name == "sim (simulated)"


def test_outside_of_a_checkout_the_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADBOX_DATA_DIR", raising=False)
    board = shipped()["rk3588"]
    monkeypatch.setattr("edge.__main__.CHECKOUT", tmp_path)
    with pytest.raises(ConfigError, match="expected --data-dir with --simulate"):
        _load_board(parser().parse_args(["up", "--simulate", "--board", str(board)]))
    assert main(["up", "--simulate", "--board", str(board)]) == 2


def test_a_real_accelerator_is_never_played_silently(bundle: Bundle, tmp_path: Path) -> None:
    """Without --simulate the board's own accelerator is asked for, and what is missing is an error with a code."""
    board = load_board(shipped()["raspberry-pi-5-hailo"])
    with pytest.raises(BackendError) as caught:
        open_encoder(bundle, board.worker.backends[:1], board_setup(board), probe=False)
    assert caught.value.code == "backend.none"


def test_a_whole_played_box_reads_a_study_and_says_that_it_is_played(tmp_path: Path, root: Path) -> None:
    """Services of their own, started as `radbox up --simulate --board raspberry-pi-5-coral` starts them."""
    file = tmp_path / "raspberry-pi-5-coral.toml"
    text = shipped()["raspberry-pi-5-coral"].read_text().replace("quiet_time_s = 10", "quiet_time_s = 0.2")
    file.write_text(text.replace("min_free_bytes = 536870912", "min_free_bytes = 67108864"))
    words = ["up", "--simulate", "--board", str(file), "--data-dir", str(tmp_path / "data"), "--port=0", "--web-port=0"]
    board = _load_board(parser().parse_args(words))
    dataset = phantom_dataset(make_phantom(SAMPLE), patient_name="SEEDED^NAME", patient_id="SEEDED-1")
    with running(board, ("--board", str(file), "--simulate"), stop=Stop(signals=False)) as box:
        wait_until_ready(box)
        receive = box.board.receive
        assert send([dataset], receive.host, receive.port, receive.ae_title)[0].accepted
        deadline = time.monotonic() + LIMIT_S
        while not any(row.state in ("draft", "refused", "failed") for row in box.store.studies(limit=1)):
            assert time.monotonic() < deadline, f"not read within {LIMIT_S} s"
            assert not any(service.process.poll() is not None for service in box.services)
            time.sleep(0.05)
        (row,) = box.store.studies(limit=1)
        detail = box.store.study(row.study_key)
        assert detail is not None
        assert detail.state == "draft"
        assert from_json(detail.report_json).model.backend == "simulated-npu"
        with urllib.request.urlopen(box.page, timeout=10) as answer:
            assert "raspberry-pi-5-coral (simulated)" in answer.read().decode()
