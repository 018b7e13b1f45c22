"""All operators in numpy under one name: the definitions, as a set of kernels like any other."""

from __future__ import annotations

from edge.reading.ops.quantised import QuantisedWeights
from edge.reading.ops.reference import (
    anatomical_bias_f32,
    decoder,
    gated_cross_attention_f32,
    gaussian_blur_f32,
    gelu_tanh_f32,
    layer_norm_f32,
    linear_f32,
    masked_argmax_f32,
    masked_top_k_f32,
    name,
    self_attention_step_f32,
)
from edge.reading.ops.reference_blocks import fused_cross_attention_f32, swiglu_f32
from edge.reading.ops.reference_decoder import QuantisedSession
from edge.reading.ops.reference_quantised import (
    gated_cross_attention_q8,
    linear_q4,
    linear_q8,
    quantise_q8,
    self_attention_q8,
)
from edge.reading.ops.reference_scan import selective_scan_f32
from edge.reading.ops.shape import DecoderShape

__all__ = [
    "anatomical_bias_f32",
    "decoder",
    "fused_cross_attention_f32",
    "gated_cross_attention_f32",
    "gated_cross_attention_q8",
    "gaussian_blur_f32",
    "gelu_tanh_f32",
    "layer_norm_f32",
    "linear_f32",
    "linear_q4",
    "linear_q8",
    "masked_argmax_f32",
    "masked_top_k_f32",
    "name",
    "quantise_q8",
    "quantised_decoder",
    "selective_scan_f32",
    "self_attention_q8",
    "self_attention_step_f32",
    "swiglu_f32",
]


def quantised_decoder(shape: DecoderShape, weights: QuantisedWeights, *, threads: int = 1) -> QuantisedSession:
    """A session over int8 and int4 weights. `threads` is for the native kernels and changes nothing."""
    return QuantisedSession(shape, weights)
