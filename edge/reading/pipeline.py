"""The reading of a study, whole: images in, a checked draft or a refusal out. No files, no network, no clock.

    gate (header, blank) -> image.prepare -> Encoder.run -> gate (learned, lungs, exposure)
        -> Decoder.generate -> evidence -> compose -> report.check

`on_stage(name)` is called before each stage, so that the worker can time it and tell the watchdog that work moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.bundle import Bundle
from edge.errors import BundleError
from edge.reading import gate
from edge.reading.backends import Encoder
from edge.reading.compose import Observed, compose, mean_logits
from edge.reading.decoding import Decoding, runs_in
from edge.reading.evidence import locate, positive_part
from edge.reading.image import Prepared, prepare
from edge.reading.open_decoder import open_decoder
from edge.reading.radiograph import F32, Radiograph, Refusal, Study
from edge.report.check import check
from edge.report.grammar import Grammar
from edge.report.graph import Graph, load_graph
from edge.report.schema import Report

STAGES = ("prepare", "encode", "generate", "evidence", "check")
_SPECIFIC_FIRST = ("gate.", "dicom.", "picture.")


def _no_stage(name: str) -> None:
    """Default for `on_stage`: nobody is timing."""


@dataclass(frozen=True)
class Reading:
    """What came out. reference: index in `Study.radiographs` of the image the evidence lies on; None if refused."""

    outcome: Report | Refusal
    reference: int | None


@dataclass(frozen=True)
class _Seen:
    index: int
    radiograph: Radiograph
    prepared: Prepared
    outputs: dict[str, F32]


class Reader:
    """Bundle, encoder, decoder and graph, loaded once; `read` as often as there are studies."""

    def __init__(
        self, bundle: Bundle, encoder: Encoder, decoding: Decoding | None = None, graph: Graph | None = None
    ) -> None:
        """Raises BundleError (weights, vocabulary or graph do not fit), BackendError (kernels)."""
        self.bundle = bundle
        self.encoder = encoder
        self.graph = graph or load_graph()
        if bundle.manifest.graph_sha256 != self.graph.sha256:
            raise BundleError("The model bundle was made for another finding graph.", code="bundle.graph")
        how = decoding or Decoding()
        self.precision = runs_in(bundle, how)
        self._decoder = open_decoder(bundle, how)
        self._grammar = Grammar(bundle.manifest.decoder.vocabulary, bundle.findings, self.graph)

    @property
    def decoder_fault(self) -> str:
        """Why the CPU decodes in place of the accelerator that the board names; "" where all is as it should be."""
        return f"The CPU decodes ({self._decoder.kernels}): {fault}" if (fault := self._decoder.fault) else ""

    def read(self, study: Study, on_stage: Callable[[str], None] = _no_stage) -> Reading:
        """Read every image of `study` that the gate lets through, as one report."""
        seen: list[_Seen] = []
        refusals = list(study.refusals)
        for index, radiograph in enumerate(study.radiographs):
            looked = self._look(index, radiograph, on_stage)
            if isinstance(looked, Refusal):
                refusals.append(looked)
            else:
                seen.append(looked)
        if not seen:
            return Reading(_main_refusal(refusals), None)
        reference = min(seen, key=lambda s: (s.radiograph.view != "PA", s.index))
        observed = self._observe(seen, reference, on_stage)
        on_stage("check")
        draft = compose(observed, self.bundle, self.graph, self.encoder.name)
        return Reading(check(draft, self.graph), reference.index)

    def _look(self, index: int, radiograph: Radiograph, on_stage: Callable[[str], None]) -> _Seen | Refusal:
        on_stage("prepare")
        refusal = gate.check_header(radiograph) or gate.check_blank(radiograph)
        if refusal:
            return refusal
        prepared = prepare(radiograph, self.bundle.manifest.input_size)
        on_stage("encode")
        outputs = self.encoder.run(prepared.tensor)
        refusal = (
            gate.check_learned(float(outputs["chest"][0, 0]), self.bundle.manifest.gate.chest)
            or gate.check_geometry(outputs["masks"][0])
            or gate.check_exposure(radiograph)
        )
        return refusal or _Seen(index, radiograph, prepared, outputs)

    def _observe(self, seen: list[_Seen], reference: _Seen, on_stage: Callable[[str], None]) -> Observed:
        tokens, masks, maps = (reference.outputs[name][0] for name in ("tokens", "masks", "maps"))
        on_stage("generate")
        generated = self._decoder.generate(tokens, masks, self._grammar, keep_attention=False)
        said = self._grammar.parse(generated.tokens)
        on_stage("evidence")
        row = {finding: i for i, finding in enumerate(self.bundle.findings)}
        located = {coded.finding: locate(positive_part(maps[row[coded.finding]]), masks) for coded in said}
        return Observed(
            reference=reference.radiograph,
            extent=reference.prepared.extent,
            images=len(seen),
            logits=mean_logits(self.bundle.findings, [s.outputs for s in seen]),
            population_logit=float(reference.outputs["population"][0, 0]),
            said=said,
            located=located,
        )


def _main_refusal(refusals: list[Refusal]) -> Refusal:
    """The one reason given for a study: what the gate says of an image before what a decoder says of a file."""
    if not refusals:
        return Refusal("study.no-images", "The study holds no image that could be read.")
    for area in _SPECIFIC_FIRST:
        for refusal in refusals:
            if refusal.code.startswith(area):
                return refusal
    return refusals[0]
