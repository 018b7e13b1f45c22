#include "pack.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace radbox {
namespace {

// Measured on Zen 5: weights in the last-level cache want a short lead, weights in memory a longer one.
constexpr int64_t kCachedBytes = 16 << 20, kAheadInCache = 4096, kAheadInMemory = 8192;
constexpr size_t kHugePage = size_t{2} << 20;

bool is_q8(const std::vector<Section> &sections) { return sections[0][0].source.q8 != nullptr; }

void size_up(Matrix &matrix, const std::vector<Section> &sections) {
    const int64_t columns = sections[0][0].source.columns();
    matrix.bits = is_q8(sections) ? 8 : 4;
    matrix.inputs = padded(columns, matrix.bits == 8 ? 16 : kGroupInputs);
    matrix.block_bytes = kBlockRows * static_cast<int64_t>(sizeof(float));
    matrix.block_bytes += matrix.bits == 8 ? kBlockRows * (matrix.inputs + static_cast<int64_t>(sizeof(float)))
                                           : matrix.inputs / kGroupInputs * kGroupBytes;
    matrix.block_count = 0;
    for (const Section &section : sections) {
        int64_t rows = 0;
        for (const RowRun &run : section) rows += run.count;
        matrix.block_count += padded(rows, kBlockRows) / kBlockRows;
    }
}

void pack_q8_row(const radbox_matrix_q8 &source, int64_t from, uint8_t *block, int64_t row, int64_t inputs) {
    const int8_t *values = source.values + from * source.columns;
    for (int64_t k = 0; k < source.columns; ++k) block[k / 4 * 128 + row * 4 + k % 4] = static_cast<uint8_t>(values[k]);
    std::memcpy(block + kBlockRows * inputs + row * 4, source.scales + from, sizeof(float));
}

void pack_q4_row(const radbox_matrix_q4 &source, int64_t from, uint8_t *block, int64_t row) {
    const int64_t pairs = (source.columns + 1) / 2, groups = padded(source.columns, kGroupInputs) / kGroupInputs;
    for (int64_t k = 0; k < source.columns; ++k) {
        const uint8_t pair = source.values[from * pairs + k / 2];
        const int nibble = k % 2 == 0 ? pair & 15 : pair >> 4;
        uint8_t &at = block[k / kGroupInputs * kGroupBytes + k % kGroupInputs / 8 * 128 + row * 4 + k % 4];
        at = static_cast<uint8_t>(at | (k / 4 % 2 == 0 ? nibble : nibble << 4));
    }
    for (int64_t g = 0; g < groups; ++g)
        std::memcpy(block + g * kGroupBytes + 512 + row * 2, source.scales + from * groups + g, sizeof(uint16_t));
}

}  // namespace

void Free::operator()(void *memory) const { std::free(memory); }

void *aligned_zeros(size_t bytes) {
    const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
    void *memory = nullptr;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (posix_memalign(&memory, alignment, std::max(rounded, alignment)) != 0) throw std::bad_alloc();
    // Fewer misses of the address cache while streaming weights; a system without huge pages ignores it.
    if (bytes >= kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);
    std::memset(memory, 0, bytes);
    return memory;
}

void Packer::plan(Matrix &matrix, std::vector<Section> sections) {
    size_up(matrix, sections);
    planned_.push_back({&matrix, std::move(sections)});
}

Aligned<uint8_t> Packer::pack() {
    int64_t total = 0;
    for (const Planned &planned : planned_) total += planned.matrix->block_bytes * planned.matrix->block_count;
    Aligned<uint8_t> memory = zeros<uint8_t>(total);
    uint8_t *block = memory.get();
    for (const Planned &planned : planned_) {
        Matrix &matrix = *planned.matrix;
        matrix.blocks = block;
        matrix.ahead = total <= kCachedBytes ? kAheadInCache : kAheadInMemory;
        for (const Section &section : planned.sections) {
            int64_t row = 0;
            for (const RowRun &run : section)
                for (int64_t r = 0; r < run.count; ++r, ++row) {
                    uint8_t *to = block + row / kBlockRows * matrix.block_bytes;
                    const int64_t from = run.first + r, in_block = row % kBlockRows;
                    if (matrix.bits == 8)
                        pack_q8_row(*run.source.q8, from, to, in_block, matrix.inputs);
                    else
                        pack_q4_row(*run.source.q4, from, to, in_block);
                    if (run.bias != nullptr)
                        std::memcpy(to + matrix.block_bytes - (kBlockRows - in_block) * 4, run.bias + from, sizeof(float));
                }
            block += padded(row, kBlockRows) / kBlockRows * matrix.block_bytes;
        }
    }
    return memory;
}

void pack_key_row(const Sizes &sizes, const Cache &cache, int64_t token, const int8_t *key, float scale) {
    uint8_t *block = cache.keys + token / kBlockRows * sizes.key_block_bytes;
    const int64_t row = token % kBlockRows;
    for (int64_t k = 0; k < sizes.head_width; ++k) block[k / 4 * 128 + row * 4 + k % 4] = static_cast<uint8_t>(key[k]);
    std::memcpy(block + kBlockRows * sizes.head_inputs + row * 4, &scale, sizeof scale);
}

void pack_value_row(const Sizes &sizes, const Cache &cache, int64_t padded_tokens, int64_t token, const int8_t *value) {
    for (int64_t c = 0; c < sizes.head_width; ++c)
        cache.values[c / kBlockRows * kBlockRows * padded_tokens + token / 4 * 128 + c % kBlockRows * 4 + token % 4] =
            static_cast<uint8_t>(value[c]);
}

}  // namespace radbox
