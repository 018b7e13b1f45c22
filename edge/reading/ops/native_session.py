"""ctypes over the decoders of libradbox_kernels.so: weights and caches live in C, one call per token or less."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, Weights, f32
from edge.reading.ops.automaton import Automaton, Said
from edge.reading.ops.quantised import Matrix, MatrixQ4, MatrixQ8, QuantisedWeights
from edge.reading.ops.shape import DecoderShape

GREATEST_BATCH = 8


class _Shape(ctypes.Structure):
    _fields_ = [
        (field, c_int32) for field in ("vocabulary", "width", "layers", "heads", "ffn", "positions", "channels")
    ]


class _Limits(ctypes.Structure):
    _fields_ = [(field, c_int32) for field in ("threads", "images", "sequences")]


class _Tensor(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("values", c_void_p), ("rows", c_int64), ("columns", c_int64)]


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("values", c_void_p),
        ("scales", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
    ]


class _Weights(ctypes.Structure):
    _fields_ = [
        ("f32", POINTER(_Tensor)),
        ("f32_count", c_int64),
        ("q8", POINTER(_Matrix)),
        ("q8_count", c_int64),
        ("q4", POINTER(_Matrix)),
        ("q4_count", c_int64),
    ]


class _Grammar(ctypes.Structure):
    _fields_ = [
        *((field, c_int32) for field in ("states", "vocabulary", "start", "final")),
        ("allowed", c_void_p),
        ("next", c_void_p),
    ]


_P, _I, _N = c_void_p, c_int64, c_int32
DECODER_SIGNATURES: dict[str, list[Any]] = {
    "radbox_decoder_create_f32": [POINTER(_Shape), POINTER(_Tensor), _I, POINTER(c_void_p)],
    "radbox_decoder_create_quantised": [POINTER(_Shape), POINTER(_Limits), POINTER(_Weights), POINTER(c_void_p)],
    "radbox_decoder_begin_f32": [_P, _P, _P, _I],
    "radbox_decoder_begin_image_f32": [_P, _N, _P, _P, _I],
    "radbox_decoder_start_sequence": [_P, _N, _N],
    "radbox_decoder_copy_sequence": [_P, _N, _N],
    "radbox_decoder_step_f32": [_P, _N, _P, _P],
    "radbox_decoder_step_batch_f32": [_P, _I, _P, _P, _P, _P],
    "radbox_decoder_generate_f32": [_P, POINTER(_Grammar), _N, _I, _P, _P, _P, POINTER(c_int64), POINTER(c_int32)],
}

Call = Callable[..., None]


def _tensors(weights: Weights) -> ctypes.Array[_Tensor]:
    """The caller keeps `weights` alive until the call is over."""
    tensors = (_Tensor * len(weights))()
    for tensor, (name, array) in zip(tensors, weights.items(), strict=True):
        tensor.name, tensor.values = name.encode(), f32(name, array, *array.shape).ctypes.data
        tensor.rows, tensor.columns = array.shape[0], array.size // array.shape[0]
    return tensors


def _matrices(matrices: Mapping[str, Matrix]) -> ctypes.Array[_Matrix]:
    described = (_Matrix * len(matrices))()
    for entry, (name, matrix) in zip(described, matrices.items(), strict=True):
        if not (matrix.values.flags.c_contiguous and matrix.scales.flags.c_contiguous):
            raise BackendError(f"expected {name} as contiguous arrays, got others", code=BAD_ARGUMENT)
        entry.name, (entry.rows, entry.columns) = name.encode(), matrix.shape
        entry.values, entry.scales = matrix.values.ctypes.data, matrix.scales.ctypes.data
    return described


def _shape(shape: DecoderShape) -> _Shape:
    return _Shape(*(getattr(shape, field[0]) for field in _Shape._fields_))


def create_f32(library: ctypes.CDLL, call: Call, shape: DecoderShape, weights: Weights) -> NativeSession:
    """A decoder composed of the chosen set's float operators."""
    handle = c_void_p()
    call("radbox_decoder_create_f32", byref(_shape(shape)), _tensors(weights), len(weights), byref(handle))
    return NativeSession(library, call, shape, handle)


def create_quantised(
    library: ctypes.CDLL, call: Call, shape: DecoderShape, weights: QuantisedWeights, limits: tuple[int, int, int]
) -> NativeSession:
    """A decoder over int8 and int4 weights; limits: threads, images, sequences."""
    q8 = {name: matrix for name, matrix in weights.matrices.items() if isinstance(matrix, MatrixQ8)}
    q4 = {name: matrix for name, matrix in weights.matrices.items() if isinstance(matrix, MatrixQ4)}
    tensors = _tensors(weights.floats)
    given = _Weights(tensors, len(weights.floats), _matrices(q8), len(q8), _matrices(q4), len(q4))
    handle = c_void_p()
    call("radbox_decoder_create_quantised", byref(_shape(shape)), byref(_Limits(*limits)), byref(given), byref(handle))
    return NativeSession(library, call, shape, handle)


