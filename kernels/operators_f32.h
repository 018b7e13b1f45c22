// The float operators of kernels.h over the vector layer. reference.cpp is the plain twin, reference.py the definition.
#pragma once

#include "table.h"
#include "vector_math.h"

namespace radbox {
namespace {

inline int not_finite(const char *operation) {
    return fail(RADBOX_NOT_FINITE, "expected finite numbers in %s, got NaN, infinity or an overflow", operation);
}

// out[r] = w[r * stride + 0..count) . x, for R rows at once.
template <int R>
inline void dots(const float *w, int64_t stride, const float *x, int64_t count, float *out) {
    F sums[R];
    for (int r = 0; r < R; ++r) sums[r] = every(0.0f);
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const F shared = load(x + i);
        for (int r = 0; r < R; ++r) sums[r] = fused(load(w + r * stride + i), shared, sums[r]);
    }
    if (i < count) {
        const F shared = load_some(x + i, count - i);
        for (int r = 0; r < R; ++r) sums[r] = fused(load_some(w + r * stride + i, count - i), shared, sums[r]);
    }
    for (int r = 0; r < R; ++r) out[r] = sum(sums[r]);
}

// out (rows) = w (rows, count; rows `stride` apart) x
inline void matrix_vector(const float *w, int64_t stride, int64_t rows, const float *x, int64_t count, float *out) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) dots<4>(w + r * stride, stride, x, count, out + r);
    for (; r < rows; ++r) dots<1>(w + r * stride, stride, x, count, out + r);
}

// y (count) = p (rows) v (rows, count; rows `stride` apart)
inline void weighted_rows(const float *p, const float *v, int64_t stride, int64_t rows, int64_t count, float *y) {
    for (int64_t i = 0; i < count; i += 16) {
        F even = every(0.0f), odd = every(0.0f);
        int64_t r = 0;
        for (; r + 2 <= rows; r += 2) {
            even = fused(every(p[r]), load_some(v + r * stride + i, count - i), even);
            odd = fused(every(p[r + 1]), load_some(v + (r + 1) * stride + i, count - i), odd);
        }
        if (r < rows) even = fused(every(p[r]), load_some(v + r * stride + i, count - i), even);
        store_some(y + i, even + odd, count - i);
    }
}

// scores := softmax(scores * scale + bias) in place. A bias of -inf hides its key; hiding all of them is an error.
inline int scaled_softmax(float *scores, const float *bias, int64_t count, float scale, const char *operation) {
    if (!all_finite(scores, count)) return not_finite(operation);
    float most = -INFINITY;
    for (int64_t i = 0; i < count; ++i) {
        const float added = bias == nullptr ? 0.0f : bias[i];
        if (added != added || added == INFINITY) return not_finite(operation);
        scores[i] = scores[i] * scale + added;
        most = scores[i] > most ? scores[i] : most;
    }
    if (most == INFINITY) return not_finite(operation);  // which a power would hide, being bounded
    if (most == -INFINITY)
        return fail(RADBOX_NOTHING_ALLOWED, "expected at least one visible key in %s, got a bias of -inf on all",
                    operation);
    F total = every(0.0f);
    for (int64_t i = 0; i < count; i += 16) {
        const F share = kept(exponential(load_some(scores + i, count - i) - every(most)), count - i);
        total = total + share;
        store_some(scores + i, share, count - i);
    }
    const F inverse = every(1.0f / sum(total));
    for (int64_t i = 0; i < count; i += 16)
        store_some(scores + i, load_some(scores + i, count - i) * inverse, count - i);
    return RADBOX_OK;
}

inline int layer_norm_rows(const float *x, const float *weight, const float *bias, int64_t rows, int64_t width,
                           float epsilon, float *y) {
    for (int64_t r = 0; r < rows; ++r)
        if (layer_norm(x + r * width, weight, bias, width, epsilon, y + r * width) >= kInfinityBits)
            return not_finite("layer_norm_f32");
    return RADBOX_OK;
}

