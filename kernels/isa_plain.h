// The vector layer in plain C++, and what each of its functions means. Every other isa_*.h gives the same bits.
//
// All arithmetic above the integer dot products is written once, over F (sixteen floats) and I (sixteen int32), in
// vector_math.h and the headers that include it. Each operation is the correctly rounded one of IEEE 754 and each
// reduction has one order, so a token's logits are the same bits on every CPU.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "half.h"
#include "plan.h"

namespace radbox {
namespace {

constexpr char kIsaName[] = "reference";

struct F {
    float v[16];
};
struct I {
    int32_t v[16];
};

template <typename Out, typename Make>
inline Out each(Make make) {
    Out out;
    for (int i = 0; i < 16; ++i) out.v[i] = make(i);
    return out;
}

inline F load(const float *from) {
    F out;
    memcpy(out.v, from, sizeof out.v);
    return out;
}
inline void store(float *to, F a) { memcpy(to, a.v, sizeof a.v); }
inline I load(const int32_t *from) {
    I out;
    memcpy(out.v, from, sizeof out.v);
    return out;
}
inline F load_half(const uint16_t *from) {
    return each<F>([&](int i) { return float_from_half(from[i]); });
}
// Sixteen bytes, each as a number of 0 to 255
inline I load_bytes(const uint8_t *from) {
    return each<I>([&](int i) { return static_cast<int32_t>(from[i]); });
}
inline F every(float x) {
    return each<F>([&](int) { return x; });
}
inline I every(int32_t x) {
    return each<I>([&](int) { return x; });
}

inline F operator+(F a, F b) {
    return each<F>([&](int i) { return a.v[i] + b.v[i]; });
}
inline F operator-(F a, F b) {
    return each<F>([&](int i) { return a.v[i] - b.v[i]; });
}
inline F operator*(F a, F b) {
    return each<F>([&](int i) { return a.v[i] * b.v[i]; });
}
inline F operator/(F a, F b) {
    return each<F>([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c, rounded once
inline F fused(F a, F b, F c) {
    return each<F>([&](int i) { return fmaf(a.v[i], b.v[i], c.v[i]); });
}
// The greater and the lesser of two finite numbers; of a NaN nothing is promised (operators look for NaN by its bits).
inline F greater(F a, F b) {
    return each<F>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F lesser(F a, F b) {
    return each<F>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// a < b ? x : y
inline F where_less(F a, F b, F x, F y) {
    return each<F>([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}

inline I operator+(I a, I b) {
    return each<I>([&](int i) { return a.v[i] + b.v[i]; });
}
inline I operator-(I a, I b) {
    return each<I>([&](int i) { return a.v[i] - b.v[i]; });
}
inline I operator&(I a, I b) {
    return each<I>([&](int i) { return a.v[i] & b.v[i]; });
}
inline I operator|(I a, I b) {
    return each<I>([&](int i) { return a.v[i] | b.v[i]; });
}
inline I greater(I a, I b) {
    return each<I>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
// a << 23: an exponent into its place
inline I to_exponent(I a) {
    return each<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << 23); });
}

inline F converted(I a) {
    return each<F>([&](int i) { return static_cast<float>(a.v[i]); });
}
// To the nearest whole number, ties to even; |a| < 2^31.
inline I rounded(F a) {
    return each<I>([&](int i) { return static_cast<int32_t>(lrintf(a.v[i])); });
}
inline I bits(F a) {
    I out;
    memcpy(out.v, a.v, sizeof out.v);
    return out;
}
inline F from_bits(I a) {
    F out;
    memcpy(out.v, a.v, sizeof out.v);
    return out;
}
// Sixteen numbers of -128 to 127 as bytes
inline void store_int8(int8_t *to, I a) {
    for (int i = 0; i < 16; ++i) to[i] = static_cast<int8_t>(a.v[i]);
}

// Halves onto each other: lane i + lane i + 8, then 4, 2, 1. The order is part of the result.
inline float sum(F a) {
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
    return a.v[0];
}
inline int32_t sum(I a) {
    int32_t total = 0;
    for (const int32_t x : a.v) total += x;
    return total;
}
inline int32_t greatest(I a) {
    int32_t most = a.v[0];
    for (const int32_t x : a.v) most = x > most ? x : most;
    return most;
}
inline float greatest(F a) {
    float most = a.v[0];
    for (const float x : a.v) most = x > most ? x : most;
    return most;
}

// out[b][row] = sum over k of weight[row][k] * a[b].values[k], for one block of rows in the layout of pack.h and
// `groups` times four k (a multiple of four); exact. The number left out here: how many bytes ahead of use to ask memory for
// weights, where that helps.
template <int B>
inline void dots_q8(const uint8_t *weights, int64_t groups, int64_t, const Activation *const *a,
                    int32_t (*out)[kBlockRows]) {
    for (int b = 0; b < B; ++b)
        for (int row = 0; row < kBlockRows; ++row) {
            int32_t total = 0;
            for (int64_t k = 0; k < 4 * groups; ++k)
                total += static_cast<int8_t>(weights[k / 4 * 128 + row * 4 + k % 4]) * a[b]->values[k];
            out[b][row] = total;
        }
}

// out[b][row] = sum over groups g of 32 k: fused(sum (nibble - 8) value, scale[row][g] * group_scales[g], ...), in order.
template <int B>
inline void dots_q4(const uint8_t *weights, int64_t groups, int64_t, const Activation *const *a,
                    float (*out)[kBlockRows]) {
    for (int b = 0; b < B; ++b)
        for (int row = 0; row < kBlockRows; ++row) {
            float total = 0.0f;
            for (int64_t g = 0; g < groups; ++g) {
                const uint8_t *group = weights + g * kGroupBytes;
                int32_t dot = a[b]->group_starts[g];
                for (int64_t k = 0; k < 32; ++k) {
                    const uint8_t pair = group[k / 8 * 128 + row * 4 + k % 4];
                    dot += (k / 4 % 2 == 0 ? pair & 15 : pair >> 4) * a[b]->values[32 * g + k];
                }
                uint16_t half;
                memcpy(&half, group + 512 + 2 * row, sizeof half);
                total = fmaf(static_cast<float>(dot), float_from_half(half) * a[b]->group_scales[g], total);
            }
            out[b][row] = total;
        }
}

}  // namespace
}  // namespace radbox
