#include "quantised_model.h"

namespace radbox {

Sizes sizes_of(const radbox_decoder_shape &shape) {
    Sizes sizes{};
    sizes.vocabulary = shape.vocabulary, sizes.width = shape.width, sizes.layers = shape.layers;
    sizes.heads = shape.heads, sizes.ffn = shape.ffn, sizes.positions = shape.positions, sizes.channels = shape.channels;
    sizes.head_width = sizes.width / sizes.heads;
    sizes.padded_width = padded(sizes.width, kBlockRows), sizes.padded_ffn = padded(sizes.ffn, kBlockRows);
    sizes.padded_channels = padded(sizes.channels, kBlockRows);
    sizes.head_inputs = padded(sizes.head_width, 16);
    sizes.head_blocks = padded(sizes.head_width, kBlockRows) / kBlockRows;
    sizes.qkv_blocks = padded(3 * sizes.head_width, kBlockRows) / kBlockRows;
    sizes.key_block_bytes = kBlockRows * (sizes.head_inputs + static_cast<int64_t>(sizeof(float)));
    return sizes;
}

QuantisedModel::QuantisedModel(const radbox_decoder_shape &shape, const radbox_weights &given)
    : sizes(sizes_of(shape)), weights_(given.f32, given.f32_count), given_(given) {
    const int64_t d = sizes.width, padding = sizes.padded_width - d;
    layers.resize(at(sizes.layers)), floats_.resize(at(sizes.layers));
    for (int64_t layer = 0; layer < sizes.layers && weights_.status == RADBOX_OK; ++layer) plan_layer(layer);
    plan(head, {{whole("head", sizes.vocabulary, d)}});
    // Once per image, and so out of the way of what each token reads from end to end.
    plan(vis, {{whole("vis", d, sizes.channels)}});
    for (int64_t layer = 0; layer < sizes.layers && weights_.status == RADBOX_OK; ++layer) {
        RowRun keys = whole("layers." + std::to_string(layer) + ".kv", 2 * d, d), values = keys;
        keys.count = values.first = values.count = d;
        plan(layers[at(layer)].kv, {{keys}, {values}});
    }
    embed = weights_.take("embed.weight", sizes.vocabulary, d);
    positions = weights_.take("position.weight", sizes.positions, d);
    norm_weight = weights_.take("norm.weight", d, 1, padding), norm_bias = weights_.take("norm.bias", d, 1, padding);
    status = weights_.status;
    if (status == RADBOX_OK) packed_ = packer_.pack();
    packer_ = {};
}

Source QuantisedModel::source(const std::string &name, int64_t rows, int64_t columns) {
    if (weights_.status != RADBOX_OK) return {};
    Source found;
    for (int64_t i = 0; i < given_.q8_count; ++i)
        if (name == given_.q8[i].name) found.q8 = given_.q8 + i;
    for (int64_t i = 0; i < given_.q4_count && found.q8 == nullptr; ++i)
        if (name == given_.q4[i].name) found.q4 = given_.q4 + i;
    if (found.q8 == nullptr && found.q4 == nullptr) {
        weights_.status =
            fail(RADBOX_BAD_ARGUMENT, "expected an int8 or int4 matrix named %s, got none", name.c_str());
        return {};
    }
    return weights_.fits(name, found.rows(), found.columns(), rows, columns) ? found : Source{};
}

RowRun QuantisedModel::whole(const std::string &name, int64_t rows, int64_t columns) {
    const Source matrix = source(name + ".weight", rows, columns);
    return {matrix, weights_.find(name + ".bias", rows), 0, rows};
}

bool QuantisedModel::alike(const std::vector<Section> &sections) {
    for (const Section &section : sections)
        for (const RowRun &run : section)
            if ((run.source.q8 == nullptr) != (sections[0][0].source.q8 == nullptr)) {
                weights_.status = fail(RADBOX_BAD_ARGUMENT, "expected q, k and v of a layer all in int8 or all in int4");
                return false;
            }
    return true;
}

void QuantisedModel::plan(Matrix &matrix, std::vector<Section> sections) {
    if (weights_.status == RADBOX_OK && alike(sections)) packer_.plan(matrix, std::move(sections));
}

void QuantisedModel::plan_layer(int64_t layer) {
    const std::string p = "layers." + std::to_string(layer) + ".";
    const int64_t d = sizes.width, dh = sizes.head_width, padding = sizes.padded_width - d;
    LayerPlan &plan_of = layers[at(layer)];
    LayerFloats &floats = floats_[at(layer)];
    std::vector<Section> heads;
    RowRun parts[3] = {whole(p + "q", d, d), whole(p + "k", d, d), whole(p + "v", d, d)};
    for (int64_t head_at = 0; head_at < sizes.heads; ++head_at) {
        heads.emplace_back();
        for (RowRun part : parts) {
            part.first = head_at * dh, part.count = dh;
            heads.back().push_back(part);
        }
    }
    plan(plan_of.qkv, std::move(heads));
    plan(plan_of.out, {{whole(p + "out", d, d)}});
    plan(plan_of.up, {{whole(p + "up", sizes.ffn, d)}});
    plan(plan_of.down, {{whole(p + "down", d, sizes.ffn)}});
    const auto take = [&](const char *name) { return weights_.take(p + name, d, 1, padding); };
    floats.norm1_weight = take("norm1.weight"), floats.norm1_bias = take("norm1.bias");
    floats.norm2_weight = take("norm2.weight"), floats.norm2_bias = take("norm2.bias");
    floats.gate_weight = weights_.take(p + "gate.weight", 1, d, padding);
    plan_of.norm1_weight = floats.norm1_weight.data(), plan_of.norm1_bias = floats.norm1_bias.data();
    plan_of.norm2_weight = floats.norm2_weight.data(), plan_of.norm2_bias = floats.norm2_bias.data();
    plan_of.gate_weight = floats.gate_weight.data();
    const float *gate_bias = weights_.find(p + "gate.bias", 1), *gate_scale = weights_.find(p + "gate_scale", 1);
    if (gate_bias != nullptr) plan_of.gate_bias = gate_bias[0];
    if (gate_scale != nullptr) plan_of.gate_scale = gate_scale[0];
}

}  // namespace radbox
