// Runs the cases of tests/kernel_cases.py (numpy's results, and another CPU's bits) with every set that this CPU runs.
//
// radbox_kernels_cases FILE [SET...]: no Python needed, so that the same cases run under qemu for other CPUs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kernels.h"

namespace {

enum Kind : uint32_t { kInt64, kFloat32, kInt8, kUint8, kUint16, kInt32, kText };
constexpr size_t kBytes[] = {8, 4, 1, 1, 2, 4, 1};

struct Value {
    Kind kind;
    float tolerance;
    std::vector<int64_t> storage;  // aligned for every kind
    size_t count;

    template <typename T>
    T *as() {
        return reinterpret_cast<T *>(storage.data());
    }
    const char *bytes() const { return reinterpret_cast<const char *>(storage.data()); }
    std::string text() const { return std::string(bytes(), count); }
};

struct Case {
    std::string name;
    int status;  // expected
    std::vector<Value> inputs, outputs;
};

class Reader {
public:
    explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}
    bool done() const { return at_ == bytes_.size(); }
    template <typename T>
    T number() {
        T value;
        take(&value, sizeof value);
        return value;
    }
    Value value() {
        Value value{};
        value.kind = static_cast<Kind>(number<uint32_t>()), value.tolerance = number<float>();
        value.count = static_cast<size_t>(number<uint64_t>());
        value.storage.resize(value.count * kBytes[value.kind] / sizeof(int64_t) + 1);
        take(value.storage.data(), value.count * kBytes[value.kind]);
        return value;
    }
    Case next() {
        Case read{value().text(), 0, {}, {}};
        read.status = static_cast<int>(number<uint32_t>());
        for (uint32_t left = number<uint32_t>(); left > 0; --left) read.inputs.push_back(value());
        for (uint32_t left = number<uint32_t>(); left > 0; --left) read.outputs.push_back(value());
        return read;
    }

private:
    void take(void *to, size_t count) {
        if (bytes_.size() - at_ < count) {
            std::fprintf(stderr, "cases: expected a whole file, got its beginning\n");
            std::exit(2);
        }
        std::memcpy(to, bytes_.data() + at_, count);
        at_ += count;
    }
    std::string bytes_;
    size_t at_ = 0;
};

// A case's arguments, taken in order, and buffers for its outputs.
struct Arguments {
    Case &from;
    std::vector<Value> got;
    size_t at = 0;

    explicit Arguments(Case &from_) : from(from_) {
        for (const Value &output : from.outputs) {
            got.push_back(output);
            std::fill(got.back().storage.begin(), got.back().storage.end(), -1);
        }
    }
    Value &next() { return from.inputs[at++]; }
    const float *floats() { return next().as<float>(); }
    float real() { return *floats(); }
    int64_t whole() { return *next().as<int64_t>(); }
    template <typename T>
    const T *array() {
        return next().as<T>();
    }
    template <typename T>
    T *out(size_t index) {
        return got[index].as<T>();
    }
};

int decoder(Arguments &in);

