// The vector layer of NEON: sixteen lanes are four registers. isa_plain.h says what each function means.
//
// Three sets are built from this file: plain Armv8-A, with the dot product instructions (sdot), and with the matrix ones
// of i8mm (smmla), which pay off when two or more tokens share a pass over the weights.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "plan.h"

namespace radbox {
namespace {

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr char kIsaName[] = "neon_i8mm";
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr char kIsaName[] = "neon_dotprod";
#else
constexpr char kIsaName[] = "neon";
#endif

struct F {
    float32x4_t v[4];
};
struct I {
    int32x4_t v[4];
};

template <typename Out, typename Make>
inline Out each(Make make) {
    return {{make(0), make(1), make(2), make(3)}};
}

inline F load(const float *from) {
    return each<F>([&](int i) { return vld1q_f32(from + 4 * i); });
}
inline void store(float *to, F a) {
    for (int i = 0; i < 4; ++i) vst1q_f32(to + 4 * i, a.v[i]);
}
inline I load(const int32_t *from) {
    return each<I>([&](int i) { return vld1q_s32(from + 4 * i); });
}
inline F load_half(const uint16_t *from) {
    return each<F>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + 4 * i))); });
}
inline I load_bytes(const uint8_t *from) {
    const uint8x16_t bytes = vld1q_u8(from);
    const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
    return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline F every(float x) {
    return each<F>([&](int) { return vdupq_n_f32(x); });
}
inline I every(int32_t x) {
    return each<I>([&](int) { return vdupq_n_s32(x); });
}

inline F operator+(F a, F b) {
    return each<F>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F operator-(F a, F b) {
    return each<F>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F operator*(F a, F b) {
    return each<F>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F operator/(F a, F b) {
    return each<F>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F fused(F a, F b, F c) {
    return each<F>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline F greater(F a, F b) {
    return each<F>([&](int i) { return vmaxq_f32(a.v[i], b.v[i]); });
}
inline F lesser(F a, F b) {
    return each<F>([&](int i) { return vminq_f32(a.v[i], b.v[i]); });
}
inline F where_less(F a, F b, F x, F y) {
    return each<F>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}

inline I operator+(I a, I b) {
    return each<I>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}
inline I operator-(I a, I b) {
    return each<I>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
}
inline I operator&(I a, I b) {
    return each<I>([&](int i) { return vandq_s32(a.v[i], b.v[i]); });
}
inline I operator|(I a, I b) {
    return each<I>([&](int i) { return vorrq_s32(a.v[i], b.v[i]); });
}
inline I greater(I a, I b) {
    return each<I>([&](int i) { return vmaxq_s32(a.v[i], b.v[i]); });
}
inline I to_exponent(I a) {
    return each<I>([&](int i) { return vshlq_n_s32(a.v[i], 23); });
}

inline F converted(I a) {
    return each<F>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
inline I rounded(F a) {
    return each<I>([&](int i) { return vcvtnq_s32_f32(a.v[i]); });
}
inline I bits(F a) {
    return each<I>([&](int i) { return vreinterpretq_s32_f32(a.v[i]); });
}
inline F from_bits(I a) {
    return each<F>([&](int i) { return vreinterpretq_f32_s32(a.v[i]); });
}
inline void store_int8(int8_t *to, I a) {
    const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
    vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

inline float sum(F a) {
    const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(vpadd_f32(two, two), 0);
}
inline int32_t sum(I a) { return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[2]), vaddq_s32(a.v[1], a.v[3]))); }
inline int32_t greatest(I a) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[2]), vmaxq_s32(a.v[1], a.v[3])));
}
inline float greatest(F a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[2]), vmaxq_f32(a.v[1], a.v[3]))); }

