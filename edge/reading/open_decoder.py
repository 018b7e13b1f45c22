"""Bundle and board -> the decoder a box runs: which weights, rounded to what, by which kernels."""

from __future__ import annotations

from edge.bundle import Bundle
from edge.reading.decoder import Decoder, DecoderConfig
from edge.reading.decoding import INT4_DECODER, Decoding, runs_in
from edge.reading.weights import read_tensors


def open_decoder(bundle: Bundle, decoding: Decoding) -> Decoder:
    """In the precision that `runs_in` says. Raises BundleError (weights do not fit), BackendError (kernels)."""
    spec = bundle.manifest.decoder
    config = DecoderConfig(
        vocabulary=len(spec.vocabulary),
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        ffn=spec.ffn,
        positions=spec.positions,
        bias_sigma=spec.bias_sigma,
        bias_strength=spec.bias_strength,
    )
    precision = runs_in(bundle, decoding)
    weights = read_tensors(bundle.file(INT4_DECODER if precision == "q4" else "decoder.safetensors"))
    rounded = "q8" if precision == "q8" else None
    return Decoder.load(config, weights, decoding.kernels, precision=rounded, threads=decoding.threads)
