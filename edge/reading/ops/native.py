"""ctypes over libradbox_kernels.so: the operators of reference.py, computed by kernels/ through its C ABI (kernels.h).

Signatures, shapes and errors are those of reference.py. Every array is checked here before its pointer is handed over.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32, NOT_FINITE, NOTHING_ALLOWED, Weights, f32, head_width
from edge.reading.ops.native_session import DECODER_SIGNATURES, NativeSession, create_f32, create_quantised
from edge.reading.ops.quantised import MatrixQ4, MatrixQ8, QuantisedWeights
from edge.reading.ops.reference import EPSILON, check_allowed, check_k
from edge.reading.ops.reference_quantised import int8
from edge.reading.ops.reference_scan import check_scan
from edge.reading.ops.shape import DecoderShape

ABI_VERSION = 3
LIBRARY = "libradbox_kernels.so"
BUILD_COMMAND = "tools/build_kernels"

STATUS_CODES = {
    1: BAD_ARGUMENT,
    2: NOT_FINITE,
    3: NOTHING_ALLOWED,
    4: "kernels.unknown",
    5: "kernels.out-of-memory",
    6: "kernels.wrong-state",
    7: "kernels.unsupported",
}

_PACKAGE = Path(__file__).resolve().parents[2]
_CHECKOUT = _PACKAGE.parent


_P, _I, _F = c_void_p, c_int64, c_float


class CrossAttention(ctypes.Structure):
    """radbox_cross_attention of kernels.h."""

    _fields_ = [
        *((field, _P) for field in ("query_weight", "query_bias", "keys", "values", "bias")),
        *((field, _P) for field in ("gate_weight", "out_weight", "out_bias")),
        *((field, _F) for field in ("gate_bias", "gate_scale")),
        *((field, _I) for field in ("image_tokens", "width", "heads")),
    ]


_SIGNATURES: dict[str, list[Any]] = {
    "radbox_kernels_select": [c_char_p],
    "radbox_layer_norm_f32": [_P, _P, _P, _I, _I, _F, _P],
    "radbox_linear_f32": [_P, _P, _P, _I, _I, _I, _P],
    "radbox_gelu_tanh_f32": [_P, _I, _P],
    "radbox_self_attention_step_f32": [_P, _P, _P, _P, _P, _I, _I, _I, _I, _P],
    "radbox_gated_cross_attention_f32": [_P, _P, _P, _P, _P, _P, _F, _F, _I, _I, _I, _P, _P],
    "radbox_swiglu_f32": [_P, _P, _I, _P],
    "radbox_fused_cross_attention_f32": [_P, _P, _P, POINTER(CrossAttention), _P, _P],
    "radbox_gaussian_blur_f32": [_P, _I, _I, _F, _P],
    "radbox_anatomical_bias_f32": [_P, _I, _I, _I, _P, _I, _F, _P],
    "radbox_masked_argmax_f32": [_P, _P, _I, POINTER(c_int32), POINTER(c_float)],
    "radbox_masked_top_k_f32": [_P, _P, _I, _I, _P, _P],
    "radbox_selective_scan_f32": [_P, _P, _P, _P, _P, _P, _I, _I, _I, _I, _P],
    "radbox_quantise_q8": [_P, _I, _I, _P, _P],
    "radbox_linear_q8": [_P, _P, _P, _P, _I, _I, _I, _P],
    "radbox_linear_q4": [_P, _P, _P, _P, _I, _I, _I, _P],
    "radbox_self_attention_q8": [_P, _P, _P, _P, _P, _I, _I, _I, _P],
    "radbox_gated_cross_attention_q8": [_P, _P, _P, _P, _P, _P, _P, _P, _F, _F, _I, _I, _I, _P, _P],
}


def library_path() -> Path:
    """RADBOX_KERNELS_LIBRARY, else build/kernels of the checkout, else beside the package.

    Raises BackendError `kernels.missing` naming the build command; a path in the environment is never replaced.
    """
    named = os.environ.get("RADBOX_KERNELS_LIBRARY")
    places = [Path(named)] if named else [_CHECKOUT / "build" / "kernels" / LIBRARY, _PACKAGE / LIBRARY]
    for place in places:
        if place.is_file():
            return place
    raise BackendError(
        f"expected the kernels' library at {' or '.join(map(str, places))}, got no file; build it with {BUILD_COMMAND}",
        code="kernels.missing",
    )


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        version = library.radbox_abi_version
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"expected {path} to be the kernels' library, got: {error}", code="kernels.not-loadable"
        ) from error
    version.argtypes, version.restype = [], c_int32
    if (got := version()) != ABI_VERSION:
        raise BackendError(
            f"expected kernels of ABI version {ABI_VERSION}, got {got} in {path}; rebuild them with {BUILD_COMMAND}",
            code="kernels.abi-version",
        )
    for function, arguments in (_SIGNATURES | DECODER_SIGNATURES).items():
        bound = getattr(library, function)
        bound.argtypes, bound.restype = arguments, c_int
    for name in ("kernels_name", "kernels_refused", "kernels_known", "kernels_runnable", "error_message"):
        bound = getattr(library, f"radbox_{name}")
        bound.argtypes, bound.restype = [], c_char_p
    library.radbox_decoder_destroy.argtypes, library.radbox_decoder_destroy.restype = [c_void_p], None
    return library


class NativeKernels:
    """The loaded library. `kernels`: a name built into it, or None for RADBOX_KERNELS, else the best for this CPU.

    refused: the set in RADBOX_KERNELS (or in the board file: load_kernels) that this CPU lacks, `reference` standing in
    for it; or "".
    """

    def __init__(self, kernels: str | None = None) -> None:
        self.library = _open(library_path())
        self._call("radbox_kernels_select", None if kernels is None else kernels.encode())
        self.name: str = self.library.radbox_kernels_name().decode()
        self.refused: str = self.library.radbox_kernels_refused().decode()

    def _call(self, function: str, *arguments: Any) -> None:
        if status := getattr(self.library, function)(*arguments):
            message = self.library.radbox_error_message().decode(errors="replace")
            raise BackendError(message, code=STATUS_CODES.get(status, "kernels.failed"))

    def known(self) -> tuple[str, ...]:
        """The names of all kernels, best first."""
        return tuple(self.library.radbox_kernels_known().decode().split(", "))

    def runnable(self) -> tuple[str, ...]:
        """The names of the kernels that this CPU runs, best first."""
        return tuple(self.library.radbox_kernels_runnable().decode().split(", "))

    def layer_norm_f32(self, x: F32, weight: F32, bias: F32, epsilon: float = EPSILON) -> F32:
        x = f32("x", x, None, None)
        rows, width = x.shape
        weight, bias, y = f32("weight", weight, width), f32("bias", bias, width), np.empty_like(x)
        self._call("radbox_layer_norm_f32", _at(x), _at(weight), _at(bias), rows, width, epsilon, _at(y))
        return y

    def linear_f32(self, x: F32, weight: F32, bias: F32 | None) -> F32:
        x = f32("x", x, None, None)
        rows, inputs = x.shape
        outputs = f32("weight", weight, None, inputs).shape[0]
        bias = None if bias is None else f32("bias", bias, outputs)
        y = np.empty((rows, outputs), np.float32)
        self._call("radbox_linear_f32", _at(x), _at(weight), _at(bias), rows, inputs, outputs, _at(y))
        return y

    def gelu_tanh_f32(self, x: F32) -> F32:
        x = f32("x", x, None)
        y = np.empty_like(x)
        self._call("radbox_gelu_tanh_f32", _at(x), x.size, _at(y))
        return y

    def swiglu_f32(self, gate: F32, up: F32) -> F32:
        gate = f32("gate", gate, None)
        y = np.empty_like(gate)
        self._call("radbox_swiglu_f32", _at(gate), _at(f32("up", up, gate.size)), gate.size, _at(y))
        return y

    def fused_cross_attention_f32(
        self,
        x: F32,
        h: F32,
        a: F32,
        query_weight: F32,
        query_bias: F32,
        keys: F32,
        values: F32,
        bias: F32 | None,
        gate_weight: F32,
        gate_bias: float,
        gate_scale: float,
        out_weight: F32,
        out_bias: F32,
        heads: int,
    ) -> tuple[F32, F32]:
        x = f32("x", x, None)
        width = x.size
        head_width(width, heads)
        count = f32("keys", keys, None, width).shape[0]
        vectors = {"h": h, "a": a, "query_bias": query_bias, "gate_weight": gate_weight, "out_bias": out_bias}
        for name, vector in vectors.items():
            f32(name, vector, width)
        f32("query_weight", query_weight, width, width)
        f32("out_weight", out_weight, width, width)
        values = f32("values", values, count, width)
        bias = None if bias is None else f32("bias", bias, count)
        arrays = (query_weight, query_bias, keys, values, bias, gate_weight, out_weight, out_bias)
        layer = CrossAttention(*map(_at, arrays), gate_bias, gate_scale, count, width, heads)
        y, attention = np.empty_like(x), np.empty(count, np.float32)
        self._call("radbox_fused_cross_attention_f32", _at(x), _at(h), _at(a), byref(layer), _at(y), _at(attention))
        return y, attention

    def self_attention_step_f32(
        self, query: F32, key: F32, value: F32, cache_keys: F32, cache_values: F32, position: int, heads: int
    ) -> F32:
        query = f32("query", query, None)
        width = query.size
        head_width(width, heads)
        key, value = f32("key", key, width), f32("value", value, width)
        positions = f32("cache_keys", cache_keys, None, width).shape[0]
        cache_values = f32("cache_values", cache_values, positions, width)
        y = np.empty_like(query)
        arrays = [_at(array) for array in (query, key, value, cache_keys, cache_values)]
        self._call("radbox_self_attention_step_f32", *arrays, position, positions, width, heads, _at(y))
        return y

    def gated_cross_attention_f32(
        self,
        a: F32,
        query: F32,
        keys: F32,
        values: F32,
        bias: F32 | None,
        gate_weight: F32,
        gate_bias: float,
        gate_scale: float,
        heads: int,
    ) -> tuple[F32, F32]:
        a = f32("a", a, None)
        width = a.size
        head_width(width, heads)
        query, gate_weight = f32("query", query, width), f32("gate_weight", gate_weight, width)
        count = f32("keys", keys, None, width).shape[0]
        values = f32("values", values, count, width)
        bias = None if bias is None else f32("bias", bias, count)
        y, attention = np.empty_like(a), np.empty(count, np.float32)
        arrays = [_at(array) for array in (a, query, keys, values, bias, gate_weight)]
        sizes = (count, width, heads)
        self._call("radbox_gated_cross_attention_f32", *arrays, gate_bias, gate_scale, *sizes, _at(y), _at(attention))
        return y, attention

    def gaussian_blur_f32(self, grid: F32, sigma: float) -> F32:
        grid = f32("grid", grid, None, None)
        y = np.empty_like(grid)
        self._call("radbox_gaussian_blur_f32", _at(grid), *grid.shape, sigma, _at(y))
        return y

    def anatomical_bias_f32(self, masks: F32, sigma: tuple[float, ...], strength: float) -> F32:
        masks = f32("masks", masks, None, None, None)
        sigmas = f32("sigma", np.array(sigma, np.float32), None)
        y = np.empty((sigmas.size, masks.shape[1] * masks.shape[2]), np.float32)
        self._call("radbox_anatomical_bias_f32", _at(masks), *masks.shape, _at(sigmas), sigmas.size, strength, _at(y))
        return y

    def masked_argmax_f32(self, logits: F32, allowed: NDArray[np.bool_]) -> tuple[int, float]:
        logits = f32("logits", logits, None)
        check_allowed(allowed, logits.size)
        bytes_allowed = np.ascontiguousarray(allowed).view(np.uint8)
        token, log_probability = c_int32(), c_float()
        at_allowed = bytes_allowed.ctypes.data
        self._call(
            "radbox_masked_argmax_f32", _at(logits), at_allowed, logits.size, byref(token), byref(log_probability)
        )
        return token.value, log_probability.value

    def masked_top_k_f32(self, logits: F32, allowed: NDArray[np.bool_], k: int) -> tuple[NDArray[np.int32], F32]:
        logits = f32("logits", logits, None)
        check_allowed(allowed, logits.size)
        check_k(k, logits.size)
        bytes_allowed = np.ascontiguousarray(allowed).view(np.uint8)
        tokens, log_probabilities = np.empty(k, np.int32), np.empty(k, np.float32)
        arrays = (tokens.ctypes.data, _at(log_probabilities))
        self._call("radbox_masked_top_k_f32", _at(logits), bytes_allowed.ctypes.data, logits.size, k, *arrays)
        return tokens, log_probabilities

    def selective_scan_f32(self, x: F32, delta: F32, a: F32, b: F32, c: F32, d: F32, height: int, width: int) -> F32:
        channels, states = check_scan(x, delta, a, b, c, d, height, width)
        y = np.empty((height * width, channels), np.float32)
        arrays = [_at(array) for array in (x, delta, a, b, c, d)]
        self._call("radbox_selective_scan_f32", *arrays, height, width, channels, states, _at(y))
        return y

    def quantise_q8(self, x: F32) -> tuple[NDArray[np.int8], F32]:
        x = f32("x", x, None, None)
        values, scales = np.empty(x.shape, np.int8), np.empty(x.shape[0], np.float32)
        self._call("radbox_quantise_q8", _at(x), *x.shape, values.ctypes.data, _at(scales))
        return values, scales

    def linear_q8(self, x: F32, matrix: MatrixQ8, bias: F32 | None) -> F32:
        return self._linear("radbox_linear_q8", x, matrix, bias)

    def linear_q4(self, x: F32, matrix: MatrixQ4, bias: F32 | None) -> F32:
        return self._linear("radbox_linear_q4", x, matrix, bias)

    def _linear(self, function: str, x: F32, matrix: MatrixQ8 | MatrixQ4, bias: F32 | None) -> F32:
        outputs, inputs = matrix.shape
        rows = f32("x", x, None, inputs).shape[0]
        bias = None if bias is None else f32("bias", bias, outputs)
        y = np.empty((rows, outputs), np.float32)
        values, scales = (np.ascontiguousarray(array) for array in (matrix.values, matrix.scales))
        arrays = (_at(x), values.ctypes.data, scales.ctypes.data, _at(bias))
        self._call(function, *arrays, rows, inputs, outputs, _at(y))
        return y

    def self_attention_q8(
        self,
        query: F32,
        keys: NDArray[np.int8],
        key_scales: F32,
        values: NDArray[np.int8],
        value_scales: F32,
        heads: int,
    ) -> F32:
        width = f32("query", query, None).size
        head_width(width, heads)
        tokens = f32("key_scales", key_scales, None, heads).shape[0]
        keys, values = int8("keys", keys, tokens, width), int8("values", values, tokens, width)
        value_scales = f32("value_scales", value_scales, tokens, heads)
        y = np.empty_like(query)
        arrays = (_at(query), keys.ctypes.data, _at(key_scales), values.ctypes.data, _at(value_scales))
        self._call("radbox_self_attention_q8", *arrays, tokens, width, heads, _at(y))
        return y

    def gated_cross_attention_q8(
        self,
        a: F32,
        query: F32,
        keys: NDArray[np.int8],
        key_scales: F32,
        values: NDArray[np.int8],
        value_scales: F32,
        bias: F32 | None,
        gate_weight: F32,
        gate_bias: float,
        gate_scale: float,
        heads: int,
    ) -> tuple[F32, F32]:
        width = f32("a", a, None).size
        head_width(width, heads)
        query, gate_weight = f32("query", query, width), f32("gate_weight", gate_weight, width)
        count = f32("key_scales", key_scales, None, heads).shape[0]
        keys, values = int8("keys", keys, count, width), int8("values", values, count, width)
        value_scales = f32("value_scales", value_scales, width)
        bias = None if bias is None else f32("bias", bias, count)
        y, attention = np.empty_like(a), np.empty(count, np.float32)
        arrays = (_at(a), _at(query), keys.ctypes.data, _at(key_scales), values.ctypes.data, _at(value_scales))
        gate = (_at(bias), _at(gate_weight), gate_bias, gate_scale)
        sizes = (count, width, heads)
        self._call("radbox_gated_cross_attention_q8", *arrays, *gate, *sizes, _at(y), _at(attention))
        return y, attention

    def decoder(self, shape: DecoderShape, weights: Weights) -> NativeSession:
        """A session over a copy of checked weights (shape.check_weights)."""
        return create_f32(self.library, self._call, shape, weights)

    def quantised_decoder(
        self, shape: DecoderShape, weights: QuantisedWeights, *, threads: int = 1, images: int = 1, sequences: int = 1
    ) -> NativeSession:
        """A session over packed int8 and int4 weights, with a fused step. `threads`: 1 to 16; changes no result."""
        return create_quantised(self.library, self._call, shape, weights, (threads, images, sequences))


def _at(array: F32 | None) -> int | None:
    return None if array is None else array.ctypes.data
