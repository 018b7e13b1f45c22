// The vector layer of AVX-512 VNNI: sixteen lanes are one register. isa_plain.h says what each function means.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "plan.h"

namespace radbox {
namespace {

constexpr char kIsaName[] = "avx512vnni";

struct F {
    __m512 v;
};
struct I {
    __m512i v;
};

inline F load(const float *from) { return {_mm512_loadu_ps(from)}; }
inline void store(float *to, F a) { _mm512_storeu_ps(to, a.v); }
inline I load(const int32_t *from) { return {_mm512_loadu_si512(from)}; }
inline F load_half(const uint16_t *from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)))};
}
inline I load_bytes(const uint8_t *from) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)))};
}
inline F every(float x) { return {_mm512_set1_ps(x)}; }
inline I every(int32_t x) { return {_mm512_set1_epi32(x)}; }

inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F fused(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F greater(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F lesser(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F where_less(F a, F b, F x, F y) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

inline I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I operator&(I a, I b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I operator|(I a, I b) { return {_mm512_or_si512(a.v, b.v)}; }
inline I greater(I a, I b) { return {_mm512_max_epi32(a.v, b.v)}; }
inline I to_exponent(I a) { return {_mm512_slli_epi32(a.v, 23)}; }

inline F converted(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I rounded(F a) { return {_mm512_cvtps_epi32(a.v)}; }
inline I bits(F a) { return {_mm512_castps_si512(a.v)}; }
inline F from_bits(I a) { return {_mm512_castsi512_ps(a.v)}; }
inline void store_int8(int8_t *to, I a) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtepi32_epi8(a.v));
}

inline float sum(F a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline int32_t sum(I a) { return _mm512_reduce_add_epi32(a.v); }
inline int32_t greatest(I a) { return _mm512_reduce_max_epi32(a.v); }
inline float greatest(F a) { return _mm512_reduce_max_ps(a.v); }

inline __m512i four_bytes(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, sizeof four);
    return _mm512_set1_epi32(four);
}

// Ask for the weights that come `ahead` bytes later: on Zen 5 a stream from memory is a quarter faster for it.
inline void fetch_ahead(const uint8_t *weights, int64_t ahead, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64)
        _mm_prefetch(reinterpret_cast<const char *>(weights + ahead + at), _MM_HINT_T0);
}

template <int B>
inline void dots_q8(const uint8_t *weights, int64_t groups, int64_t ahead, const Activation *const *a,
                    int32_t (*out)[kBlockRows]) {
    // vpdpbusd takes unsigned by signed: the weights get 128 added (a flipped sign bit), taken off again as -128 sum(a).
    constexpr int kUnroll = B == 1 ? 4 : (B == 2 ? 2 : 1);
    const __m512i flip = _mm512_set1_epi8(-128);
    __m512i sums[kUnroll][B][2];
    for (int b = 0; b < B; ++b)
        for (int half = 0; half < 2; ++half) {
            sums[0][b][half] = _mm512_set1_epi32(-128 * a[b]->sum);
            for (int u = 1; u < kUnroll; ++u) sums[u][b][half] = _mm512_setzero_si512();
        }
    const int8_t *x[B];
    for (int b = 0; b < B; ++b) x[b] = a[b]->values;
    for (int64_t g = 0; g < groups; g += kUnroll, weights += 128 * kUnroll) {
        fetch_ahead(weights, ahead, 128 * kUnroll);
#pragma GCC unroll 4
        for (int u = 0; u < kUnroll; ++u) {
            const __m512i low = _mm512_xor_si512(flip, _mm512_load_si512(weights + 128 * u));
            const __m512i high = _mm512_xor_si512(flip, _mm512_load_si512(weights + 128 * u + 64));
#pragma GCC unroll 8
            for (int b = 0; b < B; ++b) {
                const __m512i four = four_bytes(x[b] + 4 * (g + u));
                sums[u][b][0] = _mm512_dpbusd_epi32(sums[u][b][0], low, four);
                sums[u][b][1] = _mm512_dpbusd_epi32(sums[u][b][1], high, four);
            }
        }
    }
    for (int b = 0; b < B; ++b)
        for (int half = 0; half < 2; ++half) {
            __m512i total = sums[0][b][half];
            for (int u = 1; u < kUnroll; ++u) total = _mm512_add_epi32(total, sums[u][b][half]);
            _mm512_storeu_si512(out[b] + 16 * half, total);
        }
}

// `Halves` times 16 rows from row 16 * first on.
template <int B, int Halves>
inline void dots_q4_of(int first, const uint8_t *weights, int64_t groups, int64_t ahead, const Activation *const *a,
                       float (*out)[kBlockRows]) {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    __m512 totals[B][Halves];
    for (int b = 0; b < B; ++b)
        for (int half = 0; half < Halves; ++half) totals[b][half] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; ++g, weights += kGroupBytes) {
        if (first == 0) fetch_ahead(weights, ahead, kGroupBytes);
        __m512i dots[B][Halves];
        for (int b = 0; b < B; ++b)
            for (int half = 0; half < Halves; ++half) dots[b][half] = _mm512_set1_epi32(a[b]->group_starts[g]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            __m512i even[Halves], odd[Halves];
#pragma GCC unroll 2
            for (int half = 0; half < Halves; ++half) {
                const __m512i pairs = _mm512_load_si512(weights + 128 * j + 64 * (first + half));
                even[half] = _mm512_and_si512(pairs, nibble);
                odd[half] = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble);
            }
#pragma GCC unroll 8
            for (int b = 0; b < B; ++b) {
                const int8_t *x = a[b]->values + 32 * g + 8 * j;
                const __m512i first_four = four_bytes(x), next_four = four_bytes(x + 4);
#pragma GCC unroll 2
                for (int half = 0; half < Halves; ++half) {
                    dots[b][half] = _mm512_dpbusd_epi32(dots[b][half], even[half], first_four);
                    dots[b][half] = _mm512_dpbusd_epi32(dots[b][half], odd[half], next_four);
                }
            }
        }
        for (int half = 0; half < Halves; ++half) {
            const F scales = load_half(reinterpret_cast<const uint16_t *>(weights + 512) + 16 * (first + half));
            for (int b = 0; b < B; ++b)
                totals[b][half] =
                    fused(converted(I{dots[b][half]}), scales * every(a[b]->group_scales[g]), {totals[b][half]}).v;
        }
    }
    for (int b = 0; b < B; ++b)
        for (int half = 0; half < Halves; ++half) _mm512_storeu_ps(out[b] + 16 * (first + half), totals[b][half]);
}

template <int B>
inline void dots_q4(const uint8_t *weights, int64_t groups, int64_t ahead, const Activation *const *a,
                    float (*out)[kBlockRows]) {
    if constexpr (B <= 5) {
        dots_q4_of<B, 2>(0, weights, groups, ahead, a, out);
    } else {  // there are not registers enough for both halves
        dots_q4_of<B, 1>(0, weights, groups, ahead, a, out);
        dots_q4_of<B, 1>(1, weights, groups, ahead, a, out);
    }
}

}  // namespace
}  // namespace radbox
