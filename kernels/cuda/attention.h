// Self-attention with its cache and gated cross-attention over the image's keys, single query, online softmax
// (Milakov & Gimelshein 2018, arXiv 1805.02867, alg. 3). Equations: reference.py, self_attention_step_f32 and
// gated_cross_attention_f32.
//
// Keys and values lie per head: (heads, tokens, kHead) of Half or int8, kHead >= width / heads, padded with zeros; int8
// rows have one float scale each: (heads, tokens). So a head's keys are one stream.
//
// The layer's attention is two launches. `attend` runs self-attention and the slices of cross-attention side by side
// (they need the same query only); `gate_project` needs all heads, so it is the next launch: it merges the slices, gates,
// projects and adds the residual.
#pragma once

#include "linear.h"

namespace radbox {

constexpr int kKeysAtOnce = 2;  // loads of two keys and two values are in flight per group of lanes

// A slice's result: greatest score, sum of exp(score - greatest), and the values weighted by it.
template <int kHead>
__device__ __forceinline__ float *slice_result(float *slices, int head, int slice, int slice_count) {
    return slices + (static_cast<size_t>(head) * slice_count + slice) * (kHead + 2);
}

// Store `dh` floats as row `row` of keys or values. One warp calls, all lanes.
template <class KV, int kHead>
__device__ __forceinline__ void store_row(const float *from, int dh, KV *to, float *scales, int row, int *state) {
    constexpr int kPerLane = (kHead + kWarp - 1) / kWarp;
    const int lane = threadIdx.x % kWarp;
    float values[kPerLane], greatest = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        const int column = lane + i * kWarp;
        values[i] = column < dh ? from[column] : 0.0f;
        report_unless_finite(state, values[i]);
        greatest = fmaxf(greatest, fabsf(values[i]));
    }
    float inverse = 1.0f;
    if (Stored<KV>::kScaledKeys) {
        greatest = warp_max(greatest);
        const bool tiny = greatest < 1e-30f;  // its reciprocal would overflow; the row is zero to float's precision
        inverse = tiny ? 0.0f : 127.0f / greatest;
        if (lane == 0) scales[row] = tiny ? 0.0f : greatest / 127.0f;
    }
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        const int column = lane + i * kWarp;
        if (column >= kHead) continue;
        if constexpr (Stored<KV>::kScaledKeys) {
            to[static_cast<size_t>(row) * kHead + column] = static_cast<KV>(__float2int_rn(values[i] * inverse));
        } else {
            const KV stored{float_to_half(values[i])};
            report_unless_finite(state, half_to_float(stored.bits));  // beyond 65504
            to[static_cast<size_t>(row) * kHead + column] = stored;
        }
    }
}

// The running softmax of one group of lanes; a lane holds kCount columns of the weighted values.
template <int kCount>
struct Running {
    float greatest, sum, mixed[kCount];
};

// a := a and b together. Nothing seen yet is greatest = -inf, sum = 0.
template <int kCount>
__device__ __forceinline__ void merge(Running<kCount> &a, float greatest, float sum, const float (&mixed)[kCount]) {
    const float both = fmaxf(a.greatest, greatest);
    if (both == -RADBOX_INFINITY) return;
    const float share_a = expf(a.greatest - both), share_b = expf(greatest - both);
    a.sum = a.sum * share_a + sum * share_b;
#pragma unroll
    for (int i = 0; i < kCount; ++i) a.mixed[i] = a.mixed[i] * share_a + mixed[i] * share_b;
    a.greatest = both;
}