// Braces fix the order in which the arguments are taken.
const std::map<std::string, std::function<int(Arguments &)>> kOperators = {
    {"layer_norm_f32",
     [](Arguments &in) {
         const float *x = in.floats(), *w = in.floats(), *b = in.floats();
         const int64_t rows = in.whole(), width = in.whole();
         return radbox_layer_norm_f32(x, w, b, rows, width, 1e-5f, in.out<float>(0));
     }},
    {"linear_f32",
     [](Arguments &in) {
         const float *x = in.floats(), *w = in.floats(), *b = in.floats();
         const int64_t rows = in.whole(), inputs = in.whole(), outputs = in.whole();
         return radbox_linear_f32(x, w, b, rows, inputs, outputs, in.out<float>(0));
     }},
    {"gelu_tanh_f32",
     [](Arguments &in) {
         const float *x = in.floats();
         return radbox_gelu_tanh_f32(x, in.whole(), in.out<float>(0));
     }},
    {"swiglu_f32",
     [](Arguments &in) {
         const float *gate = in.floats(), *up = in.floats();
         return radbox_swiglu_f32(gate, up, in.whole(), in.out<float>(0));
     }},
    {"self_attention_step_f32",
     [](Arguments &in) {
         const float *query = in.floats(), *key = in.floats(), *value = in.floats();
         Value keys = in.next(), values = in.next();  // copies: they are written to
         const int64_t position = in.whole(), positions = in.whole(), width = in.whole(), heads = in.whole();
         return radbox_self_attention_step_f32(query, key, value, keys.as<float>(), values.as<float>(), position, positions,
                                               width, heads, in.out<float>(0));
     }},
    {"fused_cross_attention_f32",
     [](Arguments &in) {
         const float *x = in.floats(), *h = in.floats(), *a = in.floats();
         radbox_cross_attention layer{};
         layer.query_weight = in.floats(), layer.query_bias = in.floats(), layer.keys = in.floats();
         layer.values = in.floats(), layer.bias = in.floats(), layer.gate_weight = in.floats();
         layer.out_weight = in.floats(), layer.out_bias = in.floats();
         layer.gate_bias = in.real(), layer.gate_scale = in.real();
         layer.image_tokens = in.whole(), layer.width = in.whole(), layer.heads = in.whole();
         return radbox_fused_cross_attention_f32(x, h, a, &layer, in.out<float>(0), in.out<float>(1));
     }},
    {"gaussian_blur_f32",
     [](Arguments &in) {
         const float *grid = in.floats();
         const int64_t height = in.whole(), width = in.whole();
         return radbox_gaussian_blur_f32(grid, height, width, in.real(), in.out<float>(0));
     }},
    {"anatomical_bias_f32",
     [](Arguments &in) {
         const float *masks = in.floats();
         const int64_t count = in.whole(), height = in.whole(), width = in.whole();
         const float *sigma = in.floats();
         const int64_t layers = in.whole();
         return radbox_anatomical_bias_f32(masks, count, height, width, sigma, layers, in.real(), in.out<float>(0));
     }},
    {"masked_top_k_f32",
     [](Arguments &in) {
         const float *logits = in.floats();
         const uint8_t *allowed = in.array<uint8_t>();
         const int64_t vocabulary = in.whole(), k = in.whole();
         return radbox_masked_top_k_f32(logits, allowed, vocabulary, k, in.out<int32_t>(0), in.out<float>(1));
     }},
    {"gated_cross_attention_f32",
     [](Arguments &in) {
         const float *a = in.floats(), *q = in.floats(), *k = in.floats(), *v = in.floats(), *bias = in.floats();
         const float *gate = in.floats(), gate_bias = in.real(), gate_scale = in.real();
         const int64_t tokens = in.whole(), width = in.whole(), heads = in.whole();
         return radbox_gated_cross_attention_f32(a, q, k, v, bias, gate, gate_bias, gate_scale, tokens, width, heads,
                                                 in.out<float>(0), in.out<float>(1));
     }},
    {"selective_scan_f32",
     [](Arguments &in) {
         const float *x = in.floats(), *delta = in.floats(), *a = in.floats(), *b = in.floats(), *c = in.floats();
         const float *d = in.floats();
         const int64_t height = in.whole(), width = in.whole(), channels = in.whole(), states = in.whole();
         return radbox_selective_scan_f32(x, delta, a, b, c, d, height, width, channels, states, in.out<float>(0));
     }},
    {"masked_argmax_f32",
     [](Arguments &in) {
         const float *logits = in.floats();
         const uint8_t *allowed = in.array<uint8_t>();
         return radbox_masked_argmax_f32(logits, allowed, in.whole(), in.out<int32_t>(0), in.out<float>(1));
     }},
    {"quantise_q8",
     [](Arguments &in) {
         const float *x = in.floats();
         const int64_t rows = in.whole(), width = in.whole();
         return radbox_quantise_q8(x, rows, width, in.out<int8_t>(0), in.out<float>(1));
     }},
    {"linear_q8",
     [](Arguments &in) {
         const float *x = in.floats();
         const int8_t *values = in.array<int8_t>();
         const float *scales = in.floats(), *bias = in.floats();
         const int64_t rows = in.whole(), inputs = in.whole(), outputs = in.whole();
         return radbox_linear_q8(x, values, scales, bias, rows, inputs, outputs, in.out<float>(0));
     }},
    {"linear_q4",
     [](Arguments &in) {
         const float *x = in.floats();
         const uint8_t *values = in.array<uint8_t>();
         const uint16_t *scales = in.array<uint16_t>();
         const float *bias = in.floats();
         const int64_t rows = in.whole(), inputs = in.whole(), outputs = in.whole();
         return radbox_linear_q4(x, values, scales, bias, rows, inputs, outputs, in.out<float>(0));
     }},
    {"self_attention_q8",
     [](Arguments &in) {
         const float *query = in.floats();
         const int8_t *keys = in.array<int8_t>();
         const float *key_scales = in.floats();
         const int8_t *values = in.array<int8_t>();
         const float *value_scales = in.floats();
         const int64_t tokens = in.whole(), width = in.whole(), heads = in.whole();
         return radbox_self_attention_q8(query, keys, key_scales, values, value_scales, tokens, width, heads,
                                         in.out<float>(0));
     }},
    {"gated_cross_attention_q8",
     [](Arguments &in) {
         const float *a = in.floats(), *query = in.floats();
         const int8_t *keys = in.array<int8_t>();
         const float *key_scales = in.floats();
         const int8_t *values = in.array<int8_t>();
         const float *value_scales = in.floats(), *bias = in.floats(), *gate = in.floats();
         const float gate_bias = in.real(), gate_scale = in.real();
         const int64_t tokens = in.whole(), width = in.whole(), heads = in.whole();
         return radbox_gated_cross_attention_q8(a, query, keys, key_scales, values, value_scales, bias, gate, gate_bias,
                                                gate_scale, tokens, width, heads, in.out<float>(0), in.out<float>(1));
     }},
    {"decoder", decoder},
};

