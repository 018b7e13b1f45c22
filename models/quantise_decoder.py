"""The decoder in int8 and int4: what the rounding costs, and the int4 file of a bundle if it passes its gate.

    python -m models.quantise_decoder CACHE_DIR RUN_DIR [--part val|test] [--write BUNDLE_DIR]

Four forms run through the device's own kernels on images of patients (and phantoms) never trained on: float, int8 per
row, int4 in groups of 32 by plain rounding, int4 by GPTQ calibrated on training images. --write puts the GPTQ form
into the bundle as `decoder.q4.safetensors` if the gate below is passed on the validation part; a box that is told to
run int4 without that file stays with float. The gate was fixed before any figure was seen.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from edge.bundle import parse_manifest
from edge.reading.decoder import Decoder as DeviceDecoder
from edge.reading.decoder import DecoderConfig
from edge.reading.decoding import INT4_DECODER
from edge.reading.ops.quantised import QuantisedWeights, matrix_names, once_per_image
from edge.reading.ops.reference_quantised import quantise_decoder, quantise_weights_q8
from edge.report.grammar import FINDINGS, Grammar
from edge.report.graph import load_graph
from models.findings import VOCABULARY
from models.gptq import gptq
from models.model import CHANNELS, Decoder, Encoder
from models.sign import write_manifest
from models.train_decoder import VIEWS, Examples, Sequences, encode, youden

GATE_CHANGED = 0.02  # at most this share of the images may get another set of findings than with float weights
GATE_YOUDEN = 0.01  # and the mean Youden index of a source may fall by at most this
CALIBRATION_BATCHES = 24
Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Quality:
    """Of one form on one part. same, changed: share of images with the same tokens, with another set of findings."""

    n: int
    same: float
    changed: float
    cosine: float  # of the logits of the rounded weights alone along the float form's tokens, mean over 100 images
    youden: float


def hessians(decoder: Decoder, sequences: Sequences) -> dict[str, np.ndarray]:
    """Name of a matrix -> sum over CALIBRATION_BATCHES of x x^T, x its inputs: (columns, columns) float64."""
    sums: dict[str, np.ndarray] = {}

    def hook(name: str) -> Any:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            x = inputs[0].detach().flatten(0, -2).double().numpy()
            sums[name] = sums.get(name, 0.0) + x.T @ x

        return add

    modules = [(n, m) for n, m in decoder.named_modules() if isinstance(m, nn.Linear)]
    handles = [m.register_forward_hook(hook(f"{n}.weight")) for n, m in modules]
    with torch.no_grad():
        for _ in range(CALIBRATION_BATCHES):
            tokens, masks, inputs, _ = sequences.batch(32)
            decoder(tokens, masks, inputs)
    for handle in handles:
        handle.remove()
    return sums


def by_gptq(config: DecoderConfig, weights: Weights, inputs: dict[str, np.ndarray]) -> QuantisedWeights:
    """int4 by GPTQ where a matrix runs once per token; what runs once per image stays int8."""
    names = matrix_names(config.shape(CHANNELS))
    matrices = {n: quantise_weights_q8(weights[n]) if once_per_image(n) else gptq(weights[n], inputs[n]) for n in names}
    return QuantisedWeights({n: a for n, a in weights.items() if n not in matrices}, matrices)


def as_tensors(quantised: QuantisedWeights) -> dict[str, Any]:
    """The form of `edge.reading.ops.quantised.from_tensors`."""
    tensors: dict[str, Any] = dict(quantised.floats)
    for name, matrix in quantised.matrices.items():
        tensors[name], tensors[f"{name}_scale"] = matrix.values, np.asarray(matrix.scales)
    return tensors


def said(decoder: DeviceDecoder, part: Examples, grammar: Grammar) -> list[tuple[int, ...]]:
    """The tokens written for every image."""
    return [
        decoder.generate(t.astype(np.float32), m.astype(np.float32), grammar, keep_attention=False).tokens
        for t, m in zip(part.tokens, part.masks, strict=True)
    ]


def quality(decoder: DeviceDecoder, plain: DeviceDecoder, part: Examples, grammar: Grammar) -> Quality:
    """`decoder` against `plain`, the float form."""
    wanted, got = said(plain, part, grammar), said(decoder, part, grammar)
    found = [frozenset(c.finding for c in grammar.parse(tokens)) for tokens in got]
    expected = [frozenset(c.finding for c in grammar.parse(tokens)) for tokens in wanted]
    written = np.array([[finding in one for finding in FINDINGS] for one in found])
    cosines = []
    for row in range(min(len(wanted), 100)):
        image = part.tokens[row].astype(np.float32), part.masks[row].astype(np.float32)
        a, b = (d.logits(*image, wanted[row][:-1]).ravel() for d in (plain, decoder))
        cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return Quality(
        len(got),
        float(np.mean([a == b for a, b in zip(wanted, got, strict=True)])),
        float(np.mean([a != b for a, b in zip(expected, found, strict=True)])),
        float(np.mean(cosines)),
        youden(written, part.labels),
    )


def passes(plain: Quality, rounded: Quality) -> bool:
    """The gate, for one source."""
    return rounded.changed <= GATE_CHANGED and rounded.youden >= plain.youden - GATE_YOUDEN


def measure(cache: Path, run: Path, split: str) -> tuple[dict[str, dict[str, Quality]], QuantisedWeights]:
    """Form -> source -> quality on part `split`; and the GPTQ weights."""
    encoder, decoder = Encoder(), Decoder()
    encoder.load_state_dict(torch.load(run / "encoder.pt", weights_only=True))
    decoder.load_state_dict(torch.load(run / "decoder.pt", weights_only=True))
    encoder.eval()
    decoder.eval()
    weights = {k: v.numpy().copy() for k, v in decoder.state_dict().items()}
    config = DecoderConfig()
    train = [encode(encoder, cache, name, "train", 1, 11) for name in VIEWS]
    four = by_gptq(config, weights, hessians(decoder, Sequences(train, np.random.default_rng(11))))
    plain = quantise_decoder(config.shape(CHANNELS), weights, "q4")
    forms = {
        "float": DeviceDecoder.load(config, weights),
        "int8": DeviceDecoder.load(config, weights, precision="q8"),
        "int4 plain": DeviceDecoder.load(config, as_tensors(plain)),
        "int4 GPTQ": DeviceDecoder.load(config, as_tensors(four)),
    }
    grammar = Grammar(VOCABULARY, FINDINGS, load_graph())
    parts = {name: encode(encoder, cache, name, split, 0, 0) for name in VIEWS}
    table = {
        form: {name: quality(one, forms["float"], part, grammar) for name, part in parts.items()}
        for form, one in forms.items()
    }
    return table, four


def size_bytes(weights: QuantisedWeights) -> int:
    """Of values and scales."""
    return sum(a.nbytes for a in as_tensors(weights).values())


def show(table: dict[str, dict[str, Quality]]) -> str:
    """A Markdown table."""
    heads = ("form", "part", "n", "same tokens", "other findings", "cosine of logits", "mean Youden index", "gate")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for form, sources in table.items():
        for name, q in sources.items():
            gate = "" if form == "float" else "passed" if passes(table["float"][name], q) else "not passed"
            figures = f"{q.n} | {q.same:.3f} | {q.changed:.3f} | {q.cosine:.4f} | {q.youden:.3f}"
            lines.append(f"| {form} | {name} | {figures} | {gate} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cache", "run"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--part", choices=("val", "test"), default="val")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    table, four = measure(options.cache, options.run, options.part)
    print(show(table))
    print(json.dumps({"int4 bytes": size_bytes(four)}))
    if options.write and options.part == "val":
        if not all(passes(table["float"][name], q) for name, q in table["int4 GPTQ"].items()):
            raise SystemExit("the gate was not passed: nothing is written")
        save_file(as_tensors(four), options.write / INT4_DECODER)
        write_manifest(parse_manifest((options.write / "manifest.json").read_bytes()), options.write)


if __name__ == "__main__":
    main()
