// The kernels alone, without Python, with every set that this CPU runs: by tools/check_kernels under sanitizers.
//
// Numbers are compared with the plainest formula in double; heap arrays of the exact size let ASan see every overrun.
#include "selftest.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>

namespace {

int failures = 0;
std::mt19937 source(7);

}  // namespace

void expect(bool holds, const char *what, const char *file, int line) {
    if (holds) return;
    std::fprintf(stderr, "%s:%d: expected %s; last error: \"%s\"\n", file, line, what, radbox_error_message());
    ++failures;
}

Floats random_floats(int64_t count, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    Floats values(static_cast<size_t>(count));
    for (float &value : values) value = normal(source);
    return values;
}

bool close(double got, double expected, double scale) { return std::abs(got - expected) <= 1e-5 * scale; }

namespace {

void linear() {
    for (const int64_t inputs : {1, 7, 8, 33, 128})
        for (const int64_t outputs : {1, 3, 4, 30}) {
            const Floats x = random_floats(2 * inputs), w = random_floats(outputs * inputs), b = random_floats(outputs);
            Floats y(static_cast<size_t>(2 * outputs));
            EXPECT(radbox_linear_f32(x.data(), w.data(), b.data(), 2, inputs, outputs, y.data()) == RADBOX_OK);
            for (int64_t r = 0; r < 2; ++r)
                for (int64_t o = 0; o < outputs; ++o) {
                    double sum = static_cast<double>(b[static_cast<size_t>(o)]);
                    for (int64_t i = 0; i < inputs; ++i)
                        sum += static_cast<double>(x[static_cast<size_t>(r * inputs + i)]) *
                               static_cast<double>(w[static_cast<size_t>(o * inputs + i)]);
                    EXPECT(close(static_cast<double>(y[static_cast<size_t>(r * outputs + o)]), sum, 30.0));
                }
        }
    Floats one{1.0f};
    EXPECT(radbox_linear_f32(nullptr, one.data(), nullptr, 1, 1, 1, one.data()) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_linear_f32(one.data(), one.data(), nullptr, 0, 1, 1, one.data()) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_linear_f32(one.data(), one.data(), nullptr, 1 << 24, 1 << 24, 1, one.data()) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_linear_f32(one.data(), one.data(), nullptr, INT64_MAX, INT64_MAX, 1, one.data()) == RADBOX_BAD_ARGUMENT);
    const char *misaligned = reinterpret_cast<const char *>(one.data()) + 1;
    EXPECT(radbox_linear_f32(reinterpret_cast<const float *>(misaligned), one.data(), nullptr, 1, 1, 1, one.data()) ==
           RADBOX_BAD_ARGUMENT);
    EXPECT(std::strstr(radbox_error_message(), "aligned") != nullptr);
}

void normalise_and_activate() {
    const Floats x{1.0f, 2.0f, 3.0f, 4.0f}, ones(4, 1.0f), zeros(4, 0.0f);
    Floats y(4);
    EXPECT(radbox_layer_norm_f32(x.data(), ones.data(), zeros.data(), 1, 4, 1e-5f, y.data()) == RADBOX_OK);
    EXPECT(close(static_cast<double>(y[0]), -1.3416355));
    const Floats huge{3e38f, -3e38f, 1e38f, 0.0f};
    EXPECT(radbox_layer_norm_f32(huge.data(), ones.data(), zeros.data(), 1, 4, 1e-5f, y.data()) == RADBOX_OK);
    const Floats broken{1.0f, kNaN, 0.0f, 0.0f};
    EXPECT(radbox_layer_norm_f32(broken.data(), ones.data(), zeros.data(), 1, 4, 1e-5f, y.data()) == RADBOX_NOT_FINITE);
    EXPECT(radbox_layer_norm_f32(x.data(), ones.data(), zeros.data(), 1, 4, kNaN, y.data()) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_gelu_tanh_f32(x.data(), 4, y.data()) == RADBOX_OK);
    EXPECT(close(static_cast<double>(y[0]), 0.841192));
    EXPECT(radbox_gelu_tanh_f32(broken.data(), 4, y.data()) == RADBOX_NOT_FINITE);
}

void attention() {
    const int64_t width = 6, tokens = 5, heads = 3;
    const Floats a = random_floats(width), q = random_floats(width), k = random_floats(tokens * width),
                 v = random_floats(tokens * width), gate = random_floats(width);
    Floats y(6), map(5), hidden(5, -kInfinity), bias(5, 0.0f);
    const auto cross = [&](const Floats &added, const Floats &query) {
        return radbox_gated_cross_attention_f32(a.data(), query.data(), k.data(), v.data(), added.data(), gate.data(),
                                                0.1f, 0.5f, tokens, width, heads, y.data(), map.data());
    };
    EXPECT(cross(bias, q) == RADBOX_OK);
    double total = 0.0;
    for (const float share : map) total += static_cast<double>(share);
    EXPECT(close(total, 1.0));
    EXPECT(cross(hidden, q) == RADBOX_NOTHING_ALLOWED);
    hidden[2] = 0.0f;  // one visible key: all of the attention is there
    EXPECT(cross(hidden, q) == RADBOX_OK);
    EXPECT(close(static_cast<double>(map[2]), 1.0));
    EXPECT(cross(bias, Floats(6, kNaN)) == RADBOX_NOT_FINITE);
    EXPECT(cross(Floats(5, kNaN), q) == RADBOX_NOT_FINITE);
    EXPECT(radbox_gated_cross_attention_f32(a.data(), q.data(), k.data(), v.data(), nullptr, gate.data(), 0.0f, 1.0f,
                                            tokens, width, 4, y.data(), nullptr) == RADBOX_BAD_ARGUMENT);

    Floats keys(static_cast<size_t>(3 * width)), values(keys.size());
    const auto step = [&](int64_t position) {
        return radbox_self_attention_step_f32(q.data(), k.data(), v.data(), keys.data(), values.data(), position, 3,
                                              width, heads, y.data());
    };
    EXPECT(step(0) == RADBOX_OK);
    EXPECT(close(static_cast<double>(y[4]), static_cast<double>(v[4])));  // alone: its own value
    EXPECT(step(2) == RADBOX_OK);
    EXPECT(step(3) == RADBOX_BAD_ARGUMENT);
    EXPECT(step(-1) == RADBOX_BAD_ARGUMENT);
}

void masks() {
    Floats grid(15, 0.0f), y(45);
    grid[7] = 1.0f;
    for (const float sigma : {0.0f, 0.35f, 9.0f})
        EXPECT(radbox_gaussian_blur_f32(grid.data(), 3, 5, sigma, y.data()) == RADBOX_OK);
    EXPECT(radbox_gaussian_blur_f32(grid.data(), 1, 1, 2.0f, y.data()) == RADBOX_OK);
    EXPECT(radbox_gaussian_blur_f32(grid.data(), 3, 5, kInfinity, y.data()) == RADBOX_BAD_ARGUMENT);
    const Floats sigma{2.2f, 1.1f, 0.0f};
    EXPECT(radbox_anatomical_bias_f32(grid.data(), 1, 3, 5, sigma.data(), 3, 2.0f, y.data()) == RADBOX_OK);
    EXPECT(close(static_cast<double>(y[37]), 2.0) && close(static_cast<double>(y[30]), 0.0));
    grid[3] = kNaN;
    EXPECT(radbox_anatomical_bias_f32(grid.data(), 1, 3, 5, sigma.data(), 3, 2.0f, y.data()) == RADBOX_NOT_FINITE);
}

void argmax() {
    const Floats logits{1.0f, 5.0f, 2.0f, 2.0f};
    const uint8_t allowed[4] = {1, 0, 1, 1}, none[4] = {0, 0, 0, 0};
    int32_t token = -1;
    float log_probability = 0.0f;
    EXPECT(radbox_masked_argmax_f32(logits.data(), allowed, 4, &token, &log_probability) == RADBOX_OK);
    EXPECT(token == 2);
    EXPECT(close(static_cast<double>(log_probability), -std::log(2.0 + std::exp(-1.0))));
    EXPECT(radbox_masked_argmax_f32(logits.data(), none, 4, &token, &log_probability) == RADBOX_NOTHING_ALLOWED);
}

}  // namespace