// Keys first..last of one head: the block's merged result in `result`, (kHead + 2) floats: greatest, sum, mixed.
// query: (dh) floats; keys, values: (tokens, kHead); scales: (tokens); bias: (tokens) or null; scores: (tokens) or null,
// receives query . key / sqrt(dh) + bias. shared: kWarps * (kHead + 2) floats. All threads call.
template <class KV, int kHead>
__device__ __forceinline__ void scan(const float *query, int dh, const KV *keys, const KV *values,
                                     const float *key_scales, const float *value_scales, const float *bias, int first,
                                     int last, float *scores, float *shared, float *result, int *state) {
    constexpr int kCount = Stored<KV>::kCount;
    constexpr int kLanes = kHead / kCount;       // lanes that share a key
    constexpr int kGroups = kThreads / kLanes;   // keys at a time
    static_assert(kHead % kCount == 0 && kLanes >= 1 && kLanes <= kWarp && (kLanes & (kLanes - 1)) == 0, "head width");
    const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
    const float root = 1.0f / sqrtf(static_cast<float>(dh));

    float q[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const int column = lane * kCount + i;
        q[i] = column < dh ? query[column] * root : 0.0f;
    }
    Running<kCount> running;
    running.greatest = -RADBOX_INFINITY;
    running.sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; ++i) running.mixed[i] = 0.0f;

    bool finite = true;
    // Every lane makes the same number of trips: the shuffles need the whole warp.
    for (int start = first; start < last; start += kGroups * kKeysAtOnce) {
        Vector16 key[kKeysAtOnce], value[kKeysAtOnce];
        float score[kKeysAtOnce], value_scale[kKeysAtOnce];
#pragma unroll
        for (int u = 0; u < kKeysAtOnce; ++u) {
            const int t = start + u * kGroups + group;
            const size_t at = static_cast<size_t>(t < last ? t : first) * kHead + lane * kCount;
            key[u] = load16(keys + at);
            value[u] = load16(values + at);
        }
        float greatest = running.greatest;
#pragma unroll
        for (int u = 0; u < kKeysAtOnce; ++u) {
            const int t = start + u * kGroups + group;
            float k[kCount], dot = 0.0f;
            Stored<KV>::unpack(key[u], k);
#pragma unroll
            for (int i = 0; i < kCount; ++i) dot += q[i] * k[i];
            dot = group_sum<kLanes>(dot);
            score[u] = -RADBOX_INFINITY;
            value_scale[u] = 1.0f;
            if (t < last) {
                if (Stored<KV>::kScaledKeys) {
                    dot *= key_scales[t];
                    value_scale[u] = value_scales[t];
                }
                const float added = bias == nullptr ? 0.0f : bias[t];
                finite = finite && is_finite(dot) && (is_finite(added) || added == -RADBOX_INFINITY);
                score[u] = dot + added;
                if (scores != nullptr && lane == 0) scores[t] = score[u];
            }
            greatest = fmaxf(greatest, score[u]);
        }
        if (greatest != -RADBOX_INFINITY) {  // all hidden so far: nothing to add, and exp(-inf + inf) is NaN
            const float share = expf(running.greatest - greatest);
            running.sum *= share;
#pragma unroll
            for (int i = 0; i < kCount; ++i) running.mixed[i] *= share;
#pragma unroll
            for (int u = 0; u < kKeysAtOnce; ++u) {
                const float p = expf(score[u] - greatest);
                const float weighted = p * value_scale[u];
                float v[kCount];
                Stored<KV>::unpack(value[u], v);
                running.sum += p;
#pragma unroll
                for (int i = 0; i < kCount; ++i) running.mixed[i] += weighted * v[i];
            }
            running.greatest = greatest;
        }
    }
    if (!finite) report(state, kNotFinite);

