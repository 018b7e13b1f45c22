// The seam between the C ABI (dispatch.cpp) and one set of kernels: a table of functions under one name.
//
// dispatch.cpp has checked every pointer and size before a function of the table is called, so a set of kernels holds
// arithmetic only. A set names its functions <op>_<dtype>_<set>; it may leave `make_decoder` to decoder.cpp, which
// builds the step from the set's own operators, or bring a fused step of its own.
#pragma once

#include <cstdint>

#include "kernels.h"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "expected a build without fast-math: NaN has to be found, not assumed away"
#endif

// Opaque to C. Created by a set's make_decoder, so that a handle keeps the kernels it was born with.
struct radbox_decoder {
    const radbox_decoder_shape shape;
    explicit radbox_decoder(const radbox_decoder_shape &shape_) : shape(shape_) {}
    radbox_decoder(const radbox_decoder &) = delete;
    radbox_decoder &operator=(const radbox_decoder &) = delete;
    virtual ~radbox_decoder() = default;
    virtual int begin(const float *tokens, const float *bias, int64_t image_tokens) = 0;
    virtual int step(int32_t token, float *logits, float *attention) = 0;
};

namespace radbox {

struct Operators {
    const char *name;
    int (*layer_norm_f32)(const float *x, const float *weight, const float *bias, int64_t rows, int64_t width,
                          float epsilon, float *y);
    int (*linear_f32)(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                      int64_t outputs, float *y);
    int (*gelu_tanh_f32)(const float *x, int64_t count, float *y);
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
    int (*make_decoder)(const Operators &operators, const radbox_decoder_shape &shape, const radbox_tensor_f32 *tensors,
                        int64_t count, radbox_decoder **decoder);
};

extern const Operators reference_operators;

// decoder.cpp: the step as a composition of a set's operators. Throws std::bad_alloc.
int make_composed_decoder(const Operators &operators, const radbox_decoder_shape &shape,
                          const radbox_tensor_f32 *tensors, int64_t count, radbox_decoder **decoder);

// Keep the sentence for radbox_error_message() and return `status`.
__attribute__((format(printf, 2, 3))) int fail(int status, const char *format, ...);

}  // namespace radbox
