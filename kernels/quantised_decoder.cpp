// The decoder over int8 and int4 weights: one call per token, whose stages (stages.h) the threads share.
//
// This file holds memory and order; the arithmetic is the set's. edge/reading/ops/reference_quantised.py defines it.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "decoder.h"
#include "pool.h"
#include "quantised_model.h"
#include "scratch.h"

namespace radbox {
namespace {

constexpr int64_t kGreatestCacheBytes = int64_t{1} << 31;  // of all images, and of all sequences: no box has more

// Keys and values of every head of every layer for up to `tokens` tokens.
struct HeadCaches {
    std::vector<Cache> caches;
    Aligned<uint8_t> keys, values;
    Aligned<float> scales;

    void allocate(const Sizes &sizes, int64_t key_tokens, int64_t value_tokens, int64_t value_scales,
                  int64_t greatest_bytes) {
        const int64_t heads = sizes.layers * sizes.heads;
        const int64_t key_bytes = padded(key_tokens, kBlockRows) / kBlockRows * sizes.key_block_bytes;
        const int64_t value_bytes = sizes.head_blocks * kBlockRows * value_tokens;
        if (heads * (key_bytes + value_bytes) > greatest_bytes) throw std::bad_alloc();
        keys = zeros<uint8_t>(heads * key_bytes), values = zeros<uint8_t>(heads * value_bytes);
        scales = zeros<float>(heads * value_scales);
        caches.resize(at(heads));
        for (int64_t head = 0; head < heads; ++head)
            caches[at(head)] = {keys.get() + head * key_bytes, values.get() + head * value_bytes,
                                scales.get() + head * value_scales};
    }
};

struct ImageState {
    HeadCaches heads;
    Aligned<float> bias;
    Image plan{};
    int64_t padded_tokens = 0;  // that there is memory for
};

struct SequenceState {
    HeadCaches heads;
    Aligned<float> floats;
    std::vector<int8_t> shares;
    std::vector<int32_t> share_sums;
    Sequence plan{};
    int64_t image = -1;
};

class QuantisedDecoder final : public radbox_decoder {
public:
    QuantisedDecoder(const Operators &operators_, const radbox_decoder_shape &shape_, const radbox_decoder_limits &limits,
                     std::unique_ptr<QuantisedModel> model)
        : radbox_decoder(shape_, operators_, limits.images, limits.sequences),
          model_(std::move(model)),
          sizes_(model_->sizes),
          set_(*operators_.quantised),
          pool_(limits.threads),
          images_(at(limits.images)),
          sequences_(at(limits.sequences)) {
        for (SequenceState &sequence : sequences_) allocate(sequence);
        grow_scratch(0);
        for (int64_t layer = 0; layer < sizes_.layers; ++layer)
            for (const int64_t items : {sizes_.heads, sizes_.padded_width / kBlockRows, sizes_.padded_ffn / kBlockRows,
                                        sizes_.padded_width / kBlockRows})
                step_items_.push_back(items);
        step_items_.push_back(model_->head.block_count);
    }

    int begin(int64_t image, const float *tokens, const float *bias, int64_t image_tokens) override {
        for (SequenceState &sequence : sequences_)
            if (sequence.image == image) sequence.image = -1;
        ImageState &state = images_[at(image)];
        state.plan = {};
        if (const int status = check_bias(bias, image_tokens); status != RADBOX_OK) return status;
        allocate(state, image_tokens);
        const int64_t padded_tokens = padded(image_tokens, kBlockRows);
        grow_scratch(padded_tokens);
        Aligned<float> vis_rows = zeros<float>(image_tokens * sizes_.padded_width);
        Aligned<float> value_rows = zeros<float>(image_tokens * sizes_.padded_width);
        uint32_t failures = 0;
        image_plan_ = {&sizes_,        model_->layers.data(),    model_->vis,  tokens,        vis_rows.get(),
                       value_rows.get(), state.heads.caches.data(), image_tokens, padded_tokens, &failures, ++serial_};
        const int64_t eights = padded(image_tokens, kGreatestBatch) / kGreatestBatch;
        std::vector<int64_t> items{eights};
        for (int64_t layer = 0; layer < sizes_.layers; ++layer) items.insert(items.end(), {eights, sizes_.heads});
        pool_.run(items.data(), static_cast<int64_t>(items.size()), &QuantisedDecoder::work_on_image, this);
        if (failures != 0) return failed(failures);
        for (int64_t layer = 0; layer < sizes_.layers; ++layer)
            std::copy(bias + layer * image_tokens, bias + (layer + 1) * image_tokens,
                      state.bias.get() + layer * padded_tokens);
        state.plan = {state.heads.caches.data(), state.bias.get(), image_tokens, padded_tokens};
        return RADBOX_OK;
    }

