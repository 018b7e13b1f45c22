"""CTranslate2 int8: a decoder with cross-attention and as many weights. Needs ctranslate2.

It knows no gate and its cross-attention has projections of its own (2 d^2 per layer more), so its feed-forward part is
3 d instead of 4 d wide: 12 d^2 per layer, as ours. It cannot be stopped between tokens: a sample is a whole text
of 64 tokens less one of 1, divided by 63; with one thread in processor time, since so long a run is always preempted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tools.decoder_bench.contestant import Contestant, NotInstalled
from tools.decoder_bench.sizes import TOKENS, Model


def _specification(ctranslate2: Any, model: Model) -> Any:
    specs = ctranslate2.specs
    shape, generator = model.size.shape, np.random.default_rng(2)
    d, ffn = shape.width, 3 * shape.width
    spec = specs.TransformerSpec.from_config(
        (1, shape.layers), shape.heads, pre_norm=True, activation=specs.Activation.GELUTanh
    )

    def fill(linear: Any, outputs: int, inputs: int) -> None:
        linear.weight = generator.standard_normal((outputs, inputs), np.float32) * np.float32(inputs**-0.5)
        linear.bias = np.zeros(outputs, np.float32)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(d, np.float32), np.zeros(d, np.float32)

    def feed_forward(layer: Any) -> None:
        norm(layer.layer_norm)
        fill(layer.linear_0, ffn, d)
        fill(layer.linear_1, d, ffn)

    def self_attention(layer: Any) -> None:
        norm(layer.layer_norm)
        fill(layer.linear[0], 3 * d, d)
        fill(layer.linear[1], d, d)

    for part in (spec.encoder, spec.decoder):
        embeddings = part.embeddings[0] if isinstance(part.embeddings, list) else part.embeddings
        embeddings.weight = generator.standard_normal((shape.vocabulary, d), np.float32)
        part.position_encodings.encodings = generator.standard_normal((512, d), np.float32)
        norm(part.layer_norm)
    for layer in spec.encoder.layer:
        self_attention(layer.self_attention)
        feed_forward(layer.ffn)
    for layer in spec.decoder.layer:
        self_attention(layer.self_attention)
        norm(layer.attention.layer_norm)
        fill(layer.attention.linear[0], d, d)
        fill(layer.attention.linear[1], 2 * d, d)
        fill(layer.attention.linear[2], d, d)
        feed_forward(layer.ffn)
    fill(spec.decoder.projection, shape.vocabulary, d)
    vocabulary = ["<blank>", "<unk>", "<s>", "</s>", *(f"w{i}" for i in range(shape.vocabulary - 4))]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    return spec


class CTranslate2:
    """A whole text per `token()`."""

    turn = (0, 1)

    def __init__(self, ctranslate2: Any, model: Model, threads: int) -> None:
        self.name, self.kind = f"CTranslate2 {ctranslate2.__version__} int8", "int8"
        with tempfile.TemporaryDirectory() as folder:
            spec = _specification(ctranslate2, model)
            spec.validate()
            spec.optimize(quantization="int8")
            spec.save(folder)
            self._translator = ctranslate2.Translator(
                folder, device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1
            )
        self._source = [["w1"] * model.size.image_tokens]
        self._clock = time.process_time if threads == 1 else time.perf_counter
        self._one_s = min(self._run(1) for _ in range(5))

    def _run(self, length: int) -> float:
        started = self._clock()
        self._translator.translate_batch(
            self._source, beam_size=1, min_decoding_length=length, max_decoding_length=length
        )
        return self._clock() - started

    def rewind(self) -> None:
        """Each call starts anew."""

    def token(self) -> float:
        """Seconds per token over 63 tokens: the rest of the call is not theirs."""
        return (self._run(TOKENS) - self._one_s) / (TOKENS - 1)


def contestants(model: Model, threads: int) -> Iterator[Contestant]:
    try:
        import ctranslate2  # type: ignore[import-not-found]
        import ctranslate2.specs  # type: ignore[import-not-found]
    except ImportError as error:
        raise NotInstalled("ctranslate2") from error
    yield CTranslate2(ctranslate2, model, threads)
