"""`radbox simulate`: a phantom with a lesion of known side and zone, or files, sent by DICOM or saved."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydicom.dataset import Dataset

from edge.board import Receive
from edge.durable import make_directory
from edge.errors import ConfigError, RadboxError
from edge.simulate.lesions import ALLOWED, Lesion
from edge.simulate.objects import phantom_dataset, picture_dataset, sample_dataset, save_file
from edge.simulate.phantom import PhantomOptions, make_phantom
from edge.simulate.send import collect, send

SEVERITY = 0.8  # plain to see
SAMPLE = PhantomOptions(seed=1, lesion=Lesion("edema", "bilateral", "diffuse", SEVERITY))  # what `radbox up` sends


def phantom_options(finding: str | None, side: str | None, zone: str | None, seed: int) -> PhantomOptions:
    """The phantom asked for; a side or zone that is not said is the first that the finding allows.

    Raises ConfigError (simulate.lesion): the finding does not exist there, or a side or zone without a finding.
    """
    if finding is not None and finding not in ALLOWED:
        raise ConfigError(f"expected a finding of {', '.join(ALLOWED)}, got {finding!r}", code="simulate.lesion")
    if finding is None:
        if side or zone:
            raise ConfigError("expected --finding beside --side or --zone, got none", code="simulate.lesion")
        return PhantomOptions(seed=seed)
    sides, zones = ALLOWED[finding]
    chosen_side = next((one for one in sides if side in (None, one)), None)
    chosen_zone = next((one for one in zones if zone in (None, one)), None)
    if chosen_side is None or chosen_zone is None:
        message = f"expected {finding} on side {' or '.join(sides)} in zone {' or '.join(zones)}, got {side} and {zone}"
        raise ConfigError(message, code="simulate.lesion")
    return PhantomOptions(seed=seed, lesion=Lesion(finding, chosen_side, chosen_zone, SEVERITY))


def to_send(path: Path | None, options: PhantomOptions) -> tuple[Path | Dataset, ...]:
    """The files under `path`, else the phantom as a DX object of a new patient, so that a box reads it anew.

    Raises RadboxError (send.nothing-to-send).
    """
    if path is not None:
        return collect(path)
    return (phantom_dataset(make_phantom(options), patient_id=f"PHANTOM-{time.time_ns() // 1_000_000}"),)


def save(path: Path | None, options: PhantomOptions, out: Path) -> None:
    """Write the phantom, or the picture `path`, as a DICOM file; the same input gives the same file.

    Raises RadboxError (simulate.picture-unreadable, simulate.several), StorageError.
    """
    if path is not None and path.is_dir():
        raise RadboxError("expected one picture for --out, got a folder", code="simulate.several")
    dataset = sample_dataset(options) if path is None else picture_dataset(path)
    make_directory(out.absolute().parent)
    save_file(dataset, out)


def main(
    receive: Receive,
    *,
    path: Path | None,
    finding: str | None,
    side: str | None,
    zone: str | None,
    seed: int,
    out: Path | None,
    host: str | None,
    port: int | None,
    called_ae: str | None,
) -> int:
    """Run `radbox simulate` and say what became of every object; 1 if any was refused, else 0."""
    options = phantom_options(finding, side, zone, seed)
    if out is not None:
        save(path, options, out)
        print(f"saved {out}")
        return 0
    results = send(
        to_send(path, options),
        host or receive.host,
        port or receive.port,
        called_ae or receive.ae_title,
        progress=lambda done, total: print(f"\rsent {done} of {total}", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    for result in results:
        print(f"{result.sop_instance_uid}: {result.message}")
    return int(not all(result.accepted for result in results))