    int start(int64_t sequence, int64_t image) override {
        SequenceState &state = sequences_[at(sequence)];
        state.image = -1;
        const Image &plan = images_[at(image)].plan;
        if (plan.tokens == 0)
            return fail(RADBOX_WRONG_STATE, "expected an image's begin before a sequence on it, got none");
        look_at(state, image);
        state.plan.length = 0;
        return RADBOX_OK;
    }

    int copy(int64_t from, int64_t to) override {
        SequenceState &source = sequences_[at(from)], &target = sequences_[at(to)];
        if (from == to) return RADBOX_OK;
        if (source.image < 0) return fail(RADBOX_WRONG_STATE, "expected a sequence with an image to copy, got none");
        look_at(target, source.image);
        const int64_t tokens = source.plan.length;
        const int64_t key_bytes = padded(tokens, kBlockRows) / kBlockRows * sizes_.key_block_bytes;
        const int64_t stride = kBlockRows * padded(sizes_.positions, 16), used = padded(tokens, 4) / 4 * 128;
        for (size_t head = 0; head < source.heads.caches.size(); ++head) {
            const Cache &in = source.heads.caches[head], &out = target.heads.caches[head];
            std::memcpy(out.keys, in.keys, at(key_bytes));
            for (int64_t block = 0; block < sizes_.head_blocks; ++block)
                std::memcpy(out.values + block * stride, in.values + block * stride, at(used));
            std::memcpy(out.value_scales, in.value_scales, at(tokens) * sizeof(float));
        }
        target.plan.length = tokens;
        return RADBOX_OK;
    }

    int64_t image_tokens(int64_t sequence) const override {
        const int64_t image = sequences_[at(sequence)].image;
        return image < 0 ? 0 : images_[at(image)].plan.tokens;
    }

    int step(int64_t count, const int32_t *tokens, const int32_t *sequences, float *logits, float *attention) override {
        const bool direct = sizes_.vocabulary % kBlockRows == 0;  // the head writes whole blocks of 32
        for (int64_t b = 0; b < count; ++b) {
            SequenceState &state = sequences_[at(sequences[b])];
            if (state.image < 0) return fail(RADBOX_WRONG_STATE, "expected radbox_decoder_begin_f32 before a step, got none");
            if (state.plan.length == shape.positions)
                return fail(RADBOX_WRONG_STATE, "expected at most %d steps, got one more", shape.positions);
            const float *embed = model_->embed.data() + tokens[b] * sizes_.width;
            const float *position = model_->positions.data() + state.plan.length * sizes_.width;
            for (int64_t i = 0; i < sizes_.width; ++i) state.plan.x[i] = embed[i] + position[i];
            state.plan.logits = direct ? logits + b * sizes_.vocabulary : own_logits(state);
            state.plan.shares = attention != nullptr ? state.shares.data() : nullptr;
            step_plan_.sequences[b] = &state.plan;
        }
        uint32_t failures = 0;
        step_plan_.sizes = &sizes_, step_plan_.layers = model_->layers.data(), step_plan_.head = model_->head;
        step_plan_.norm_weight = model_->norm_weight.data(), step_plan_.norm_bias = model_->norm_bias.data();
        step_plan_.count = count, step_plan_.failures = &failures, step_plan_.serial = ++serial_;
        pool_.run(step_items_.data(), static_cast<int64_t>(step_items_.size()), &QuantisedDecoder::work_on_step, this);
        if (failures != 0) return failed(failures);
        for (int64_t b = 0; b < count; ++b) {
            Sequence &plan = *step_plan_.sequences[b];
            ++plan.length;
            if (!direct) std::copy(plan.logits, plan.logits + sizes_.vocabulary, logits + b * sizes_.vocabulary);
            if (attention != nullptr) average_shares(plan, attention + b * sizes_.layers * plan.image->tokens);
        }
        return RADBOX_OK;
    }

private:
    static void work_on_step(void *self, int64_t stage, int64_t first, int64_t last, int thread) {
        QuantisedDecoder &decoder = *static_cast<QuantisedDecoder *>(self);
        const int64_t layer = stage / kHead;
        const auto part = layer == decoder.sizes_.layers ? kHead : static_cast<Stage>(stage % kHead);
        decoder.set_.run_step(decoder.step_plan_, part, layer, first, last, decoder.scratch_[at(thread)].scratch);
    }

    static void work_on_image(void *self, int64_t stage, int64_t first, int64_t last, int thread) {
        QuantisedDecoder &decoder = *static_cast<QuantisedDecoder *>(self);
        const int64_t layer = (stage - 1) / 2;
        const ImageStage part = stage == 0 ? kVis : (stage % 2 == 1 ? kKeysAndValues : kPackValues);
        decoder.set_.run_image(decoder.image_plan_, part, layer, first, last, decoder.scratch_[at(thread)].scratch);
    }

