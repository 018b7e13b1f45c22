// The exported int8 and int4 operators, one by one: the decoder's own functions on freshly packed arguments.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "checks.h"
#include "pack.h"
#include "scratch.h"
#include "select.h"

namespace radbox {
namespace {

int failed(uint32_t failures, const char *operation) {
    if (failures == 0) return RADBOX_OK;
    if ((failures & kNotFinite) != 0)
        return fail(RADBOX_NOT_FINITE, "expected finite numbers in %s, got NaN, infinity or an overflow", operation);
    return fail(RADBOX_NOTHING_ALLOWED, "expected at least one visible key in %s, got a bias of -inf on all", operation);
}

// Sizes of x W^T + b.
int check_linear(const char *operation, int64_t rows, int64_t inputs, int64_t outputs) {
    RETURN_IF_BAD(check_sizes(operation, {{"rows", rows}, {"inputs", inputs}}));
    RETURN_IF_BAD(check_sizes(operation, {{"outputs", outputs}, {"inputs", inputs}}));
    return check_sizes(operation, {{"rows", rows}, {"outputs", outputs}});
}

// int8 rows of attention and their sizes.
int check_attention(const char *operation, const int8_t *keys, const int8_t *values, int64_t tokens, int64_t width,
                    int64_t heads) {
    RETURN_IF_BAD(check_sizes(operation, {{"tokens", tokens}, {"width", width}}));
    RETURN_IF_BAD(check_range(operation, "tokens", tokens, 1, kGreatestSummed));
    RETURN_IF_BAD(check_range(operation, "width", width, 1, kGreatestSummed));
    RETURN_IF_BAD(check_heads(operation, width, heads));
    RETURN_IF_BAD(check_pointers(operation, 1, {{"keys", keys}, {"values", values}}));
    RETURN_IF_BAD(check_int8(operation, "keys", keys, tokens * width));
    return check_int8(operation, "values", values, tokens * width);
}

int check_finite(const char *operation, const float *values, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        if (!std::isfinite(values[i])) return failed(kNotFinite, operation);
    return RADBOX_OK;
}

int linear(const Operators &set, const char *operation, const float *x, const Source &source, const float *bias,
           int64_t rows, float *y) {
    const int64_t outputs = source.rows(), inputs = source.columns();
    Matrix matrix{};
    Packer packer;
    packer.plan(matrix, {{{source, bias, 0, outputs}}});
    const Aligned<uint8_t> packed = packer.pack();
    ScratchMemory memory(matrix.inputs, 0);
    const int64_t padded_outputs = matrix.block_count * kBlockRows;
    const Aligned<float> padded_y = zeros<float>(rows * padded_outputs);
    RETURN_IF_BAD(
        failed(set.quantised->linear(x, inputs, rows, matrix, memory.scratch, padded_y.get()), operation));
    for (int64_t row = 0; row < rows; ++row)
        std::copy_n(padded_y.get() + row * padded_outputs, outputs, y + row * outputs);
    return RADBOX_OK;
}

// One head's keys and values, packed, and the sizes that go with them.
struct PackedHead {
    Sizes sizes{};
    Cache cache{};
    int64_t padded_tokens;
    Aligned<uint8_t> keys, values;
    Aligned<float> scales;

    PackedHead(int64_t tokens, int64_t width, int64_t heads) : padded_tokens(padded(tokens, kBlockRows)) {
        sizes.head_width = width / heads, sizes.positions = tokens;
        sizes.head_inputs = padded(sizes.head_width, 16);
        sizes.head_blocks = padded(sizes.head_width, kBlockRows) / kBlockRows;
        sizes.key_block_bytes = kBlockRows * (sizes.head_inputs + static_cast<int64_t>(sizeof(float)));
        keys = zeros<uint8_t>(padded_tokens / kBlockRows * sizes.key_block_bytes);
        values = zeros<uint8_t>(sizes.head_blocks * kBlockRows * padded_tokens);
        scales = zeros<float>(std::max(padded_tokens, kBlockRows * sizes.head_blocks));
        cache = {keys.get(), values.get(), scales.get()};
    }