#pragma unroll
    for (int offset = kLanes; offset < kWarp; offset *= 2) {
        float mixed[kCount];
        const float greatest = __shfl_xor_sync(kAllLanes, running.greatest, offset);
        const float sum = __shfl_xor_sync(kAllLanes, running.sum, offset);
#pragma unroll
        for (int i = 0; i < kCount; ++i) mixed[i] = __shfl_xor_sync(kAllLanes, running.mixed[i], offset);
        merge(running, greatest, sum, mixed);
    }
    float *mine = shared + threadIdx.x / kWarp * (kHead + 2);
    if (threadIdx.x % kWarp < kLanes) {
        if (lane == 0) {
            mine[0] = running.greatest;
            mine[1] = running.sum;
        }
#pragma unroll
        for (int i = 0; i < kCount; ++i) mine[2 + lane * kCount + i] = running.mixed[i];
    }
    __syncthreads();
    float greatest = -RADBOX_INFINITY;
    for (int w = 0; w < kWarps; ++w) greatest = fmaxf(greatest, shared[w * (kHead + 2)]);
    for (int column = threadIdx.x; column < kHead + 1; column += kThreads) {  // the sum, then the mixed values
        float total = 0.0f;
        if (greatest != -RADBOX_INFINITY)
            for (int w = 0; w < kWarps; ++w) {
                const float *part = shared + w * (kHead + 2);
                total += part[1 + column] * expf(part[0] - greatest);
            }
        result[1 + column] = total;
    }
    if (threadIdx.x == 0) result[0] = greatest;
}

// Self-attention of one step and the slices of its cross-attention.
// grid: (heads, 1 + slices); block: kThreads; shared: (kWarps + 1) * (kHead + 2) floats.
// Block (h, 0) writes row `position` of the cache from this step's key and value, attends to rows 0..position and writes
// a[h]; block (h, 1 + s) attends to image tokens s * per_slice .. and writes slice s.
// qkv: (3, width) query, key, value of this step; own_keys, own_values: (heads, positions, kHead) KV, own_*_scales:
// (heads, positions); image_keys, image_values: (heads, image_tokens, kHead), image_*_scales: (heads, image_tokens);
// bias: (image_tokens), the same for all heads, -inf hides a key, or null; a: (width); slices: (heads, slices,
// kHead + 2); scores: (heads, image_tokens) or null. Scales are null for Half.
template <class KV, int kHead>
__device__ __forceinline__ void attend(const float *qkv, int width, int dh, KV *own_keys, KV *own_values,
                                       float *own_key_scales, float *own_value_scales, int positions,
                                       const KV *image_keys, const KV *image_values, const float *image_key_scales,
                                       const float *image_value_scales, const float *bias, int image_tokens,
                                       int per_slice, float *a, float *slices, float *scores, int *state) {
    RADBOX_SHARED(float, shared);
    float *result = shared + kWarps * (kHead + 2);
    const int head = blockIdx.x;
    const float *query = qkv + head * dh;
    if (blockIdx.y > 0) {
        const int slice = blockIdx.y - 1, first = slice * per_slice;
        const int last = first + per_slice < image_tokens ? first + per_slice : image_tokens;
        const size_t from = static_cast<size_t>(head) * image_tokens;
        scan<KV, kHead>(query, dh, image_keys + from * kHead, image_values + from * kHead,
                        Stored<KV>::kScaledKeys ? image_key_scales + from : nullptr,
                        Stored<KV>::kScaledKeys ? image_value_scales + from : nullptr, bias, first, last,
                        scores == nullptr ? nullptr : scores + from, shared,
                        slice_result<kHead>(slices, head, slice, static_cast<int>(gridDim.y) - 1), state);
        return;
    }
    const int position = state[kPosition];
    if (position < 0 || position >= positions) return;  // `embed` has reported it
    const size_t from = static_cast<size_t>(head) * positions;
    KV *keys = own_keys + from * kHead, *values = own_values + from * kHead;
    float *key_scales = Stored<KV>::kScaledKeys ? own_key_scales + from : nullptr;
    float *value_scales = Stored<KV>::kScaledKeys ? own_value_scales + from : nullptr;
    if (threadIdx.x / kWarp == 0) store_row<KV, kHead>(query + width, dh, keys, key_scales, position, state);
    if (threadIdx.x / kWarp == 1) store_row<KV, kHead>(query + 2 * width, dh, values, value_scales, position, state);
    __syncthreads();
    scan<KV, kHead>(query, dh, keys, values, key_scales, value_scales, nullptr, 0, position + 1, nullptr, shared, result,
                    state);
    __syncthreads();
    for (int column = threadIdx.x; column < dh; column += kThreads) {
        const float mixed = result[2 + column] / result[1];
        report_unless_finite(state, mixed);
        a[head * dh + column] = mixed;
    }
}