inline int8x16_t bytes_at(const uint8_t *from) { return vreinterpretq_s8_u8(vld1q_u8(from)); }
inline int8x16_t four_bytes(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
inline float32x4_t four_scales(const uint8_t *group, int v) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(group + 512 + 8 * v)));
}
inline int8x16_t even_nibbles(uint8x16_t pairs) { return vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15))); }
inline int8x16_t odd_nibbles(uint8x16_t pairs) { return vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4)); }

// How many vectors of four rows are summed at once: eight cover a block of 32, more tokens leave registers for fewer.
template <int B>
constexpr int vectors_at_once() {
    return B == 1 ? 8 : (B == 2 ? 8 : (B <= 5 ? 4 : 2));
}

#if defined(__ARM_FEATURE_DOTPROD)

// sums += four inputs of four rows each times lane `Lane` of x: sdot by element, so that one load of sixteen activations
// serves four groups and no broadcast takes a turn in the vector pipes.
template <int B, int AtOnce, int Lane>
inline void add_dots(int32x4_t (*sums)[AtOnce], const uint8_t *from, const int8x16_t *x) {
#pragma GCC unroll 8
    for (int v = 0; v < AtOnce; ++v) {
        const int8x16_t w = bytes_at(from + 16 * v);
        for (int b = 0; b < B; ++b) sums[b][v] = vdotq_laneq_s32(sums[b][v], w, x[b], Lane);
    }
}

template <int B>
inline void dots_q8_by_row(const uint8_t *weights, int64_t groups, const Activation *const *a,
                           int32_t (*out)[kBlockRows]) {
    constexpr int kAtOnce = vectors_at_once<B>();
    for (int first = 0; first < 8; first += kAtOnce) {
        int32x4_t sums[B][kAtOnce];
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v) sums[b][v] = vdupq_n_s32(0);
        const uint8_t *from = weights + 16 * first;
        for (int64_t g = 0; g < groups; g += 4, from += 512) {
            int8x16_t x[B];
            for (int b = 0; b < B; ++b) x[b] = vld1q_s8(a[b]->values + 4 * g);
            add_dots<B, kAtOnce, 0>(sums, from, x), add_dots<B, kAtOnce, 1>(sums, from + 128, x);
            add_dots<B, kAtOnce, 2>(sums, from + 256, x), add_dots<B, kAtOnce, 3>(sums, from + 384, x);
        }
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v) vst1q_s32(out[b] + 4 * (first + v), sums[b][v]);
    }
}

// The same for eight inputs: lanes `Lane` (low nibbles) and `Lane` + 1 (high ones) of x.
template <int B, int AtOnce, int Lane>
inline void add_nibbles(int32x4_t (*dots)[AtOnce], const uint8_t *from, const int8x16_t *x) {
#pragma GCC unroll 4
    for (int v = 0; v < AtOnce; ++v) {
        const uint8x16_t pairs = vld1q_u8(from + 16 * v);
        const int8x16_t even = even_nibbles(pairs), odd = odd_nibbles(pairs);
        for (int b = 0; b < B; ++b) {
            dots[b][v] = vdotq_laneq_s32(dots[b][v], even, x[b], Lane);
            dots[b][v] = vdotq_laneq_s32(dots[b][v], odd, x[b], Lane + 1);
        }
    }
}