inline int linear_rows(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                       int64_t outputs, float *y) {
    for (int64_t r = 0; r < rows; ++r, x += inputs, y += outputs) {
        matrix_vector(weight, inputs, outputs, x, inputs, y);
        if (bias != nullptr)
            for (int64_t o = 0; o < outputs; ++o) y[o] += bias[o];
        if (!all_finite(y, outputs)) return not_finite("linear_f32");
    }
    return RADBOX_OK;
}

inline int gelu_tanh_all(const float *x, int64_t count, float *y) {
    I most = every(int32_t{0});
    for (int64_t i = 0; i < count; i += 16) {
        const F in = load_some(x + i, count - i), out = gelu_tanh(in);
        most = greater(most, greater(bits(in) & every(kMagnitude), bits(out) & every(kMagnitude)));
        store_some(y + i, out, count - i);
    }
    return greatest(most) < kInfinityBits ? static_cast<int>(RADBOX_OK) : not_finite("gelu_tanh_f32");
}

inline int swiglu_all(const float *gate, const float *up, int64_t count, float *y) {
    I most = every(int32_t{0});
    for (int64_t i = 0; i < count; i += 16) {
        const F open = load_some(gate + i, count - i), in = load_some(up + i, count - i), out = swish(open) * in;
        most = greater(most, greater(bits(open) & every(kMagnitude), bits(in) & every(kMagnitude)));
        most = greater(most, bits(out) & every(kMagnitude));
        store_some(y + i, out, count - i);
    }
    return greatest(most) < kInfinityBits ? static_cast<int>(RADBOX_OK) : not_finite("swiglu_f32");
}

inline int self_attention_step(const float *query, const float *key, const float *value, float *cache_keys,
                               float *cache_values, int64_t position, int64_t width, int64_t heads, float *scores,
                               float *y) {
    const int64_t head_width = width / heads, length = position + 1;
    const float scale = 1.0f / sqrtf(static_cast<float>(head_width));
    memcpy(cache_keys + position * width, key, static_cast<size_t>(width) * sizeof(float));
    memcpy(cache_values + position * width, value, static_cast<size_t>(width) * sizeof(float));
    for (int64_t h = 0; h < heads; ++h) {
        const int64_t first = h * head_width;
        matrix_vector(cache_keys + first, width, length, query + first, head_width, scores);
        const int status = scaled_softmax(scores, nullptr, length, scale, "self_attention_step_f32");
        if (status != RADBOX_OK) return status;
        weighted_rows(scores, cache_values + first, width, length, head_width, y + first);
    }
    return all_finite(y, width) ? static_cast<int>(RADBOX_OK) : not_finite("self_attention_step_f32");
}

inline int gated_cross_attention(const float *a, const float *query, const float *keys, const float *values,
                                 const float *bias, const float *gate_weight, float gate_bias, float gate_scale,
                                 int64_t image_tokens, int64_t width, int64_t heads, float *scores, float *y,
                                 float *attention) {
    const int64_t head_width = width / heads;
    const float scale = 1.0f / sqrtf(static_cast<float>(head_width)), part = 1.0f / static_cast<float>(heads);
    for (int64_t h = 0; h < heads; ++h) {
        const int64_t first = h * head_width;
        matrix_vector(keys + first, width, image_tokens, query + first, head_width, scores);
        const int status = scaled_softmax(scores, bias, image_tokens, scale, "gated_cross_attention_f32");
        if (status != RADBOX_OK) return status;
        weighted_rows(scores, values + first, width, image_tokens, head_width, y + first);
        if (attention != nullptr)
            for (int64_t n = 0; n < image_tokens; ++n)
                attention[n] = (h == 0 ? 0.0f : attention[n]) + scores[n] * part;
    }
    const float gate = hyperbolic_tangent(dot(gate_weight, a, width) + gate_bias) * gate_scale;
    for (int64_t i = 0; i < width; ++i) y[i] = a[i] + gate * y[i];
    return all_finite(y, width) ? static_cast<int>(RADBOX_OK) : not_finite("gated_cross_attention_f32");
}

