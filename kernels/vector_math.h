// Functions over the vector layer: what operators and the fused step are made of. Include an isa_*.h first.
//
// Each is written once and gives the same bits with every vector layer. Arrays may be of any length unless said otherwise.
#pragma once

#include <math.h>

namespace radbox {
namespace {

constexpr int32_t kMagnitude = 0x7fffffff, kInfinityBits = 0x7f800000;
constexpr float kLeastScaled = 1e-30f;  // a vector whose greatest magnitude is below this is quantised to zeros

inline float from_int_bits(int32_t word) {
    float out;
    memcpy(&out, &word, sizeof out);
    return out;
}

alignas(64) constexpr int32_t kKeepFirst[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// The first `count` (0 to 16) lanes of `a`, zeros after them.
inline F kept(F a, int64_t count) {
    return from_bits(bits(a) & load(kKeepFirst + 16 - (count < 16 ? count : 16)));
}

// Loads and stores of up to 16 floats.
inline F load_some(const float *from, int64_t count) {
    if (count >= 16) return load(from);
    alignas(64) float lanes[16] = {};
    memcpy(lanes, from, static_cast<size_t>(count) * sizeof(float));
    return load(lanes);
}
inline void store_some(float *to, F a, int64_t count) {
    if (count >= 16) return store(to, a);
    alignas(64) float lanes[16];
    store(lanes, a);
    memcpy(to, lanes, static_cast<size_t>(count) * sizeof(float));
}

// Sixteen lanes of an array, or the `count` that are left of it (zeros beyond).
struct Whole {
    F from(const float *x) const { return load(x); }
    void to(float *x, F a) const { store(x, a); }
    F keep(F a) const { return a; }
};
struct Rest {
    int64_t count;
    F from(const float *x) const { return load_some(x, count); }
    void to(float *x, F a) const { store_some(x, a, count); }
    F keep(F a) const { return kept(a, count); }
};

// body(i, Whole or Rest) for every sixteen elements from i on
template <typename Body>
inline void over(int64_t count, Body body) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) body(i, Whole{});
    if (i < count) body(i, Rest{count - i});
}

// The bits of the greatest magnitude; NaN and infinity are greater than every number, so that one comparison finds them.
inline int32_t greatest_magnitude_bits(const float *x, int64_t count) {
    I most = every(int32_t{0});
    over(count, [&](int64_t i, auto part) { most = greater(most, bits(part.from(x + i)) & every(kMagnitude)); });
    return greatest(most);
}

inline bool all_finite(const float *x, int64_t count) { return greatest_magnitude_bits(x, count) < kInfinityBits; }

// e^x for x of -87 to 88, relative error below 2e-7 near 0 and 2e-6 at the ends: 2^(x log2 e), split into a whole power
// and a polynomial of the rest (minimax for the relative error on -1/2..1/2, its constant 1).
inline F power(F x) {
    const I negated = rounded(x * every(-0x1.715476p+0f));
    const F r = fused(x, every(0x1.715476p+0f), converted(negated));
    F p = every(0x1.41fbbcp-13f);
    p = fused(p, r, every(0x1.5f3e54p-10f));
    p = fused(p, r, every(0x1.3b2d4cp-7f));
    p = fused(p, r, every(0x1.c6aee8p-5f));
    p = fused(p, r, every(0x1.ebfbdcp-3f));
    p = fused(p, r, every(0x1.62e430p-1f));
    p = fused(p, r, every(1.0f));
    return p * from_bits(to_exponent(every(int32_t{127}) - negated));
}

// e^x for x of at most 0, less than 2e-38 below -87.
inline F power_of_negative(F x) { return power(greater(x, every(-87.0f))); }

// e^x; 0 below -87, e^88 above 88.
inline F exponential(F x) {
    return where_less(x, every(-87.0f), every(0.0f), power(greater(lesser(x, every(88.0f)), every(-87.0f))));
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x / (1 + e^(-2 sqrt(2/pi) (x + 0.044715 x^3)))
inline F gelu_tanh(F x) {
    const F inner = fused(x * x, every(0.044715f) * x, x) * every(-1.5957691216057308f);
    const F y = x / (power(greater(lesser(inner, every(88.0f)), every(-87.0f))) + every(1.0f));
    return where_less(every(88.0f), inner, every(0.0f), y);  // so far out the power has stopped growing
}

// x sigma(x) = x / (1 + e^-x)
inline F swish(F x) {
    const F negative = every(0.0f) - x;
    const F y = x / (power(greater(lesser(negative, every(88.0f)), every(-87.0f))) + every(1.0f));
    return where_less(every(88.0f), negative, every(0.0f), y);
}

// tanh x = 1 - 2 / (e^2x + 1); NaN stays NaN.
inline float hyperbolic_tangent(float x) {
    alignas(64) float lanes[16];
    store(lanes, every(1.0f) - every(2.0f) / (exponential(every(2.0f * x)) + every(1.0f)));
    return x != x ? x : lanes[0];
}

inline float dot(const float *a, const float *b, int64_t count) {
    F sums = every(0.0f);
    over(count, [&](int64_t i, auto part) { sums = fused(part.from(a + i), part.from(b + i), sums); });
    return sum(sums);
}

// The mean of x * shrink: for values whose plain sum might overflow.
inline float shrunk_mean(const float *x, int64_t width, float shrink) {
    F sums = every(0.0f);
    over(width, [&](int64_t i, auto part) { sums = fused(part.from(x + i), every(shrink), sums); });
    return sum(sums) / static_cast<float>(width);
}

// y = (x - mean) / sqrt(variance + epsilon) * weight + bias; the bits of y's greatest magnitude, or kInfinityBits and more
// if anything is not finite.
//
// Mean and variance are taken of x less a first mean, so that a great offset costs no digits; values whose squares would
// overflow are halved in exponent first (a power of two, exact).
inline int32_t layer_norm(const float *x, const float *weight, const float *bias, int64_t width, float epsilon, float *y) {
    const float share = 1.0f / static_cast<float>(width);
    I most = every(int32_t{0});
    F sums = every(0.0f), squares = every(0.0f);
    over(width, [&](int64_t i, auto part) {
        const F in = part.from(x + i);
        most = greater(most, bits(in) & every(kMagnitude));
        sums = sums + in;
    });
    const int32_t most_bits = greatest(most);
    if (most_bits >= kInfinityBits) return kInfinityBits;
    float shrink = 1.0f, first_mean = sum(sums) * share;
    if (from_int_bits(most_bits) > 1e15f) {
        shrink = 0x1p-100f;
        first_mean = shrunk_mean(x, width, shrink);
    }
    sums = every(0.0f);
    over(width, [&](int64_t i, auto part) {
        const F centred = part.keep(fused(part.from(x + i), every(shrink), every(-first_mean)));
        sums = sums + centred;
        squares = fused(centred, centred, squares);
    });
    const float rest = sum(sums) * share, variance = sum(squares) * share - rest * rest;
    const float spread = (variance > 0.0f ? variance : 0.0f) + epsilon * shrink * shrink;
    const float inverse = spread > 0.0f ? 1.0f / sqrtf(spread) : 0.0f;  // equal numbers so great that epsilon vanishes
    most = every(int32_t{0});
    over(width, [&](int64_t i, auto part) {
        const F centred = fused(part.from(x + i), every(shrink), every(-first_mean)) - every(rest);
        const F out = fused(centred * every(inverse), part.from(weight + i), part.from(bias + i));
        most = greater(most, bits(part.keep(out)) & every(kMagnitude));
        part.to(y + i, out);
    });
    return greatest(most);
}

// out.values = rint(x * 127 / magnitude), one scale; `most_bits`: those of x's greatest magnitude. `width`: of x, a
// multiple of 16. False if not finite.
inline bool quantise_known(const float *x, int64_t width, int32_t most_bits, Activation &out) {
    if (most_bits >= kInfinityBits) return false;
    const float magnitude = from_int_bits(most_bits), inverse = magnitude < kLeastScaled ? 0.0f : 127.0f / magnitude;
    I total = every(int32_t{0});
    for (int64_t i = 0; i < width; i += 16) {
        const I values = rounded(load(x + i) * every(inverse));
        store_int8(out.values + i, values);
        total = total + values;
    }
    out.scale = magnitude < kLeastScaled ? 0.0f : magnitude * (1.0f / 127.0f);
    out.sum = sum(total);
    return true;
}

inline bool quantise(const float *x, int64_t width, Activation &out) {
    return quantise_known(x, width, greatest_magnitude_bits(x, width), out);
}

// The same with a scale per group of 32. `width` of x, a multiple of 32.
inline bool quantise_groups(const float *x, int64_t width, Activation &out) {
    for (int64_t i = 0; i < width; i += kGroupInputs) {
        const F low = load(x + i), high = load(x + i + 16);
        const int32_t most = greatest(greater(bits(low) & every(kMagnitude), bits(high) & every(kMagnitude)));
        if (most >= kInfinityBits) return false;
        const float magnitude = from_int_bits(most);
        const float inverse = magnitude < kLeastScaled ? 0.0f : 127.0f / magnitude;
        const I first = rounded(low * every(inverse)), second = rounded(high * every(inverse));
        store_int8(out.values + i, first), store_int8(out.values + i + 16, second);
        out.group_scales[i / kGroupInputs] = magnitude < kLeastScaled ? 0.0f : magnitude * (1.0f / 127.0f);
        out.group_starts[i / kGroupInputs] = -8 * sum(first + second);
    }
    return true;
}

}  // namespace
}  // namespace radbox