template <int B>
inline void dots_q4(const uint8_t *weights, int64_t groups, int64_t, const Activation *const *a,
                    float (*out)[kBlockRows]) {
    constexpr int kAtOnce = vectors_at_once<B>() > 4 ? 4 : vectors_at_once<B>();
    for (int first = 0; first < 8; first += kAtOnce) {
        float32x4_t totals[B][kAtOnce];
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v) totals[b][v] = vdupq_n_f32(0.0f);
        const uint8_t *group = weights;
        for (int64_t g = 0; g < groups; ++g, group += kGroupBytes) {
            int32x4_t dots[B][kAtOnce];
            for (int b = 0; b < B; ++b)
                for (int v = 0; v < kAtOnce; ++v) dots[b][v] = vdupq_n_s32(a[b]->group_starts[g]);
            for (int half = 0; half < 2; ++half) {
                const uint8_t *from = group + 256 * half + 16 * first;
                int8x16_t x[B];
                for (int b = 0; b < B; ++b) x[b] = vld1q_s8(a[b]->values + 32 * g + 16 * half);
                add_nibbles<B, kAtOnce, 0>(dots, from, x), add_nibbles<B, kAtOnce, 2>(dots, from + 128, x);
            }
            for (int v = 0; v < kAtOnce; ++v)
                for (int b = 0; b < B; ++b) {
                    const float32x4_t scale = vmulq_n_f32(four_scales(group, first + v), a[b]->group_scales[g]);
                    totals[b][v] = vfmaq_f32(totals[b][v], vcvtq_f32_s32(dots[b][v]), scale);
                }
        }
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v) vst1q_f32(out[b] + 4 * (first + v), totals[b][v]);
    }
}

#else

// Two bytes times two bytes in 16 bits: 2 * 127 * 127 fits. One row is spread over two 32-bit sums.
template <int B>
inline void dots_q8_by_row(const uint8_t *weights, int64_t groups, const Activation *const *a,
                           int32_t (*out)[kBlockRows]) {
    constexpr int kAtOnce = vectors_at_once<B>() / 2;
    for (int first = 0; first < 8; first += kAtOnce) {
        int32x4_t low[B][kAtOnce], high[B][kAtOnce];
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v) low[b][v] = high[b][v] = vdupq_n_s32(0);
        const uint8_t *from = weights + 16 * first;
        for (int64_t g = 0; g < groups; g += 2, from += 256)
            for (int v = 0; v < kAtOnce; ++v) {
                const int8x16_t w0 = bytes_at(from + 16 * v), w1 = bytes_at(from + 128 + 16 * v);
                for (int b = 0; b < B; ++b) {
                    const int8x8_t x0 = vget_low_s8(four_bytes(a[b]->values + 4 * g));
                    const int8x8_t x1 = vget_low_s8(four_bytes(a[b]->values + 4 * g + 4));
                    low[b][v] = vpadalq_s16(low[b][v], vmlal_s8(vmull_s8(vget_low_s8(w0), x0), vget_low_s8(w1), x1));
                    high[b][v] = vpadalq_s16(high[b][v], vmlal_s8(vmull_s8(vget_high_s8(w0), x0), vget_high_s8(w1), x1));
                }
            }
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v)
                vst1q_s32(out[b] + 4 * (first + v), vpaddq_s32(low[b][v], high[b][v]));
    }
}

template <int B>
inline void dots_q4(const uint8_t *weights, int64_t groups, int64_t, const Activation *const *a,
                    float (*out)[kBlockRows]) {
    for (int v = 0; v < 8; ++v) {
        float32x4_t totals[B];
        for (int b = 0; b < B; ++b) totals[b] = vdupq_n_f32(0.0f);
        const uint8_t *group = weights;
        for (int64_t g = 0; g < groups; ++g, group += kGroupBytes) {
            int16x8_t low[B], high[B];  // a group's eight products of at most 15 * 127 fit into 16 bits
            for (int b = 0; b < B; ++b) low[b] = high[b] = vdupq_n_s16(0);
            for (int j = 0; j < 4; ++j) {
                const uint8x16_t pairs = vld1q_u8(group + 128 * j + 16 * v);
                const int8x16_t even = even_nibbles(pairs), odd = odd_nibbles(pairs);
                for (int b = 0; b < B; ++b) {
                    const int8x8_t x0 = vget_low_s8(four_bytes(a[b]->values + 32 * g + 8 * j));
                    const int8x8_t x1 = vget_low_s8(four_bytes(a[b]->values + 32 * g + 8 * j + 4));
                    low[b] = vmlal_s8(vmlal_s8(low[b], vget_low_s8(even), x0), vget_low_s8(odd), x1);
                    high[b] = vmlal_s8(vmlal_s8(high[b], vget_high_s8(even), x0), vget_high_s8(odd), x1);
                }
            }
            for (int b = 0; b < B; ++b) {
                const int32x4_t dots = vpaddq_s32(vpaddlq_s16(low[b]), vpaddlq_s16(high[b]));
                const float32x4_t values = vcvtq_f32_s32(vaddq_s32(dots, vdupq_n_s32(a[b]->group_starts[g])));
                totals[b] = vfmaq_f32(totals[b], values, vmulq_n_f32(four_scales(group, v), a[b]->group_scales[g]));
            }
        }
        for (int b = 0; b < B; ++b) vst1q_f32(out[b] + 4 * v, totals[b]);
    }
}

