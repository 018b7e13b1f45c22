// The two ends of a step: a token becomes a vector, the logits become a token. They alone write the state's words,
// except the status, which any kernel sets once.
#pragma once

#include "portable.h"

namespace radbox {

constexpr int kChooseThreads = 256;
constexpr int kChooseWarps = kChooseThreads / kWarp;

// x = embed[token] + position[t]; clears the status of the step before.
// grid: 1; block: kThreads; shared: none.  embed: (vocabulary, width); position: (positions, width); x: (width).
__device__ __forceinline__ void embed(const float *table, const float *position_table, int vocabulary, int positions,
                                      int width, float *x, int *state) {
    const int token = state[kToken], position = state[kPosition];
    int status = kOk;
    if (token < 0 || token >= vocabulary) status = kBadArgument;
    if (position < 0 || position >= positions) status = kWrongState;
    if (threadIdx.x == 0) state[kStatus] = status;
    for (int i = threadIdx.x; i < width; i += kThreads)
        x[i] = status != kOk ? 0.0f
                             : table[static_cast<size_t>(token) * width + i] +
                                   position_table[static_cast<size_t>(position) * width + i];
}

// The allowed token of the greatest logit, the lowest on a tie, and its log-probability among the allowed ones; then the
// position advances. masked_argmax_f32 of reference.py. After a failure nothing is chosen and the position stays.
// grid: 1; block: kChooseThreads; shared: 2 * kChooseWarps words.  logits: (vocabulary); allowed: (vocabulary) bytes.
__device__ __forceinline__ void masked_argmax(const float *logits, const unsigned char *allowed, int vocabulary,
                                              int *state) {
    RADBOX_SHARED(float, shared);
    int *indices = reinterpret_cast<int *>(shared + kChooseWarps);
    float best = -RADBOX_INFINITY;
    int index = vocabulary;
    for (int i = threadIdx.x; i < vocabulary; i += kChooseThreads) {
        const float value = logits[i];
        report_unless_finite(state, value);
        if (allowed[i] != 0 && (value > best || index == vocabulary)) {
            best = value;
            index = i;
        }
    }
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, best, offset);
        const int other_index = __shfl_xor_sync(kAllLanes, index, offset);
        if (other > best || (other == best && other_index < index)) {
            best = other;
            index = other_index;
        }
    }
    const int warp = threadIdx.x / kWarp;
    if (threadIdx.x % kWarp == 0) {
        shared[warp] = best;
        indices[warp] = index;
    }
    __syncthreads();
    for (int w = 0; w < kChooseWarps; ++w)
        if (shared[w] > best || (shared[w] == best && indices[w] < index)) {
            best = shared[w];
            index = indices[w];
        }
    __syncthreads();  // `shared` is used again below
    float sum = 0.0f;
    for (int i = threadIdx.x; i < vocabulary; i += kChooseThreads)
        if (allowed[i] != 0) sum += expf(logits[i] - best);
    sum = block_sum<kChooseWarps>(sum, shared);
    if (threadIdx.x > 0) return;
    if (index == vocabulary) report(state, kNothingAllowed);
    const bool ok = atomicCAS(state + kStatus, kOk, kOk) == kOk;  // an atomic read: other threads report atomically
    state[kChosen] = ok ? index : -1;
    state[kLogProbability] = __float_as_int(ok ? -logf(sum) : 0.0f);
    if (ok) state[kPosition] += 1;
}

}  // namespace radbox
