// One thread's scratch of a quantised decoder or operator. Baseline code only.
#pragma once

#include <algorithm>

#include "pack.h"

namespace radbox {

class ScratchMemory {
public:
    // Greatest length of a row that is quantised for a matrix or held in float, and of a row of scores.
    ScratchMemory(int64_t row, int64_t scores) {
        row = padded(row, kBlockRows), scores = padded(std::max(scores, row), kBlockRows);
        const int64_t groups = row / kGroupInputs;
        bytes_ = zeros<int8_t>(kGreatestBatch * (2 * row + scores));
        floats_ = zeros<float>(kGreatestBatch * (row + scores + padded(groups, 16)));
        starts_ = zeros<int32_t>(kGreatestBatch * padded(groups, 16));
        int8_t *bytes = bytes_.get();
        float *floats = floats_.get();
        const auto next = [](auto *&from, int64_t count) {
            auto *taken = from;
            from += count;
            return taken;
        };
        for (int64_t b = 0; b < kGreatestBatch; ++b) {
            scratch.inputs[b].values = next(bytes, row), scratch.queries[b].values = next(bytes, row);
            scratch.shares[b].values = next(bytes, scores);
            scratch.rows[b] = next(floats, row), scratch.scores[b] = next(floats, scores);
            scratch.inputs[b].group_scales = next(floats, padded(groups, 16));
            scratch.inputs[b].group_starts = starts_.get() + b * padded(groups, 16);
        }
    }

    Scratch scratch{};

private:
    Aligned<int8_t> bytes_;
    Aligned<float> floats_;
    Aligned<int32_t> starts_;
};

}  // namespace radbox
