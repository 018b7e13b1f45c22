// The fused decoder step and the image's keys and values, cut into stages whose items the threads share.
//
// Every item is computed the same way whoever takes it, so the number of threads changes no bit. What a stage's items
// have in common (LayerNorm and quantised input) each thread computes for itself once: cheaper than waiting for another.
#pragma once

#include "attention_q8.h"

namespace radbox {
namespace {

constexpr float kEpsilon = 1e-5f;  // of every LayerNorm

inline void report(uint32_t *failures, uint32_t failure) {
    if (failure != 0) __atomic_fetch_or(failures, failure, __ATOMIC_RELAXED);
}

// Whether this thread comes to the stage for the first time in this step.
inline bool arrives(Scratch &scratch, uint64_t serial, int64_t stage) {
    if (scratch.prepared_serial == serial && scratch.prepared_stage == stage) return false;
    scratch.prepared_serial = serial, scratch.prepared_stage = stage;
    return true;
}

// layer_norm of a row of `width`, then zeros to `padded_width`; the bits of its greatest magnitude.
inline int32_t normalised_row(const Sizes &sizes, const float *x, const float *weight, const float *bias, float *to) {
    for (int64_t i = sizes.width; i < sizes.padded_width; ++i) to[i] = 0.0f;
    return layer_norm(x, weight, bias, sizes.width, kEpsilon, to);
}

inline void normalised_inputs(const StepPlan &plan, const float *weight, const float *bias, const Matrix &matrix,
                              Scratch &scratch) {
    for (int64_t b = 0; b < plan.count; ++b) {
        const int32_t most_bits = normalised_row(*plan.sizes, plan.sequences[b]->x, weight, bias, scratch.rows[b]);
        if (!quantise_for(matrix, scratch.rows[b], plan.sizes->padded_width, most_bits, scratch.inputs[b]))
            report(plan.failures, kNotFinite);
    }
}

inline void input_pointers(const StepPlan &plan, Scratch &scratch, const Activation **a) {
    for (int64_t b = 0; b < plan.count; ++b) a[b] = &scratch.inputs[b];
}

// Ask for the start of what comes next: a stream that begins cold waits for memory.
inline void fetch(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char *>(from) + at);
}

// Some heads of one layer, for every sequence of the step: slot = head * sequences + sequence. Each part runs over all
// slots before the next begins: the chains of dependent instructions of one slot then overlap with those of the others.
class Heads {
public:
    Heads(const StepPlan &plan, int64_t layer, int64_t first, int64_t heads, Scratch &scratch)
        : plan_(plan), sizes_(*plan.sizes), layer_(layer), first_(first), heads_(heads), scratch_(scratch) {
        one_image_ = true;
        for (int64_t b = 0; b < plan.count; ++b)
            one_image_ = one_image_ && plan.sequences[b]->image == plan.sequences[0]->image;
        for (int64_t slot = 0; slot < slots(); ++slot)
            queries_[slot] = &scratch.queries[slot], shares_[slot] = &scratch.shares[slot];
    }

    void attend() {
        fetch_caches();
        project();
        uint32_t failures = append();
        failures |= look_at_images();
        // After the images: by now the bytes of the new keys and values have left the store buffer.
        failures |= look_at_text();
        report(plan_.failures, failures);
    }

private:
    int64_t slots() const { return heads_ * plan_.count; }
    Sequence &sequence(int64_t slot) const { return *plan_.sequences[slot % plan_.count]; }
    int64_t head(int64_t slot) const { return first_ + slot / plan_.count; }
    int64_t cache_index(int64_t slot) const { return layer_ * sizes_.heads + head(slot); }
    const Cache &text(int64_t slot) const { return sequence(slot).caches[cache_index(slot)]; }
    const Cache &image(int64_t slot) const { return sequence(slot).image->caches[cache_index(slot)]; }

    void fetch_caches() const {
        for (int64_t slot = 0; slot < slots(); ++slot) {
            const Cache &cache = text(slot);
            const int64_t length = sequence(slot).length;
            fetch(cache.keys + length / kBlockRows * sizes_.key_block_bytes, sizes_.key_block_bytes);
            fetch(cache.values + length / 4 * 128, 128);
            fetch(cache.value_scales, 256);
            fetch(image(slot).keys, kStreamStart);
            fetch(image(slot).values, kStreamStart);
        }
    }

    void project() {
        const Matrix &matrix = plan_.layers[layer_].qkv;
        const Activation *inputs[kGreatestBatch];
        input_pointers(plan_, scratch_, inputs);
        for (int64_t head = 0; head < heads_; ++head)
            for (int64_t block = 0; block < sizes_.qkv_blocks; ++block) {
                const int64_t first_block = (first_ + head) * sizes_.qkv_blocks;
                block_product(matrix, first_block + block, inputs, plan_.count, [&](int64_t b, int64_t row, F values) {
                    store(scratch_.rows[head * plan_.count + b] + row - first_block * kBlockRows, values);
                });
            }
    }

