"""llama.cpp q8_0 and q4_0: a decoder without cross-attention and as many weights. Needs llama-cpp-python and gguf.

Per layer 4 d^2 of attention and a SwiGLU of 3 x d x 8/3 d: 12 d^2, as ours; the image is a prefix of as many tokens in
its float16 cache. It leaves out our gate and second softmax.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.decoder_bench.contestant import TURN, Contestant, NotInstalled
from tools.decoder_bench.sizes import FIRST, Model


def _write(gguf: Any, path: Path, model: Model, kind: Any) -> None:
    shape, generator = model.size.shape, np.random.default_rng(3)
    d, ffn = shape.width, shape.width * 8 // 3 // 32 * 32
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(d)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(d // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name: str, rows: int, columns: int) -> None:
        values = generator.standard_normal((rows, columns), np.float32) * np.float32(columns**-0.5)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(d, np.float32))

    matrix("token_embd", shape.vocabulary, d)
    for layer in range(shape.layers):
        p = f"blk.{layer}."
        norm(p + "attn_norm")
        norm(p + "ffn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(p + name, d, d)
        matrix(p + "ffn_gate", ffn, d)
        matrix(p + "ffn_up", ffn, d)
        matrix(p + "ffn_down", d, ffn)
    norm("output_norm")
    matrix("output", shape.vocabulary, d)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    """A context whose cache is cut back to the prefix and 24 tokens to rewind."""

    turn = TURN

    def __init__(self, api: Any, path: Path, model: Model, threads: int, name: str, kind: str) -> None:
        self.name, self.kind, self._api = name, kind, api
        self._prefix, self._position = model.size.image_tokens, 0
        parameters = api.llama_model_default_params()
        self._model = api.llama_model_load_from_file(str(path).encode(), parameters)
        context = api.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_threads, context.n_threads_batch = 1024, 512, threads, threads
        self._context = api.llama_init_from_model(self._model, context)
        if not self._context:
            raise RuntimeError(f"expected llama.cpp to open {path.name}, got no context")
        prefix = (api.llama_token * self._prefix)(*range(1, self._prefix + 1))
        self._decode(prefix, self._prefix)
        self._one = (api.llama_token * 1)(1)
        for _ in range(FIRST):
            self.token()

    def __del__(self) -> None:
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _decode(self, tokens: Any, count: int) -> None:
        if status := self._api.llama_decode(self._context, self._api.llama_batch_get_one(tokens, count)):
            raise RuntimeError(f"expected llama_decode to return 0, got {status}")

    def rewind(self) -> None:
        memory = self._api.llama_get_memory(self._context)
        self._api.llama_memory_seq_rm(memory, 0, self._prefix + FIRST, -1)

    def token(self) -> None:
        self._decode(self._one, 1)
        self._api.llama_get_logits(self._context)


@functools.cache  # alive as long as llama.cpp may call it
def _silent(api: Any) -> Any:
    return api.llama_log_callback(lambda level, text, context: None)


def contestants(model: Model, threads: int) -> Iterator[Contestant]:
    try:
        import gguf  # type: ignore[import-not-found]
        import llama_cpp  # type: ignore[import-not-found]
        from llama_cpp import llama_cpp as api
    except ImportError as error:
        raise NotInstalled(f"llama-cpp-python with gguf ({error.name})") from error
    api.llama_log_set(_silent(api), ctypes.c_void_p(0))
    api.llama_backend_init()
    types = gguf.GGMLQuantizationType
    for name, kind, tensor_type in (("q8_0", "int8", types.Q8_0), ("q4_0", "int4", types.Q4_0)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.gguf"
            _write(gguf, path, model, tensor_type)
            yield Llama(api, path, model, threads, f"llama.cpp ({llama_cpp.__version__}) {name}", kind)
