// Once per image: projection of the image's tokens, and every layer's keys and values. Matrix times matrix with 32-bit
// sums on the ordinary cores; it is a few per cent of a report's time, so tensor cores are left to the encoder.
#pragma once

#include "attention.h"

namespace radbox {

constexpr int kTileTokens = 32, kTileRows = 64, kTileDepth = 16;  // of Y, and of the sum at a time
constexpr int kStripe = kTileDepth + 1;                           // of a tile in shared memory: no bank met twice

// y = LayerNorm(x) weight + bias per row.
// grid: tokens; block: kThreads; shared: 2 * kWarps floats.  x, y: (tokens, width), not the same; weight, bias: (width).
__device__ __forceinline__ void norm_rows(const float *x, const float *weight, const float *bias, float epsilon,
                                          int width, float *y, int *state) {
    RADBOX_SHARED(float, scratch);
    x += static_cast<size_t>(blockIdx.x) * width;
    y += static_cast<size_t>(blockIdx.x) * width;
    float sum = 0.0f, squares = 0.0f;
    for (int c = threadIdx.x; c < width; c += kThreads) sum += x[c];
    const float mean = block_sum<kWarps>(sum, scratch) / static_cast<float>(width);
    for (int c = threadIdx.x; c < width; c += kThreads) squares += (x[c] - mean) * (x[c] - mean);
    const float variance = block_sum<kWarps>(squares, scratch + kWarps) / static_cast<float>(width);
    if (threadIdx.x == 0) report_unless_finite(state, variance);
    const float inverse = 1.0f / sqrtf(variance + epsilon);
    for (int c = threadIdx.x; c < width; c += kThreads) {
        const float value = (x[c] - mean) * inverse * weight[c] + bias[c];
        report_unless_finite(state, value);
        y[c] = value;
    }
}

// Y = X W^T + b.
// grid: (ceil(rows / kTileRows), ceil(tokens / kTileTokens)); block: kThreads, each 4 tokens by 4 rows;
// shared: (kTileTokens + kTileRows) * kStripe floats.
// x: (tokens, columns); weight: (rows, stride) W; scale, bias: (rows); y: (tokens, rows).
template <class W>
__device__ __forceinline__ void project_rows(const float *x, const W *weight, const float *scale, const float *bias,
                                             int tokens, int rows, int columns, float *y, int *state) {
    constexpr int kCount = Stored<W>::kCount;
    constexpr int kLoads = kTileRows * kTileDepth / kCount;  // 16-byte loads of a tile of weights
    RADBOX_SHARED(float, tile_x);
    float *tile_w = tile_x + kTileTokens * kStripe;
    const int stride = (columns + kPadding - 1) / kPadding * kPadding;
    const int first_token = blockIdx.y * kTileTokens, first_row = blockIdx.x * kTileRows;
    const int r0 = threadIdx.x % 16, t0 = threadIdx.x / 16;  // then every 16th row, every 8th token
    float sums[4][4] = {};
    for (int depth = 0; depth < stride; depth += kTileDepth) {
        for (int i = threadIdx.x; i < kTileTokens * kTileDepth; i += kThreads) {
            const int token = first_token + i / kTileDepth, column = depth + i % kTileDepth;
            tile_x[i / kTileDepth * kStripe + i % kTileDepth] =
                token < tokens && column < columns ? x[static_cast<size_t>(token) * columns + column] : 0.0f;
        }
        for (int i = threadIdx.x; i < kLoads; i += kThreads) {
            const int row = i * kCount / kTileDepth, column = i * kCount % kTileDepth;
            float w[kCount] = {};
            if (first_row + row < rows)
                Stored<W>::unpack(load16(weight + static_cast<size_t>(first_row + row) * stride + depth + column), w);
#pragma unroll
            for (int j = 0; j < kCount; ++j) tile_w[row * kStripe + column + j] = w[j];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kTileDepth; ++k) {
            float xs[4], ws[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                xs[j] = tile_x[(t0 + 8 * j) * kStripe + k];
                ws[j] = tile_w[(r0 + 16 * j) * kStripe + k];
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] += xs[i] * ws[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int token = first_token + t0 + 8 * i, row = first_row + r0 + 16 * j;
            if (token >= tokens || row >= rows) continue;
            const float value = sums[i][j] * scale[row] + bias[row];
            report_unless_finite(state, value);
            y[static_cast<size_t>(token) * rows + row] = value;
        }
}

// The image's keys and values of one layer into their stored form.
// grid: (ceil(image_tokens / kWarps), heads, 2); block: kThreads, a warp per row; shared: none.
// kv: (image_tokens, 2 * width), keys then values; keys, values: (heads, image_tokens, kHead); scales: (heads,
// image_tokens), null for Half.
template <class KV, int kHead>
__device__ __forceinline__ void store_image(const float *kv, int image_tokens, int width, int dh, KV *keys, KV *values,
                                            float *key_scales, float *value_scales, int *state) {
    const int token = blockIdx.x * kWarps + threadIdx.x / kWarp, head = blockIdx.y;
    if (token >= image_tokens) return;  // the whole warp
    const bool is_value = blockIdx.z == 1;
    const float *from = kv + static_cast<size_t>(token) * 2 * width + (is_value ? width : 0) + head * dh;
    const size_t at = static_cast<size_t>(head) * image_tokens;
    float *scales = is_value ? value_scales : key_scales;
    store_row<KV, kHead>(from, dh, (is_value ? values : keys) + at * kHead,
                         Stored<KV>::kScaledKeys ? scales + at : nullptr, token, state);
}

}  // namespace radbox
