// The decoder step as a composition of one set's operators: what a fused step is later compared with.
//
// Hybrid decoder layer of EMRRG (arXiv 2510.16776, figure 2) with the layer-wise anatomical bias of arXiv 2512.16841;
// edge/reading/ops/reference.py, decode_step, holds the equations.
#include "decoder.h"

#include <memory>
#include <string>
#include <vector>

#include "weights.h"

namespace radbox {
namespace {

constexpr float kEpsilon = 1e-5f;  // of every LayerNorm

Floats joined(std::initializer_list<Floats> parts) {
    Floats all;
    for (const Floats &part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
}

struct Layer {
    Floats norm1_weight, norm1_bias, qkv_weight, qkv_bias, kv_weight, kv_bias, gate_weight, gate_bias, gate_scale;
    Floats out_weight, out_bias, norm2_weight, norm2_bias, up_weight, up_bias, down_weight, down_bias;
    Floats self_keys, self_values;    // (positions, width)
    Floats cross_keys, cross_values;  // (image_tokens, width)

    Layer(Weights &weights, const std::string &prefix, const radbox_decoder_shape &shape) {
        const int64_t d = shape.width, ffn = shape.ffn;
        const auto take = [&](const char *name, int64_t rows, int64_t columns = 1) {
            return weights.take(prefix + name, rows, columns);
        };
        norm1_weight = take("norm1.weight", d), norm1_bias = take("norm1.bias", d);
        qkv_weight = joined({take("q.weight", d, d), take("k.weight", d, d), take("v.weight", d, d)});
        qkv_bias = joined({take("q.bias", d), take("k.bias", d), take("v.bias", d)});
        kv_weight = take("kv.weight", 2 * d, d), kv_bias = take("kv.bias", 2 * d);
        gate_weight = take("gate.weight", 1, d), gate_bias = take("gate.bias", 1), gate_scale = take("gate_scale", 1);
        out_weight = take("out.weight", d, d), out_bias = take("out.bias", d);
        norm2_weight = take("norm2.weight", d), norm2_bias = take("norm2.bias", d);
        up_weight = take("up.weight", ffn, d), up_bias = take("up.bias", ffn);
        down_weight = take("down.weight", d, ffn), down_bias = take("down.bias", d);
        self_keys.resize(at(int64_t{shape.positions} * d)), self_values.resize(self_keys.size());
    }
};

class ComposedDecoder final : public radbox_decoder {
public:
    ComposedDecoder(const Operators &operators_, const radbox_decoder_shape &shape_, Weights &weights)
        : radbox_decoder(shape_, operators_, 1, 1) {
        const int64_t d = shape.width;
        vis_weight = weights.take("vis.weight", d, shape.channels), vis_bias = weights.take("vis.bias", d);
        embed = weights.take("embed.weight", shape.vocabulary, d);
        positions = weights.take("position.weight", shape.positions, d);
        for (int32_t l = 0; l < shape.layers && weights.status == RADBOX_OK; ++l)
            layers.emplace_back(weights, "layers." + std::to_string(l) + ".", shape);
        norm_weight = weights.take("norm.weight", d), norm_bias = weights.take("norm.bias", d);
        head_weight = weights.take("head.weight", shape.vocabulary, d);
        head_bias = weights.take("head.bias", shape.vocabulary);
        x.resize(at(d)), h.resize(at(d)), qkv.resize(at(3 * d)), a.resize(at(d)), y.resize(at(d));
        hidden.resize(at(shape.ffn)), scores.resize(at(shape.positions));
    }

    int begin(int64_t, const float *tokens, const float *bias_, int64_t image_tokens_) override {
        const int64_t d = shape.width, n = image_tokens_;
        length = keys_count = 0;  // until all of it succeeded, a step is refused
        Floats vis(at(n * d)), v(at(n * d));
        int status = operators.linear_f32(tokens, vis_weight.data(), vis_bias.data(), n, shape.channels, d, vis.data());
        for (size_t l = 0; status == RADBOX_OK && l < layers.size(); ++l) {
            Layer &layer = layers[l];
            layer.cross_keys.resize(at(n * d)), layer.cross_values.resize(at(n * d));
            status = operators.layer_norm_f32(vis.data(), layer.norm1_weight.data(), layer.norm1_bias.data(), n, d, kEpsilon,
                                        v.data());
            if (status == RADBOX_OK)
                status = operators.linear_f32(v.data(), layer.kv_weight.data(), layer.kv_bias.data(), n, d, d,
                                        layer.cross_keys.data());
            if (status == RADBOX_OK)
                status = operators.linear_f32(v.data(), layer.kv_weight.data() + d * d, layer.kv_bias.data() + d, n, d, d,
                                        layer.cross_values.data());
        }
        if (status != RADBOX_OK) return status;
        bias.assign(bias_, bias_ + shape.layers * n);
        if (at(n) > scores.size()) scores.resize(at(n));
        keys_count = n;
        return RADBOX_OK;
    }

    int start(int64_t, int64_t) override {
        length = 0;
        return RADBOX_OK;
    }

    int copy(int64_t, int64_t) override { return RADBOX_OK; }

    int64_t image_tokens(int64_t) const override { return keys_count; }

    int step(int64_t, const int32_t *tokens, const int32_t *, float *logits, float *attention) override {
        const int64_t d = shape.width, token = tokens[0];
        if (keys_count == 0) return fail(RADBOX_WRONG_STATE, "expected radbox_decoder_begin_f32 before a step, got none");
        if (length == shape.positions)
            return fail(RADBOX_WRONG_STATE, "expected at most %d steps, got one more", shape.positions);
        for (int64_t i = 0; i < d; ++i) x[at(i)] = embed[at(token * d + i)] + positions[at(length * d + i)];
        for (int64_t l = 0; l < shape.layers; ++l) {
            const int status = run(layers[at(l)], bias.data() + l * keys_count,
                                   attention == nullptr ? nullptr : attention + l * keys_count);
            if (status != RADBOX_OK) return status;
        }
        int status = operators.layer_norm_f32(x.data(), norm_weight.data(), norm_bias.data(), 1, d, kEpsilon, h.data());
        if (status == RADBOX_OK)
            status = operators.linear_f32(h.data(), head_weight.data(), head_bias.data(), 1, d, shape.vocabulary, logits);
        if (status == RADBOX_OK) ++length;
        return status;
    }

private:
    // x := the layer's output
    int run(Layer &layer, const float *layer_bias, float *attention) {
        const int64_t d = shape.width;
        int status = operators.layer_norm_f32(x.data(), layer.norm1_weight.data(), layer.norm1_bias.data(), 1, d, kEpsilon,
                                        h.data());
        if (status == RADBOX_OK)
            status = operators.linear_f32(h.data(), layer.qkv_weight.data(), layer.qkv_bias.data(), 1, d, 3 * d, qkv.data());
        if (status == RADBOX_OK)
            status = operators.self_attention_step_f32(qkv.data(), qkv.data() + d, qkv.data() + 2 * d, layer.self_keys.data(),
                                                 layer.self_values.data(), length, d, shape.heads, scores.data(),
                                                 a.data());
        if (status == RADBOX_OK)
            status = operators.gated_cross_attention_f32(a.data(), qkv.data(), layer.cross_keys.data(),
                                                   layer.cross_values.data(), layer_bias, layer.gate_weight.data(),
                                                   layer.gate_bias[0], layer.gate_scale[0], keys_count, d,
                                                   shape.heads, scores.data(), y.data(), attention);
        if (status == RADBOX_OK)
            status = operators.linear_f32(y.data(), layer.out_weight.data(), layer.out_bias.data(), 1, d, d, a.data());
        if (status != RADBOX_OK) return status;
        for (int64_t i = 0; i < d; ++i) x[at(i)] += a[at(i)];

        status = operators.layer_norm_f32(x.data(), layer.norm2_weight.data(), layer.norm2_bias.data(), 1, d, kEpsilon,
                                    h.data());
        if (status == RADBOX_OK)
            status = operators.linear_f32(h.data(), layer.up_weight.data(), layer.up_bias.data(), 1, d, shape.ffn,
                                    hidden.data());
        if (status == RADBOX_OK) status = operators.gelu_tanh_f32(hidden.data(), shape.ffn, hidden.data());
        if (status == RADBOX_OK)
            status = operators.linear_f32(hidden.data(), layer.down_weight.data(), layer.down_bias.data(), 1, shape.ffn, d,
                                    a.data());
        if (status != RADBOX_OK) return status;
        for (int64_t i = 0; i < d; ++i) x[at(i)] += a[at(i)];
        return RADBOX_OK;
    }

    Floats vis_weight, vis_bias, embed, positions, norm_weight, norm_bias, head_weight, head_bias;
    std::vector<Layer> layers;
    Floats bias;                            // (layers, image_tokens)
    Floats x, h, qkv, a, y, hidden, scores;  // scratch of one step
    int64_t length = 0, keys_count = 0;
};

}  // namespace

int make_composed_decoder(const Operators &operators, const radbox_decoder_shape &shape,
                          const radbox_tensor_f32 *tensors, int64_t count, radbox_decoder **decoder) {
    Weights weights(tensors, count);
    auto made = std::make_unique<ComposedDecoder>(operators, shape, weights);
    if (weights.status == RADBOX_OK) *decoder = made.release();
    return weights.status;
}

}  // namespace radbox
