"""The panel's wire format: vectors that others publish, and whatever bytes may come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.care.panel import protocol
from edge.care.panel.protocol import Frame, Hello, Key, Kind, Reader, crc16, decode, encode, stuff, unstuff

frames = st.builds(
    Frame, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=protocol.LARGEST_PAYLOAD_BYTES), st.just(1)
)


def crc_bit_by_bit(content: bytes) -> int:
    """The polynomial division as ITU-T V.41 has it, one bit at a time."""
    crc = 0xFFFF
    for byte in content:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def test_the_crc_has_the_catalogue_s_check_value() -> None:
    assert crc16(b"123456789") == 0x29B1


@given(st.binary(max_size=64))
def test_the_crc_is_the_one_of_the_polynomial(content: bytes) -> None:
    assert crc16(content) == crc_bit_by_bit(content)


@pytest.mark.parametrize(
    ("content", "stuffed"),
    [
        (b"", "01"),
        (b"\0", "01 01"),
        (b"\0\0", "01 01 01"),
        (b"\x11\x22\0\x33", "03 11 22 02 33"),
        (b"\x11\x22\x33\x44", "05 11 22 33 44"),
        (b"\x11\0\0\0", "02 11 01 01 01"),
    ],
)
def test_stuffing_gives_the_known_bytes(content: bytes, stuffed: str) -> None:
    assert stuff(content) == bytes.fromhex(stuffed)
    assert unstuff(bytes.fromhex(stuffed)) == content


def test_long_runs_are_stuffed_in_blocks_of_254() -> None:
    run = bytes(range(1, 255))
    assert stuff(run)[:255] == b"\xff" + run
    assert unstuff(b"\xff" + run) == run  # without the block of nothing that some encoders add
    assert unstuff(stuff(run + b"\x01\0")) == run + b"\x01\0"


@given(st.binary(max_size=600))
def test_stuffing_leaves_no_zero_and_can_be_undone(content: bytes) -> None:
    stuffed = stuff(content)
    assert 0 not in stuffed
    assert unstuff(stuffed) == content


@given(frames)
def test_a_frame_comes_out_as_it_went_in(frame: Frame) -> None:
    wire = encode(frame)
    assert wire.count(0) == 1
    assert len(wire) <= protocol.LARGEST_STUFFED_BYTES + 1
    assert decode(wire[:-1]) == frame


def test_a_frame_on_the_wire_is_what_the_document_says() -> None:
    assert encode(Frame(Kind.KEY, 7, bytes((0, 1)))).hex(" ") == "04 01 82 07 04 01 1e bc 00"


@given(frames, st.data())
def test_a_changed_bit_is_noticed(frame: Frame, draw: st.DataObject) -> None:
    wire = bytearray(encode(frame)[:-1])
    bit = draw.draw(st.integers(0, 8 * len(wire) - 1))
    wire[bit // 8] ^= 1 << bit % 8
    reader = Reader()
    assert frame not in reader.feed(bytes(wire) + b"\0")


@given(st.lists(frames, max_size=5), st.binary(max_size=900), st.integers(1, 700))
@settings(max_examples=60)
def test_after_garbage_every_frame_is_found_again(sent: list[Frame], garbage: bytes, step: int) -> None:
    wire = garbage + b"\0" + b"".join(map(encode, sent))
    reader = Reader()
    found = [frame for at in range(0, len(wire), step) for frame in reader.feed(wire[at : at + step])]
    assert found[len(found) - len(sent) :] == sent
    assert len(reader._kept) <= protocol.LARGEST_STUFFED_BYTES


def test_an_endless_line_without_zeros_takes_no_memory() -> None:
    reader = Reader()
    for _ in range(1000):
        assert reader.feed(b"\x55" * 1000) == []
        assert len(reader._kept) <= protocol.LARGEST_STUFFED_BYTES
    assert reader.feed(b"\0" + encode(Frame(1, 1))) == [Frame(1, 1)]
    assert reader.bad == 1


def test_a_payload_that_is_too_long_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 246"):
        encode(Frame(2, 1, bytes(247)))


def test_lines_hold_nothing_but_what_an_lcd_has() -> None:
    payload = protocol.lines_payload(("R\u00e9ady\n", "x" * 30), 8)
    assert protocol.read_lines(payload) == ("R?ady?  ", "xxxxxxxx")
    assert protocol.read_lines(payload[:-1]) is None


@pytest.mark.parametrize("payload", [b"", b"\1\x14", b"\1\0\4", b"\1\x14\0", b"\1\xff\4", bytes((1, 80, 16))])
def test_a_panel_of_an_impossible_size_is_none(payload: bytes) -> None:
    assert protocol.read_hello(payload) is None


def test_a_later_version_may_say_more() -> None:
    assert protocol.read_hello(bytes((9, 20, 4, 1, 2))) == Hello(9, 20, 4)


@pytest.mark.parametrize(("payload", "key"), [(b"\0\1", Key(0, True)), (b"\3\0", Key(3, False)), (b"\0\2", None)])
def test_keys(payload: bytes, key: Key | None) -> None:
    assert protocol.read_key(payload) == key
