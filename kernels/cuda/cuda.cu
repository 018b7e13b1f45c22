// radbox's kernels for NVIDIA GPUs: every entry point by name. What a kernel computes, its grid, block, shared memory and
// shapes stand at the function of the same name in linear.h, attention.h, token.h and image.h.
//
// Names: radbox_<operator>[_<after>][_<storage>][_l<lanes per row>][_h<head width>], storage f16 or i8: of the weights, or
// of keys and values. `state` is the step's (kStateWords) int32. Sizes are counts of elements.
#include "attention.h"
#include "image.h"
#include "linear.h"
#include "token.h"

#ifdef RADBOX_CUDA_SHIM
#define RADBOX_REGISTER(name) static const shim::Registration name##_registration(#name, name);
#else
#define RADBOX_REGISTER(name)
#endif

#define RADBOX_KERNEL(name, threads, parameters, call)                      \
    extern "C" __global__ void __launch_bounds__(threads) name parameters { \
        using namespace radbox;                                             \
        call;                                                               \
    }                                                                       \
    RADBOX_REGISTER(name)

// clang-format off
#define RADBOX_LINEAR(W, storage, lanes)                                                                               \
    RADBOX_KERNEL(radbox_linear_add_##storage##_l##lanes, radbox::kThreads,                                            \
        (const float *x, const W *weight, const float *scale, const float *bias, int rows, int columns, float *y,      \
         int *state),                                                                                                  \
        (linear<W, lanes, radbox::kAdd>)(x, weight, scale, bias, rows, columns, y, state))                             \
    RADBOX_KERNEL(radbox_norm_linear_store_##storage##_l##lanes, radbox::kThreads,                                     \
        (const float *x, const float *norm_weight, const float *norm_bias, float epsilon, const W *weight,             \
         const float *scale, const float *bias, int rows, int columns, float *y, int *state),                          \
        (norm_linear<W, lanes, radbox::kStore>)(x, norm_weight, norm_bias, epsilon, weight, scale, bias, rows,         \
                                                columns, y, state))                                                    \
    RADBOX_KERNEL(radbox_norm_linear_gelu_##storage##_l##lanes, radbox::kThreads,                                      \
        (const float *x, const float *norm_weight, const float *norm_bias, float epsilon, const W *weight,             \
         const float *scale, const float *bias, int rows, int columns, float *y, int *state),                          \
        (norm_linear<W, lanes, radbox::kGelu>)(x, norm_weight, norm_bias, epsilon, weight, scale, bias, rows, columns, \
                                               y, state))                                                              \
    RADBOX_KERNEL(radbox_gate_project_##storage##_l##lanes, radbox::kThreads,                                          \
        (const float *a, const float *slices, int slice_count, int slice_floats, const float *gate_weight,             \
         const float *gate, const W *weight, const float *scale, const float *bias, int width, int dh, float *x,       \
         int *state),                                                                                                  \
        (gate_project<W, lanes>)(a, slices, slice_count, slice_floats, gate_weight, gate, weight, scale, bias, width,  \
                                 dh, x, state))

#define RADBOX_ATTENTION(KV, storage, head)                                                                            \
    RADBOX_KERNEL(radbox_attend_##storage##_h##head, radbox::kThreads,                                                 \
        (const float *qkv, int width, int dh, KV *own_keys, KV *own_values, float *own_key_scales,                     \
         float *own_value_scales, int positions, const KV *image_keys, const KV *image_values,                         \
         const float *image_key_scales, const float *image_value_scales, const float *bias, int image_tokens,          \
         int per_slice, float *a, float *slices, float *scores, int *state),                                           \
        (attend<KV, head>)(qkv, width, dh, own_keys, own_values, own_key_scales, own_value_scales, positions,          \
                           image_keys, image_values, image_key_scales, image_value_scales, bias, image_tokens,         \
                           per_slice, a, slices, scores, state))                                                       \
    RADBOX_KERNEL(radbox_store_image_##storage##_h##head, radbox::kThreads,                                            \
        (const float *kv, int image_tokens, int width, int dh, KV *keys, KV *values, float *key_scales,                \
         float *value_scales, int *state),                                                                             \
        (store_image<KV, head>)(kv, image_tokens, width, dh, keys, values, key_scales, value_scales, state))

#define RADBOX_STORAGE(T, storage)                                                                                     \
    RADBOX_LINEAR(T, storage, 16)                                                                                      \
    RADBOX_LINEAR(T, storage, 32)                                                                                      \
    RADBOX_ATTENTION(T, storage, 16)                                                                                   \
    RADBOX_ATTENTION(T, storage, 32)                                                                                   \
    RADBOX_ATTENTION(T, storage, 64)                                                                                   \
    RADBOX_ATTENTION(T, storage, 128)                                                                                  \
    RADBOX_KERNEL(radbox_project_rows_##storage, radbox::kThreads,                                                     \
        (const float *x, const T *weight, const float *scale, const float *bias, int tokens, int rows, int columns,    \
         float *y, int *state),                                                                                        \
        (project_rows<T>)(x, weight, scale, bias, tokens, rows, columns, y, state))
// clang-format on

using radbox::Half;
RADBOX_STORAGE(Half, f16)
RADBOX_STORAGE(signed char, i8)

RADBOX_KERNEL(radbox_norm_rows, radbox::kThreads,
              (const float *x, const float *weight, const float *bias, float epsilon, int width, float *y, int *state),
              norm_rows(x, weight, bias, epsilon, width, y, state))

RADBOX_KERNEL(radbox_attention_maps, radbox::kThreads,
              (const float *slices, int slice_count, int slice_floats, const float *scores, int heads, int image_tokens,
               float *maps),
              attention_maps(slices, slice_count, slice_floats, scores, heads, image_tokens, maps))

RADBOX_KERNEL(radbox_embed, radbox::kThreads,
              (const float *table, const float *position_table, int vocabulary, int positions, int width, float *x,
               int *state),
              embed(table, position_table, vocabulary, positions, width, x, state))

RADBOX_KERNEL(radbox_masked_argmax, radbox::kChooseThreads,
              (const float *logits, const unsigned char *allowed, int vocabulary, int *state),
              masked_argmax(logits, allowed, vocabulary, state))