std::vector<Named> random_weights(const radbox_decoder_shape &s) {
    std::vector<Named> weights;
    const auto add = [&](const std::string &name, int64_t rows, int64_t columns) {
        weights.push_back({name, rows, columns, random_floats(rows * columns, 0.3f)});
    };
    const int64_t d = s.width;
    add("vis.weight", d, s.channels), add("vis.bias", d, 1), add("embed.weight", s.vocabulary, d);
    add("position.weight", s.positions, d), add("norm.weight", d, 1), add("norm.bias", d, 1);
    add("head.weight", s.vocabulary, d), add("head.bias", s.vocabulary, 1);
    for (int32_t l = 0; l < s.layers; ++l) {
        const std::string p = "layers." + std::to_string(l) + ".";
        for (const char *name : {"q", "k", "v", "out"}) add(p + name + ".weight", d, d), add(p + name + ".bias", d, 1);
        for (const char *name : {"norm1", "norm2"}) add(p + name + ".weight", d, 1), add(p + name + ".bias", d, 1);
        add(p + "kv.weight", 2 * d, d), add(p + "kv.bias", 2 * d, 1), add(p + "gate.weight", 1, d);
        add(p + "gate.bias", 1, 1), add(p + "gate_scale", 1, 1), add(p + "up.weight", s.ffn, d);
        add(p + "up.bias", s.ffn, 1), add(p + "down.weight", d, s.ffn), add(p + "down.bias", d, 1);
    }
    return weights;
}

