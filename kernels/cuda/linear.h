// Matrix-vector products with what comes before and after them: LayerNorm or the gate in front, GELU or the residual
// behind. One launch each; every block recomputes the (short) front part, which is cheaper than a launch of its own.
//
// A weight matrix (rows, columns) is stored as (rows, stride) of Half or int8, stride = columns rounded up to kPadding,
// the rest zeros, and a float scale per row: w[r][c] = scale[r] * stored[r][c].
#pragma once

#include "portable.h"

namespace radbox {

enum After { kStore, kGelu, kAdd };  // y = r, y = gelu(r), y += r

// Where column c of the input vector lies in shared memory. A group of kLanes lanes reads 16 bytes of weights per lane;
// their inputs, four floats at a time, lie side by side, so that a read meets every bank once.
template <class W, int kLanes>
__device__ __forceinline__ int slot(int c) {
    constexpr int kCount = Stored<W>::kCount;
    constexpr int kPass = kLanes * kCount;
    const int lane = c % kPass / kCount, quad = c % kCount / 4;
    return c / kPass * kPass + quad * kLanes * 4 + lane * 4 + c % 4;
}

// Floats of shared memory for an input of `columns`: whole passes of the group.
template <class W, int kLanes>
__device__ __forceinline__ int slots(int columns) {
    constexpr int kPass = kLanes * Stored<W>::kCount;
    return (columns + kPass - 1) / kPass * kPass;
}

template <class W, int kLanes>
__device__ __forceinline__ void clear_tail(float *input, int columns) {
    for (int c = columns + threadIdx.x; c < slots<W, kLanes>(columns); c += kThreads) input[slot<W, kLanes>(c)] = 0.0f;
}

// input := x.  x: (columns).
template <class W, int kLanes>
__device__ __forceinline__ void load_plain(const float *x, int columns, float *input) {
    for (int c = threadIdx.x; c < columns; c += kThreads) input[slot<W, kLanes>(c)] = x[c];
    clear_tail<W, kLanes>(input, columns);
    __syncthreads();
}

// input := LayerNorm(x) weight + bias (layer_norm_f32 of reference.py), statistics in float over two passes.
// scratch: 2 * kWarps floats.
template <class W, int kLanes>
__device__ __forceinline__ void load_normalised(const float *x, const float *weight, const float *bias, float epsilon,
                                                int columns, float *input, float *scratch, int *state) {
    float sum = 0.0f;
    for (int c = threadIdx.x; c < columns; c += kThreads) {
        const float value = x[c];
        input[slot<W, kLanes>(c)] = value;
        sum += value;
    }
    const float mean = block_sum<kWarps>(sum, scratch) / static_cast<float>(columns);
    float squares = 0.0f;
    for (int c = threadIdx.x; c < columns; c += kThreads) {
        const float centred = input[slot<W, kLanes>(c)] - mean;
        squares += centred * centred;
    }
    const float variance = block_sum<kWarps>(squares, scratch + kWarps) / static_cast<float>(columns);
    if (threadIdx.x == 0) report_unless_finite(state, variance);
    const float inverse = 1.0f / sqrtf(variance + epsilon);
    for (int c = threadIdx.x; c < columns; c += kThreads) {
        float &value = input[slot<W, kLanes>(c)];
        value = (value - mean) * inverse * weight[c] + bias[c];
    }
    clear_tail<W, kLanes>(input, columns);
    __syncthreads();
}

// y[r] = after(scale[r] * (W input)[r] + bias[r]) for this block's rows: kLanes lanes of a warp share a row.
template <class W, int kLanes, After after>
__device__ __forceinline__ void matrix_vector(const W *__restrict__ weight, const float *__restrict__ scale,
                                              const float *__restrict__ bias, int rows, int columns,
                                              const float *input, float *y, int *state) {
    constexpr int kCount = Stored<W>::kCount;
    constexpr int kRows = kThreads / kLanes;
    const int stride = (columns + kPadding - 1) / kPadding * kPadding;
    const int row = blockIdx.x * kRows + threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (row < rows) {
        const W *from = weight + static_cast<size_t>(row) * stride;
#pragma unroll 4
        for (int c = lane * kCount; c < stride; c += kLanes * kCount) {
            float w[kCount];
            Stored<W>::unpack(load16(from + c), w);
            const float *x = input + slot<W, kLanes>(c);
#pragma unroll
            for (int quad = 0; quad < kCount / 4; ++quad)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[i] += w[quad * 4 + i] * x[quad * kLanes * 4 + i];
        }
    }
    const float sum = group_sum<kLanes>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (row < rows && lane == 0) {
        float value = sum * scale[row] + (bias == nullptr ? 0.0f : bias[row]);
        if (after == kGelu) value = gelu_tanh(value);
        if (after == kAdd) value += y[row];
        report_unless_finite(state, value);
        y[row] = value;
    }
}

// y = after(W x + b).
// grid: ceil(rows / (kThreads / kLanes)); block: kThreads; shared: slots(columns) floats.
// x: (columns); weight: (rows, stride) W; scale: (rows); bias: (rows) or null; y: (rows), not x.
template <class W, int kLanes, After after>
__device__ __forceinline__ void linear(const float *x, const W *weight, const float *scale, const float *bias, int rows,
                                       int columns, float *y, int *state) {
    RADBOX_SHARED(float, input);
    load_plain<W, kLanes>(x, columns, input);
    matrix_vector<W, kLanes, after>(weight, scale, bias, rows, columns, input, y, state);
}

// y = after(W LayerNorm(x) + b).
// grid: ceil(rows / (kThreads / kLanes)); block: kThreads; shared: 2 * kWarps + slots(columns) floats.
// x, norm_weight, norm_bias: (columns); the rest as in `linear`.
template <class W, int kLanes, After after>
__device__ __forceinline__ void norm_linear(const float *x, const float *norm_weight, const float *norm_bias,
                                            float epsilon, const W *weight, const float *scale, const float *bias,
                                            int rows, int columns, float *y, int *state) {
    RADBOX_SHARED(float, shared);
    float *input = shared + 2 * kWarps;
    load_normalised<W, kLanes>(x, norm_weight, norm_bias, epsilon, columns, input, shared, state);
    matrix_vector<W, kLanes, after>(weight, scale, bias, rows, columns, input, y, state);
}

}  // namespace radbox
