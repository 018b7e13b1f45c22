// The exported functions of the chosen set's float operators: check every argument, then call the table.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "checks.h"
#include "select.h"

namespace radbox {
namespace {

int masked_top_k(const Operators &set, const float *logits, const uint8_t *allowed, int64_t vocabulary, int64_t k,
                 int32_t *tokens, float *log_probabilities) {
    int32_t best;
    float log_probability;
    const int status = set.masked_argmax_f32(logits, allowed, vocabulary, &best, &log_probability);
    if (status != RADBOX_OK) return status;
    std::vector<int32_t> open;
    for (int64_t i = 0; i < vocabulary; ++i)
        if (allowed[i] != 0) open.push_back(static_cast<int32_t>(i));
    const int64_t found = std::min(k, static_cast<int64_t>(open.size()));
    std::partial_sort(open.begin(), open.begin() + found, open.end(), [&](int32_t one, int32_t other) {
        return logits[one] != logits[other] ? logits[one] > logits[other] : one < other;
    });
    std::copy_n(open.begin(), found, tokens);
    std::fill(tokens + found, tokens + k, -1);
    for (int64_t place = 0; place < found; ++place) {
        const float less = logits[tokens[place]] - logits[best];
        if (!std::isfinite(less))
            return fail(RADBOX_NOT_FINITE, "expected logits whose differences are floats in masked_top_k_f32, got greater");
        log_probabilities[place] = log_probability + less;
    }
    std::fill(log_probabilities + found, log_probabilities + k, -std::numeric_limits<float>::infinity());
    return RADBOX_OK;
}

int fused_cross_attention(const Operators &set, const float *x, const float *h, const float *a,
                          const radbox_cross_attention &layer, float *y, float *attention) {
    const int64_t width = layer.width;
    std::vector<float> query(static_cast<size_t>(width)), mixed(query), scores(static_cast<size_t>(layer.image_tokens));
    RETURN_IF_BAD(set.linear_f32(h, layer.query_weight, layer.query_bias, 1, width, width, query.data()));
    RETURN_IF_BAD(set.gated_cross_attention_f32(a, query.data(), layer.keys, layer.values, layer.bias, layer.gate_weight,
                                                layer.gate_bias, layer.gate_scale, layer.image_tokens, width, layer.heads,
                                                scores.data(), mixed.data(), attention));
    RETURN_IF_BAD(set.linear_f32(mixed.data(), layer.out_weight, layer.out_bias, 1, width, width, y));
    bool finite = true;
    for (int64_t i = 0; i < width; ++i) y[i] += x[i], finite = finite && std::isfinite(y[i]);
    if (finite) return RADBOX_OK;
    return fail(RADBOX_NOT_FINITE, "expected finite numbers in fused_cross_attention_f32, got NaN, infinity or an overflow");
}

}  // namespace
}  // namespace radbox

using namespace radbox;

extern "C" {

int32_t radbox_abi_version(void) { return RADBOX_ABI_VERSION; }

int radbox_kernels_select(const char *name) { return choose(name); }

const char *radbox_kernels_name(void) {
    const Operators *operators = nullptr;
    return current(operators) == RADBOX_OK ? operators->name : "";
}

const char *radbox_kernels_refused(void) { return refused_name(); }

const char *radbox_kernels_known(void) { return known_names(); }

const char *radbox_kernels_runnable(void) { return runnable_names(); }

int radbox_layer_norm_f32(const float *x, const float *weight, const float *bias, int64_t rows, int64_t width,
                          float epsilon, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"rows", rows}, {"width", width}}));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"weight", weight}, {"bias", bias}, {"y", y}}));
    if (!(epsilon > 0.0f) || !std::isfinite(epsilon))
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected epsilon above 0, got %g", __func__, static_cast<double>(epsilon));
    return run([&](const Operators &k) { return k.layer_norm_f32(x, weight, bias, rows, width, epsilon, y); });
}

int radbox_linear_f32(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                      int64_t outputs, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"rows", rows}, {"inputs", inputs}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"outputs", outputs}, {"inputs", inputs}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"rows", rows}, {"outputs", outputs}}));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"weight", weight}, {"y", y}}));
    if (bias != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"bias", bias}}));
    return run([&](const Operators &k) { return k.linear_f32(x, weight, bias, rows, inputs, outputs, y); });
}

int radbox_gelu_tanh_f32(const float *x, int64_t count, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"count", count}}));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"y", y}}));
    return run([&](const Operators &k) { return k.gelu_tanh_f32(x, count, y); });
}

int radbox_swiglu_f32(const float *gate, const float *up, int64_t count, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"count", count}}));
    RETURN_IF_BAD(check_floats(__func__, {{"gate", gate}, {"up", up}, {"y", y}}));
    return run([&](const Operators &k) { return k.swiglu_f32(gate, up, count, y); });
}

int radbox_self_attention_step_f32(const float *query, const float *key, const float *value, float *cache_keys,
                                   float *cache_values, int64_t position, int64_t positions, int64_t width,
                                   int64_t heads, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"positions", positions}, {"width", width}}));
    RETURN_IF_BAD(check_heads(__func__, width, heads));
    RETURN_IF_BAD(check_floats(__func__, {{"query", query}, {"key", key}, {"value", value}, {"cache_keys", cache_keys},
                                          {"cache_values", cache_values}, {"y", y}}));
    if (position < 0 || position >= positions)
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected a position of 0 to %" PRId64 ", got %" PRId64, __func__,
                    positions - 1, position);
    return run([&](const Operators &k) {
        std::vector<float> scores(static_cast<size_t>(positions));
        return k.self_attention_step_f32(query, key, value, cache_keys, cache_values, position, width, heads,
                                         scores.data(), y);
    });
}