    // Part 0 (query), 1 (key) or 2 (value) of a slot's row, in int8.
    bool quantise_part(int64_t slot, int64_t part, Activation &out) {
        const float *from = scratch_.rows[slot] + part * sizes_.head_width;
        if (sizes_.head_inputs == sizes_.head_width) return quantise(from, sizes_.head_width, out);
        float *space = scratch_.scores[slot];
        memset(space, 0, static_cast<size_t>(sizes_.head_inputs) * sizeof(float));
        memcpy(space, from, static_cast<size_t>(sizes_.head_width) * sizeof(float));
        return quantise(space, sizes_.head_inputs, out);
    }

    uint32_t append() {
        bool finite = true;
        for (int64_t slot = 0; slot < slots(); ++slot) {
            const Cache &cache = text(slot);
            const int64_t length = sequence(slot).length;
            Activation &part = scratch_.shares[slot];
            finite = quantise_part(slot, 1, part) && finite;
            store_key(sizes_, cache, length, part);
            finite = quantise_part(slot, 2, part) && finite;
            store_value(sizes_, cache, padded(sizes_.positions, 16), length, part.values);
            cache.value_scales[length] = part.scale;
            finite = quantise_part(slot, 0, scratch_.queries[slot]) && finite;
        }
        return finite ? 0u : kNotFinite;
    }

    uint32_t look_at_images() {
        const int64_t step = one_image_ ? plan_.count : 1;
        uint32_t failures = 0;
        float most[kGreatestBatch];
        for (int64_t slot = 0; slot < slots(); slot += step) {
            const Image &seen = *sequence(slot).image;
            if (!scores_of(sizes_, image(slot), seen.tokens, queries_ + slot, step,
                           seen.bias + layer_ * seen.padded_tokens, scratch_.scores + slot, most + slot))
                failures = kNotFinite;
        }
        for (int64_t slot = 0; slot < slots(); ++slot) {
            const Image &seen = *sequence(slot).image;
            failures |= share_image(scratch_.scores[slot], most[slot], padded(seen.tokens, 16), scratch_.shares[slot]);
            keep_shares(slot);
        }
        if (failures != 0) return failures;
        for (int64_t slot = 0; slot < slots(); slot += step) {
            const Image &seen = *sequence(slot).image;
            float *outputs[kGreatestBatch];
            for (int64_t b = 0; b < step; ++b)
                outputs[b] = sequence(slot + b).cross + head(slot) * sizes_.head_width;
            mix_values(sizes_, image(slot), seen.padded_tokens, padded(seen.tokens, 16) / 4, shares_ + slot, step, true,
                       outputs);
        }
        return 0;
    }

    // A slot's part of its sequence's map.
    void keep_shares(int64_t slot) const {
        const Sequence &to = sequence(slot);
        if (to.shares == nullptr) return;
        const Activation &shares = scratch_.shares[slot];
        memcpy(to.shares + cache_index(slot) * to.image->padded_tokens, shares.values, static_cast<size_t>(to.image->tokens));
        to.share_sums[cache_index(slot)] = shares.sum;
    }

    uint32_t look_at_text() {
        bool finite = true;
        float most[kGreatestBatch];
        for (int64_t slot = 0; slot < slots(); ++slot)
            finite = scores_of(sizes_, text(slot), sequence(slot).length + 1, queries_ + slot, 1, nullptr,
                               scratch_.scores + slot, most + slot) && finite;
        for (int64_t slot = 0; slot < slots(); ++slot)
            finite = share_text(text(slot), sequence(slot).length + 1, most[slot], scratch_.scores[slot],
                                scratch_.shares[slot]) && finite;
        for (int64_t slot = 0; slot < slots(); ++slot) {
            float *outputs[1] = {sequence(slot).self + head(slot) * sizes_.head_width};
            mix_values(sizes_, text(slot), padded(sizes_.positions, 16), padded(sequence(slot).length + 1, 16) / 4,
                       shares_ + slot, 1, false, outputs);
        }
        return finite ? 0u : kNotFinite;
    }

    static constexpr int64_t kStreamStart = 4096;

