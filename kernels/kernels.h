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
#define RADBOX_ABI_VERSION 1 /* raised when a signature, a layout or the meaning of a status changes */

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
    RADBOX_WRONG_STATE = 6      /* a step before begin, or more steps than the decoder has positions */
};

RADBOX_API int32_t radbox_abi_version(void);

/* The sentence of the last failed call on this thread, "" if there was none. Valid until the next failure on it. */
RADBOX_API const char *radbox_error_message(void);

/* Choose the kernels of this process: a name, or NULL for the environment's RADBOX_KERNELS, else the best for this CPU.
 * Without a call the first operator chooses as for NULL. A decoder keeps the kernels that it was created with. */
RADBOX_API int radbox_kernels_select(const char *name);
/* The chosen kernels' name, "" if RADBOX_KERNELS names unknown ones. */
RADBOX_API const char *radbox_kernels_name(void);
/* Every name built in, separated by commas. */
RADBOX_API const char *radbox_kernels_known(void);

/* y = (x - mean) / sqrt(variance + epsilon) * weight + bias, per row.  x, y: (rows, width); weight, bias: (width). */
RADBOX_API int radbox_layer_norm_f32(const float *x, const float *weight, const float *bias, int64_t rows,
                                     int64_t width, float epsilon, float *y);

/* y = x W^T + b.  x: (rows, inputs); weight: (outputs, inputs); bias: (outputs) or NULL; y: (rows, outputs). */
RADBOX_API int radbox_linear_f32(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                                 int64_t outputs, float *y);

/* y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), element by element.  x, y: (count); y may be x. */
RADBOX_API int radbox_gelu_tanh_f32(const float *x, int64_t count, float *y);

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

/* ---- the whole decoder: one call per token -------------------------------------------------------------------- */

typedef struct radbox_decoder radbox_decoder; /* weights, caches and scratch; one thread at a time */

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

/* Start on an image: computes every layer's cross keys and values once and empties the self-attention caches.
 * tokens: (image_tokens, channels); bias: (layers, image_tokens), added to the visual keys' logits in every step. */
RADBOX_API int radbox_decoder_begin_f32(radbox_decoder *decoder, const float *tokens, const float *bias,
                                        int64_t image_tokens);

/* Feed one token, get the logits of the next.  logits: (vocabulary); attention: (layers, image_tokens), each layer's
 * cross-attention averaged over the heads, or NULL. A failed step does not advance the position. */
RADBOX_API int radbox_decoder_step_f32(radbox_decoder *decoder, int32_t token, float *logits, float *attention);

/* NULL is allowed. */
RADBOX_API void radbox_decoder_destroy(radbox_decoder *decoder);

#ifdef __cplusplus
}
#endif

#endif
