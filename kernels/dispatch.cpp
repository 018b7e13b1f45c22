// The exported functions: choose the kernels, check every argument, keep the sentence of the last failure.
//
// To add a set of kernels: write its table (table.h), list it in kSets with the test that says whether this CPU runs it.
#include <atomic>
#include <cinttypes>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "table.h"

namespace radbox {
namespace {

constexpr int64_t kGreatestSize = int64_t{1} << 24;      // of one dimension
constexpr int64_t kGreatestElements = int64_t{1} << 29;  // of one array: 2 GiB of floats
constexpr float kGreatestSigma = 1024.0f;                // grid cells

struct Set {
    const Operators &operators;
    bool (*runs_here)();
};

// Best first.
const Set kSets[] = {
    {reference_operators, [] { return true; }},
};

std::atomic<const Operators *> chosen{nullptr};
thread_local char message[512] = "";

struct Size {
    const char *name;
    int64_t value;
};

// Every size within bounds, and their product an array that can exist.
int check_sizes(const char *operation, std::initializer_list<Size> sizes) {
    int64_t elements = 1;
    for (const Size &size : sizes) {
        if (size.value < 1 || size.value > kGreatestSize)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected %s of 1 to %" PRId64 ", got %" PRId64, operation, size.name,
                        kGreatestSize, size.value);
        if (__builtin_mul_overflow(elements, size.value, &elements) || elements > kGreatestElements)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected arrays of at most %" PRId64 " elements, got more with %s",
                        operation, kGreatestElements, size.name);
    }
    return RADBOX_OK;
}

struct Pointer {
    const char *name;
    const void *value;
};

int check_floats(const char *operation, std::initializer_list<Pointer> pointers) {
    for (const Pointer &pointer : pointers) {
        if (pointer.value == nullptr)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected %s to point to an array, got null", operation, pointer.name);
        if (reinterpret_cast<uintptr_t>(pointer.value) % alignof(float) != 0)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected %s aligned to %zu bytes, got %p", operation, pointer.name,
                        alignof(float), pointer.value);
    }
    return RADBOX_OK;
}

int check_heads(const char *operation, int64_t width, int64_t heads) {
    if (heads >= 1 && width % heads == 0) return RADBOX_OK;
    return fail(RADBOX_BAD_ARGUMENT, "%s: expected heads that divide a width of %" PRId64 ", got %" PRId64, operation,
                width, heads);
}

int check_sigma(const char *operation, float sigma) {
    if (sigma >= 0.0f && sigma <= kGreatestSigma) return RADBOX_OK;
    return fail(RADBOX_BAD_ARGUMENT, "%s: expected sigma of 0 to %g grid cells, got %g", operation,
                static_cast<double>(kGreatestSigma), static_cast<double>(sigma));
}

int choose(const char *name) {
    for (const Set &set : kSets)
        if (name == nullptr ? set.runs_here() : std::strcmp(name, set.operators.name) == 0) {
            chosen.store(&set.operators);
            return RADBOX_OK;
        }
    return fail(RADBOX_UNKNOWN_KERNELS, "expected kernels named one of: %s; got \"%s\"", radbox_kernels_known(), name);
}

int choose_from_environment() {
    const char *name = std::getenv("RADBOX_KERNELS");
    return choose(name != nullptr && name[0] != '\0' ? name : nullptr);
}

// The chosen table in `operators`, or why there is none.
int current(const Operators *&operators) {
    operators = chosen.load();
    if (operators != nullptr) return RADBOX_OK;
    const int status = choose_from_environment();
    operators = chosen.load();
    return status;
}

// Run `call` with the table; memory that runs out becomes a status.
template <typename Call>
int run(Call call) {
    const Operators *operators = nullptr;
    const int status = current(operators);
    if (status != RADBOX_OK) return status;
    try {
        return call(*operators);
    } catch (const std::bad_alloc &) {
        return fail(RADBOX_OUT_OF_MEMORY, "expected enough memory for the kernels, got none");
    }
}

