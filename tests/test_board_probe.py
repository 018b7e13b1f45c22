"""`radbox board probe` over the files of every board, with everything there and with something missing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.__main__ import main
from edge.board import load_board
from edge.board_command import probe
from edge.board_files import shipped
from edge.board_probe import look, proposals
from edge.board_probe.parts import PARTS
from edge.board_probe.propose import CANDIDATES
from edge.reading.backends import MODULES
from edge.reading.backends.delegates import DELEGATES
from tests.board_trees import MACHINES, Machine, lay_out

BACKENDS = {name: load_board(path).worker.backends for name, path in shipped().items()}


def best(machine: Machine, root: Path):
    return proposals(look(lay_out(machine, root)), BACKENDS)[0]


def test_every_shipped_board_can_be_proposed() -> None:
    assert {one.board for one in CANDIDATES} == set(MACHINES) == set(shipped()) - {"sim"}


@pytest.mark.parametrize("name", MACHINES)
def test_each_machine_gets_its_board_and_misses_nothing(name: str, tmp_path: Path) -> None:
    proposal = best(MACHINES[name], tmp_path)
    assert (proposal.board, proposal.fits, proposal.missing) == (name, True, ())
    assert proposal.speaks_against == ()
    assert proposal.speaks_for


@pytest.mark.parametrize("name", sorted(MACHINES.keys() - {"generic-x86", "raspberry-pi-5"}))
def test_without_its_software_the_board_stays_and_says_what_is_missing(name: str, tmp_path: Path) -> None:
    machine = dataclasses.replace(MACHINES[name], files=(), contents={})
    proposal = best(machine, tmp_path)
    assert proposal.board == name
    assert any("is not installed (no lib" in text for text in proposal.missing)
    assert any(text.startswith("tflite: the Python package") for text in proposal.missing)


def test_a_hailo_card_without_hailort(tmp_path: Path) -> None:
    machine = dataclasses.replace(MACHINES["raspberry-pi-5-hailo"], files=("dev/hailo0",))
    proposal = best(machine, tmp_path)
    assert proposal.board == "raspberry-pi-5-hailo"
    assert "Hailo accelerator on PCI (1e60:2864)" in proposal.speaks_for
    assert proposal.missing[0] == "hailo: HailoRT is not installed (no libhailort.so*)"


def test_one_complete_way_to_an_npu_is_enough(tmp_path: Path) -> None:
    """Mainline Linux: the accel node and Mesa's delegate, nothing of the maker's."""
    runtimes = MACHINES["raspberry-pi-5"].files
    files = ("dev/accel/accel0", "usr/lib/teflon/libteflon.so", *runtimes)
    assert best(dataclasses.replace(MACHINES["rk3588"], files=files, contents={}), tmp_path).missing == ()


def test_another_module_of_the_same_chip_is_told(tmp_path: Path) -> None:
    names = ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234")
    proposal = best(dataclasses.replace(MACHINES["jetson-orin-nano-jp6"], compatible=names), tmp_path)
    assert proposal.board == "jetson-orin-nano-jp6"
    assert proposal.speaks_against == ("the module is another Orin: threads and power differ",)


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    proposal = best(dataclasses.replace(MACHINES["raspberry-pi-5"], memory_kib=1_000_000), tmp_path)
    assert proposal.speaks_against == ("1.0 GiB of memory, 4 GiB wanted",)


@pytest.mark.parametrize(
    "change",
    [
        {"compatible": ("raspberrypi,4-model-b", "brcm,bcm2711")},
        {"compatible": ()},
        {"compatible": ("nvidia,p3767-0005", "nvidia,tegra234"), "l4t": "# R35 (release), REVISION: 6.0, GCID: 1"},
        {"compatible": ("nvidia,p3767-0005", "nvidia,tegra234"), "l4t": ""},
    ],
)
def test_what_no_file_is_made_for_gets_none(change: dict, tmp_path: Path) -> None:
    lay_out(dataclasses.replace(MACHINES["raspberry-pi-5"], **change), tmp_path / "machine")
    text, code = probe(tmp_path / "machine", False, None)
    assert code == 1
    assert "No board file fits" in text
    said, code = probe(tmp_path / "machine", True, None)
    assert (json.loads(said)["proposed"], code) == (None, 1)
    assert main(["board", "probe", "--root", str(tmp_path / "machine"), "--write", str(tmp_path / "board.toml")]) == 1
    assert not (tmp_path / "board.toml").exists()


def test_an_accelerator_that_the_board_does_not_use_is_a_note(tmp_path: Path) -> None:
    lay_out(dataclasses.replace(MACHINES["generic-x86"], pci=("1ac1:089a",)), tmp_path)
    text, code = probe(tmp_path, False, None)
    assert code == 0
    assert 'note     Coral Edge TPU on PCI (1ac1:089a): add "edgetpu" to worker.backends to use it' in text


@pytest.mark.parametrize(("name", "file"), [("raspberry-pi-5-hailo", "encoder.hef"), ("rk3588", "encoder.rknn")])
def test_an_accelerator_that_the_bundle_has_no_file_for_is_a_note(name: str, file: str, tmp_path: Path) -> None:
    lay_out(MACHINES[name], tmp_path)
    assert f"the model bundle has no {file}, so" in probe(tmp_path, False, None)[0]


def test_the_files_that_come_along_are_enough_for_the_others(tmp_path: Path) -> None:
    lay_out(MACHINES["jetson-agx-thor"], tmp_path / "thor")
    lay_out(MACHINES["imx8mp"], tmp_path / "imx")
    assert "note" not in probe(tmp_path / "thor", False, None)[0] + probe(tmp_path / "imx", False, None)[0]


def test_the_probe_looks_for_what_the_backends_ask_for(root: Path) -> None:
    """The names of files that each backend's own module asks for."""
    folder = root / "edge" / "reading" / "backends"
    for part in PARTS:
        text = "".join(path.read_text() for path in folder.glob(f"{MODULES[part.backend]}*.py"))
        named = [model for model in part.models if model in text or model == "encoder.tflite"]
        assert named == list(part.models), part.backend
        assert all(one.rstrip("*").rstrip(".") in text for one in part.libraries if part.backend in DELEGATES)
        assert all(any(module in text for module in group) for group in part.packages if part.backend != "tensorrt")