    static int failed(uint32_t failures) {
        if ((failures & kNotFinite) != 0)
            return fail(RADBOX_NOT_FINITE, "expected finite numbers in the decoder, got NaN, infinity or an overflow");
        return fail(RADBOX_NOTHING_ALLOWED,
                    "expected at least one visible key in gated_cross_attention_q8, got a bias of -inf on all");
    }

    int check_bias(const float *bias, int64_t image_tokens) const {
        for (int64_t i = 0; i < sizes_.layers * image_tokens; ++i)
            if (!(bias[i] < std::numeric_limits<float>::infinity())) return failed(kNotFinite);
        return RADBOX_OK;
    }

    void allocate(SequenceState &state) {
        const int64_t tokens = padded(sizes_.positions, kBlockRows), heads = sizes_.layers * sizes_.heads;
        state.heads.allocate(sizes_, tokens, padded(sizes_.positions, 16), tokens, kGreatestCacheBytes / sequence_count);
        state.floats = zeros<float>(3 * sizes_.padded_width + sizes_.padded_ffn + model_->head.block_count * kBlockRows);
        float *floats = state.floats.get();
        state.plan.caches = state.heads.caches.data();
        state.plan.x = floats, state.plan.self = floats + sizes_.padded_width;
        state.plan.cross = floats + 2 * sizes_.padded_width, state.plan.hidden = floats + 3 * sizes_.padded_width;
        state.share_sums.resize(at(heads));
        state.plan.share_sums = state.share_sums.data();
    }

    float *own_logits(SequenceState &state) const {
        return state.floats.get() + 3 * sizes_.padded_width + sizes_.padded_ffn;
    }

    // Memory of an image grows with its tokens and is kept for the next one.
    void allocate(ImageState &state, int64_t image_tokens) {
        const int64_t tokens = padded(image_tokens, kBlockRows);
        if (state.padded_tokens != tokens) {
            state = {};  // first, for want of memory for both; and so that a failure leaves nothing half made
            state.heads.allocate(sizes_, tokens, tokens, kBlockRows * sizes_.head_blocks,
                                 kGreatestCacheBytes / image_count);
            state.bias = zeros<float>(sizes_.layers * tokens);
            state.padded_tokens = tokens;
        }
        std::fill_n(state.bias.get(), sizes_.layers * tokens, -std::numeric_limits<float>::infinity());
    }

    void grow_scratch(int64_t tokens) {
        if (!scratch_.empty() && tokens <= scratch_tokens_) return;
        const int64_t scores = std::max(tokens, padded(sizes_.positions, kBlockRows));
        const int64_t row = std::max({sizes_.padded_width, sizes_.padded_ffn, sizes_.padded_channels,
                                      sizes_.qkv_blocks * kBlockRows});
        std::vector<ScratchMemory> grown;  // memory that runs out halfway leaves the old ones
        for (int thread = 0; thread < pool_.threads(); ++thread) grown.emplace_back(row, scores);
        scratch_ = std::move(grown), scratch_tokens_ = scores;
    }

    void look_at(SequenceState &state, int64_t image) {
        state.image = image;
        state.plan.image = &images_[at(image)].plan;
        state.shares.resize(at(sizes_.layers * sizes_.heads * state.plan.image->padded_tokens));
    }

    // attention (layers, image tokens): the softmax averaged over the heads
    void average_shares(const Sequence &plan, float *attention) const {
        const Image &image = *plan.image;
        for (int64_t layer = 0; layer < sizes_.layers; ++layer) {
            float *map = attention + layer * image.tokens;
            std::fill_n(map, image.tokens, 0.0f);
            for (int64_t head = 0; head < sizes_.heads; ++head) {
                const int64_t index = layer * sizes_.heads + head;
                const int8_t *shares = plan.shares + index * image.padded_tokens;
                const float one = 1.0f / (static_cast<float>(plan.share_sums[index]) * static_cast<float>(sizes_.heads));
                for (int64_t token = 0; token < image.tokens; ++token) map[token] += static_cast<float>(shares[token]) * one;
            }
        }
    }

    const std::unique_ptr<QuantisedModel> model_;
    const Sizes sizes_;
    const Quantised &set_;
    Pool pool_;
    std::vector<ImageState> images_;
    std::vector<SequenceState> sequences_;
    std::vector<ScratchMemory> scratch_;  // one per thread
    std::vector<int64_t> step_items_;
    int64_t scratch_tokens_ = 0;
    StepPlan step_plan_{};
    ImagePlan image_plan_{};
    uint64_t serial_ = 0;
};

}  // namespace

int make_quantised_decoder(const Operators &operators, const radbox_decoder_shape &shape,
                           const radbox_decoder_limits &limits, const radbox_weights &weights, radbox_decoder **decoder) {
    auto model = std::make_unique<QuantisedModel>(shape, weights);
    if (model->status != RADBOX_OK) return model->status;
    *decoder = new QuantisedDecoder(operators, shape, limits, std::move(model));
    return RADBOX_OK;
}

}  // namespace radbox
