"""The archive as a format: whatever is not exactly what was written is refused, with the code that fits."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.care.archive import HEADER_BYTES, KEY_MEMORY_LIMIT_BYTES, Kdf, new_header, parse_header
from edge.care.archive_records import (
    ABOUT,
    BYTES,
    DATABASE_NAME,
    DONE,
    END,
    FILE,
    About,
    Broken,
    Done,
    End,
    File,
    RecordWriter,
    is_name,
    read_records,
)
from edge.care.archive_stream import CHUNK_BYTES, CHUNKS_PER_PART, SEALED_BYTES, Sealer, Unsealer
from edge.errors import BackupError

PASSPHRASE = b"correct horse battery"
QUICK = Kdf(log2_n=4, r=8)
OBJECT = f"spool/objects/ab/{'ab' * 32}.dcm"
ABOUT_BOX = About("sim", "0.1.0", 2)

Parts = list[bytes]


def seal(content: bytes, chunks_per_part: int = 1000) -> Parts:
    """`content` as the parts of an archive."""
    streams: list[io.BytesIO] = []

    def open_part(_: int) -> Callable[[bytes], object]:
        streams.append(io.BytesIO())
        return streams[-1].write

    header, key = new_header(PASSPHRASE, QUICK)
    sealer = Sealer(header, key, open_part, chunks_per_part)
    for start in range(0, len(content), 300_000):
        sealer.write(content[start : start + 300_000])
    sealer.close()
    return [stream.getvalue() for stream in streams]


def unseal(parts: Parts, size: int, passphrase: bytes = PASSPHRASE) -> bytes:
    stream = Unsealer(lambda part: io.BytesIO(parts[part]) if part < len(parts) else None, passphrase)
    content = stream.read(size)
    stream.finish()
    return content


def code_of(parts: Parts, size: int, passphrase: bytes = PASSPHRASE) -> str:
    """The code of the refusal, "" for an archive that is taken."""
    try:
        unseal(parts, size, passphrase)
    except BackupError as error:
        return error.code
    return ""


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("chunks_per_part", [1, 2, 1000])
def test_sealed_and_opened(size: int, chunks_per_part: int) -> None:
    content = content_of(size)
    parts = seal(content, chunks_per_part)
    assert unseal(parts, size) == content
    chunks = -(-size // CHUNK_BYTES)
    assert len(parts) == -(-chunks // chunks_per_part)
    assert all(len(part) <= HEADER_BYTES + chunks_per_part * SEALED_BYTES for part in parts)


def test_a_part_fits_onto_fat32() -> None:
    assert HEADER_BYTES + CHUNKS_PER_PART * SEALED_BYTES < 2**32


def test_every_archive_has_its_own_key() -> None:
    assert seal(b"same")[0][HEADER_BYTES:] != seal(b"same")[0][HEADER_BYTES:]


def test_wrong_passphrase_is_told_from_damage() -> None:
    assert code_of(seal(b"x"), 1, b"correct horse batterz") == "backup.wrong-passphrase"


SIZE = 2 * CHUNK_BYTES + 5


def test_every_kind_of_cut() -> None:
    (whole,) = seal(content_of(SIZE))
    assert code_of([whole], SIZE) == ""
    assert code_of([b""], SIZE) == "backup.not-a-backup"
    assert code_of([], SIZE) == "backup.not-a-backup"
    chunks = [HEADER_BYTES + number * SEALED_BYTES for number in range(3)]
    ends = {1, 7, 8, 63, *(start + step for start in chunks for step in (0, 1, 16, CHUNK_BYTES, SEALED_BYTES - 1))}
    for end in sorted(ends):
        assert code_of([whole[:end]], SIZE) == "backup.cut", end


def test_bytes_added_or_moved() -> None:
    (whole,) = seal(content_of(SIZE))
    header, *chunks = (
        whole[:HEADER_BYTES],
        *(whole[start : start + SEALED_BYTES] for start in range(HEADER_BYTES, len(whole), SEALED_BYTES)),
    )
    (other,) = seal(content_of(SIZE))
    assert code_of([whole + b"\0"], SIZE) == "backup.damaged"
    assert code_of([whole + chunks[2]], SIZE) == "backup.damaged"
    for order in ((1, 0, 2), (0, 2, 1), (0, 0, 1, 2), (0, 2), (2,)):
        assert code_of([header + b"".join(chunks[number] for number in order)], SIZE) == "backup.damaged", order
    assert code_of([header + other[HEADER_BYTES:]], SIZE) == "backup.damaged"
    # A stream whose reader stops early has not been read to its end.
    with pytest.raises(BackupError, match="got more"):
        unseal([whole], SIZE - CHUNK_BYTES)


def test_parts_that_miss_or_do_not_belong() -> None:
    parts, others = seal(content_of(SIZE), 1), seal(content_of(SIZE), 1)
    assert len(parts) == 3
    assert code_of(parts, SIZE) == ""
    assert code_of(parts[:2], SIZE) == "backup.cut"
    assert code_of(parts[1:], SIZE) == "backup.damaged"
    assert code_of([parts[0], parts[2], parts[1]], SIZE) == "backup.damaged"
    assert code_of([parts[0], others[1], parts[2]], SIZE) == "backup.damaged"
    assert code_of([parts[0], b"photo" * 100, parts[2]], SIZE) == "backup.not-a-backup"
    assert code_of([parts[0], parts[1][:-1], parts[2]], SIZE) == "backup.cut"
    assert code_of([parts[0] + b"\0", *parts[1:]], SIZE) == "backup.cut"


@pytest.mark.requirement("KEEP-09")
def test_no_flipped_bit_passes() -> None:
    (whole,) = seal(content_of(CHUNK_BYTES // 2 + 1))
    size = CHUNK_BYTES // 2 + 1
    chance = random.Random(4)
    bits = [*range(8 * HEADER_BYTES), *(chance.randrange(8 * HEADER_BYTES, 8 * len(whole)) for _ in range(2500))]
    flipped = bytearray(whole)
    codes = set()
    for bit in bits:
        flipped[bit // 8] ^= 1 << bit % 8
        codes.add(code_of([bytes(flipped)], size))
        flipped[bit // 8] ^= 1 << bit % 8
    assert codes == {"backup.not-a-backup", "backup.damaged"}
    assert bytes(flipped) == whole


def _with_checksum(start: bytes) -> bytes:
    """A header that someone made on purpose."""
    return start + hashlib.sha256(start).digest()[: HEADER_BYTES - len(start)]


def test_hostile_headers() -> None:
    header = new_header(PASSPHRASE, QUICK)[0].pack()
    start = bytearray(header[:50])

    def code(change: dict[int, int]) -> str:
        changed = bytearray(start)
        for place, value in change.items():
            changed[place] = value
        with pytest.raises(BackupError) as caught:
            parse_header(_with_checksum(bytes(changed)))
        return caught.value.code

    assert code({9: 2}) == "backup.newer"
    assert code({9: 0}) == "backup.damaged"
    assert code({10: 30}) == "backup.damaged"  # 1 TiB of memory
    assert code({10: 255, 11: 255}) == "backup.damaged"
    assert code({10: 0}) == "backup.damaged"
    assert code({11: 0}) == "backup.damaged"
    assert code({12: 255}) == "backup.damaged"
    assert Kdf().memory_bytes <= KEY_MEMORY_LIMIT_BYTES
    assert parse_header(header).pack() == header


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_archive(content: bytes) -> None:
    with pytest.raises(BackupError):
        unseal([content], 1)


# --- records ---


def records_of(content: bytes) -> list[object]:
    stream = io.BytesIO(content)

    def read(size: int) -> bytes:
        found = stream.read(size)
        if len(found) < size:
            raise BackupError("expected more", code="backup.cut")
        return found

    return list(read_records(read))


def written(*, with_broken: bool = False) -> tuple[bytes, End]:
    stream = io.BytesIO()
    writer = RecordWriter(stream.write, ABOUT_BOX)
    writer.file(OBJECT, [b"one", b"two"])
    if with_broken:
        writer.broken(f"quarantine/{'0' * 64}.bin")
        with pytest.raises(OSError, match="sector"):
            writer.file(OBJECT, _failing())
    writer.file(DATABASE_NAME, [], "ab" * 32)
    end = writer.end(1)
    return stream.getvalue(), end


def _failing() -> Iterator[bytes]:
    yield b"some"
    raise OSError("bad sector")


def test_records_round_trip() -> None:
    content, end = written(with_broken=True)
    found = records_of(content)
    assert found[0] == ABOUT_BOX
    assert found[-1] == end
    assert (end.files, end.broken, end.size_bytes) == (2, 2, 6)
    assert found[1:4] == [File(OBJECT, ""), b"one", b"two"]
    assert isinstance(found[4], Done)
    assert found[5:9] == [Broken(f"quarantine/{'0' * 64}.bin"), File(OBJECT, ""), b"some", Broken(OBJECT)]


def frame(kind: int, payload: bytes | dict[str, object]) -> bytes:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return struct.pack(">BI", kind, len(body)) + body


HEAD = frame(ABOUT, {"name": "sim", "radbox": "1", "store_version": 2})


@pytest.mark.parametrize(
    "content",
    [
        frame(END, {}),
        frame(9, b""),
        HEAD + HEAD,
        HEAD + frame(BYTES, b"x"),
        HEAD + frame(DONE, bytes(32)),
        HEAD + struct.pack(">BI", BYTES, 2**32 - 1),
        HEAD + struct.pack(">BI", FILE, 2**20),
        HEAD + frame(FILE, {"name": OBJECT, "key": "", "more": 1}),
        HEAD + frame(FILE, {"name": OBJECT}),
        HEAD + frame(FILE, b"[" * 3000),
        HEAD + frame(FILE, b"9" * 4096),
        HEAD + frame(FILE, {"name": OBJECT, "key": "ab"}),
        HEAD + frame(FILE, {"name": DATABASE_NAME, "key": ""}),
        HEAD + frame(FILE, {"name": OBJECT, "key": ""}) + frame(BYTES, b""),
        HEAD + frame(FILE, {"name": OBJECT, "key": ""}) + frame(BYTES, b"x") + frame(DONE, bytes(32)),
        HEAD + frame(END, {"files": 0, "broken": 0, "size_bytes": 0, "snapshots": 1, "sha256": ""}),
        frame(ABOUT, {"name": "sim", "radbox": "1", "store_version": 10**9}),
        *(
            HEAD + frame(FILE, {"name": name, "key": ""})
            for name in (
                "",
                "../radbox.sqlite3",
                "/etc/passwd",
                "spool/objects/../../../../etc/passwd",
                f"spool/objects/ab/{'cd' * 32}.dcm",
                f"{OBJECT}\n",
                f"{OBJECT}/x",
                "rendered/1/1/../../../x",
                "rendered/1/1/.hidden",
                "update/device.key",
                "slots/factory/manifest.json",
                f"slots/{'a' * 64}/../x",
                "radbox.sqlite3-wal",
                "\ud800",
            )
        ),
    ],
)
def test_hostile_records(content: bytes) -> None:
    with pytest.raises(BackupError) as caught:
        records_of(content + bytes(64))
    assert caught.value.code == "backup.damaged"


def test_an_end_that_counts_otherwise() -> None:
    content, end = written()
    for name, value in (("files", 3), ("size_bytes", 5), ("sha256", "0" * 64), ("broken", 1)):
        other = json.dumps({**vars(end), name: value}).encode()
        start = content.rindex(struct.pack(">BI", END, len(json.dumps(vars(end)))))
        with pytest.raises(BackupError, match="as many files"):
            records_of(content[:start] + frame(END, other))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 8), st.binary(max_size=60)), max_size=8), st.binary(max_size=30))
def test_arbitrary_records(frames: list[tuple[int, bytes]], rest: bytes) -> None:
    content = HEAD + b"".join(frame(kind, payload) for kind, payload in frames) + rest
    with pytest.raises(BackupError):
        records_of(content)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_changed_records(place: int, value: int, cut: bool) -> None:
    """Beneath the seal too nothing but the very records is taken for them."""
    content, _ = written(with_broken=True)
    place %= len(content)
    changed = content[:place] if cut else content[:place] + bytes([value]) + content[place + 1 :]
    try:
        found = records_of(changed)
    except BackupError:
        return
    assert whole_files(found) == whole_files(records_of(content))


def whole_files(records: list[object]) -> dict[str, bytes]:
    """Name and bytes of each file that ended well: what the digest vouches for."""
    files, pieces = {}, b""
    for record in records:
        if isinstance(record, bytes):
            pieces += record
            continue
        if isinstance(record, Done):
            files[record.name] = pieces
        pieces = b""
    return files


@settings(derandomize=True)
@given(st.text(max_size=120))
def test_names(text: str) -> None:
    """No name leads out of the data folder, whatever text it is."""
    for name in (text, f"rendered/1/2/{text}", f"slots/{'a' * 64}/{text}", f"spool/objects/{text}"):
        if is_name(name):
            assert ".." not in name.split("/")
            assert not name.startswith("/")
            assert name.isascii()
            assert "\0" not in name


def test_part_numbers_never_repeat_a_nonce() -> None:
    """Each chunk of an archive is sealed under its own number, through all parts."""
    parts = seal(bytes(4 * CHUNK_BYTES), 1)
    chunks = [part[HEADER_BYTES:] for part in parts]
    assert len(set(chunks)) == len(chunks) == 4
    assert [parse_header(part).part for part, _ in zip(parts, count(), strict=False)] == [0, 1, 2, 3]
