"""Damaged files through the warm child: images or an error with a code, never a lost parent, never a late answer."""

from __future__ import annotations

import collections
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import uid

from edge.errors import RadboxError
from edge.reading.decode_child import Decoder
from tests.dicom_objects import image_object, save

ROUNDS = 30  # damaged copies of each file
CODES = ("dicom.", "picture.")
REAL_FILES = (
    "CT2_JPLL.dcm",
    "JLSN_RGB_ILV0.dcm",
    "JPEG-LL.dcm",
    "NM1_JPLY.dcm",
    "OBXXXX1A_rle_2frame.dcm",
    "US1_J2KI.dcm",
    "bad_sequence.dcm",
    "emri_small_RLE.dcm",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
    "vlut_04.dcm",
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(timeout_s=10.0, memory_bytes=512 * 1024 * 1024) as warm:
        yield warm


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One of: bytes changed, header bytes changed, cut short, a piece removed, doubled or zeroed."""
    result = bytearray(content)
    kind = rng.randrange(6)
    at = rng.randrange(len(result))
    length = rng.randrange(1, 200)
    if kind == 0:
        for _ in range(rng.randrange(1, 30)):
            result[rng.randrange(len(result))] = rng.randrange(256)
    elif kind == 1:
        for _ in range(rng.randrange(1, 6)):
            result[rng.randrange(min(len(result), 3000))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del result[at:]
    elif kind == 3:
        del result[at : at + length]
    elif kind == 4:
        result[at:at] = result[at : at + length]
    else:
        result[at : at + length] = bytes(len(result[at : at + length]))
    return bytes(result)


def attack(decoder: Decoder, content: bytes, path: Path, seed: int, rounds: int = ROUNDS) -> dict[str, int]:
    """Read damaged copies; outcomes by code."""
    rng = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(rounds):
        path.write_bytes(damaged(content, rng))
        try:
            images = decoder.read(path)
        except RadboxError as error:
            outcomes[error.code] += 1
        else:
            assert images
            for image in images:
                assert image.pixels.ndim == 2
            outcomes["read"] += 1
    assert sum(outcomes.values()) == rounds
    assert all(code == "read" or code.startswith(CODES) for code in outcomes)
    assert "dicom.decoder-timeout" not in outcomes
    return outcomes


def own_object(**attributes: Any) -> Any:
    pixels = np.random.default_rng(5).integers(0, 4096, (40, 56)).astype(np.uint16)
    return image_object(pixels, WindowCenter=2000, WindowWidth=4000, PatientAge="040Y", ViewPosition="PA", **attributes)


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]
)
def test_damaged_objects_of_our_own(decoder: Decoder, tmp_path: Path, syntax: uid.UID) -> None:
    ds = own_object()
    if syntax.is_encapsulated:
        plugin = "pyjpegls" if syntax == uid.JPEGLSLossless else "pylibjpeg"
        ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    content = save(ds, tmp_path / "whole.dcm").read_bytes()
    outcomes = attack(decoder, content, tmp_path / "damaged", seed=int(syntax.replace(".", "")[-3:]), rounds=60)
    assert len(outcomes) > 1


@pytest.mark.parametrize("name", REAL_FILES)
def test_damaged_reference_files(decoder: Decoder, shared_data: Path, tmp_path: Path, name: str) -> None:
    content = (shared_data / "dicom" / name).read_bytes()
    attack(decoder, content, tmp_path / "damaged", seed=len(content))


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_damaged_pictures(decoder: Decoder, tmp_path: Path, kind: str) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (90, 120, 3)).astype(np.uint8), (0, 0), 3)
    done, content = cv2.imencode(kind, image)
    assert done
    outcomes = attack(decoder, content.tobytes(), tmp_path / "damaged", seed=9, rounds=60)
    assert outcomes["picture.malformed"] > 5