int radbox_gated_cross_attention_f32(const float *a, const float *query, const float *keys, const float *values,
                                     const float *bias, const float *gate_weight, float gate_bias, float gate_scale,
                                     int64_t image_tokens, int64_t width, int64_t heads, float *y, float *attention) {
    RETURN_IF_BAD(check_sizes(__func__, {{"image_tokens", image_tokens}, {"width", width}}));
    RETURN_IF_BAD(check_heads(__func__, width, heads));
    RETURN_IF_BAD(check_floats(__func__, {{"a", a}, {"query", query}, {"keys", keys}, {"values", values},
                                          {"gate_weight", gate_weight}, {"y", y}}));
    if (bias != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"bias", bias}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    return run([&](const Operators &k) {
        std::vector<float> scores(static_cast<size_t>(image_tokens));
        return k.gated_cross_attention_f32(a, query, keys, values, bias, gate_weight, gate_bias, gate_scale,
                                           image_tokens, width, heads, scores.data(), y, attention);
    });
}

int radbox_fused_cross_attention_f32(const float *x, const float *h, const float *a,
                                     const radbox_cross_attention *layer, float *y, float *attention) {
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_cross_attention), {{"layer", layer}}));
    const radbox_cross_attention &of = *layer;
    RETURN_IF_BAD(check_sizes(__func__, {{"image_tokens", of.image_tokens}, {"width", of.width}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"width", of.width}, {"width", of.width}}));
    RETURN_IF_BAD(check_heads(__func__, of.width, of.heads));
    RETURN_IF_BAD(check_floats(__func__, {{"x", x}, {"h", h}, {"a", a}, {"y", y}, {"query_weight", of.query_weight},
                                          {"query_bias", of.query_bias}, {"keys", of.keys}, {"values", of.values},
                                          {"gate_weight", of.gate_weight}, {"out_weight", of.out_weight},
                                          {"out_bias", of.out_bias}}));
    if (of.bias != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"bias", of.bias}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    return run([&](const Operators &k) { return fused_cross_attention(k, x, h, a, of, y, attention); });
}

int radbox_gaussian_blur_f32(const float *grid, int64_t height, int64_t width, float sigma, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"height", height}, {"width", width}}));
    RETURN_IF_BAD(check_floats(__func__, {{"grid", grid}, {"y", y}}));
    RETURN_IF_BAD(check_sigma(__func__, sigma));
    return run([&](const Operators &k) { return k.gaussian_blur_f32(grid, height, width, sigma, y); });
}

int radbox_anatomical_bias_f32(const float *masks, int64_t count, int64_t height, int64_t width, const float *sigma,
                               int64_t layers, float strength, float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"count", count}, {"height", height}, {"width", width}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"layers", layers}, {"height", height}, {"width", width}}));
    RETURN_IF_BAD(check_floats(__func__, {{"masks", masks}, {"sigma", sigma}, {"y", y}}));
    for (int64_t l = 0; l < layers; ++l) RETURN_IF_BAD(check_sigma(__func__, sigma[l]));
    if (!std::isfinite(strength))
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected a finite strength, got %g", __func__,
                    static_cast<double>(strength));
    return run([&](const Operators &k) {
        return k.anatomical_bias_f32(masks, count, height, width, sigma, layers, strength, y);
    });
}

int radbox_masked_argmax_f32(const float *logits, const uint8_t *allowed, int64_t vocabulary, int32_t *token,
                             float *log_probability) {
    RETURN_IF_BAD(check_sizes(__func__, {{"vocabulary", vocabulary}}));
    RETURN_IF_BAD(check_floats(__func__, {{"logits", logits}, {"token", token}, {"log_probability", log_probability}}));
    RETURN_IF_BAD(check_pointers(__func__, 1, {{"allowed", allowed}}));
    return run([&](const Operators &k) {
        return k.masked_argmax_f32(logits, allowed, vocabulary, token, log_probability);
    });
}

int radbox_masked_top_k_f32(const float *logits, const uint8_t *allowed, int64_t vocabulary, int64_t k, int32_t *tokens,
                            float *log_probabilities) {
    RETURN_IF_BAD(check_sizes(__func__, {{"vocabulary", vocabulary}}));
    RETURN_IF_BAD(check_range(__func__, "k", k, 1, vocabulary));
    RETURN_IF_BAD(check_floats(
        __func__, {{"logits", logits}, {"tokens", tokens}, {"log_probabilities", log_probabilities}}));
    RETURN_IF_BAD(check_pointers(__func__, 1, {{"allowed", allowed}}));
    return run([&](const Operators &set) {
        return masked_top_k(set, logits, allowed, vocabulary, k, tokens, log_probabilities);
    });
}

int radbox_selective_scan_f32(const float *x, const float *delta, const float *a, const float *b, const float *c,
                              const float *d, int64_t height, int64_t width, int64_t channels, int64_t states,
                              float *y) {
    RETURN_IF_BAD(check_sizes(__func__, {{"directions", 4}, {"height", height}, {"width", width}, {"channels", channels}}));
    RETURN_IF_BAD(check_range(__func__, "states", states, 1, RADBOX_GREATEST_STATES));
    RETURN_IF_BAD(check_sizes(__func__, {{"directions", 4}, {"height", height}, {"width", width}, {"states", states}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"directions", 4}, {"channels", channels}, {"states", states}}));
    RETURN_IF_BAD(check_floats(
        __func__, {{"x", x}, {"delta", delta}, {"a", a}, {"b", b}, {"c", c}, {"d", d}, {"y", y}}));
    return run([&](const Operators &k) {
        return k.selective_scan_f32(x, delta, a, b, c, d, height, width, channels, states, y);
    });
}

}  // extern "C"
