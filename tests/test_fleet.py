"""tools/fleet: receipts of honest boxes in one table, and nothing that anybody puts among them can break it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.care.update.receipt import make_receipt
from tools.update.fleet import COLUMNS, main
from tools.update.receipts import LARGEST_RECEIPT_BYTES, ReceiptError, read_receipt, receipt_bytes


class Box:
    """A box's own key and its receipts."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.serial = hashlib.sha256(self.public).hexdigest()[:16]

    def receipt(self, number: int, **fields: Any) -> dict[str, Any]:
        return {
            "schema": 1,
            "serial": self.serial,
            "number": number,
            "board": "pi5",
            "radbox": "0.2.0",
            "from": "0.1.0",
            "to": "0.2.0",
            "slot": "a" * 64,
            "code": "update.installed",
            "message": "The new model runs.",
            "self_test": {"p95_s": 1.25, "memory_bytes": 700 << 20, "cases": 4},
            "shadow": {"compared": 100, "changed": 7},
            "free_bytes": 5 << 30,
            "studies": 412,
            "failed": 1,
            "running_s": 86400.5 * number,
            **fields,
        }

    def sign(self, receipt: Any) -> dict[str, Any]:
        signature = self.key.sign(receipt_bytes(receipt))
        return {
            "receipt": receipt,
            "key": base64.b64encode(self.public).decode(),
            "signature": base64.b64encode(signature).decode(),
        }

    def write(self, folder: Path, number: int, **fields: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.serial}-{number}.json"
        path.write_text(json.dumps(self.sign(self.receipt(number, **fields))))
        return path


def lines(folder: Path, printed: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, str]], str]:
    """Exit code, rows of the CSV table, what went to stderr."""
    code = main([str(folder), "--csv"])
    out, err = printed.readouterr()
    return code, list(csv.DictReader(io.StringIO(out))), err


