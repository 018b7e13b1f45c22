"""The exported operators as a table for tests that call the C ABI with wrong arguments: kernels.h in short.

One letter per argument: f (float array), b (bytes), h (16-bit words), i (int32 array), upper case if it may be null;
n (a size of 1 or more), k (a number that has a range of its own), x (a float).
"""

from __future__ import annotations

OPERATORS = {
    "radbox_layer_norm_f32": "fffnnxf",
    "radbox_linear_f32": "ffFnnnf",
    "radbox_gelu_tanh_f32": "fnf",
    "radbox_swiglu_f32": "ffnf",
    "radbox_self_attention_step_f32": "fffffknnkf",
    "radbox_gated_cross_attention_f32": "ffffFfxxnnkfF",
    "radbox_gaussian_blur_f32": "fnnxf",
    "radbox_anatomical_bias_f32": "fnnnfnxf",
    "radbox_masked_argmax_f32": "fbnif",
    "radbox_masked_top_k_f32": "fbnkif",
    "radbox_selective_scan_f32": "ffffffnnnkf",
    "radbox_quantise_q8": "fnnbf",
    "radbox_linear_q8": "fbfFnnnf",
    "radbox_linear_q4": "fbhFnnnf",
    "radbox_self_attention_q8": "fbfbfnnkf",
    "radbox_gated_cross_attention_q8": "ffbfbfFfxxnnkfF",
}
ALIGNMENT = {"f": 4, "i": 4, "h": 2, "b": 1}

WRONG_SIZES = (0, -1, -(2**63), 2**24 + 1, 2**31, 2**40, 2**62, 2**63 - 1)
"""None of them is the size of a dimension: below 1, or above 2^24."""

DECODER_CALLS = {
    "radbox_decoder_begin_f32": "dffn",
    "radbox_decoder_begin_image_f32": "dtffn",
    "radbox_decoder_start_sequence": "dtt",
    "radbox_decoder_copy_sequence": "dtt",
    "radbox_decoder_step_f32": "dtfF",
    "radbox_decoder_step_batch_f32": "dkiifF",
}
"""d: a decoder; t: a 32-bit number that has a range of its own."""
