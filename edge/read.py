"""`radbox read`: files in, reports out, with no service running. The same gate, model and rules as the worker."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.board import Board
from edge.errors import DicomError, RadboxError, StorageError
from edge.reading.decode_child import Decoder
from edge.reading.dicom import identity
from edge.reading.load import load_reader
from edge.reading.pipeline import Reader, Reading
from edge.reading.radiograph import Radiograph, Refusal, Study
from edge.reading.read_file import file_kind
from edge.report.render import render_refusal, render_text
from edge.report.schema import Report
from edge.report.serial import to_json

TELL_EVERY_S = 2.0
HEAD_BYTES = 132


@dataclass(frozen=True)
class Source:
    """The files of one study, in the order they were named."""

    paths: tuple[Path, ...]


def main(paths: Sequence[Path], as_json: bool, board: Board) -> int:
    """Read or refuse every study under `paths`; returns 0. Raises RadboxError (read.*), BundleError, BackendError."""
    sources = list(find_studies(paths))
    if not sources:
        raise RadboxError("expected DICOM files, JPEG or PNG pictures, got none", code="read.nothing-to-read")
    worker = board.worker
    loaded = load_reader(board)
    for name, reason in loaded.passed_over:
        print(f"radbox: running without {name}: {reason.message} [{reason.code}]", file=sys.stderr)
    told = time.monotonic()
    with Decoder(timeout_s=worker.decode_timeout_s, memory_bytes=worker.decode_memory_bytes) as decoder:
        for number, source in enumerate(sources):
            reading = loaded.reader.read(_decode(decoder, source))
            _print(source, reading, loaded.reader, as_json)
            if time.monotonic() - told > TELL_EVERY_S:
                print(f"radbox: read {number + 1} of {len(sources)} studies", file=sys.stderr)
                told = time.monotonic()
    return 0


def find_studies(paths: Sequence[Path]) -> Iterator[Source]:
    """Pictures are studies of their own; DICOM files of one folder argument go together by Study Instance UID.

    The same SOP Instance UID again is not a second image of the study but another copy of it: a study of its own.
    """
    for path in paths:
        if not path.exists():
            raise RadboxError(
                f"expected a file or a folder, got a path that does not exist: {path}", code="read.no-such-path"
            )
        if path.is_file():
            yield Source((path,))
        else:
            yield from _of_folder(path)


def _of_folder(folder: Path) -> Iterator[Source]:
    studies: dict[str, dict[str, Path]] = {}
    alone: list[Path] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            kind = file_kind(stream.read(HEAD_BYTES))
        if kind == "unknown":
            continue
        uids = identity(path) if kind == "dicom" else None
        instances = studies.setdefault(uids.study_instance_uid, {}) if uids and uids.study_instance_uid else None
        if instances is None or uids is None or uids.sop_instance_uid in instances:
            alone.append(path)
        else:
            instances[uids.sop_instance_uid] = path
    grouped = [Source(tuple(instances.values())) for instances in studies.values()]
    yield from sorted([*grouped, *(Source((path,)) for path in alone)], key=lambda source: source.paths)


def _decode(decoder: Decoder, source: Source) -> Study:
    radiographs: list[Radiograph] = []
    refusals: list[Refusal] = []
    for path in source.paths:
        try:
            radiographs.extend(decoder.read(path))
        except (DicomError, StorageError) as error:
            refusals.append(Refusal(error.code, f"The image could not be read: {error.message}."))
    return Study(tuple(radiographs), tuple(refusals))


def as_object(source: Source, reading: Reading) -> dict[str, Any]:
    """What one line of `--json` holds: path, status, refusal or report, scores."""
    entry: dict[str, Any] = {"path": str(source.paths[0]), "paths": [str(p) for p in source.paths]}
    if isinstance(reading.outcome, Report):
        report = json.loads(to_json(reading.outcome))
        return {**entry, "status": "draft", "refusal": None, "report": report, "scores": report["scores"]}
    refusal = {"code": reading.outcome.code, "message": reading.outcome.message}
    return {**entry, "status": "refused", "refusal": refusal, "report": None, "scores": {}}


def _print(source: Source, reading: Reading, reader: Reader, as_json: bool) -> None:
    if as_json:
        print(json.dumps(as_object(source, reading), allow_nan=False), flush=True)
        return
    print(f"== {', '.join(str(p) for p in source.paths)}")
    if isinstance(reading.outcome, Report):
        print(render_text(reading.outcome, reader.graph), flush=True)
    else:
        print(f"{render_refusal(reading.outcome)} [{reading.outcome.code}]\n", flush=True)