    const StepPlan &plan_;
    const Sizes &sizes_;
    const int64_t layer_, first_, heads_;
    Scratch &scratch_;
    bool one_image_;
    const Activation *queries_[kGreatestBatch], *shares_[kGreatestBatch];
};

// Heads first..last - 1, as many at once as there is scratch for.
inline void attend(const StepPlan &plan, int64_t layer, int64_t first, int64_t last, Scratch &scratch) {
    const int64_t at_once = kGreatestBatch / plan.count;
    for (int64_t head = first; head < last; head += at_once)
        Heads(plan, layer, head, last - head < at_once ? last - head : at_once, scratch).attend();
}

// The gate between both attentions: a + tanh(gate_weight . a + gate_bias) * gate_scale * c.
inline void gated_inputs(const StepPlan &plan, const LayerPlan &weights, Scratch &scratch) {
    const int64_t width = plan.sizes->padded_width;
    for (int64_t b = 0; b < plan.count; ++b) {
        const float *a = plan.sequences[b]->self, *c = plan.sequences[b]->cross;
        const float opening = dot(weights.gate_weight, a, width) + weights.gate_bias;
        const float gate = hyperbolic_tangent(opening) * weights.gate_scale;
        I most = every(int32_t{0});
        for (int64_t i = 0; i < width; i += 16) {
            const F mixed = fused(every(gate), load(c + i), load(a + i));
            most = greater(most, bits(mixed) & every(kMagnitude));
            store(scratch.rows[b] + i, mixed);
        }
        if (!quantise_for(weights.out, scratch.rows[b], width, greatest(most), scratch.inputs[b]))
            report(plan.failures, kNotFinite);
    }
}

inline void prepare(const StepPlan &plan, Stage stage, int64_t layer, Scratch &scratch) {
    const LayerPlan &weights = plan.layers[layer < plan.sizes->layers ? layer : 0];
    switch (stage) {
        case kAttend: return normalised_inputs(plan, weights.norm1_weight, weights.norm1_bias, weights.qkv, scratch);
        case kOut: return gated_inputs(plan, weights, scratch);
        case kUp: return normalised_inputs(plan, weights.norm2_weight, weights.norm2_bias, weights.up, scratch);
        case kDown:
            for (int64_t b = 0; b < plan.count; ++b)
                if (!quantise_for(weights.down, plan.sequences[b]->hidden, plan.sizes->padded_ffn,
                                  greatest_magnitude_bits(plan.sequences[b]->hidden, plan.sizes->padded_ffn),
                                  scratch.inputs[b]))
                    report(plan.failures, kNotFinite);
            return;
        case kHead: return normalised_inputs(plan, plan.norm_weight, plan.norm_bias, plan.head, scratch);
    }
}

// x += matrix inputs
inline void add_product(const StepPlan &plan, const Matrix &matrix, const Activation *const *a, int64_t block) {
    block_product(matrix, block, a, plan.count, [&](int64_t b, int64_t row, F values) {
        float *x = plan.sequences[b]->x + row;
        store(x, load(x) + values);
    });
}

inline void run_step(const StepPlan &plan, Stage stage, int64_t layer, int64_t first, int64_t last, Scratch &scratch) {
    if (arrives(scratch, plan.serial, layer * 5 + stage)) prepare(plan, stage, layer, scratch);
    const LayerPlan &weights = plan.layers[layer < plan.sizes->layers ? layer : 0];
    const Activation *a[kGreatestBatch];
    input_pointers(plan, scratch, a);
    if (stage == kAttend) return attend(plan, layer, first, last, scratch);
    I greatest_output = every(int32_t{0});  // where what follows would hide an overflow: before GELU, and at the end
    for (int64_t item = first; item < last; ++item) switch (stage) {
            case kAttend: break;
            case kOut: add_product(plan, weights.out, a, item); break;
            case kUp:
                block_product(weights.up, item, a, plan.count, [&](int64_t b, int64_t row, F values) {
                    greatest_output = greater(greatest_output, bits(values) & every(kMagnitude));
                    store(plan.sequences[b]->hidden + row, gelu_tanh(values));
                });
                break;
            case kDown: add_product(plan, weights.down, a, item); break;
            case kHead:
                block_product(plan.head, item, a, plan.count, [&](int64_t b, int64_t row, F values) {
                    greatest_output = greater(greatest_output, bits(values) & every(kMagnitude));
                    store(plan.sequences[b]->logits + row, values);
                });
                break;
        }
    if (greatest(greatest_output) >= kInfinityBits) report(plan.failures, kNotFinite);
}

// Up to eight image tokens, from row `first` on: through `matrix` into rows of `padded_width` or to `finish`.
template <typename Row, typename Finish>
inline void token_products(const ImagePlan &plan, int64_t first, const Matrix &matrix, int64_t width, Row row,
                           Scratch &scratch, Finish finish) {
    const int64_t count = plan.tokens - first < kGreatestBatch ? plan.tokens - first : kGreatestBatch;
    const Activation *a[kGreatestBatch];
    for (int64_t b = 0; b < count; ++b) {
        const int32_t most_bits = row(first + b, scratch.rows[b]);
        if (!quantise_for(matrix, scratch.rows[b], width, most_bits, scratch.inputs[b])) report(plan.failures, kNotFinite);
        a[b] = &scratch.inputs[b];
    }
    for (int64_t block = 0; block < matrix.block_count; ++block)
        block_product(matrix, block, a, count, [&](int64_t b, int64_t at, F values) { finish(b, at, values); });
}

inline void vis(const ImagePlan &plan, int64_t first, Scratch &scratch) {
    const Sizes &sizes = *plan.sizes;
    const auto row = [&](int64_t token, float *to) {
        memset(to, 0, static_cast<size_t>(sizes.padded_channels) * sizeof(float));
        memcpy(to, plan.tokens_in + token * sizes.channels, static_cast<size_t>(sizes.channels) * sizeof(float));
        return greatest_magnitude_bits(to, sizes.channels);
    };
    token_products(plan, first, plan.vis, sizes.padded_channels, row, scratch, [&](int64_t b, int64_t at, F values) {
        store(plan.vis_rows + (first + b) * sizes.padded_width + at, values);
    });
}

inline void keys_and_values(const ImagePlan &plan, int64_t layer, int64_t first, Scratch &scratch) {
    const Sizes &sizes = *plan.sizes;
    const LayerPlan &weights = plan.layers[layer];
    const auto row = [&](int64_t token, float *to) {
        return normalised_row(sizes, plan.vis_rows + token * sizes.padded_width, weights.norm1_weight, weights.norm1_bias,
                              to);
    };
    // Keys come first, values after `padded_width` rows; scratch.scores holds a token's keys until they are whole.
    token_products(plan, first, weights.kv, sizes.padded_width, row, scratch, [&](int64_t b, int64_t at, F values) {
        if (at < sizes.padded_width)
            store(scratch.scores[b] + at, values);
        else
            store(plan.value_rows + (first + b) * sizes.padded_width + at - sizes.padded_width, values);
    });
    for (int64_t b = 0; b < kGreatestBatch && first + b < plan.tokens; ++b)
        for (int64_t head = 0; head < sizes.heads; ++head) {
            float *key = scratch.rows[b];
            memset(key, 0, static_cast<size_t>(sizes.head_inputs) * sizeof(float));
            memcpy(key, scratch.scores[b] + head * sizes.head_width, static_cast<size_t>(sizes.head_width) * sizeof(float));
            if (!quantise(key, sizes.head_inputs, scratch.shares[b])) report(plan.failures, kNotFinite);
            store_key(sizes, plan.caches[layer * sizes.heads + head], first + b, scratch.shares[b]);
        }
}

// One head's values: a scale per channel over all tokens.
inline void pack_values(const ImagePlan &plan, int64_t layer, int64_t head, Scratch &scratch) {
    const Sizes &sizes = *plan.sizes;
    const Cache &cache = plan.caches[layer * sizes.heads + head];
    const float *rows = plan.value_rows + head * sizes.head_width;
    float *inverses = scratch.rows[0];
    int8_t *bytes = scratch.shares[0].values;
    for (int64_t c = 0; c < sizes.head_width; c += 16) {
        const int64_t left = sizes.head_width - c;
        I most = every(int32_t{0});
        for (int64_t t = 0; t < plan.tokens; ++t)
            most = greater(most, bits(load_some(rows + t * sizes.padded_width + c, left)) & every(kMagnitude));
        if (greatest(most) >= kInfinityBits) return report(plan.failures, kNotFinite);
        const F magnitude = from_bits(most), zero = every(0.0f), least = every(kLeastScaled);
        store(inverses + c, where_less(magnitude, least, zero, every(127.0f) / greater(magnitude, least)));
        store(cache.value_scales + c, where_less(magnitude, least, zero, magnitude * every(1.0f / 127.0f)));
    }
    for (int64_t t = 0; t < plan.tokens; ++t) {
        for (int64_t c = 0; c < sizes.head_width; c += 16)
            store_int8(bytes + c, rounded(load_some(rows + t * sizes.padded_width + c, sizes.head_width - c) *
                                          load_some(inverses + c, sizes.head_width - c)));
        store_value(sizes, cache, plan.padded_tokens, t, bytes);
    }
}

inline void run_image(const ImagePlan &plan, ImageStage stage, int64_t layer, int64_t first, int64_t last,
                      Scratch &scratch) {
    for (int64_t item = first; item < last; ++item) switch (stage) {
            case kVis: vis(plan, item * kGreatestBatch, scratch); break;
            case kKeysAndValues: keys_and_values(plan, layer, item * kGreatestBatch, scratch); break;
            case kPackValues: pack_values(plan, layer, item, scratch); break;
        }
}

constexpr Quantised kQuantised = {
    run_step, run_image, linear, quantise_rows, self_attention_of_head, cross_attention_of_head,
};

}  // namespace
}  // namespace radbox