inline int masked_argmax(const float *logits, const uint8_t *allowed, int64_t vocabulary, int32_t *token,
                         float *log_probability) {
    if (!all_finite(logits, vocabulary)) return not_finite("masked_argmax_f32");
    const auto masked = [&](int64_t i) {  // sixteen logits, -inf where forbidden
        alignas(16) uint8_t some[16] = {};
        const int64_t left = vocabulary - i;
        if (left < 16) memcpy(some, allowed + i, static_cast<size_t>(left));
        const F open = converted(load_bytes(left < 16 ? some : allowed + i));
        return where_less(every(0.5f), open, load_some(logits + i, left), every(-INFINITY));
    };
    F most = every(-INFINITY);
    for (int64_t i = 0; i < vocabulary; i += 16) most = greater(most, masked(i));
    const float best = greatest(most);
    if (best == -INFINITY) return fail(RADBOX_NOTHING_ALLOWED, "expected at least one allowed token, got none");
    int32_t at = 0;
    while (allowed[at] == 0 || logits[at] != best) ++at;
    F total = every(0.0f);
    for (int64_t i = 0; i < vocabulary; i += 16) total = total + exponential(masked(i) - every(best));
    *token = at;
    *log_probability = -logf(sum(total));
    return RADBOX_OK;
}

// One direction of a scan over sixteen channels from `channel` on, added to y; `part`: Whole or Rest. Returns the
// greatest delta A.
template <typename Part>
inline F scan_channels(const float *x, const float *delta, const F *rates, const float *b, const float *c, F skip,
                          int64_t direction, int64_t height, int64_t width, int64_t channels, int64_t states, Part part,
                          float *y) {
    F state[RADBOX_GREATEST_STATES], most = every(0.0f);
    for (int64_t n = 0; n < states; ++n) state[n] = every(0.0f);
    for (int64_t step = 0; step < height * width; ++step) {
        const int64_t token = scanned_token(direction, step, height, width), row = direction * height * width + token;
        const F in = part.from(x + row * channels), time = part.from(delta + row * channels), driven = time * in;
        F out = skip * in;
        for (int64_t n = 0; n < states; ++n) {
            const F decay = time * rates[n];
            most = greater(most, decay);
            state[n] = fused(exponential(decay), state[n], driven * every(b[row * states + n]));
            out = fused(state[n], every(c[row * states + n]), out);
        }
        part.to(y + token * channels, fused(out, every(0.25f), part.from(y + token * channels)));
    }
    return most;
}

inline int selective_scan(const float *x, const float *delta, const float *a, const float *b, const float *c,
                          const float *d, int64_t height, int64_t width, int64_t channels, int64_t states, float *y) {
    const int64_t tokens = height * width, rows = 4 * tokens;
    // The powers are bounded, which would hide a NaN.
    if (!all_finite(x, rows * channels) || !all_finite(delta, rows * channels) || !all_finite(a, 4 * channels * states) ||
        !all_finite(b, rows * states) || !all_finite(c, rows * states) || !all_finite(d, 4 * channels))
        return not_finite("selective_scan_f32");
    memset(y, 0, static_cast<size_t>(tokens * channels) * sizeof(float));
    F most = every(0.0f);
    for (int64_t direction = 0; direction < 4; ++direction)
        over(channels, [&](int64_t channel, auto part) {
            const int64_t first = direction * channels + channel;
            F rates[RADBOX_GREATEST_STATES];
            for (int64_t n = 0; n < states; ++n) {
                alignas(64) float lanes[16] = {};
                for (int64_t lane = 0; lane < 16 && channel + lane < channels; ++lane)
                    lanes[lane] = a[(first + lane) * states + n];
                rates[n] = load(lanes);
            }
            most = greater(most, scan_channels(x + channel, delta + channel, rates, b, c, part.from(d + first), direction,
                                               height, width, channels, states, part, y + channel));
        });
    if (greatest(most) > kGreatestDecay) return not_finite("selective_scan_f32");
    return all_finite(y, tokens * channels) ? static_cast<int>(RADBOX_OK) : not_finite("selective_scan_f32");
}

}  // namespace
}  // namespace radbox