def test_one_line_for_each_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Box(), Box()
    for number in (1, 2, 3):
        first.write(tmp_path / "january", number)
    first.write(tmp_path / "february", 3)  # the same receipt on a second stick
    second.write(tmp_path / "stick" / "EDGE-UPDATE" / "outbox", 1, self_test=None, shadow=None, to="0.1.0")
    (tmp_path / "stick" / "EDGE-UPDATE" / "snapshot.json").write_text("{}")  # a stick's own files are none
    (tmp_path / "notes.txt").write_text("hello")
    code, rows, errors = lines(tmp_path, capsys)
    assert (code, errors, len(rows)) == (0, "", 2)
    boxes = {row["serial"]: row for row in rows}
    assert list(boxes) == sorted(boxes)
    row = boxes[first.serial]
    assert (row["receipt"], row["model"], row["p95_s"], row["memory_mib"]) == ("3", "0.2.0", "1.25", "700")
    assert (row["would_change"], row["free_gib"], row["running_days"], row["remarks"]) == ("7 of 100", "5.0", "3.0", "")
    assert (boxes[second.serial]["p95_s"], boxes[second.serial]["would_change"]) == ("", "")
    assert main([str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == list(COLUMNS)
    assert table.splitlines()[-1] == "2 boxes, 4 receipts, 0 files refused"
    assert main([str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [box["newest"]["number"] for box in document["boxes"]] == [int(row["receipt"]) for row in rows]


def test_what_is_missing_or_doubled_is_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaps, copied = Box(), Box()
    for number in (2, 4, 9, 2**50):
        gaps.write(tmp_path / "a", number, running_s=1.0)
    copied.write(tmp_path / "a", 7, studies=1)
    copied.write(tmp_path / "b", 7, studies=2)
    _code, rows, _errors = lines(tmp_path, capsys)
    remarks = {row["serial"]: row["remarks"] for row in rows}
    assert remarks[gaps.serial] == f"missing 3, 5-8, 10-{2**50 - 1}"
    assert remarks[copied.serial] == "one number on two receipts: restored from a copy, or a copied box"


def test_forged_receipts_never_reach_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    honest, thief = Box(), Box()
    honest.write(tmp_path, 1)
    changed = honest.sign(honest.receipt(9))
    changed["receipt"]["code"] = "update.changed"
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    (tmp_path / "other-key.json").write_text(json.dumps(thief.sign(honest.receipt(9))))
    (tmp_path / "unsigned.json").write_text(json.dumps(honest.receipt(9)))
    code, rows, errors = lines(tmp_path, capsys)
    assert (code, [row["receipt"] for row in rows]) == (1, ["1"])
    assert "changed.json: signature does not fit" in errors
    assert f"other-key.json: signed with another key than that of box {honest.serial}" in errors
    assert "unsigned.json: not a receipt" in errors


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 16_000,
        b"\xff\xfe",
        b"nul",
        b" " * (LARGEST_RECEIPT_BYTES + 1),
        b'{"receipt":{},"key":"","signature":""}',
        b'{"receipt":1,"receipt":2,"key":"","signature":""}',
        b'{"receipt":NaN,"key":"AAAA","signature":"AAAA"}',
        b'{"receipt":{},"key":7,"signature":[]}',
        b'{"receipt":' + b"9" * 6000 + b',"key":"AAAA","signature":"AAAA"}',
        b'{"receipt":"\\ud800","key":"AAAA","signature":"AAAA"}',
    ],
)
def test_rubbish_is_refused_in_few_words(content: bytes) -> None:
    with pytest.raises(ReceiptError, match=r"^(not a receipt|too large)"):
        read_receipt(content)


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 0},
        {"number": 1e9},
        {"number": True},
        {"schema": 2},
        {"patient": "x"},
        {"from_label": "x"},
        {"self_test": {}},
        {"shadow": 3},
        {"running_s": 1e300},
        {"message": "x" * 3000},
        {"free_bytes": -1},
    ],
)
def test_signed_rubbish_is_refused_too(fields: dict[str, Any]) -> None:
    box = Box()
    with pytest.raises(ReceiptError, match="schema 1"):
        read_receipt(json.dumps(box.sign({**box.receipt(1), **fields})).encode())


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ReceiptError):
        read_receipt(content)


def test_terminal_and_spreadsheet_are_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box()
    box.write(tmp_path, 1, board="=cmd|' /C calc'!A0", code="\x1b[2Jgone\u202e", to="x" * 1000, message="\x07")
    (tmp_path / "\x1b[31m\nred.json").write_text("{}")
    code, rows, errors = lines(tmp_path, capsys)
    assert (code, rows[0]["board"][:2], rows[0]["outcome"]) == (1, "'=", "?[2Jgone?")
    assert len(rows[0]["model"]) == 40
    assert errors == "fleet: ?[31m?red.json: not a receipt\n"
    main([str(tmp_path)])
    assert "\x1b" not in capsys.readouterr().out


def test_odd_files_and_links_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Box()
    path = box.write(tmp_path / "real", 1)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(path)
    (tmp_path / "loop").symlink_to(tmp_path)
    code, rows, errors = lines(tmp_path, capsys)
    assert (code, len(rows), errors) == (0, 1, "")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "missing")])
    assert "expected a folder" in capsys.readouterr().err


def test_receipts_are_those_that_boxes_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The box's own writer, with the facts of an update that was refused before anything was tried."""
    facts = {key: value for key, value in Box().receipt(1).items() if key not in ("schema", "serial", "number")}
    facts |= {"slot": "", "self_test": None, "shadow": None, "code": "update.wrong-key"}
    written = [make_receipt(tmp_path / "box", facts) for _ in range(2)]
    (tmp_path / "outbox").mkdir()
    for receipt in written:
        (tmp_path / "outbox" / receipt.name).write_bytes(receipt.content)
    code, rows, errors = lines(tmp_path / "outbox", capsys)
    assert (code, errors) == (0, "")
    assert [(row["receipt"], row["outcome"]) for row in rows] == [("2", "update.wrong-key")]
