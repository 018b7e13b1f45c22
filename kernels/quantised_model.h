// The weights of a quantised decoder, packed, as plans that every instruction set's functions read. Baseline code only.
#pragma once

#include <string>
#include <vector>

#include "pack.h"

namespace radbox {

class QuantisedModel {
public:
    // Throws std::bad_alloc. `status` is the first failure: a weight missing, of another shape or type.
    QuantisedModel(const radbox_decoder_shape &shape, const radbox_weights &given);

    int status = RADBOX_OK;
    Sizes sizes;
    std::vector<LayerPlan> layers;
    Matrix vis, head;
    Floats embed, positions, norm_weight, norm_bias;  // norms padded with zeros to padded_width

private:
    struct LayerFloats {
        Floats norm1_weight, norm1_bias, norm2_weight, norm2_bias, gate_weight;
    };

    Source source(const std::string &name, int64_t rows, int64_t columns);
    // A matrix with its bias, as one run of rows.
    RowRun whole(const std::string &name, int64_t rows, int64_t columns);
    void plan_layer(int64_t layer);
    bool alike(const std::vector<Section> &sections);
    void plan(Matrix &matrix, std::vector<Section> sections);

    Weights weights_;
    const radbox_weights given_;
    Packer packer_;
    std::vector<LayerFloats> floats_;
    Aligned<uint8_t> packed_;
};

Sizes sizes_of(const radbox_decoder_shape &shape);

}  // namespace radbox
