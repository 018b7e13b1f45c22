"""The decoder on a GPU: an image's keys and values once, then one CUDA graph per token.

A step is embed, five launches a layer (norm + q k v; attention; gate + output projection; norm + up + GELU; down),
norm + head, masked arg-max, and the attention maps. With a copy in front (token, allowed tokens) and one behind (state,
logits, maps) it is captured once per number of image tokens; the first step runs as launches, since the driver loads a
kernel at its first use and may not do so in a capture. Equations: edge/reading/ops/reference.py.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.backends.cuda_device import CudaDevice, Graph, Kernels
from edge.reading.backends.cuda_launches import STATE_WORDS, HeadRows, Launches, Matrix, Norm, head_storage
from edge.reading.backends.cuda_weights import ALIGNMENT, STORAGE_TYPES, Storage, decoder_arena
from edge.reading.ops import reference
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, NOT_FINITE, NOTHING_ALLOWED, Weights, f32
from edge.reading.ops.automaton import Automaton, Said
from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.reference import EPSILON
from edge.reading.ops.shape import DecoderShape

KEYS_PER_SLICE: Final = 64  # of the image's keys, per block: enough blocks to fill a small GPU
PADDED: Final = 16

_STATUSES: Final = {
    1: (BAD_ARGUMENT, "expected a token of the vocabulary, got another"),
    2: (NOT_FINITE, "expected finite numbers on the GPU, got NaN, infinity or an overflow (of float or of float16)"),
    3: (NOTHING_ALLOWED, "expected at least one visible key and one allowed token, got none"),
    6: ("kernels.wrong-state", "expected at most as many steps as positions, got one more"),
}


@dataclass(frozen=True)
class Choice:
    """token: -1 never; log_probability: natural logarithm, among the allowed tokens."""

    token: int
    log_probability: float


class _Memory:
    """Named parts of one allocation."""

    def __init__(self, device: CudaDevice, sizes_bytes: dict[str, int]) -> None:
        self._device, offsets, total = device, {}, 0
        for name, size in sizes_bytes.items():
            offsets[name], total = total, total + -(-size // ALIGNMENT) * ALIGNMENT
        self.address = device.allocate(total)
        self._offsets = offsets

    def __getitem__(self, name: str) -> np.uint64:
        return np.uint64(self.address + self._offsets[name])

    def free(self) -> None:
        self._device.free(self.address)


class _Held:
    """What a session has on the device; given back once, by `free` or after the session is gone."""

    def __init__(self, device: CudaDevice, weights: int) -> None:
        self._device, self._weights = device, weights
        self.image: _Image | None = None

    def free_image(self) -> None:
        image, self.image = self.image, None
        if image is not None:
            image.free()

    def free(self) -> None:
        self.free_image()
        weights, self._weights = self._weights, 0
        if weights:
            self._device.free(weights)


class CudaSession:
    """A decoder at work on one image: `begin`, then `step` or `choose` per token, in the device's owner thread.

    weights: those of DecoderShape.check_weights, or quantised. matrix, keys: how matrices, and keys and values, are
    stored. Its memory is given back by `free`, else before the device's next allocation after the session is gone.
    """

    def __init__(
        self,
        device: CudaDevice,
        kernels: Kernels,
        shape: DecoderShape,
        weights: Weights | QuantisedWeights,
        *,
        matrix: Storage = "f16",
        keys: Storage = "f16",
    ) -> None:
        self._device, self._shape, self._keys = device, shape, keys
        self._launches = Launches(kernels, matrix, keys)
        self._arena = decoder_arena(shape, weights, matrix)
        self._weights = device.allocate(self._arena.size_bytes)
        self._held = _Held(device, self._weights)
        weakref.finalize(self, device.leave, self._held.free).atexit = False
        device.upload(self._weights, self._arena.contents())
        self._arena.forget()
        self._began = False

    def begin(self, tokens: F32, bias: F32) -> None:
        """tokens: (n, channels); bias: (layers, n), -inf hides a key. Raises BackendError `kernels.*`, `cuda.*`."""
        self._began = False
        self._device.check()
        tokens = f32("tokens", tokens, None, self._shape.channels)
        bias = f32("bias", bias, self._shape.layers, tokens.shape[0])
        if self._held.image is None or self._held.image.tokens != tokens.shape[0]:
            self._held.free_image()
            self._held.image = _Image(self._device, self._shape, self._keys, tokens.shape[0])
        image = self._held.image
        self._device.upload(int(image.state), np.zeros(STATE_WORDS, np.int32))
        self._device.upload(int(image.memory["bias"]), bias)
        self._device.upload(int(image.memory["x"]), tokens)
        self._project_image(image)
        state = np.empty(STATE_WORDS, np.int32)
        self._device.download(state, int(image.state))
        _check_status(int(state[2]))
        self._began = True

    def step(self, token: int) -> tuple[F32, F32]:
        """Logits (vocabulary,) and cross-attention maps (layers, n). A failed step does not advance."""
        image = self._run(token, None)
        return image.logits.copy(), image.maps.copy()

    def choose(self, token: int, allowed: NDArray[np.bool_]) -> Choice:
        """The most probable allowed token after `token`; the logits and maps are kept for `last`."""
        reference.check_allowed(allowed, self._shape.vocabulary)
        return self._run(token, allowed).choice()

    def generate(
        self, automaton: Automaton, token: int, *, keep_attention: bool = True, capacity: int | None = None
    ) -> Said:
        """Greedy from `token` on, one graph per token, until the automaton ends or `capacity` tokens are said.

        capacity: None for as many as there are positions.
        """
        if automaton.allowed.shape[1] != self._shape.vocabulary:
            raise BackendError(
                f"expected a grammar of {self._shape.vocabulary} tokens, got {automaton.allowed.shape[1]}",
                code=BAD_ARGUMENT,
            )
        capacity = self._shape.positions if capacity is None else capacity
        state = automaton.start
        said: list[Choice] = []
        maps: list[F32] = []
        while len(said) < capacity and state != automaton.final:
            image = self._run(token, automaton.allowed[state])
            said.append(image.choice())
            if keep_attention:
                maps.append(image.maps.copy())
            token = said[-1].token
            state = int(automaton.next[state, token])
        tokens = np.array([choice.token for choice in said], np.int32)
        logs = np.array([choice.log_probability for choice in said], np.float32)
        return Said(tokens, logs, np.array(maps, np.float32), state == automaton.final)

    def last(self) -> tuple[F32, F32]:
        """Logits and maps of the last `choose`."""
        self._device.check()  # page-locked memory ends with the device
        image = self._at_work()
        return image.logits.copy(), image.maps.copy()

    def free(self) -> None:
        """Give the GPU's memory back; the session is not used afterwards."""
        self._began = False
        self._held.free()

    def record_step(self) -> None:
        """Put one step on the stream, copies included: what the graph holds."""
        image = self._at_work()
        self._device.copy_in(int(image.request), image.host_request)
        self._decode(image)
        self._device.copy_out(image.host_answer, int(image.state))

    def _at_work(self) -> _Image:
        if self._held.image is None:
            raise BackendError("expected begin before a step, got none", code="kernels.wrong-state")
        return self._held.image

    def _run(self, token: int, allowed: NDArray[np.bool_] | NDArray[np.uint8] | None) -> _Image:
        self._device.check()
        image = self._at_work()
        if not self._began:
            raise BackendError("expected begin before a step, got none", code="kernels.wrong-state")
        if not 0 <= token < self._shape.vocabulary:
            raise BackendError(f"expected a token of 0 to {self._shape.vocabulary - 1}, got {token}", code=BAD_ARGUMENT)
        image.host_request[: self._shape.vocabulary] = 1 if allowed is None else allowed
        image.host_request[-4:].view(np.int32)[0] = token
        if image.graph is not None:
            image.graph.launch()
            self._device.wait()
        else:
            self.record_step()
            self._device.wait()
            image.graph = self._device.capture(self.record_step)
        _check_status(int(image.words[2]))
        return image

    def _address(self, name: str) -> np.uint64:
        return np.uint64(self._weights + self._arena[name])

    def _matrix(self, name: str) -> Matrix:
        return Matrix(*(self._address(f"{name}.{part}") for part in ("rows", "scales", "bias")))

    def _norm(self, name: str) -> Norm:
        return Norm(self._address(f"{name}.weight"), self._address(f"{name}.bias"), EPSILON)

    def _project_image(self, image: _Image) -> None:
        """vis = W_vis tokens; per layer [K | V] = W_kv LN1(vis), stored for `attend`."""
        run, memory, d, n = self._launches, image.memory, self._shape.width, image.tokens
        run.project_rows(memory["x"], self._matrix("vis"), n, d, self._shape.channels, memory["vis"], image.state)
        for layer in range(self._shape.layers):
            p = f"layers.{layer}."
            run.norm_rows(memory["vis"], self._norm(f"{p}norm1"), n, d, memory["x"], image.state)
            run.project_rows(memory["x"], self._matrix(f"{p}kv"), n, 2 * d, d, memory["kv"], image.state)
            run.store_image(memory["kv"], n, d, self._shape.heads, image.of_layer(layer, "image"), image.state)

    def _decode(self, image: _Image) -> None:
        run, shape, memory, state = self._launches, self._shape, image.memory, image.state
        tables = self._address("embed.weight"), self._address("position.weight")
        run.embed(*tables, shape.vocabulary, shape.positions, shape.width, memory["x"], state)
        for layer in range(shape.layers):
            self._decode_layer(image, layer)
        head = (memory["x"], self._norm("norm"), self._matrix("head"))
        run.norm_linear("store", *head, shape.vocabulary, shape.width, image.logits_address, state)
        run.masked_argmax(image.logits_address, image.request, shape.vocabulary, state)
        every_layer = image.slices(0), image.slice_count, image.scores(0), shape.layers
        dh = shape.width // shape.heads
        run.attention_maps(*every_layer, shape.heads, dh, image.tokens, image.maps_address)

    def _decode_layer(self, image: _Image, layer: int) -> None:
        run, shape, memory, state = self._launches, self._shape, image.memory, image.state
        d, dh, p = shape.width, shape.width // shape.heads, f"layers.{layer}."
        x, qkv, a, hidden, slices = memory["x"], memory["qkv"], memory["a"], memory["hidden"], image.slices(layer)
        run.norm_linear("store", x, self._norm(f"{p}norm1"), self._matrix(f"{p}qkv"), 3 * d, d, qkv, state)
        own, keys, bias, n = (
            image.of_layer(layer, "own"),
            image.of_layer(layer, "image"),
            image.bias(layer),
            image.tokens,
        )
        scores = image.scores(layer)
        run.attend(qkv, d, shape.heads, own, shape.positions, keys, bias, n, KEYS_PER_SLICE, a, slices, scores, state)
        gate = self._address(f"{p}gate.weight"), self._address(f"{p}gate.pair")
        run.gate_project(a, slices, image.slice_count, *gate, self._matrix(f"{p}out"), d, dh, x, state)
        run.norm_linear("gelu", x, self._norm(f"{p}norm2"), self._matrix(f"{p}up"), shape.ffn, d, hidden, state)
        run.linear_add(hidden, self._matrix(f"{p}down"), d, shape.ffn, x, state)