// x += W_o (a + g c) + b_o with g = tanh(gate_weight . a + gate[0]) * gate[1] and c the merged slices.
// grid: ceil(width / (kThreads / kLanes)); block: kThreads; shared: kWarps + width + slots(width) floats.
// a, gate_weight, x: (width); gate: (2) bias and scale; slices: (heads, slice_count, kHead + 2); weight: (width, stride) W.
template <class W, int kLanes>
__device__ __forceinline__ void gate_project(const float *a, const float *slices, int slice_count, int slice_floats,
                                             const float *gate_weight, const float *gate, const W *weight,
                                             const float *scale, const float *bias, int width, int dh, float *x,
                                             int *state) {
    RADBOX_SHARED(float, shared);
    float *c = shared + kWarps, *input = c + width;
    float dot = 0.0f;
    for (int i = threadIdx.x; i < width; i += kThreads) {
        const float *parts = slices + static_cast<size_t>(i / dh) * slice_count * slice_floats;
        float greatest = -RADBOX_INFINITY, sum = 0.0f, mixed = 0.0f;
        for (int s = 0; s < slice_count; ++s) greatest = fmaxf(greatest, parts[s * slice_floats]);
        if (greatest == -RADBOX_INFINITY) {
            report(state, kNothingAllowed);
        } else {
            for (int s = 0; s < slice_count; ++s) {
                const float share = expf(parts[s * slice_floats] - greatest);
                sum += parts[s * slice_floats + 1] * share;
                mixed += parts[s * slice_floats + 2 + i % dh] * share;
            }
            mixed /= sum;
        }
        c[i] = mixed;
        dot += a[i] * gate_weight[i];
    }
    const float g = tanhf(block_sum<kWarps>(dot, shared) + gate[0]) * gate[1];
    for (int i = threadIdx.x; i < width; i += kThreads) input[slot<W, kLanes>(i)] = a[i] + g * c[i];
    clear_tail<W, kLanes>(input, width);
    __syncthreads();
    matrix_vector<W, kLanes, kAdd>(weight, scale, bias, width, width, input, x, state);
}

// maps[l] = the cross-attention's softmax of layer l, averaged over the heads.
// grid: (ceil(image_tokens / kThreads), layers); block: kThreads; shared: 2 * heads floats.
// slices: (layers, heads, slice_count, slice_floats); scores: (layers, heads, image_tokens); maps: (layers, image_tokens).
__device__ __forceinline__ void attention_maps(const float *slices, int slice_count, int slice_floats,
                                               const float *scores, int heads, int image_tokens, float *maps) {
    RADBOX_SHARED(float, shared);
    float *greatest = shared, *share = shared + heads;
    slices += static_cast<size_t>(blockIdx.y) * heads * slice_count * slice_floats;
    scores += static_cast<size_t>(blockIdx.y) * heads * image_tokens;
    for (int h = threadIdx.x; h < heads; h += kThreads) {
        const float *parts = slices + static_cast<size_t>(h) * slice_count * slice_floats;
        float best = -RADBOX_INFINITY, sum = 0.0f;
        for (int s = 0; s < slice_count; ++s) best = fmaxf(best, parts[s * slice_floats]);
        if (best != -RADBOX_INFINITY)
            for (int s = 0; s < slice_count; ++s)
                sum += parts[s * slice_floats + 1] * expf(parts[s * slice_floats] - best);
        greatest[h] = best;
        share[h] = sum > 0.0f ? 1.0f / (sum * static_cast<float>(heads)) : 0.0f;
    }
    __syncthreads();
    const int t = blockIdx.x * kThreads + threadIdx.x;
    if (t >= image_tokens) return;
    float sum = 0.0f;
    for (int h = 0; h < heads; ++h)
        if (share[h] > 0.0f) sum += expf(scores[static_cast<size_t>(h) * image_tokens + t] - greatest[h]) * share[h];
    maps[static_cast<size_t>(blockIdx.y) * image_tokens + t] = sum;
}

}  // namespace radbox
