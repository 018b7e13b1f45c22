// Attention over int8 keys and values of one head, for the cached text and for the image tokens.
//
// edge/reading/ops/reference_quantised.py defines the same in numpy, with the equations.
#pragma once

#include "matrix.h"

namespace radbox {
namespace {

constexpr float kMinusInfinity = -INFINITY;
constexpr int64_t kCacheAhead = 4096;  // bytes

// Bytes of row `token` of a packed key matrix (rows are tokens).
inline void store_key(const Sizes &sizes, const Cache &cache, int64_t token, const Activation &key) {
    uint8_t *block = cache.keys + token / kBlockRows * sizes.key_block_bytes;
    uint8_t *row = block + token % kBlockRows * 4;
    for (int64_t k = 0; k < sizes.head_inputs; k += 4) memcpy(row + k / 4 * 128, key.values + k, 4);
    memcpy(block + kBlockRows * sizes.head_inputs + token % kBlockRows * 4, &key.scale, sizeof key.scale);
}

// Bytes of column `token` of a packed value matrix (rows are channels) of `padded_tokens` columns.
inline void store_value(const Sizes &sizes, const Cache &cache, int64_t padded_tokens, int64_t token, const int8_t *value) {
    for (int64_t first = 0, block = 0; first < sizes.head_width; first += kBlockRows, ++block) {
        uint8_t *at = cache.values + block * kBlockRows * padded_tokens + token / 4 * 128 + token % 4;
        const int64_t left = sizes.head_width - first, rows = left < kBlockRows ? left : kBlockRows;
        for (int64_t row = 0; row < rows; ++row) at[row * 4] = static_cast<uint8_t>(value[first + row]);
    }
}

// The first `count` lanes of `a`, -inf after them.
inline F visible(F a, int64_t count) {
    alignas(64) static const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return where_less(load(lanes), every(static_cast<float>(count)), a, every(kMinusInfinity));
}

// scores[b][t] = (q_b . k_t) * key_scale[t] * query_scale_b * scale + bias[t] (null: 0), -inf from `tokens` to the end of
// the last block of 32; most[b]: the greatest. False if one overflows: a power would hide it, being bounded.
inline bool scores_of(const Sizes &sizes, const Cache &cache, int64_t tokens, const Activation *const *queries,
                      int64_t count, const float *bias, float *const *scores, float *most) {
    const float root = 1.0f / sqrtf(static_cast<float>(sizes.head_width));
    F greatest_lanes[kGreatestBatch], greatest_factor = every(0.0f);
    for (int64_t b = 0; b < count; ++b) greatest_lanes[b] = every(kMinusInfinity);
    const auto score_block = [&](int64_t token, auto finish) {
        const uint8_t *block = cache.keys + token / kBlockRows * sizes.key_block_bytes;
        const float *key_scales = reinterpret_cast<const float *>(block + kBlockRows * sizes.head_inputs);
        alignas(64) Dots dots[kGreatestBatch];
        block_dots(block, sizes.head_inputs / 4, kCacheAhead, queries, count, dots);
        for (int half = 0; half < kBlockRows; half += 16) {
            const F scales = load(key_scales + half);
            const F added = bias == nullptr ? every(0.0f) : load(bias + token + half);
            for (int64_t b = 0; b < count; ++b) {
                const F factor = scales * every(queries[b]->scale * root);
                greatest_factor = greater(greatest_factor, factor);
                const F score = finish(fused(converted(load(dots[b] + half)), factor, added), half);
                store(scores[b] + token + half, score);
                greatest_lanes[b] = greater(greatest_lanes[b], score);
            }
        }
    };
    int64_t token = 0;
    for (; token + kBlockRows <= tokens; token += kBlockRows) score_block(token, [](F score, int64_t) { return score; });
    if (token < tokens)
        score_block(token, [&](F score, int64_t half) { return visible(score, tokens - token - half); });
    bool finite = greatest(greatest_factor) < INFINITY;
    for (int64_t b = 0; b < count; ++b) {
        most[b] = greatest(greatest_lanes[b]);
        finite = finite && most[b] < INFINITY;
    }
    return finite;
}

// out[b][channel] = (sum over tokens of share * value) * factor[channel] or * factor_b.
inline void mix_values(const Sizes &sizes, const Cache &cache, int64_t padded_tokens, int64_t groups,
                       const Activation *const *shares, int64_t count, bool by_channel, float *const *out) {
    for (int64_t block = 0; block < sizes.head_blocks; ++block) {
        alignas(64) Dots dots[kGreatestBatch];
        block_dots(cache.values + block * kBlockRows * padded_tokens, groups, kCacheAhead, shares, count, dots);
        for (int half = 0; half < kBlockRows; half += 16) {
            const int64_t channel = block * kBlockRows + half;
            if (channel >= sizes.head_width) break;
            const F scales = by_channel ? load(cache.value_scales + channel) : every(1.0f);
            for (int64_t b = 0; b < count; ++b)
                store_some(out[b] + channel, converted(load(dots[b] + half)) * (scales * every(shares[b]->scale)),
                           sizes.head_width - channel);
        }
    }
}

// The softmax of one query over the `tokens` of its text as shares: false if not finite. `scores` is used up.
//
// The values' scales differ from token to token: they go into the shares before these are quantised.
inline bool share_text(const Cache &cache, int64_t tokens, float most, float *scores, Activation &shares) {
    const int64_t summed = padded(tokens, 16);
    F total = every(0.0f);
    I greatest_bits = every(int32_t{0});
    for (int64_t t = 0; t < summed; t += 16) {
        const F share = power_of_negative(load(scores + t) - every(most));
        const F scaled = share * kept(load(cache.value_scales + t), tokens - t);
        total = total + kept(share, tokens - t);
        greatest_bits = greater(greatest_bits, bits(scaled) & every(kMagnitude));
        store(scores + t, scaled);
    }
    if (!quantise_known(scores, summed, greatest(greatest_bits), shares)) return false;
    shares.scale = shares.scale / sum(total);
    return true;
}

// The softmax of one query over an image as shares of 1/127 of the greatest: kNothingAllowed if every key is hidden.
//
// e^(score - greatest) is at most 1: one pass exponentiates and quantises with a scale known beforehand.
inline uint32_t share_image(const float *scores, float most, int64_t tokens, Activation &shares) {
    if (most == kMinusInfinity) return kNothingAllowed;
    I total = every(int32_t{0});
    for (int64_t t = 0; t < tokens; t += 16) {
        const I share = rounded(power_of_negative(load(scores + t) - every(most)) * every(127.0f));
        store_int8(shares.values + t, share);
        total = total + share;
    }
    shares.sum = sum(total);
    shares.scale = 1.0f / static_cast<float>(shares.sum);
    return 0;
}

// For the C ABI: one query of one head.
inline bool quantised_query(const Sizes &sizes, const float *query, Scratch &scratch) {
    memset(scratch.rows[0], 0, static_cast<size_t>(sizes.head_inputs) * sizeof(float));
    memcpy(scratch.rows[0], query, static_cast<size_t>(sizes.head_width) * sizeof(float));
    return quantise(scratch.rows[0], sizes.head_inputs, scratch.queries[0]);
}

inline uint32_t self_attention_of_head(const Sizes &sizes, const Cache &cache, int64_t length, const float *query,
                                       Scratch &scratch, float *y) {
    if (!quantised_query(sizes, query, scratch)) return kNotFinite;
    const Activation *queries[1] = {&scratch.queries[0]}, *shares[1] = {&scratch.shares[0]};
    float *outputs[1] = {y}, most;
    if (!scores_of(sizes, cache, length + 1, queries, 1, nullptr, scratch.scores, &most)) return kNotFinite;
    if (!share_text(cache, length + 1, most, scratch.scores[0], scratch.shares[0])) return kNotFinite;
    mix_values(sizes, cache, padded(sizes.positions, 16), padded(length + 1, 16) / 4, shares, 1, false, outputs);
    return all_finite(y, sizes.head_width) ? 0u : kNotFinite;
}

inline uint32_t cross_attention_of_head(const Sizes &sizes, const Image &image, const float *query, Scratch &scratch,
                                        float *y) {
    if (!quantised_query(sizes, query, scratch)) return kNotFinite;
    const Cache &cache = image.caches[0];
    const Activation *queries[1] = {&scratch.queries[0]}, *shares[1] = {&scratch.shares[0]};
    const int64_t summed = padded(image.tokens, 16);
    float *outputs[1] = {y}, most;
    if (!scores_of(sizes, cache, image.tokens, queries, 1, image.bias, scratch.scores, &most)) return kNotFinite;
    const uint32_t failure = share_image(scratch.scores[0], most, summed, scratch.shares[0]);
    if (failure != 0) return failure;
    mix_values(sizes, cache, image.padded_tokens, summed / 4, shares, 1, true, outputs);
    return all_finite(y, sizes.head_width) ? 0u : kNotFinite;
}

}  // namespace
}  // namespace radbox