    // `stride`: of a value matrix in tokens.
    void fill(const int8_t *k, const float *key_scales, const int8_t *v, int64_t tokens, int64_t width, int64_t heads,
              int64_t head, int64_t stride) {
        for (int64_t token = 0; token < tokens; ++token) {
            const int64_t at = token * width + head * sizes.head_width;
            pack_key_row(sizes, cache, token, k + at, key_scales[token * heads + head]);
            pack_value_row(sizes, cache, stride, token, v + at);
        }
    }
};

}  // namespace
}  // namespace radbox

using namespace radbox;

extern "C" {

int radbox_quantise_q8(const float *x, int64_t rows, int64_t width, int8_t *values, float *scales) {
    RETURN_IF_BAD(check_sizes(__func__, {{"rows", rows}, {"width", width}}));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"scales", scales}}));
    RETURN_IF_BAD(check_pointers(__func__, 1, {{"values", values}}));
    return run([&](const Operators &set) {
        ScratchMemory memory(width, 0);
        Activation &out = memory.scratch.inputs[0];
        for (int64_t row = 0; row < rows; ++row) {
            std::copy_n(x + row * width, width, memory.scratch.rows[0]);  // zeros after it
            RETURN_IF_BAD(failed(set.quantised->quantise(memory.scratch.rows[0], padded(width, 16), out), __func__));
            std::copy_n(out.values, width, values + row * width);
            scales[row] = out.scale;
        }
        return static_cast<int>(RADBOX_OK);
    });
}

int radbox_linear_q8(const float *x, const int8_t *values, const float *scales, const float *bias, int64_t rows,
                     int64_t inputs, int64_t outputs, float *y) {
    RETURN_IF_BAD(check_linear(__func__, rows, inputs, outputs));
    RETURN_IF_BAD(check_range(__func__, "inputs", inputs, 1, kGreatestSummed));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"scales", scales}, {"y", y}}));
    RETURN_IF_BAD(check_pointers(__func__, 1, {{"values", values}}));
    RETURN_IF_BAD(check_int8(__func__, "values", values, outputs * inputs));
    if (bias != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"bias", bias}}));
    const radbox_matrix_q8 matrix = {__func__, values, scales, outputs, inputs};
    return run([&](const Operators &set) { return linear(set, matrix.name, x, {&matrix, nullptr}, bias, rows, y); });
}

int radbox_linear_q4(const float *x, const uint8_t *values, const uint16_t *scales, const float *bias, int64_t rows,
                     int64_t inputs, int64_t outputs, float *y) {
    RETURN_IF_BAD(check_linear(__func__, rows, inputs, outputs));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"y", y}}));
    RETURN_IF_BAD(check_pointers(__func__, 1, {{"values", values}}));
    RETURN_IF_BAD(check_pointers(__func__, alignof(uint16_t), {{"scales", scales}}));
    if (bias != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"bias", bias}}));
    const radbox_matrix_q4 matrix = {__func__, values, scales, outputs, inputs};
    return run([&](const Operators &set) { return linear(set, matrix.name, x, {nullptr, &matrix}, bias, rows, y); });
}

