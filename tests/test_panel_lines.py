"""What the panel shows in every size, its address, and captures that must read the same for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.box_words import WORDS
from edge.care.panel.address import local_addresses, page_address
from edge.care.panel.lines import Shown, page_count, page_lines
from edge.care.panel.protocol import PanelError
from edge.care.panel.replay import read_capture, replay
from edge.care.panel.seen import NO_RECORDS
from edge.care.panel.show import FAREWELL, LIGHTS, NOT_TAKEN, TAKEN, TAKING
from edge.care.panel.simulated import SILENT, SILENT_S, SimulatedPanel
from edge.issue_titles import ELSE, TITLES
from tools.lcd.main import main, picture

CAPTURES = sorted((Path(__file__).parent / "panel").glob("*.capture"))
ISSUES = [(TITLES[code].short, TITLES[code].long) for code in ("issue.disk-full", "issue.wear")]
SHOWN = Shown("Reading", 12, ISSUES, "192.168.178.20", 8080)


def screen(shown: Shown, page: int, columns: int = 20, rows: int = 4) -> list[str]:
    return [line.rstrip() for line in page_lines(shown, page, columns, rows)]


def test_the_pages_of_the_usual_panel() -> None:
    assert page_count(SHOWN) == 4
    assert screen(SHOWN, 0) == ["Reading", "12 waiting", "Storage is full +1", "192.168.178.20:8080"]
    assert screen(SHOWN, 1) == ["Issue 1 of 2", "Storage is full: new", "images are turned", "away"]
    assert screen(SHOWN, 2) == ["Issue 2 of 2", "The storage is", "wearing out", ""]
    assert screen(SHOWN, 3) == ["Page of this box:", "192.168.178.20:8080", "", ""]
    assert screen(SHOWN, 4) == screen(SHOWN, 0)


def test_small_panels_show_what_matters_most() -> None:
    assert screen(SHOWN, 0, 16, 2) == ["Reading      +12", "Storage is fu +1"]
    assert screen(SHOWN, 0, 20, 3) == ["Reading   12 waiting", "Storage is full +1", "192.168.178.20:8080"]
    assert screen(Shown("Ready", 0, [], "10.0.0.1", 80), 0, 16, 2) == ["Ready", "10.0.0.1:80"]
    assert screen(SHOWN, 1, 16, 2) == ["Issue 1 of 2", "Storage is full"]


def test_an_address_is_never_cut() -> None:
    long = Shown("Ready", 0, [], "192.168.100.100", 18080)
    assert screen(long, 0)[3] == "192.168.100.100"
    assert screen(long, 1) == ["Page of this box:", "192.168.100.100", "port 18080", ""]
    assert screen(Shown("Ready", 0, [], "", 80), 0)[3] == "No network address"
    assert screen(Shown("Ready", 0, [], "127.0.0.1", 80), 0)[3] == "Page: this box only"


shown = st.builds(
    Shown,
    st.text(max_size=25),
    st.integers(0, 10**7),
    st.lists(st.tuples(st.text(max_size=25), st.text(max_size=90)), max_size=12),
    st.text(max_size=20),
    st.integers(1, 65535),
    st.text(max_size=25),
)


@given(shown, st.integers(0, 20), st.integers(8, 40), st.integers(1, 8))
def test_every_page_fits_every_panel(one: Shown, page: int, columns: int, rows: int) -> None:
    lines = page_lines(one, page, columns, rows)
    assert [len(line) for line in lines] == [columns] * rows


def test_all_words_fit_a_line_of_the_usual_panel() -> None:
    texts = [one.short for one in [*TITLES.values(), ELSE]] + [words.short for words in WORDS.values()]
    texts += [*FAREWELL, TAKING, TAKEN, NOT_TAKEN, SILENT, NO_RECORDS[0]]
    assert [text for text in texts if len(text) > 20 or not text.isascii()] == []


def test_the_lights_differ_in_rhythm_too() -> None:
    rhythms = {state: light[3] for state, light in LIGHTS.items()}
    assert set(rhythms) == set(WORDS)
    assert len({(light[:3], light[3]) for light in LIGHTS.values()}) == len(LIGHTS)
    assert rhythms["ready"] == 0 < rhythms["attention"] < rhythms["reading"] < rhythms["stopped"]


TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     |-- 169.254.3.4
        /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
           |-- 192.0.2.2
              /32 host LOCAL
           |-- 192.0.2.255
              /32 link BROADCAST
Local:
           |-- 127.0.0.1
              /32 host LOCAL
"""


def test_the_address_of_the_lan_is_found(tmp_path: Path) -> None:
    assert list(map(str, local_addresses(TRIE))) == ["127.0.0.1", "169.254.3.4", "192.0.2.2"]
    (tmp_path / "trie").write_text(TRIE)
    assert page_address("0.0.0.0", tmp_path / "trie") == "192.0.2.2"
    (tmp_path / "trie").write_text(TRIE.replace("192.0.2.2\n", "127.0.0.2\n"))
    assert page_address("::", tmp_path / "trie") == "169.254.3.4"
    assert page_address("0.0.0.0", tmp_path / "none") == ""
    assert page_address("10.1.2.3", tmp_path / "none") == "10.1.2.3"


def test_this_machine_knows_its_own_addresses() -> None:
    assert "127.0.0.1" in map(str, local_addresses(Path("/proc/self/net/fib_trie").read_text()))


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_old_captures_read_as_they_always_did(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [f"{at_s:.3f} {words}" for at_s, words in replay(read_capture(capture))]
    assert said == capture.with_suffix(".txt").read_text().splitlines()
    assert main(["--replay", str(capture)]) == 0
    assert said[-1].split(" ", 1)[1] in capsys.readouterr().out


def test_there_are_captures() -> None:
    assert len(CAPTURES) >= 2


@pytest.mark.parametrize(
    "text", ["", "something else\n", "radbox-panel-capture 1\n0.0 < zz\n", "radbox-panel-capture 1\nx > 00\n"]
)
def test_what_is_no_capture_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(PanelError) as raised:
        read_capture(tmp_path / "x")
    assert raised.value.code == "panel.capture"


def test_a_panel_that_hears_nothing_says_so() -> None:
    now_s = 0.0
    panel = SimulatedPanel(clock=lambda: now_s)
    now_s = SILENT_S
    panel.tick()
    assert panel.screen[0].rstrip() == SILENT
    assert "dark" in picture(panel, "x")