int check_shape(const radbox_decoder_shape &s) {
    static const char *const kOperation = "radbox_decoder_create_f32";
    int status = check_sizes(kOperation, {{"vocabulary", s.vocabulary}, {"width", s.width}});
    if (status == RADBOX_OK) status = check_sizes(kOperation, {{"ffn", s.ffn}, {"width", s.width}});
    if (status == RADBOX_OK) status = check_sizes(kOperation, {{"channels", s.channels}, {"width", s.width}});
    if (status == RADBOX_OK) status = check_sizes(kOperation, {{"width", s.width}, {"3 * width", int64_t{3} * s.width}});
    if (status == RADBOX_OK)
        status = check_sizes(kOperation, {{"layers", s.layers}, {"positions", s.positions}, {"width", s.width}});
    return status == RADBOX_OK ? check_heads(kOperation, s.width, s.heads) : status;
}

}  // namespace

int fail(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return status;
}

}  // namespace radbox

using namespace radbox;

#define RETURN_IF_BAD(check) \
    if (const int status = (check); status != RADBOX_OK) return status

extern "C" {

int32_t radbox_abi_version(void) { return RADBOX_ABI_VERSION; }

const char *radbox_error_message(void) { return message; }

int radbox_kernels_select(const char *name) { return name == nullptr ? choose_from_environment() : choose(name); }

const char *radbox_kernels_name(void) {
    const Operators *operators = nullptr;
    return current(operators) == RADBOX_OK ? operators->name : "";
}

const char *radbox_kernels_known(void) {
    static const std::string known = [] {
        std::string names;
        for (const Set &set : kSets) names += (names.empty() ? "" : ", ") + std::string(set.operators.name);
        return names;
    }();
    return known.c_str();
}

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
    if (allowed == nullptr)
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected allowed to point to an array, got null", __func__);
    return run([&](const Operators &k) {
        return k.masked_argmax_f32(logits, allowed, vocabulary, token, log_probability);
    });
}

int radbox_decoder_create_f32(const radbox_decoder_shape *shape, const radbox_tensor_f32 *tensors, int64_t count,
                              radbox_decoder **decoder) {
    if (shape == nullptr || tensors == nullptr || decoder == nullptr)
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected shape, tensors and decoder, got null", __func__);
    *decoder = nullptr;
    RETURN_IF_BAD(check_shape(*shape));
    RETURN_IF_BAD(check_sizes(__func__, {{"count", count}}));
    for (int64_t i = 0; i < count; ++i) {
        if (tensors[i].name == nullptr)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected every tensor named, got null", __func__);
        RETURN_IF_BAD(check_sizes(tensors[i].name, {{"rows", tensors[i].rows}, {"columns", tensors[i].columns}}));
        RETURN_IF_BAD(check_floats(__func__, {{tensors[i].name, tensors[i].values}}));
    }
    return run([&](const Operators &k) { return k.make_decoder(k, *shape, tensors, count, decoder); });
}

int radbox_decoder_begin_f32(radbox_decoder *decoder, const float *tokens, const float *bias, int64_t image_tokens) {
    if (decoder == nullptr) return fail(RADBOX_BAD_ARGUMENT, "%s: expected a decoder, got null", __func__);
    const radbox_decoder_shape &shape = decoder->shape;
    RETURN_IF_BAD(check_sizes(__func__, {{"image_tokens", image_tokens}, {"channels", shape.channels}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"image_tokens", image_tokens}, {"width", shape.width}}));
    RETURN_IF_BAD(check_sizes(__func__, {{"image_tokens", image_tokens}, {"layers", shape.layers}}));
    RETURN_IF_BAD(check_floats(__func__, {{"tokens", tokens}, {"bias", bias}}));
    return run([&](const Operators &) { return decoder->begin(tokens, bias, image_tokens); });
}

int radbox_decoder_step_f32(radbox_decoder *decoder, int32_t token, float *logits, float *attention) {
    if (decoder == nullptr) return fail(RADBOX_BAD_ARGUMENT, "%s: expected a decoder, got null", __func__);
    RETURN_IF_BAD(check_floats(__func__, {{"logits", logits}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    if (token < 0 || token >= decoder->shape.vocabulary)
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected a token of 0 to %d, got %d", __func__,
                    decoder->shape.vocabulary - 1, token);
    return decoder->step(token, logits, attention);
}

void radbox_decoder_destroy(radbox_decoder *decoder) { delete decoder; }

}  // extern "C"