class NativeSession:
    """A decoder handle. One thread at a time. `begin` and `step` work on sequence 0 of image 0."""

    def __init__(self, library: ctypes.CDLL, call: Call, shape: DecoderShape, handle: c_void_p) -> None:
        self._handle, self._destroy = handle, library.radbox_decoder_destroy
        self._call, self._shape = call, shape
        self._image_tokens: dict[int, int] = {}

    def __del__(self) -> None:
        if self._handle:
            self._destroy(self._handle)
            self._handle = c_void_p()

    @property
    def positions(self) -> int:
        """Tokens that a sequence may have."""
        return self._shape.positions

    def begin(self, tokens: F32, bias: F32) -> None:
        """tokens: (n, channels); bias: (layers, n)."""
        self.begin_image(0, tokens, bias)
        self.start_sequence(0, 0)

    def begin_image(self, image: int, tokens: F32, bias: F32) -> None:
        """Keys and values of an image; sequences that were on the one before end."""
        tokens = f32("tokens", tokens, None, self._shape.channels)
        bias = f32("bias", bias, self._shape.layers, tokens.shape[0])
        self._call("radbox_decoder_begin_image_f32", self._handle, image, _at(tokens), _at(bias), tokens.shape[0])
        self._image_tokens[image] = tokens.shape[0]

    def start_sequence(self, sequence: int, image: int) -> None:
        """An empty sequence on an image."""
        self._call("radbox_decoder_start_sequence", self._handle, sequence, image)

    def copy_sequence(self, source: int, target: int) -> None:
        """`target` becomes what `source` is: a beam that forks."""
        self._call("radbox_decoder_copy_sequence", self._handle, source, target)

    def step(self, token: int) -> tuple[F32, F32]:
        """Logits (vocabulary,) and cross-attention maps (layers, n)."""
        logits = np.empty(self._shape.vocabulary, np.float32)
        attention = np.empty((self._shape.layers, self._image_tokens.get(0, 0)), np.float32)
        self._call("radbox_decoder_step_f32", self._handle, token, _at(logits), _at(attention))
        return logits, attention

    def step_into(self, token: int, logits: F32) -> None:
        """A step without maps; `logits` (vocabulary,) is written to. Shapes are the caller's to get right."""
        self._call("radbox_decoder_step_f32", self._handle, token, logits.ctypes.data, None)

    def step_batch(self, tokens: Sequence[int], sequences: Sequence[int], logits: F32 | None = None) -> F32:
        """One token for each of up to eight different sequences, of one image (beams) or of several (a queue).

        Returns logits (count, vocabulary), in the array that is given or in a new one.
        """
        fed, on = np.array(tokens, np.int32), np.array(sequences, np.int32)
        if fed.ndim != 1 or fed.shape != on.shape or not 1 <= fed.size <= GREATEST_BATCH:
            raise BackendError(
                f"expected 1 to {GREATEST_BATCH} tokens and as many sequences, got {fed.shape} and {on.shape}",
                code=BAD_ARGUMENT,
            )
        shape = fed.size, self._shape.vocabulary
        logits = np.empty(shape, np.float32) if logits is None else f32("logits", logits, *shape)
        arrays = (fed.ctypes.data, on.ctypes.data, _at(logits), None)
        self._call("radbox_decoder_step_batch_f32", self._handle, fed.size, *arrays)
        return logits

    def generate(
        self, automaton: Automaton, token: int, *, keep_attention: bool = True, capacity: int | None = None
    ) -> Said:
        """Greedy from `token` on in sequence 0, in one call, until the automaton ends or `capacity` tokens are said.

        capacity: None for as many as there are positions.
        """
        states, vocabulary = automaton.allowed.shape
        allowed, following = np.ascontiguousarray(automaton.allowed), np.ascontiguousarray(automaton.next, np.int32)
        grammar = _Grammar(
            states, vocabulary, automaton.start, automaton.final, allowed.ctypes.data, following.ctypes.data
        )
        capacity = self._shape.positions if capacity is None else capacity
        tokens: NDArray[np.int32] = np.empty(capacity, np.int32)
        logs = np.empty(capacity, np.float32)
        maps = np.empty(
            (capacity if keep_attention else 0, self._shape.layers, self._image_tokens.get(0, 0)), np.float32
        )
        count, state = c_int64(), c_int32()
        outputs = (tokens.ctypes.data, _at(logs), _at(maps) if keep_attention else None, byref(count), byref(state))
        self._call("radbox_decoder_generate_f32", self._handle, byref(grammar), token, capacity, *outputs)
        n = count.value
        return Said(tokens[:n], logs[:n], maps[:n], state.value == automaton.final)


def _at(array: F32) -> int:
    return array.ctypes.data
