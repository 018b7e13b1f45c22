// Products with packed matrices, block by block of 32 rows, for up to eight activations in one pass over the weights.
#pragma once

#include "vector_math.h"

namespace radbox {
namespace {

using Rows = float[kBlockRows];
using Dots = int32_t[kBlockRows];

// out[b] = the block's 32 dot products with a[b], exact. `groups`: fours of inputs, a multiple of four; `ahead`: bytes.
inline void block_dots(const uint8_t *block, int64_t groups, int64_t ahead, const Activation *const *a, int64_t count,
                       Dots *out) {
    switch (count) {
        case 1: return dots_q8<1>(block, groups, ahead, a, out);
        case 2: return dots_q8<2>(block, groups, ahead, a, out);
        case 3: return dots_q8<3>(block, groups, ahead, a, out);
        case 4: return dots_q8<4>(block, groups, ahead, a, out);
        case 5: return dots_q8<5>(block, groups, ahead, a, out);
        case 6: return dots_q8<6>(block, groups, ahead, a, out);
        case 7: return dots_q8<7>(block, groups, ahead, a, out);
        default: return dots_q8<8>(block, groups, ahead, a, out);
    }
}

inline void block_dots_q4(const uint8_t *block, int64_t groups, int64_t ahead, const Activation *const *a, int64_t count,
                          Rows *out) {
    switch (count) {
        case 1: return dots_q4<1>(block, groups, ahead, a, out);
        case 2: return dots_q4<2>(block, groups, ahead, a, out);
        case 3: return dots_q4<3>(block, groups, ahead, a, out);
        case 4: return dots_q4<4>(block, groups, ahead, a, out);
        case 5: return dots_q4<5>(block, groups, ahead, a, out);
        case 6: return dots_q4<6>(block, groups, ahead, a, out);
        case 7: return dots_q4<7>(block, groups, ahead, a, out);
        default: return dots_q4<8>(block, groups, ahead, a, out);
    }
}

// finish(b, row, values): sixteen outputs of activation b from row `row` of the matrix on, bias added.
template <typename Finish>
inline void block_product(const Matrix &matrix, int64_t block, const Activation *const *a, int64_t count, Finish finish) {
    const uint8_t *weights = matrix.blocks + block * matrix.block_bytes;
    const float *bias = reinterpret_cast<const float *>(weights + matrix.block_bytes) - kBlockRows;
    if (matrix.bits == 8) {
        alignas(64) Dots dots[kGreatestBatch];
        block_dots(weights, matrix.inputs / 4, matrix.ahead, a, count, dots);
        for (int half = 0; half < kBlockRows; half += 16) {
            const F scales = load(bias - kBlockRows + half), added = load(bias + half);
            for (int64_t b = 0; b < count; ++b)
                finish(b, block * kBlockRows + half,
                       fused(converted(load(dots[b] + half)), scales * every(a[b]->scale), added));
        }
    } else {
        alignas(64) Rows rows[kGreatestBatch];
        block_dots_q4(weights, matrix.inputs / kGroupInputs, matrix.ahead, a, count, rows);
        for (int half = 0; half < kBlockRows; half += 16)
            for (int64_t b = 0; b < count; ++b)
                finish(b, block * kBlockRows + half, load(rows[b] + half) + load(bias + half));
    }
}

// `x` (width, a multiple of 32 that is zero beyond its end) as the matrix wants it; `most_bits`: those of its greatest
// magnitude. False if not finite.
inline bool quantise_for(const Matrix &matrix, const float *x, int64_t width, int32_t most_bits, Activation &out) {
    if (most_bits >= kInfinityBits) return false;
    if (matrix.bits == 4) return quantise_groups(x, width, out);
    return quantise_known(x, width, most_bits, out);
}

inline uint32_t linear(const float *x, int64_t inputs, int64_t rows, const Matrix &matrix, Scratch &scratch, float *y) {
    const int64_t outputs = matrix.block_count * kBlockRows;
    for (int64_t first = 0; first < rows; first += kGreatestBatch) {
        const int64_t count = rows - first < kGreatestBatch ? rows - first : kGreatestBatch;
        const Activation *a[kGreatestBatch];
        for (int64_t b = 0; b < count; ++b) {
            memset(scratch.rows[b], 0, static_cast<size_t>(matrix.inputs) * sizeof(float));
            memcpy(scratch.rows[b], x + (first + b) * inputs, static_cast<size_t>(inputs) * sizeof(float));
            const int32_t most_bits = greatest_magnitude_bits(scratch.rows[b], inputs);
            if (!quantise_for(matrix, scratch.rows[b], matrix.inputs, most_bits, scratch.inputs[b])) return kNotFinite;
            a[b] = &scratch.inputs[b];
        }
        for (int64_t block = 0; block < matrix.block_count; ++block)
            block_product(matrix, block, a, count, [&](int64_t b, int64_t row, F values) {
                store(y + (first + b) * outputs + row, values);
            });
    }
    return all_finite(y, rows * outputs) ? 0u : kNotFinite;
}

inline uint32_t quantise_rows(const float *x, int64_t width, Activation &out) {
    return quantise(x, width, out) ? 0u : kNotFinite;
}

}  // namespace
}  // namespace radbox