class _Image:
    """Device and host memory for one number of image tokens, and the graph that knows its addresses.

    `exchange` holds, one after another: allowed (vocabulary bytes, padded, its last word is the token of the state),
    state, logits, maps. One copy takes the front in, one takes the rest out.
    """

    def __init__(self, device: CudaDevice, shape: DecoderShape, keys: Storage, tokens: int) -> None:
        self.tokens, self._shape = tokens, shape
        self.slice_count = -(-tokens // KEYS_PER_SLICE)
        self._stored = head_storage(shape.width // shape.heads)
        self._element = np.dtype(STORAGE_TYPES[keys]).itemsize
        allowed = -(-shape.vocabulary // PADDED) * PADDED
        answer = STATE_WORDS + shape.vocabulary + shape.layers * tokens
        d, ln = shape.width, shape.layers * tokens
        self.memory = _Memory(
            device,
            {
                "exchange": allowed + 4 * answer,
                "x": 4 * max(tokens * max(d, shape.channels), d),
                "vis": 4 * tokens * d,
                "kv": 8 * tokens * d,
                "qkv": 12 * d,
                "a": 4 * d,
                "hidden": 4 * shape.ffn,
                "bias": 4 * ln,
                "scores": 4 * ln * shape.heads,
                "slices": 4 * shape.layers * self._slice_floats(),
                **{f"image.{part}": size for part, size in self._rows(tokens).items()},
                **{f"own.{part}": size for part, size in self._rows(shape.positions).items()},
            },
        )
        try:
            self.host_request = device.host_memory(allowed + 4)
            self.host_answer = device.host_memory(4 * answer)
        except BackendError:
            self.memory.free()
            raise
        self.state = np.uint64(self.memory["exchange"] + np.uint64(allowed))
        self.request = self.memory["exchange"]
        self.logits_address = np.uint64(self.state + np.uint64(4 * STATE_WORDS))
        self.maps_address = np.uint64(self.logits_address + np.uint64(4 * shape.vocabulary))
        self.words = self.host_answer[: 4 * STATE_WORDS].view(np.int32)
        floats = self.host_answer[4 * STATE_WORDS :].view(np.float32)
        self.logits = floats[: shape.vocabulary]
        self.maps = floats[shape.vocabulary :].reshape(shape.layers, tokens)
        self.graph: Graph | None = None

    def _slice_floats(self) -> int:
        return self._shape.heads * self.slice_count * (self._stored + 2)

    def _rows(self, tokens: int) -> dict[str, int]:
        rows = self._shape.layers * self._shape.heads * tokens
        return {
            "keys": rows * self._stored * self._element,
            "values": rows * self._stored * self._element,
            "key_scales": 4 * rows,
            "value_scales": 4 * rows,
        }

    def of_layer(self, layer: int, which: str) -> HeadRows:
        """keys, values, key scales, value scales of "own" or "image"."""
        rows = layer * self._shape.heads * (self.tokens if which == "image" else self._shape.positions)
        of_row = (self._stored * self._element, self._stored * self._element, 4, 4)
        parts = ("keys", "values", "key_scales", "value_scales")
        return HeadRows(
            *(
                np.uint64(self.memory[f"{which}.{part}"] + np.uint64(rows * size))
                for part, size in zip(parts, of_row, strict=True)
            )
        )

    def bias(self, layer: int) -> np.uint64:
        """(n,) f32"""
        return np.uint64(self.memory["bias"] + np.uint64(4 * layer * self.tokens))

    def scores(self, layer: int) -> np.uint64:
        """(heads, n) f32"""
        return np.uint64(self.memory["scores"] + np.uint64(4 * layer * self.tokens * self._shape.heads))

    def slices(self, layer: int) -> np.uint64:
        """(heads, slices, stored head width + 2) f32"""
        return np.uint64(self.memory["slices"] + np.uint64(4 * layer * self._slice_floats()))

    def choice(self) -> Choice:
        """What the last step chose."""
        return Choice(int(self.words[3]), float(self.words[4:5].view(np.float32)[0]))

    def free(self) -> None:
        """The graph first: it holds the addresses."""
        if self.graph is not None:
            self.graph.free()
        self.memory.free()


def _check_status(status: int) -> None:
    """BackendError for a radbox_status of the kernels other than 0."""
    if status:
        code, message = _STATUSES.get(status, ("kernels.unknown", f"expected a known status, got {status}"))
        raise BackendError(message, code=code)