// All steps of a quantised decoder with one thread, and again with three: the same bits.
int decoder(Arguments &in) {
    int32_t sizes[7];
    for (int32_t &size : sizes) size = static_cast<int32_t>(in.whole());
    const radbox_decoder_shape shape = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]};
    const float *tokens = in.floats(), *bias = in.floats();
    const int64_t image_tokens = in.whole();
    Value &fed = in.next();
    std::vector<std::string> names;
    for (size_t i = in.at; i < in.from.inputs.size(); i += 5) names.push_back(in.from.inputs[i].text());
    std::vector<radbox_tensor_f32> f32;
    std::vector<radbox_matrix_q8> q8;
    std::vector<radbox_matrix_q4> q4;
    for (const std::string &name : names) {
        in.next();
        const int64_t rows = in.whole(), columns = in.whole();
        Value &values = in.next(), &scales = in.next();
        if (values.kind == kFloat32) f32.push_back({name.c_str(), values.as<float>(), rows, columns});
        if (values.kind == kInt8) q8.push_back({name.c_str(), values.as<int8_t>(), scales.as<float>(), rows, columns});
        if (values.kind == kUint8) q4.push_back({name.c_str(), values.as<uint8_t>(), scales.as<uint16_t>(), rows, columns});
    }
    const auto count = [](const auto &all) { return static_cast<int64_t>(all.size()); };
    const radbox_weights weights = {f32.data(), count(f32), q8.data(), count(q8), q4.data(), count(q4)};
    std::vector<float> first;
    for (const int32_t threads : {1, 3}) {
        const radbox_decoder_limits limits = {threads, 1, 1};
        radbox_decoder *handle = nullptr;
        int status = radbox_decoder_create_quantised(&shape, &limits, &weights, &handle);
        if (status == RADBOX_OK) status = radbox_decoder_begin_f32(handle, tokens, bias, image_tokens);
        std::vector<float> logits(fed.count * static_cast<size_t>(shape.vocabulary));
        for (size_t i = 0; status == RADBOX_OK && i < fed.count; ++i)
            status = radbox_decoder_step_f32(handle, fed.as<int32_t>()[i],
                                             logits.data() + i * static_cast<size_t>(shape.vocabulary), nullptr);
        radbox_decoder_destroy(handle);
        if (status != RADBOX_OK) return status;
        if (threads > 1 && logits != first) std::fprintf(stderr, "cases: expected the same bits with three threads\n");
        if (threads > 1 && logits != first) return RADBOX_WRONG_STATE;
        first = logits;
    }
    for (size_t output = 0; output < in.got.size(); ++output)
        std::copy(first.begin(), first.end(), in.out<float>(output));
    return RADBOX_OK;
}