int radbox_self_attention_q8(const float *query, const int8_t *keys, const float *key_scales, const int8_t *values,
                             const float *value_scales, int64_t tokens, int64_t width, int64_t heads, float *y) {
    RETURN_IF_BAD(check_attention(__func__, keys, values, tokens, width, heads));
    RETURN_IF_BAD(check_floats(__func__, {{"query", query}, {"key_scales", key_scales}, {"value_scales", value_scales},
                                          {"y", y}}));
    RETURN_IF_BAD(check_finite(__func__, key_scales, tokens * heads));
    RETURN_IF_BAD(check_finite(__func__, value_scales, tokens * heads));
    return run([&](const Operators &set) {
        uint32_t failures = 0;
        for (int64_t head = 0; head < heads; ++head) {
            PackedHead packed(tokens, width, heads);
            packed.fill(keys, key_scales, values, tokens, width, heads, head, padded(tokens, 16));
            for (int64_t token = 0; token < tokens; ++token)
                packed.scales[at(token)] = value_scales[token * heads + head];
            ScratchMemory memory(padded(packed.sizes.head_width, kBlockRows), packed.padded_tokens);
            const int64_t first = head * packed.sizes.head_width;
            failures |= set.quantised->self_attention(packed.sizes, packed.cache, tokens - 1, query + first,
                                                      memory.scratch, y + first);
        }
        return failed(failures, "self_attention_q8");
    });
}

int radbox_gated_cross_attention_q8(const float *a, const float *query, const int8_t *keys, const float *key_scales,
                                    const int8_t *values, const float *value_scales, const float *bias,
                                    const float *gate_weight, float gate_bias, float gate_scale, int64_t image_tokens,
                                    int64_t width, int64_t heads, float *y, float *attention) {
    RETURN_IF_BAD(check_attention(__func__, keys, values, image_tokens, width, heads));
    RETURN_IF_BAD(check_floats(__func__, {{"a", a}, {"query", query}, {"key_scales", key_scales},
                                          {"value_scales", value_scales}, {"gate_weight", gate_weight}, {"y", y}}));
    if (bias != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"bias", bias}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    RETURN_IF_BAD(check_finite(__func__, key_scales, image_tokens * heads));
    RETURN_IF_BAD(check_finite(__func__, value_scales, width));
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (int64_t i = 0; bias != nullptr && i < image_tokens; ++i)
        if (!(bias[i] < kInfinity)) return failed(kNotFinite, __func__);
    return run([&](const Operators &set) {
        uint32_t failures = 0;
        if (attention != nullptr) std::fill_n(attention, image_tokens, 0.0f);
        for (int64_t head = 0; head < heads; ++head) {
            PackedHead packed(image_tokens, width, heads);
            const int64_t first = head * packed.sizes.head_width;
            packed.fill(keys, key_scales, values, image_tokens, width, heads, head, packed.padded_tokens);
            std::copy_n(value_scales + first, packed.sizes.head_width, packed.scales.get());
            const Aligned<float> padded_bias = zeros<float>(packed.padded_tokens);
            if (bias != nullptr) std::copy_n(bias, image_tokens, padded_bias.get());
            std::fill(padded_bias.get() + image_tokens, padded_bias.get() + packed.padded_tokens, -kInfinity);
            const Image image = {&packed.cache, padded_bias.get(), image_tokens, packed.padded_tokens};
            ScratchMemory memory(padded(packed.sizes.head_width, kBlockRows), packed.padded_tokens);
            failures |= set.quantised->cross_attention(packed.sizes, image, query + first, memory.scratch, y + first);
            if (failures != 0) break;
            const Activation &shares = memory.scratch.shares[0];
            for (int64_t token = 0; attention != nullptr && token < image_tokens; ++token)
                attention[token] += static_cast<float>(shares.values[token]) * shares.scale / static_cast<float>(heads);
        }
        RETURN_IF_BAD(failed(failures, "gated_cross_attention_q8"));
        double opening = static_cast<double>(gate_bias);
        for (int64_t i = 0; i < width; ++i) opening += static_cast<double>(gate_weight[i]) * static_cast<double>(a[i]);
        const float gate = static_cast<float>(std::tanh(opening)) * gate_scale;
        for (int64_t i = 0; i < width; ++i) y[i] = a[i] + gate * y[i];
        return check_finite("gated_cross_attention_q8", y, width);
    });
}

}  // extern "C"
