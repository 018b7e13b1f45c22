"""The reading of whole studies, on the shipped bundle: several images, refusals, stages, and what must not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load_bundle
from edge.errors import BundleError
from edge.reading.backends import load_backend
from edge.reading.backends.setup import Setup
from edge.reading.decoding import Decoding
from edge.reading.pipeline import STAGES, Reader
from edge.reading.radiograph import Radiograph, Refusal, Study
from edge.report.schema import Report
from edge.simulate.command import SAMPLE
from edge.simulate.phantom import PhantomOptions, make_phantom


@pytest.fixture(scope="module")
def reader(root: Path) -> Reader:
    """The shipped bundle on its default backend."""
    bundle = load_bundle(root / "models" / "bundles" / "chest")
    return Reader(bundle, load_backend("tflite", bundle, Setup()))


@pytest.fixture(scope="module")
def frontal() -> Radiograph:
    """A thorax without a lesion."""
    phantom = make_phantom(PhantomOptions(seed=3, size=512, detail="fast"))
    return Radiograph(phantom.pixels, modality="DX", body_part="CHEST", view="AP", age_years=50.0)


def test_several_frontal_images_make_one_report_on_the_pa_view(reader: Reader, frontal: Radiograph) -> None:
    sample = Radiograph(make_phantom(SAMPLE).pixels, modality="DX", body_part="CHEST", view="PA", age_years=50.0)
    both = reader.read(Study((frontal, sample)))
    assert both.reference == 1
    assert isinstance(both.outcome, Report)
    assert both.outcome.technique.images == 2
    assert both.outcome.technique.view == "PA"
    assert "limit.several-frontal" in both.outcome.limits
    alone = [reader.read(Study((r,))).outcome for r in (frontal, sample)]
    for finding, score in both.outcome.scores.items():
        scores = [o.scores[finding] for o in alone if isinstance(o, Report)]
        assert min(scores) - 1e-4 <= score <= max(scores) + 1e-4


def test_a_lateral_view_beside_a_frontal_one_is_left_out(reader: Reader, frontal: Radiograph) -> None:
    reading = reader.read(Study((replace(frontal, view="LATERAL"), frontal)))
    assert reading.reference == 1
    assert isinstance(reading.outcome, Report)
    assert reading.outcome.technique.images == 1


def test_nothing_readable_gives_the_gates_reason_before_a_decoders(reader: Reader, frontal: Radiograph) -> None:
    broken = Refusal("dicom.truncated", "cut")
    outcome = reader.read(Study((replace(frontal, view="LATERAL"),), (broken,))).outcome
    assert isinstance(outcome, Refusal)
    assert outcome.code == "gate.view"
    assert reader.read(Study((), (broken,))).outcome == broken
    empty = reader.read(Study(())).outcome
    assert isinstance(empty, Refusal)
    assert empty.code == "study.no-images"


def test_every_stage_is_announced_in_order(reader: Reader, frontal: Radiograph) -> None:
    told: list[str] = []
    reader.read(Study((frontal,)), told.append)
    assert tuple(told) == STAGES


@pytest.mark.parametrize("spoil", [lambda p: 1.0 - p, np.rot90, np.flipud])
def test_a_spoiled_chest_is_refused(reader: Reader, shared_data: Path, spoil: object) -> None:
    from edge.reading.read_file import read_file

    (real,) = read_file(shared_data / "dicom" / "RG1_J2KI.dcm")
    assert isinstance(reader.read(Study((real,))).outcome, Report)
    assert callable(spoil)
    turned = replace(real, pixels=np.ascontiguousarray(spoil(real.pixels)))
    outcome = reader.read(Study((turned,))).outcome
    assert isinstance(outcome, Refusal)
    assert outcome.code.startswith("gate.")


def test_a_bundle_for_another_graph_does_not_run(reader: Reader) -> None:
    other = replace(reader.bundle, manifest=replace(reader.bundle.manifest, graph_sha256="0" * 64))
    with pytest.raises(BundleError) as caught:
        Reader(other, reader.encoder)
    assert caught.value.code == "bundle.graph"


def test_int8_and_its_threads_read_too(reader: Reader, frontal: Radiograph) -> None:
    eights = [Reader(reader.bundle, reader.encoder, Decoding(precision="q8", threads=n)) for n in (1, 2)]
    assert [one.precision for one in eights] == ["q8", "q8"]
    first, second = (one.read(Study((frontal,))).outcome for one in eights)
    assert isinstance(first, Report)
    assert first == second


def test_int4_without_weights_made_for_it_reads_in_float(reader: Reader, frontal: Radiograph) -> None:
    four = Reader(reader.bundle, reader.encoder, Decoding(precision="q4"))
    assert four.precision == "f32"
    assert four.read(Study((frontal,))).outcome == reader.read(Study((frontal,))).outcome
