// Packed matrices: the layout that every instruction set reads, and how weights get into it. Baseline code only.
//
// Rows lie in blocks of 32, inputs in fours: for each four inputs, 32 rows x 4 bytes. One vector register then holds the
// same four inputs of consecutive rows, sums stay per row, and a block is one stream through memory.
//   int8: ceil(inputs / 16) x 4 of these 128 bytes, then 32 float scales, then 32 float biases.
//   int4: per group of 32 inputs 4 x 128 bytes, each of eight inputs (the first four in the low nibbles, the next four in
//         the high ones) and 32 binary16 scales; then 32 float biases.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "weights.h"

namespace radbox {

// Zeroed memory for T, aligned for every vector.
struct Free {
    void operator()(void *memory) const;
};
void *aligned_zeros(size_t bytes);
template <typename T>
using Aligned = std::unique_ptr<T[], Free>;
template <typename T>
Aligned<T> zeros(int64_t count) {
    return Aligned<T>(static_cast<T *>(aligned_zeros(static_cast<size_t>(count) * sizeof(T))));
}

// A weight matrix where the caller has it: int8 or int4.
struct Source {
    const radbox_matrix_q8 *q8 = nullptr;
    const radbox_matrix_q4 *q4 = nullptr;
    int64_t rows() const { return q8 != nullptr ? q8->rows : q4->rows; }
    int64_t columns() const { return q8 != nullptr ? q8->columns : q4->columns; }
};

// `count` rows of a source from `first` on, with their biases (null: zeros).
struct RowRun {
    Source source;
    const float *bias;
    int64_t first, count;
};
using Section = std::vector<RowRun>;  // padded to whole blocks as one

// Matrices are planned first and packed together, so that they lie in memory in the order of their use.
class Packer {
public:
    // The plan remembers `matrix` and fills it in pack().
    void plan(Matrix &matrix, std::vector<Section> sections);
    // All planned matrices, in the returned memory.
    Aligned<uint8_t> pack();

private:
    struct Planned {
        Matrix *matrix;
        std::vector<Section> sections;
    };
    std::vector<Planned> planned_;
};

// int8 rows of attention into a head's key blocks; for the single operators.
void pack_key_row(const Sizes &sizes, const Cache &cache, int64_t token, const int8_t *key, float scale);
void pack_value_row(const Sizes &sizes, const Cache &cache, int64_t padded_tokens, int64_t token, const int8_t *value);

}  // namespace radbox