def test_a_copy_is_written_once_and_never_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(MACHINES["imx8mp"], tmp_path / "machine")
    target = tmp_path / "board.toml"
    command = ["board", "probe", "--root", str(tmp_path / "machine"), "--write", str(target)]
    assert main(command) == 0
    assert target.read_bytes() == shipped()["imx8mp"].read_bytes()
    assert "Written: " in capsys.readouterr().out
    assert main(command) == 0
    assert "Already there: " in capsys.readouterr().out
    target.write_text("name = 'mine'")
    assert main(command) == 1
    assert "it stays as it is [board.exists]" in capsys.readouterr().err
    assert target.read_text() == "name = 'mine'"


def test_this_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    main(["board", "probe", "--json"])
    found = json.loads(capsys.readouterr().out)["found"]
    assert found["machine"]
    assert found["memory_bytes"] > 2**28
    assert found["packages"]["ai_edge_litert"] is True


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    contents=st.dictionaries(
        st.sampled_from(
            [
                *("proc/cpuinfo", "proc/meminfo", "etc/os-release", "etc/nv_tegra_release", "proc/device-tree/model"),
                *("proc/device-tree/compatible", "sys/bus/pci/devices/0/vendor", "sys/bus/pci/devices/0/device"),
                *("sys/bus/usb/devices/0/idVendor", "sys/class/drm/renderD128/device/uevent"),
            ]
        ),
        st.binary(max_size=60)
        | st.sampled_from([b"\0", b"MemTotal: 99999999999999999999 kB", b"# R36 (release), REV"]),
    )
)
def test_no_content_of_a_file_stops_the_probe(contents: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("machine")
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    text, _code = probe(root, False, None)
    assert set(text) <= {"\n", *map(chr, range(32, 127))}


def test_backends_of_the_parts_are_those_of_boards() -> None:
    used = {backend for backends in BACKENDS.values() for backend in backends}
    assert {part.backend for part in PARTS} - used == {"ethosu"}  # the i.MX 93 has no board file of its own
