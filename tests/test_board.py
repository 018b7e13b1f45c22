"""A board file is closed, typed and bounded, and every key is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.board import load_board, parse_board
from edge.board_keys import SECTIONS
from edge.errors import ConfigError

MINIMAL = 'name = "test"\ndata_dir = "var/test"\n[worker]\nbundle = "models/bundles/chest"\n'


def load(tmp_path: Path, text: str):
    path = tmp_path / "board.toml"
    path.write_text(text)
    return load_board(path)


def test_every_shipped_board_loads_and_spells_out_every_key(root: Path) -> None:
    boards = sorted((root / "board_configs").glob("*.toml"))
    assert boards
    for path in boards:
        load_board(path)
        text = path.read_text()
        for keys in SECTIONS.values():
            for key in keys:
                assert f"\n{key} = " in text, f"{path.name} leaves {key} to its default"


def test_readme_explains_every_key_and_no_other(root: Path) -> None:
    readme = (root / "board_configs" / "README.md").read_text().partition("## Keys\n")[2]
    explained = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}
    assert explained == {f"{section}.{key}".lstrip(".") for section, keys in SECTIONS.items() for key in keys}


def test_defaults_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADBOX_DATA_DIR", raising=False)
    board = load(tmp_path, MINIMAL)
    assert board.data_dir == Path("var/test").resolve()
    assert board.receive.port == 11112
    assert board.receive.ae_title == "RADBOX"
    assert board.receive.pdu_bytes == 131072
    assert board.worker.backends == ("tflite", "onnxruntime")
    monkeypatch.setenv("RADBOX_DATA_DIR", str(tmp_path / "elsewhere"))
    assert load(tmp_path, MINIMAL).data_dir == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "x"\n', "'data_dir'"),
        (MINIMAL + "[recieve]\nport = 1\n", "'recieve'"),
        (MINIMAL + "[receive]\nprot = 1\n", "[receive]: expected only the keys"),
        (MINIMAL + "[receive]\nport = 0\n", "key 'port': expected a whole number from 1 to 65535, got 0"),
        (MINIMAL + "[receive]\nport = true\n", "key 'port'"),
        (MINIMAL + '[receive]\nport = "11112"\n', "key 'port'"),
        (MINIMAL + "[receive]\nquiet_time_s = 1e9\n", "key 'quiet_time_s'"),
        (MINIMAL + "[receive]\nquiet_time_s = nan\n", "key 'quiet_time_s'"),
        (MINIMAL + '[receive]\nae_title = "MORE THAN SIXTEEN"\n', "key 'ae_title'"),
        (MINIMAL + '[receive]\ncalling_ae = ["CR1", "CR1"]\n', "key 'calling_ae'"),
        (MINIMAL + '[receive]\naddresses = ["192.168.1.7/24"]\n', "key 'addresses'"),
        (MINIMAL + '[receive]\naddresses = "192.168.1.0/24"\n', "key 'addresses'"),
        (MINIMAL + '[receive]\nhost = "box.local"\n', "key 'host'"),
        (MINIMAL + "[receive]\nmax_object_bytes = 4294967296\n", "key 'max_object_bytes'"),
        (MINIMAL + '[web]\nport = 8080\nhost = ""\n', "key 'host'"),
        (MINIMAL.replace("[worker]", '[worker]\nkernels = "fast"'), "expected one of auto, numpy, reference"),
        (MINIMAL.replace("[worker]", "[worker]\nbackends = []"), "key 'backends'"),
        ("receive = 3\n" + MINIMAL, "section [receive]: expected a section"),
        ("name = \n", "expected TOML"),
    ],
)
def test_a_wrong_board_stops_with_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert "board.toml" in caught.value.message
    assert says in caught.value.message
    assert "expected" in caught.value.message


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a readable board file"):
        load_board(tmp_path / "none.toml")


def test_the_reserve_is_not_larger_than_what_must_stay_free() -> None:
    text = MINIMAL + "[receive]\nmin_free_bytes = 1048576\n"
    with pytest.raises(ConfigError, match=r"board.toml: section \[storage\], key 'reserve_bytes': expected at most"):
        parse_board(text.encode(), "board.toml")