namespace {

void decoder() {
    const radbox_decoder_shape shape{11, 12, 2, 3, 17, 5, 9};
    const int64_t image_tokens = 13;
    const std::vector<Named> weights = random_weights(shape);
    std::vector<radbox_tensor_f32> tensors;
    for (const Named &weight : weights)
        tensors.push_back({weight.name.c_str(), weight.values.data(), weight.rows, weight.columns});
    const auto count = static_cast<int64_t>(tensors.size());

    radbox_decoder *handle = nullptr;
    EXPECT(radbox_decoder_create_f32(&shape, tensors.data(), count - 1, &handle) == RADBOX_BAD_ARGUMENT);
    EXPECT(handle == nullptr && std::strstr(radbox_error_message(), "layers.1.down.bias") != nullptr);
    radbox_decoder_shape wrong = shape;
    wrong.heads = 5;
    EXPECT(radbox_decoder_create_f32(&wrong, tensors.data(), count, &handle) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_decoder_create_f32(&shape, tensors.data(), count, &handle) == RADBOX_OK);
    if (handle == nullptr) return;

    const Floats tokens = random_floats(image_tokens * shape.channels);
    const Floats bias = random_floats(shape.layers * image_tokens);
    Floats logits(11), again(11), map(static_cast<size_t>(shape.layers * image_tokens));
    EXPECT(radbox_decoder_step_f32(handle, 1, logits.data(), nullptr) == RADBOX_WRONG_STATE);
    EXPECT(radbox_decoder_begin_f32(handle, Floats(tokens.size(), kNaN).data(), bias.data(), image_tokens) ==
           RADBOX_NOT_FINITE);
    EXPECT(radbox_decoder_step_f32(handle, 1, logits.data(), nullptr) == RADBOX_WRONG_STATE);
    for (Floats *out : {&logits, &again}) {
        EXPECT(radbox_decoder_begin_f32(handle, tokens.data(), bias.data(), image_tokens) == RADBOX_OK);
        for (int32_t t = 0; t < shape.positions; ++t)
            EXPECT(radbox_decoder_step_f32(handle, t, out->data(), map.data()) == RADBOX_OK);
    }
    EXPECT(logits == again);
    EXPECT(radbox_decoder_step_f32(handle, 1, logits.data(), nullptr) == RADBOX_WRONG_STATE);
    EXPECT(radbox_decoder_step_f32(handle, 11, logits.data(), nullptr) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_decoder_step_f32(handle, -1, logits.data(), nullptr) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_decoder_begin_f32(handle, tokens.data(), bias.data(), 1) == RADBOX_OK);  // a smaller image
    EXPECT(radbox_decoder_step_f32(handle, 0, logits.data(), nullptr) == RADBOX_OK);
    radbox_decoder_destroy(handle);
    radbox_decoder_destroy(nullptr);
}

// Every set that runs here, best first; the others are refused by name.
std::vector<std::string> selection() {
    EXPECT(radbox_abi_version() == RADBOX_ABI_VERSION);
    EXPECT(radbox_kernels_select("no-such-kernels") == RADBOX_UNKNOWN_KERNELS);
    EXPECT(std::strstr(radbox_error_message(), "reference") != nullptr);
    setenv("RADBOX_KERNELS", "no-such-kernels", 1);
    EXPECT(radbox_kernels_select(nullptr) == RADBOX_UNKNOWN_KERNELS);
    setenv("RADBOX_KERNELS", "reference", 1);
    EXPECT(radbox_kernels_select(nullptr) == RADBOX_OK && std::string(radbox_kernels_name()) == "reference");
    unsetenv("RADBOX_KERNELS");
    const std::string runnable = std::string(", ") + radbox_kernels_runnable() + ",";
    std::vector<std::string> sets;
    std::istringstream known(radbox_kernels_known());
    for (std::string name; std::getline(known >> std::ws, name, ',');) {
        const bool here = runnable.find(" " + name + ",") != std::string::npos;
        EXPECT(radbox_kernels_select(name.c_str()) == (here ? RADBOX_OK : RADBOX_UNSUPPORTED_KERNELS));
        if (here) sets.push_back(name);
    }
    EXPECT(!sets.empty() && sets.back() == "reference");
    EXPECT(radbox_kernels_select(nullptr) == RADBOX_OK && sets[0] == radbox_kernels_name());
    return sets;
}

void top_k() {
    const Floats logits{1.0f, 5.0f, 2.0f, 2.0f, 0.0f};
    const uint8_t allowed[5] = {1, 0, 1, 1, 0};
    int32_t tokens[5];
    float logs[5];
    EXPECT(radbox_masked_top_k_f32(logits.data(), allowed, 5, 4, tokens, logs) == RADBOX_OK);
    EXPECT(tokens[0] == 2 && tokens[1] == 3 && tokens[2] == 0 && tokens[3] == -1 && logs[3] == -kInfinity);
    EXPECT(close(static_cast<double>(logs[2]), -1.0 - std::log(2.0 + std::exp(-1.0))));
    EXPECT(radbox_masked_top_k_f32(logits.data(), allowed, 5, 6, tokens, logs) == RADBOX_BAD_ARGUMENT);
}

}  // namespace

int main() {
    for (const std::string &set : selection()) {
        EXPECT(radbox_kernels_select(set.c_str()) == RADBOX_OK);
        linear();
        normalise_and_activate();
        attention();
        masks();
        argmax();
        top_k();
        decoder();
        quantised_operators();
        quantised_decoder();
        batches();
        generation();
        std::printf("kernels self test: %s, %d expectations failed\n", radbox_kernels_name(), failures);
    }
    threads();
    return failures == 0 ? 0 : 1;
}
