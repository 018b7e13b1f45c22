// The seam between the C ABI and one set of kernels: a table of functions under one name.
//
// The C ABI has checked every pointer and size before a function of the table is called, so a set of kernels holds
// arithmetic only. A set that is compiled for a newer instruction set includes this file: it may hold nothing inline.
#pragma once

#include <stdint.h>

#include "kernels.h"
#include "plan.h"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "expected a build without fast-math: NaN has to be found, not assumed away"
#endif

namespace radbox {

struct Operators {
    const char *name;
    int (*layer_norm_f32)(const float *x, const float *weight, const float *bias, int64_t rows, int64_t width,
                          float epsilon, float *y);
    int (*linear_f32)(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                      int64_t outputs, float *y);
    int (*gelu_tanh_f32)(const float *x, int64_t count, float *y);
    int (*swiglu_f32)(const float *gate, const float *up, int64_t count, float *y);
    // `scores`: scratch of `positions` (self) or `image_tokens` (cross) floats, so that a step allocates nothing.
    int (*self_attention_step_f32)(const float *query, const float *key, const float *value, float *cache_keys,
                                   float *cache_values, int64_t position, int64_t width, int64_t heads, float *scores,
                                   float *y);
    int (*gated_cross_attention_f32)(const float *a, const float *query, const float *keys, const float *values,
                                     const float *bias, const float *gate_weight, float gate_bias, float gate_scale,
                                     int64_t image_tokens, int64_t width, int64_t heads, float *scores, float *y,
                                     float *attention);
    int (*gaussian_blur_f32)(const float *grid, int64_t height, int64_t width, float sigma, float *y);
    int (*anatomical_bias_f32)(const float *masks, int64_t count, int64_t height, int64_t width, const float *sigma,
                               int64_t layers, float strength, float *y);
    int (*masked_argmax_f32)(const float *logits, const uint8_t *allowed, int64_t vocabulary, int32_t *token,
                             float *log_probability);
    int (*selective_scan_f32)(const float *x, const float *delta, const float *a, const float *b, const float *c,
                              const float *d, int64_t height, int64_t width, int64_t channels, int64_t states, float *y);
    const Quantised *quantised;
};

extern const Operators reference_operators, avx2_operators, avx512vnni_operators;
extern const Operators neon_operators, neon_dotprod_operators, neon_i8mm_operators;
extern const Quantised reference_quantised;

// reference.cpp: once per image, nothing to gain from vectors; every set has these.
int gaussian_blur_f32_reference(const float *grid, int64_t height, int64_t width, float sigma, float *y);
int anatomical_bias_f32_reference(const float *masks, int64_t count, int64_t height, int64_t width, const float *sigma,
                                  int64_t layers, float strength, float *y);

// The token of a height x width grid that comes at `step` in one of the four directions of a selective scan.
int64_t scanned_token(int64_t direction, int64_t step, int64_t height, int64_t width);

// Keep the sentence for radbox_error_message() and return `status`.
__attribute__((format(printf, 2, 3))) int fail(int status, const char *format, ...);

}  // namespace radbox
