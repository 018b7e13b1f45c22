"""What the box says afterwards: signed receipts without patients' data, and sentences that people understand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import durable
from edge.care.update.receipt import deliver, device_key, make_receipt
from edge.care.update.words import OUTCOMES, sentence
from tests.test_install import make_stick
from tests.update_box import ID, VERSION, Box, new_organisation, open_box
from tools.update.receipts import read_receipt


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A new box."""
    with open_box(tmp_path / "data", new_organisation(tmp_path / "keys")) as box:
        yield box


def test_receipts_are_numbered_signed_and_private(box: Box, tmp_path: Path) -> None:
    make_stick(box, tmp_path / "stick", 1, boards=("another",))
    numbers = set()
    for _ in range(2):
        receipt = box.install(tmp_path / "stick").receipt
        assert receipt is not None
        deliver(tmp_path / "stick", receipt)
        read = read_receipt(receipt.content)
        numbers.add(read.number)
        assert (read.code, read.message) == ("update.other-board", sentence("update.other-board"))
        assert (read.from_label, read.to_label, read.self_test) == (f"{ID} {VERSION}", f"{ID} {VERSION}", None)
    assert numbers == {1, 2}
    outbox = sorted((tmp_path / "stick" / "EDGE-UPDATE" / "outbox").iterdir())
    assert [path.name for path in outbox] == [f"{read.serial}-1.json", f"{read.serial}-2.json"]
    assert (box.board.data_dir / "update" / "device.key").stat().st_mode & 0o777 == 0o600
    assert device_key(box.board.data_dir).private_bytes_raw() == device_key(box.board.data_dir).private_bytes_raw()


def test_a_receipt_says_no_more_than_it_may(box: Box, tmp_path: Path) -> None:
    receipt = box.install(tmp_path).receipt
    assert receipt is not None
    fields = "schema serial number board radbox from to slot code message self_test shadow free_bytes studies failed"
    assert set(json.loads(receipt.content)["receipt"]) == {*fields.split(), "running_s"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"receipt": {"number": "3"}}', b'{"receipt": {"number": -1}}'])
def test_a_lost_receipt_number_begins_again(box: Box, content: bytes) -> None:
    durable.make_directory(box.board.data_dir / "update")
    (box.board.data_dir / "update" / "receipt.json").write_bytes(content)
    assert make_receipt(box.board.data_dir, {}).name.endswith("-1.json")


def test_every_sentence_is_its_own_and_plain() -> None:
    sentences = [words.sentence for words in OUTCOMES.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(one.endswith(".") and len(one) < 90 and "expected" not in one for one in sentences)
    assert all(words.advice.endswith(".") for words in OUTCOMES.values())
