/* The C ABI of radbox's kernels: radbox_<operator>_<dtype>, one comment per function with shapes, dtypes and layout.
 *
 * The living definition of every operator, with paper and equation, is edge/reading/ops/reference.py; the function of
 * the same name there computes the same numbers in numpy. All arrays are dense, row-major (last axis fastest) and of
 * 32-bit IEEE floats unless said otherwise; sizes are counts of elements, never of bytes. Outputs do not overlap inputs.
 *
 * Every call returns a radbox_status. Anything but RADBOX_OK leaves a sentence "expected X, got Y" for this thread in
 * radbox_error_message(), and the contents of the outputs are then undefined. RADBOX_OK promises finite outputs: a NaN
 * or an infinity in anything that a call reads, or an overflow on the way, is RADBOX_NOT_FINITE. (The one exception:
 * an attention bias may be -inf, which hides a key.) No call prints, exits or throws.
 */
#ifndef RADBOX_KERNELS_H
#define RADBOX_KERNELS_H

#include <stdint.h>

#define RADBOX_API __attribute__((visibility("default")))
#define RADBOX_ABI_VERSION 3 /* raised when a signature, a layout or the meaning of a status changes */

#ifdef __cplusplus
extern "C" {
#endif

enum radbox_status {
    RADBOX_OK = 0,
    RADBOX_BAD_ARGUMENT = 1,    /* null, misaligned, a size out of bounds, a tensor missing or of another shape */
    RADBOX_NOT_FINITE = 2,      /* NaN or infinity in, or overflow on the way */
    RADBOX_NOTHING_ALLOWED = 3, /* every key or every token is masked out: there is no softmax, no arg-max */
    RADBOX_UNKNOWN_KERNELS = 4, /* the name in RADBOX_KERNELS or in radbox_kernels_select is not built in */
    RADBOX_OUT_OF_MEMORY = 5,
    RADBOX_WRONG_STATE = 6,     /* a step before begin, or more steps than the decoder has positions */
    RADBOX_UNSUPPORTED_KERNELS = 7 /* radbox_kernels_select: the name is known, but this CPU lacks their instructions */
};

#define RADBOX_GREATEST_BATCH 8 /* sequences that share one pass over the weights */
#define RADBOX_GREATEST_THREADS 16
#define RADBOX_GREATEST_STATES 64 /* of a selective scan */

RADBOX_API int32_t radbox_abi_version(void);

/* The sentence of the last failed call on this thread, "" if there was none. Valid until the next failure on it. */
RADBOX_API const char *radbox_error_message(void);

/* Choose the kernels of this process: a name, or NULL for the environment's RADBOX_KERNELS, else the best for this CPU.
 * If RADBOX_KERNELS names a set that this CPU lacks (a setting that came from another box), it is `reference`, and
 * radbox_kernels_refused says so. Without a call the first operator chooses as for NULL. A decoder keeps the kernels that
 * it was created with. */
RADBOX_API int radbox_kernels_select(const char *name);
/* The chosen kernels' name, "" if RADBOX_KERNELS names some that are unknown. */
RADBOX_API const char *radbox_kernels_name(void);
/* The name in RADBOX_KERNELS that `reference` now stands in for, "" if there is none. */
RADBOX_API const char *radbox_kernels_refused(void);
/* Names separated by ", ", best first: every one that exists, and those that this CPU runs. */
RADBOX_API const char *radbox_kernels_known(void);
RADBOX_API const char *radbox_kernels_runnable(void);

/* y = (x - mean) / sqrt(variance + epsilon) * weight + bias, per row.  x, y: (rows, width); weight, bias: (width). */
RADBOX_API int radbox_layer_norm_f32(const float *x, const float *weight, const float *bias, int64_t rows,
                                     int64_t width, float epsilon, float *y);

/* y = x W^T + b.  x: (rows, inputs); weight: (outputs, inputs); bias: (outputs) or NULL; y: (rows, outputs). */
RADBOX_API int radbox_linear_f32(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                                 int64_t outputs, float *y);

/* y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), element by element.  x, y: (count); y may be x. */
RADBOX_API int radbox_gelu_tanh_f32(const float *x, int64_t count, float *y);

/* y = gate / (1 + e^-gate) * up, element by element.  gate, up, y: (count); y may be either of them. */
RADBOX_API int radbox_swiglu_f32(const float *gate, const float *up, int64_t count, float *y);

/* One causal step of multi-head self-attention with a cache. key and value become row `position` of the caches, then
 * the query attends to rows 0..position.  query, key, value, y: (width); cache_keys, cache_values: (positions, width);
 * head h owns columns h*width/heads ... (h+1)*width/heads - 1. */
RADBOX_API int radbox_self_attention_step_f32(const float *query, const float *key, const float *value,
                                              float *cache_keys, float *cache_values, int64_t position,
                                              int64_t positions, int64_t width, int64_t heads, float *y);

/* y = a + g c, c = softmax(q K^T / sqrt(width/heads) + bias) V per head, g = tanh(gate_weight . a + gate_bias) *
 * gate_scale.  a, query, gate_weight, y: (width); keys, values: (image_tokens, width); bias: (image_tokens), the same
 * for all heads, or NULL; attention: (image_tokens), the softmax averaged over the heads, or NULL. */
RADBOX_API int radbox_gated_cross_attention_f32(const float *a, const float *query, const float *keys,
                                                const float *values, const float *bias, const float *gate_weight,
                                                float gate_bias, float gate_scale, int64_t image_tokens, int64_t width,
                                                int64_t heads, float *y, float *attention);

/* The weights and the image of one layer's cross-attention.  query_weight, out_weight: (width, width); query_bias,
 * out_bias, gate_weight: (width); keys, values: (image_tokens, width); bias: (image_tokens) or NULL. */
typedef struct radbox_cross_attention {
    const float *query_weight, *query_bias, *keys, *values, *bias, *gate_weight, *out_weight, *out_bias;
    float gate_bias, gate_scale;
    int64_t image_tokens, width, heads;
} radbox_cross_attention;

/* The whole of it in one call: y = x + out_weight (a + g c) + out_bias, a + g c as radbox_gated_cross_attention_f32 with
 * the query query_weight h + query_bias.  x (the residual stream), h (its LayerNorm), a (the self-attention's heads), y:
 * (width); attention: (image_tokens) or NULL. */
RADBOX_API int radbox_fused_cross_attention_f32(const float *x, const float *h, const float *a,
                                                const radbox_cross_attention *layer, float *y, float *attention);

/* Separable Gaussian, standard deviation `sigma` in grid cells, radius ceil(3 sigma), reflect padding (edge cell not
 * repeated).  grid, y: (height, width). */
RADBOX_API int radbox_gaussian_blur_f32(const float *grid, int64_t height, int64_t width, float sigma, float *y);

/* y[l] = strength * minmax(blur(minmax(max over masks), sigma[l])); a flat map (range <= 1e-6) becomes zeros.
 * masks: (count, height, width); sigma: (layers); y: (layers, height * width). */
RADBOX_API int radbox_anatomical_bias_f32(const float *masks, int64_t count, int64_t height, int64_t width,
                                          const float *sigma, int64_t layers, float strength, float *y);

/* The allowed token of the greatest logit (lowest index on a tie) and its log-probability among the allowed ones.
 * logits: (vocabulary); allowed: (vocabulary) bytes, 0 = forbidden. */
RADBOX_API int radbox_masked_argmax_f32(const float *logits, const uint8_t *allowed, int64_t vocabulary,
                                        int32_t *token, float *log_probability);

/* The `k` allowed tokens of the greatest logits, best first (lowest index first on a tie), and their log-probabilities
 * among all the allowed ones.  logits: (vocabulary); allowed: (vocabulary) bytes; tokens, log_probabilities: (k). If
 * fewer than k tokens are allowed the rest of `tokens` is -1 and of `log_probabilities` -infinity. */
RADBOX_API int radbox_masked_top_k_f32(const float *logits, const uint8_t *allowed, int64_t vocabulary, int64_t k,
                                       int32_t *tokens, float *log_probabilities);

/* Selective scan of a grid in four directions, averaged: rows forward, rows backward, columns forward, columns backward.
 * Per direction k and channel: s = exp(delta A) s + delta B x;  y = C . s + D x, along the direction's order of tokens.
 * delta A above 88 counts as an overflow.
 * x, delta: (4, height * width, channels), token numbers row-major whatever the direction; a: (4, channels, states);
 * b, c: (4, height * width, states); d: (4, channels); y: (height * width, channels). states: 1 to 64. */
RADBOX_API int radbox_selective_scan_f32(const float *x, const float *delta, const float *a, const float *b,
                                         const float *c, const float *d, int64_t height, int64_t width,
                                         int64_t channels, int64_t states, float *y);

/* ---- int8 and int4 --------------------------------------------------------------------------------------------
 * Sums of products are exact integers; edge/reading/ops/reference_quantised.py defines every rounding. No int8 is -128,
 * and no sum over int8 has more than 131072 products, which is what 32 bits hold: inputs, widths, tokens, positions. */

/* values = rint(x * 127 / greatest magnitude of the row), scale = greatest magnitude / 127.  x, values: (rows, width);
 * scales: (rows). A row of magnitudes below 1e-30 becomes zeros of scale 0. */
RADBOX_API int radbox_quantise_q8(const float *x, int64_t rows, int64_t width, int8_t *values, float *scales);

/* y = x W^T + b, W = values * scales per row, x quantised per row as by radbox_quantise_q8.  x: (rows, inputs); values:
 * (outputs, inputs) of -127..127; scales: (outputs); bias: (outputs) or NULL; y: (rows, outputs). Packs W in each call:
 * the definition's twin, not the way to speed; a decoder keeps its weights packed. */
RADBOX_API int radbox_linear_q8(const float *x, const int8_t *values, const float *scales, const float *bias,
                                int64_t rows, int64_t inputs, int64_t outputs, float *y);

/* The same with groups of 32 inputs, x quantised per group.  values: (outputs, ceil(inputs / 2)), an even input in the
 * low nibble and the next in the high one, each 8 more than its value; scales: (outputs, ceil(inputs / 32)) IEEE
 * binary16. Inputs beyond the last one count as zero. */
RADBOX_API int radbox_linear_q4(const float *x, const uint8_t *values, const uint16_t *scales, const float *bias,
                                int64_t rows, int64_t inputs, int64_t outputs, float *y);

/* y = softmax(q K^T / sqrt(width/heads)) V per head over int8 rows, the last of which is the token's own.  query, y:
 * (width); keys, values: (tokens, width); key_scales, value_scales: (tokens, heads). */
RADBOX_API int radbox_self_attention_q8(const float *query, const int8_t *keys, const float *key_scales,
                                        const int8_t *values, const float *value_scales, int64_t tokens, int64_t width,
                                        int64_t heads, float *y);

/* radbox_gated_cross_attention_f32 over int8 keys and values.  keys, values: (image_tokens, width); key_scales:
 * (image_tokens, heads); value_scales: (width). */
RADBOX_API int radbox_gated_cross_attention_q8(const float *a, const float *query, const int8_t *keys,
                                               const float *key_scales, const int8_t *values, const float *value_scales,
                                               const float *bias, const float *gate_weight, float gate_bias,
                                               float gate_scale, int64_t image_tokens, int64_t width, int64_t heads,
                                               float *y, float *attention);

/* ---- the whole decoder: one call per token -------------------------------------------------------------------- */

typedef struct radbox_decoder radbox_decoder; /* weights, caches and scratch; one caller at a time */

typedef struct radbox_decoder_shape {
    int32_t vocabulary, width, layers, heads, ffn, positions;
    int32_t channels; /* of an image token before the vis projection */
} radbox_decoder_shape;

/* A weight under its name in decoder.safetensors, e.g. "layers.0.up.weight" (ffn, width); a vector has columns = 1. */
typedef struct radbox_tensor_f32 {
    const char *name;
    const float *values;
    int64_t rows, columns;
} radbox_tensor_f32;

/* Copies the weights; the caller may free its own afterwards. *decoder is NULL unless RADBOX_OK. */
RADBOX_API int radbox_decoder_create_f32(const radbox_decoder_shape *shape, const radbox_tensor_f32 *tensors,
                                         int64_t count, radbox_decoder **decoder);

/* A weight matrix in int8 or int4, laid out as for radbox_linear_q8 and radbox_linear_q4. */
typedef struct radbox_matrix_q8 {
    const char *name;
    const int8_t *values;
    const float *scales;
    int64_t rows, columns;
} radbox_matrix_q8;

typedef struct radbox_matrix_q4 {
    const char *name;
    const uint8_t *values;
    const uint16_t *scales;
    int64_t rows, columns;
} radbox_matrix_q4;

/* vis, kv, q, k, v, out, up, down and head are matrices: each in `q8` or in `q4` (q, k and v of a layer alike); the rest
 * (biases, norms, gates, embeddings) are tensors in `f32`. */
typedef struct radbox_weights {
    const radbox_tensor_f32 *f32;
    int64_t f32_count;
    const radbox_matrix_q8 *q8;
    int64_t q8_count;
    const radbox_matrix_q4 *q4;
    int64_t q4_count;
} radbox_weights;

typedef struct radbox_decoder_limits {
    int32_t threads;   /* 1 to RADBOX_GREATEST_THREADS; they sleep between calls. Their number changes no result. */
    int32_t images;    /* whose keys and values are kept: 1 to 64 */
    int32_t sequences; /* with a cache of their own: 1 to 64 */
} radbox_decoder_limits;

/* A decoder over int8 and int4 weights: dynamic int8 activations, int8 self-attention cache, int8 keys and values of the
 * image. Copies and packs the weights. *decoder is NULL unless RADBOX_OK. */
RADBOX_API int radbox_decoder_create_quantised(const radbox_decoder_shape *shape, const radbox_decoder_limits *limits,
                                               const radbox_weights *weights, radbox_decoder **decoder);

/* Start on an image: computes every layer's cross keys and values once and empties the self-attention caches.
 * tokens: (image_tokens, channels); bias: (layers, image_tokens), added to the visual keys' logits in every step. */
RADBOX_API int radbox_decoder_begin_f32(radbox_decoder *decoder, const float *tokens, const float *bias,
                                        int64_t image_tokens);

/* Feed one token, get the logits of the next.  logits: (vocabulary); attention: (layers, image_tokens), each layer's
 * cross-attention averaged over the heads, or NULL. A failed step does not advance the position. */
RADBOX_API int radbox_decoder_step_f32(radbox_decoder *decoder, int32_t token, float *logits, float *attention);

/* The two above for decoders of several images and sequences. An image's begin ends the sequences on it; a sequence
 * starts empty, or as a copy (for beams). A decoder of radbox_decoder_create_f32 has one image and one sequence. */
RADBOX_API int radbox_decoder_begin_image_f32(radbox_decoder *decoder, int32_t image, const float *tokens,
                                              const float *bias, int64_t image_tokens);
RADBOX_API int radbox_decoder_start_sequence(radbox_decoder *decoder, int32_t sequence, int32_t image);
RADBOX_API int radbox_decoder_copy_sequence(radbox_decoder *decoder, int32_t from, int32_t to);

/* One token for each of `count` (1 to RADBOX_GREATEST_BATCH) different sequences in one pass over the weights; the same
 * bits as one by one.  tokens, sequences: (count); logits: (count, vocabulary); attention: (count, layers, image_tokens)
 * or NULL; with it all sequences must be on images of the same size. If one fails, none advances. */
RADBOX_API int radbox_decoder_step_batch_f32(radbox_decoder *decoder, int64_t count, const int32_t *tokens,
                                             const int32_t *sequences, float *logits, float *attention);

/* A grammar as an automaton.  allowed: (states, vocabulary) bytes, 0 = forbidden; next: (states, vocabulary), the state
 * after an allowed token; generation ends in the state `final`. */
typedef struct radbox_grammar {
    int32_t states, vocabulary, start, final;
    const uint8_t *allowed;
    const int32_t *next;
} radbox_grammar;

/* Greedy from `token` on, in sequence 0, until the grammar has ended or `capacity` tokens are said: at each step the
 * token of radbox_masked_argmax_f32.  tokens, log_probabilities: (capacity); attention: (capacity, layers, image_tokens)
 * or NULL; *count: tokens said; *state: the grammar's state after them, `final` if it has ended. */
RADBOX_API int radbox_decoder_generate_f32(radbox_decoder *decoder, const radbox_grammar *grammar, int32_t token,
                                           int64_t capacity, int32_t *tokens, float *log_probabilities,
                                           float *attention, int64_t *count, int32_t *state);

/* NULL is allowed. */
RADBOX_API void radbox_decoder_destroy(radbox_decoder *decoder);

#ifdef __cplusplus
}
#endif

#endif
