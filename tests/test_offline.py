"""Offline by construction: the whole main job where nothing can be reached, with two witnesses that see every attempt.

The controls show that the witnesses would see one: a packet, a connection, a name that somebody asks for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edge.simulate.command import SAMPLE
from edge.simulate.objects import phantom_dataset, save_file
from edge.simulate.phantom import make_phantom
from tests.offline import WITNESSES, Told, offline, why_not

pytestmark = pytest.mark.requirement("SEC-02")
NAME = "updates.example"
ASK = f"import socket\ntry: socket.getaddrinfo('{NAME}', 443)\nexcept OSError: print('no such name')"
SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
SEND_6 = "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('2001:db8:9::1', 9))"
CALL = "timeout 1 bash -c 'exec 3<>/dev/tcp/192.0.2.1/443'"
LATER = f'(sleep 0.2; {sys.executable} -c "{SEND}") & wait'


@pytest.fixture
def board_file(tmp_path: Path, root: Path) -> Path:
    """The simulated board with a short quiet time."""
    text = (root / "board_configs" / "sim.toml").read_text()
    text = text.replace('"models/bundles/chest"', json.dumps(str(root / "models/bundles/chest")))
    file = tmp_path / "board.toml"
    file.write_text(text.replace("quiet_time_s = 2.0", "quiet_time_s = 0.5").replace("536870912", "67108864"))
    return file


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A computed chest X-ray as a DICOM file."""
    path = tmp_path_factory.mktemp("phantom") / "object.dcm"
    save_file(phantom_dataset(make_phantom(SAMPLE), patient_name="SEEDED^NAME", patient_id="SEEDED-1"), path)
    return path


@pytest.fixture(params=WITNESSES)
def witness(request: pytest.FixtureRequest) -> str:
    """Each of them, where this machine has it."""
    name: str = request.param
    if reason := why_not(name):
        pytest.skip(reason)
    return name


def check_silent(told: Told) -> None:
    """A draft was written, and nobody was asked or reached."""
    assert told.code == 0, told.output
    assert "IMPRESSION" in told.output
    assert (told.questions, told.reached) == ((), ())


@pytest.mark.slow
def test_without_a_route_the_box_reads_what_dcmtk_sends_and_shows_it(
    board_file: Path, phantom: Path, tmp_path: Path
) -> None:
    if reason := why_not("strace"):
        pytest.skip(reason)
    job = (sys.executable, "-m", "tests.offline.job", str(board_file), str(tmp_path / "data"), str(phantom))
    told = offline("strace", job, tmp_path)
    check_silent(told)
    assert "Received Store Response (Success)" in told.output


@pytest.mark.slow
def test_with_a_route_to_the_world_the_box_sends_nothing_there(
    board_file: Path, shared_data: Path, tmp_path: Path
) -> None:
    if reason := why_not("packets"):
        pytest.skip(reason)
    up = (sys.executable, "-m", "edge", "up", "--once", "--port", "0", "--web-port", "0")
    places = ("--board", str(board_file), "--data-dir", str(tmp_path / "data"))
    check_silent(offline("packets", (*up, *places, str(shared_data / "dicom" / "RG1_J2KI.dcm")), tmp_path))


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ((sys.executable, "-c", SEND), "192.0.2.1"),
        ((sys.executable, "-c", SEND_6), "2001:db8:9::1"),
        (("bash", "-c", CALL), "192.0.2.1"),
        (("bash", "-c", LATER), "192.0.2.1"),
    ],
    ids=["a packet", "a packet of IPv6", "a connection", "a child's packet"],
)
def test_a_witness_sees_who_reaches_out(witness: str, command: tuple[str, ...], seen: str, tmp_path: Path) -> None:
    told = offline(witness, command, tmp_path)
    assert told.reached
    assert all(one.startswith(f"{seen} ") for one in told.reached)
    assert told.questions == ()


def test_a_witness_sees_who_asks_for_a_name(witness: str, tmp_path: Path) -> None:
    told = offline(witness, (sys.executable, "-c", ASK), tmp_path)
    assert told.output == "no such name\n"
    assert set(told.questions) == {NAME}
    assert told.reached == (), "the question went to our own name server"


def test_the_boxs_own_link_is_seen_when_its_board_names_a_broker(board_file: Path, tmp_path: Path) -> None:
    """Not only a toy: the same service that is silent above asks as soon as it is told to."""
    witness = next((name for name in WITNESSES if not why_not(name)), None)
    if witness is None:
        pytest.skip(why_not(WITNESSES[0]))
    text = board_file.read_text()
    assert '[mqtt]\nhost = ""' in text
    board_file.write_text(text.replace('[mqtt]\nhost = ""', f'[mqtt]\nhost = "{NAME}"'))
    run = ("timeout", "4", sys.executable, "-m", "edge", "link")
    told = offline(witness, (*run, "--board", str(board_file), "--data-dir", str(tmp_path / "data")), tmp_path)
    assert set(told.questions) == {NAME}, told.output
