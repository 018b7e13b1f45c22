"""The files of one study -> its images, decoded in the child; what cannot be decoded becomes a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edge.errors import DecodeError, DicomError
from edge.reading.decode_child import CRASHED, Decoder
from edge.reading.radiograph import Radiograph, Refusal, Study

MOST_IMAGES = 8  # of one study that are held for reading
TRIES = 3  # of a file on which the child died
OTHER_MODALITY_RUN = 3  # that many images in a row of another modality: the rest of the study is not decoded


def decode_study(decoder: Decoder, paths: Iterable[Path], on_file: Callable[[], None] = lambda: None) -> Study:
    """Decode files until there are MOST_IMAGES. on_file: called before each file. Raises StorageError (file lost)."""
    radiographs: list[Radiograph] = []
    refusals: list[Refusal] = []
    for path in paths:
        on_file()
        try:
            radiographs.extend(_read(decoder, path)[: MOST_IMAGES - len(radiographs)])
        except DicomError as error:
            refusals.append(Refusal(error.code, f"The image could not be read: {error.message}."))
        if len(radiographs) >= MOST_IMAGES or _all_other(radiographs):
            break
    return Study(tuple(radiographs), tuple(refusals))


def _read(decoder: Decoder, path: Path) -> tuple[Radiograph, ...]:
    """A child that died may have been killed for lack of memory, by no fault of the file: try again."""
    for _ in range(TRIES - 1):
        try:
            return decoder.read(path)
        except DecodeError as error:
            if error.code != CRASHED:
                raise
    return decoder.read(path)


def _all_other(radiographs: list[Radiograph]) -> bool:
    """A CT or MR study of hundreds of slices is not decoded to the end only to be refused."""
    return len(radiographs) >= OTHER_MODALITY_RUN and all(r.modality in ("CT", "MR", "PT", "NM") for r in radiographs)