// Greatest difference over greatest expected value; 0 only for the same bits.
double error_of(Value &got, Value &expected) {
    if (expected.kind != kFloat32 || expected.tolerance == 0.0f)
        return std::memcmp(got.bytes(), expected.bytes(), expected.count * kBytes[expected.kind]) == 0 ? 0.0 : 1.0;
    double scale = 1e-38, worst = 0.0;
    for (size_t i = 0; i < expected.count; ++i) {
        const double wanted = static_cast<double>(expected.as<float>()[i]), found = static_cast<double>(got.as<float>()[i]);
        scale = std::max(scale, std::abs(wanted)), worst = std::max(worst, std::abs(found - wanted));
        if (std::isnan(found)) return INFINITY;
    }
    return worst / scale;
}

int run(std::vector<Case> &cases, const std::string &set) {
    int failures = 0;
    double worst = 0.0;
    if (radbox_kernels_select(set.c_str()) != RADBOX_OK) {
        std::fprintf(stderr, "cases: %s\n", radbox_error_message());
        return 1;
    }
    for (Case &tried : cases) {
        Arguments arguments(tried);
        const int status = kOperators.at(tried.name)(arguments);
        if (status != tried.status) {
            std::fprintf(stderr, "cases: %s, %s: expected status %d, got %d, \"%s\"\n", set.c_str(), tried.name.c_str(),
                         tried.status, status, radbox_error_message());
            ++failures;
        }
        if (status != RADBOX_OK) continue;
        for (size_t i = 0; i < tried.outputs.size(); ++i) {
            const double error = error_of(arguments.got[i], tried.outputs[i]);
            worst = std::max(worst, error);
            if (error <= static_cast<double>(tried.outputs[i].tolerance)) continue;
            std::fprintf(stderr, "cases: %s, %s: expected output %zu within %g, got %g\n", set.c_str(), tried.name.c_str(),
                         i, static_cast<double>(tried.outputs[i].tolerance), error);
            ++failures;
        }
    }
    std::printf("%s: %zu cases, greatest error %.1e, %d failed\n", set.c_str(), cases.size(), worst, failures);
    return failures;
}

}  // namespace

int main(int count, char **arguments) {
    std::ifstream file(count > 1 ? arguments[1] : "", std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (bytes.compare(0, 8, "RBXCASE3") != 0) {
        std::fprintf(stderr, "cases: expected a file of tests/kernel_cases.py, got none\n");
        return 2;
    }
    Reader reader(bytes.substr(8));
    std::vector<Case> cases;
    while (!reader.done()) cases.push_back(reader.next());
    std::vector<std::string> sets(arguments + 2, arguments + count);
    if (sets.empty()) {
        std::istringstream names(radbox_kernels_runnable());
        for (std::string name; std::getline(names >> std::ws, name, ',');) sets.push_back(name);
    }
    int failures = 0;
    for (const std::string &set : sets) failures += run(cases, set);
    return failures == 0 ? 0 : 1;
}
