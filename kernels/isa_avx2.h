// The vector layer of AVX2 with FMA and F16C: sixteen lanes are two registers. isa_plain.h says what each function means.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "plan.h"

namespace radbox {
namespace {

constexpr char kIsaName[] = "avx2";

struct F {
    __m256 low, high;
};
struct I {
    __m256i low, high;
};

inline const __m256i *bytes_at(const void *from) { return static_cast<const __m256i *>(from); }

inline F load(const float *from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float *to, F a) { _mm256_storeu_ps(to, a.low), _mm256_storeu_ps(to + 8, a.high); }
inline I load(const int32_t *from) {
    return {_mm256_loadu_si256(bytes_at(from)), _mm256_loadu_si256(bytes_at(from + 8))};
}
inline F load_half(const uint16_t *from) {
    const __m128i *at = reinterpret_cast<const __m128i *>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}
inline I load_bytes(const uint8_t *from) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from))),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from + 8)))};
}
inline F every(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline I every(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

inline F operator+(F a, F b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline F operator-(F a, F b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline F operator*(F a, F b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline F operator/(F a, F b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline F fused(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline F greater(F a, F b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline F lesser(F a, F b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline F where_less(F a, F b, F x, F y) {
    return {_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
            _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}

inline I operator+(I a, I b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
inline I operator-(I a, I b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
inline I operator&(I a, I b) { return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)}; }
inline I operator|(I a, I b) { return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)}; }
inline I greater(I a, I b) { return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)}; }
inline I to_exponent(I a) { return {_mm256_slli_epi32(a.low, 23), _mm256_slli_epi32(a.high, 23)}; }

inline F converted(I a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline I rounded(F a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
inline I bits(F a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
inline F from_bits(I a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
inline void store_int8(int8_t *to, I a) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xd8);
    const __m128i narrow = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), narrow);
}

inline float sum(F a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline int32_t sum(I a) {
    const __m256i eight = _mm256_add_epi32(a.low, a.high);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline int32_t greatest(I a) {
    const __m256i eight = _mm256_max_epi32(a.low, a.high);
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline float greatest(F a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

inline __m256i four_bytes(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, sizeof four);
    return _mm256_set1_epi32(four);
}

// Ask for the weights that come `ahead` bytes later, a line of them.
inline void fetch_ahead(const uint8_t *weights, int64_t ahead) {
    _mm_prefetch(reinterpret_cast<const char *>(weights + ahead), _MM_HINT_T0);
}

template <int B>
inline void dots_q8(const uint8_t *weights, int64_t groups, int64_t ahead, const Activation *const *a,
                    int32_t (*out)[kBlockRows]) {
    // vpmaddubsw takes unsigned by signed: |a| times (w with a's sign). 2 * 127 * 127 fits into 16 bits.
    constexpr int kAtOnce = B == 1 ? 4 : (B == 2 ? 4 : (B <= 4 ? 2 : 1));  // vectors of eight rows: the registers allow no more
    const __m256i ones = _mm256_set1_epi16(1);
    for (int first = 0; first < 4; first += kAtOnce) {
        __m256i sums[B][kAtOnce];
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v) sums[b][v] = _mm256_setzero_si256();
        const uint8_t *from = weights + 32 * first;
        for (int64_t g = 0; g < groups; ++g, from += 128) {
            if (first == 0) fetch_ahead(from, ahead), fetch_ahead(from, ahead + 64);
#pragma GCC unroll 8
            for (int b = 0; b < B; ++b) {
                const __m256i four = four_bytes(a[b]->values + 4 * g), magnitude = _mm256_abs_epi8(four);
#pragma GCC unroll 4
                for (int v = 0; v < kAtOnce; ++v) {
                    const __m256i w = _mm256_sign_epi8(_mm256_load_si256(bytes_at(from + 32 * v)), four);
                    sums[b][v] = _mm256_add_epi32(sums[b][v], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, w), ones));
                }
            }
        }
        for (int b = 0; b < B; ++b)
            for (int v = 0; v < kAtOnce; ++v)
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(out[b] + 8 * (first + v)), sums[b][v]);
    }
}

template <int B>
inline void dots_q4(const uint8_t *weights, int64_t groups, int64_t ahead, const Activation *const *a,
                    float (*out)[kBlockRows]) {
    const __m256i nibble = _mm256_set1_epi8(0x0f), ones = _mm256_set1_epi16(1);
    for (int v = 0; v < 4; ++v) {
        __m256 totals[B];
        for (int b = 0; b < B; ++b) totals[b] = _mm256_setzero_ps();
        const uint8_t *group = weights;
        for (int64_t g = 0; g < groups; ++g, group += kGroupBytes) {
            // A group's eight products of at most 2 * 15 * 127 fit into 16 bits.
            __m256i words[B];
            for (int b = 0; b < B; ++b) words[b] = _mm256_setzero_si256();
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                if (v == 0) fetch_ahead(group + 128 * j, ahead), fetch_ahead(group + 128 * j, ahead + 64);
                const __m256i pairs = _mm256_load_si256(bytes_at(group + 128 * j + 32 * v));
                const __m256i even = _mm256_and_si256(pairs, nibble);
                const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble);
#pragma GCC unroll 8
                for (int b = 0; b < B; ++b) {
                    const int8_t *x = a[b]->values + 32 * g + 8 * j;
                    words[b] = _mm256_add_epi16(words[b], _mm256_maddubs_epi16(even, four_bytes(x)));
                    words[b] = _mm256_add_epi16(words[b], _mm256_maddubs_epi16(odd, four_bytes(x + 4)));
                }
            }
            const __m256 scales = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i *>(group + 512 + 16 * v)));
            for (int b = 0; b < B; ++b) {
                const __m256i dots =
                    _mm256_add_epi32(_mm256_madd_epi16(words[b], ones), _mm256_set1_epi32(a[b]->group_starts[g]));
                const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(a[b]->group_scales[g]));
                totals[b] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, totals[b]);
            }
        }
        for (int b = 0; b < B; ++b) _mm256_storeu_ps(out[b] + 8 * v, totals[b]);
    }
}

}  // namespace
}  // namespace radbox
