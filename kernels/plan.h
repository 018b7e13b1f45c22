// What the baseline code and the units of one instruction set share: plain structs, so that no inline function compiled
// for a newer CPU can end up in code that runs on every CPU. The layout of packed matrices is in pack.h.
#pragma once

#include <stdint.h>

#include "kernels.h"

namespace radbox {

constexpr int kBlockRows = 32;     // rows of a packed matrix that lie together
constexpr int kGroupInputs = 32;   // inputs of an int4 matrix that share a scale
constexpr int kGroupBytes = 576;   // 32 rows x 32 nibbles, then 32 binary16 scales
constexpr int kGreatestBatch = RADBOX_GREATEST_BATCH;
constexpr float kGreatestDecay = 88.0f;  // delta A of a scan: e to a greater power is no float

constexpr int64_t padded(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// A vector in int8. Of an int8 matrix: x[k] = values[k] * scale. Of an int4 one: x[k] = values[k] * group_scales[k / 32].
struct Activation {
    int8_t *values;         // zeros up to the matrix's padded inputs
    float *group_scales;
    int32_t *group_starts;  // -8 times the sum of the group's values: takes the nibbles' offset off
    float scale;
    int32_t sum;            // of all values
};

// A packed matrix of weights; a block is `block_bytes` long and ends with 32 float biases.
struct Matrix {
    const uint8_t *blocks;
    int64_t block_bytes;
    int64_t block_count;
    int64_t inputs;  // padded: a multiple of 16 (int8) or 32 (int4)
    int64_t ahead;   // bytes: how long before its use a weight is asked for
    int32_t bits;    // 8 or 4
};

struct LayerPlan {
    const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias, *gate_weight;  // (width), zeros to a multiple of 32
    float gate_bias, gate_scale;
    Matrix qkv;  // per head: rows of q, then k, then v, padded to whole blocks
    Matrix kv;   // of the image tokens: width rows of keys, then width rows of values
    Matrix out, up, down;
};

// Sizes and strides; "padded" ones in elements.
struct Sizes {
    int64_t vocabulary, width, layers, heads, ffn, positions, channels;
    int64_t head_width, padded_width, padded_ffn, padded_channels;
    int64_t head_inputs;     // head_width padded to 16: inputs of the key matrices
    int64_t head_blocks;     // blocks of 32 channels: rows of the value matrices
    int64_t qkv_blocks;      // blocks of one head in LayerPlan::qkv
    int64_t key_block_bytes;  // 32 keys and their 32 float scales
};

// Keys and values of one layer's head over `tokens` rows, in the layout of packed matrices.
struct Cache {
    uint8_t *keys;        // blocks of 32 tokens x head_inputs, each followed by 32 float scales
    uint8_t *values;      // head_blocks blocks of 32 channels x padded tokens
    float *value_scales;  // image: one per channel (32 head_blocks); self-attention: one per token
};

struct Image {
    const Cache *caches;  // (layers, heads)
    const float *bias;    // (layers, padded_tokens), -inf beyond `tokens`
    int64_t tokens, padded_tokens;  // padded to 32
};

struct Sequence {
    const Image *image;
    const Cache *caches;  // (layers, heads)
    float *x, *self, *cross;  // (padded_width): residual stream, concatenated heads of both attentions
    float *hidden;        // (padded_ffn)
    float *logits;        // (vocabulary padded to 32)
    int8_t *shares;       // (layers, heads, padded_tokens): the softmax over image tokens in 1/127 of its greatest
    int32_t *share_sums;  // (layers, heads)
    int64_t length;       // tokens already in the cache: the position of this one
};

enum Failure : uint32_t { kNotFinite = 1, kNothingAllowed = 2 };

// One step of up to eight sequences.
struct StepPlan {
    const Sizes *sizes;
    const LayerPlan *layers;
    const float *norm_weight, *norm_bias;
    Matrix head;
    Sequence *sequences[kGreatestBatch];
    int64_t count;
    uint32_t *failures;  // Failure bits, set with relaxed atomics
    uint64_t serial;     // of the step: a thread's scratch is prepared once per stage of it
};

// Cross keys and values of one image, once.
struct ImagePlan {
    const Sizes *sizes;
    const LayerPlan *layers;
    Matrix vis;
    const float *tokens_in;  // (tokens, channels)
    float *vis_rows;         // (tokens, padded_width)
    float *value_rows;       // (tokens, padded_width): one layer's values before their scales are known
    const Cache *caches;     // (layers, heads)
    int64_t tokens, padded_tokens;
    uint32_t *failures;
    uint64_t serial;
};

// What one thread needs to itself; arrays of 64-byte alignment.
struct Scratch {
    Activation inputs[kGreatestBatch];   // of the stage's matrix
    Activation queries[kGreatestBatch];  // one head's
    Activation shares[kGreatestBatch];
    float *rows[kGreatestBatch];         // greatest row: 3 heads, width, ffn or channels
    float *scores[kGreatestBatch];       // (greatest of image tokens and positions, padded to 32)
    uint64_t prepared_serial;
    int64_t prepared_stage;
};

// The stages of a step, in order: per layer kAttend, kOut, kUp, kDown, then once kHead. Items: heads or blocks of rows.
enum Stage : int64_t { kAttend, kOut, kUp, kDown, kHead };
// The stages of an image: kVis, then per layer kKeysAndValues and kPackValues. Items: eights of tokens, or heads.
enum ImageStage : int64_t { kVis, kKeysAndValues, kPackValues };

struct Quantised {
    void (*run_step)(const StepPlan &plan, Stage stage, int64_t layer, int64_t first, int64_t last, Scratch &scratch);
    void (*run_image)(const ImagePlan &plan, ImageStage stage, int64_t layer, int64_t first, int64_t last,
                      Scratch &scratch);
    // Single operators, for the C ABI; they return Failure bits.  linear: y (rows, padded rows of the matrix).
    uint32_t (*linear)(const float *x, int64_t inputs, int64_t rows, const Matrix &matrix, Scratch &scratch, float *y);
    uint32_t (*quantise)(const float *x, int64_t width, Activation &out);
    // One head over tokens 0..length, and over an image of one head in one layer; the shares stay in scratch.shares[0].
    uint32_t (*self_attention)(const Sizes &sizes, const Cache &cache, int64_t length, const float *query,
                               Scratch &scratch, float *y);
    uint32_t (*cross_attention)(const Sizes &sizes, const Image &image, const float *query, Scratch &scratch, float *y);
};

}  // namespace radbox