#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)

// smmla: two rows of eight k by two tokens of eight k. Two groups of four k, zipped, are such rows.
template <int Pairs>
inline void dots_q8_by_pairs(const uint8_t *weights, int64_t groups, const Activation *const *a,
                             int32_t (*out)[kBlockRows]) {
    constexpr int kAtOnce = Pairs <= 2 ? 4 : 2;  // vectors of four rows
    for (int first = 0; first < 8; first += kAtOnce) {
        int32x4_t sums[Pairs][kAtOnce][2];
        for (int p = 0; p < Pairs; ++p)
            for (int v = 0; v < kAtOnce; ++v) sums[p][v][0] = sums[p][v][1] = vdupq_n_s32(0);
        const uint8_t *from = weights + 16 * first;
        for (int64_t g = 0; g < groups; g += 2, from += 256) {
            int8x16_t x[Pairs];
            for (int p = 0; p < Pairs; ++p)
                x[p] = vcombine_s8(vld1_s8(a[2 * p]->values + 4 * g), vld1_s8(a[2 * p + 1]->values + 4 * g));
            for (int v = 0; v < kAtOnce; ++v) {
                const int32x4_t w0 = vreinterpretq_s32_s8(bytes_at(from + 16 * v));
                const int32x4_t w1 = vreinterpretq_s32_s8(bytes_at(from + 128 + 16 * v));
                const int8x16_t rows01 = vreinterpretq_s8_s32(vzip1q_s32(w0, w1));
                const int8x16_t rows23 = vreinterpretq_s8_s32(vzip2q_s32(w0, w1));
                for (int p = 0; p < Pairs; ++p) {
                    sums[p][v][0] = vmmlaq_s32(sums[p][v][0], x[p], rows01);
                    sums[p][v][1] = vmmlaq_s32(sums[p][v][1], x[p], rows23);
                }
            }
        }
        for (int p = 0; p < Pairs; ++p)
            for (int v = 0; v < kAtOnce; ++v) {
                const int32x4_t one = sums[p][v][0], two = sums[p][v][1];
                const int row = 4 * (first + v);
                vst1q_s32(out[2 * p] + row, vcombine_s32(vget_low_s32(one), vget_low_s32(two)));
                vst1q_s32(out[2 * p + 1] + row, vcombine_s32(vget_high_s32(one), vget_high_s32(two)));
            }
    }
}

template <int B>
inline void dots_q8(const uint8_t *weights, int64_t groups, int64_t, const Activation *const *a,
                    int32_t (*out)[kBlockRows]) {
    if constexpr (B >= 2) dots_q8_by_pairs<B / 2>(weights, groups, a, out);
    if constexpr (B % 2 == 1) dots_q8_by_row<1>(weights, groups, a + B - 1, out + B - 1);
}

#else

template <int B>
inline void dots_q8(const uint8_t *weights, int64_t groups, int64_t, const Activation *const *a,
                    int32_t (*out)[kBlockRows]) {
    dots_q8_by_row<B>(weights, groups, a, out);
}

#endif

}  // namespace
}  // namespace radbox
