"""Walk the elements of a received data set without decoding it: is it whole, and what do a few attributes say?

PS3.5 7.1 (element structure), 7.5 (sequences), A.4 (encapsulated pixel data). Values are skipped by their length, so
the cost follows the number of elements, not of bytes. The first element of each data set decides between explicit and
implicit VR, because senders mix them: inside UN (PS3.5 6.2.2 note 2), and against the transfer syntax they announce.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from edge.errors import DicomError

Buffer = bytes | mmap.mmap

BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
IMPLICIT: Final = "1.2.840.10008.1.2"
DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

PIXEL_DATA: Final = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM_HEAD_BYTES: Final = 8
LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # PS3.5 7.1.2
_SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_VRS: Final = LONG_VRS | _SHORT_VRS

VALUE_LIMIT_BYTES: Final = 4096  # of a value that is kept
INFLATED_LIMIT_BYTES: Final = 128 * 2**20
ELEMENT_LIMIT: Final = 2_000_000
DEPTH_LIMIT: Final = 64
_PADDING_STEP_BYTES: Final = 2**20


@dataclass
class Elements:
    """Values of the wanted attributes at the top level, raw, by tag; `pixel_bytes` is None where PixelData has no
    length of its own (encapsulated) or is absent."""

    little_endian: bool
    values: dict[int, bytes] = field(default_factory=dict)
    pixel_bytes: int | None = None


def data_set_offset(head: bytes) -> int:
    """Where the data set begins in a PS3.10 file of ours: preamble, `DICM`, group length, group 2 (PS3.10 7.1)."""
    (group_bytes,) = struct.unpack_from("<L", head, 140)
    return 144 + int(group_bytes)


def inflate(content: bytes) -> bytes:
    """The data set of a deflated transfer syntax (PS3.5 A.5, RFC 1951). Raises DicomError: cut, broken or too large."""
    stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        plain = stream.decompress(content, INFLATED_LIMIT_BYTES)
    except zlib.error:
        raise DicomError("expected a deflated data set, got bytes that do not inflate") from None
    if stream.unconsumed_tail:
        limit = f"expected a deflated data set of at most {INFLATED_LIMIT_BYTES} bytes, got a larger one"
        raise DicomError(limit, code="dicom.inflates-too-large")
    if not stream.eof:
        raise DicomError("expected the end of the deflated data set, got the end of the object", code="dicom.cut")
    return plain


def scan(buffer: Buffer, start: int, transfer_syntax_uid: str, wanted: Collection[int]) -> Elements:
    """Walk the data set in `buffer[start:]` to its end.

    Raises DicomError: `dicom.cut` (an element runs past the end), `dicom.malformed` (no elements, groups that no
    data set has, nesting or number of elements beyond any real object).
    """
    if transfer_syntax_uid in DEFLATED:
        buffer, start = inflate(buffer[start:]), 0
    walk = _Walk(buffer, transfer_syntax_uid, wanted)
    walk.top(start)
    return walk.found


def first_item(sequence: bytes, little_endian: bool, wanted: Collection[int]) -> dict[int, bytes]:
    """Wanted values of the first item in the value of a sequence, as far as it can be read."""
    walk = _Walk(sequence, IMPLICIT if little_endian else BIG_ENDIAN, wanted)
    with contextlib.suppress(DicomError):  # the item's end, another item, or the cut at VALUE_LIMIT_BYTES
        walk.top(_ITEM_HEAD_BYTES)
    return walk.found.values


class _Walk:
    """One pass. Positions are byte offsets into the buffer."""

    def __init__(self, buffer: Buffer, transfer_syntax_uid: str, wanted: Collection[int]) -> None:
        self._buffer = buffer
        self._end = len(buffer)
        self._wanted = wanted
        self._elements = 0
        little = transfer_syntax_uid != BIG_ENDIAN
        self.found = Elements(little)
        order = "<" if little else ">"
        self._tag = struct.Struct(order + "HH").unpack_from
        self._short = struct.Struct(order + "H").unpack_from
        self._long = struct.Struct(order + "L").unpack_from

    def top(self, at: int) -> None:
        """The data set itself: ends where the buffer ends; zeros behind the last element are padding."""
        if at >= self._end:
            raise DicomError("expected a data set, got no bytes", code="dicom.empty")
        implicit = self._is_implicit(at)
        while at < self._end:
            if self._end - at < 8 or self._tag(self._buffer, at) == (0, 0):
                if self._only_zeros(at):
                    return
                if self._end - at < 8:
                    raise _cut()
            tag, length, at = self._header(at, implicit)
            if tag >> 16 < 8 or tag >> 16 == 0xFFFE:
                raise DicomError(f"expected an attribute of a data set, got tag {tag:08X}")
            if length == _UNDEFINED:
                start, at = at, self._items(at, 1, implicit)
                if tag in self._wanted:
                    self.found.values[tag] = self._buffer[start : min(at, start + VALUE_LIMIT_BYTES)]
                continue
            if length > self._end - at:
                raise _cut()
            if tag in self._wanted:
                self.found.values[tag] = self._buffer[at : at + min(length, VALUE_LIMIT_BYTES)]
            if tag == PIXEL_DATA:
                self.found.pixel_bytes = length
            at += length

    def _is_implicit(self, at: int) -> bool:
        """A data set whose first element shows no VR; a length that reads as one would be 16 KiB or more."""
        return self._buffer[at + 4 : at + 6] not in _VRS

    def _header(self, at: int, implicit: bool) -> tuple[int, int, int]:
        """Tag, value length and value position of the element at `at`."""
        self._elements += 1
        if self._elements > ELEMENT_LIMIT:
            raise DicomError(f"expected at most {ELEMENT_LIMIT} elements, got more")
        if self._end - at < 8:
            raise _cut()
        group, element = self._tag(self._buffer, at)
        vr = self._buffer[at + 4 : at + 6]
        if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            return group << 16 | element, self._long(self._buffer, at + 4)[0], at + 8
        if vr not in LONG_VRS:
            return group << 16 | element, self._short(self._buffer, at + 6)[0], at + 8
        if self._end - at < 12:
            raise _cut()
        return group << 16 | element, self._long(self._buffer, at + 8)[0], at + 12

    def _items(self, at: int, depth: int, implicit: bool) -> int:
        """Items or fragments up to the sequence delimiter; returns the position behind it."""
        if depth > DEPTH_LIMIT:
            raise DicomError(f"expected at most {DEPTH_LIMIT} nested sequences, got more")
        while True:
            tag, length, at = self._header(at, implicit)
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise DicomError(f"expected an item of a sequence, got tag {tag:08X}")
            if length == _UNDEFINED:
                at = self._item(at, depth, implicit)
            elif length > self._end - at:
                raise _cut()
            else:
                at += length

    def _item(self, at: int, depth: int, implicit: bool) -> int:
        """A nested data set of undefined length up to its delimiter; returns the position behind it."""
        implicit = implicit or self._is_implicit(at)
        while True:
            tag, length, at = self._header(at, implicit)
            if tag == _ITEM_END:
                return at
            if length == _UNDEFINED:
                at = self._items(at, depth + 1, implicit)
            elif length > self._end - at:
                raise _cut()
            else:
                at += length

    def _only_zeros(self, at: int) -> bool:
        for step in range(at, self._end, _PADDING_STEP_BYTES):
            if any(self._buffer[step : step + _PADDING_STEP_BYTES]):
                return False
        return True


def _cut() -> DicomError:
    return DicomError("expected the rest of an element, got the end of the object", code="dicom.cut")
