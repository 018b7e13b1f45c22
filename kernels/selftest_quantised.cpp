// The self test's int8 and int4 half: operators against plain sums, decoders against themselves in every arrangement.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "selftest.h"

namespace {

// Weights as a decoder takes them: matrices rounded to int8 or to nibbles, the rest float.
struct Weights {
    std::vector<Named> named;
    std::vector<std::vector<int8_t>> bytes;
    std::vector<std::vector<uint8_t>> nibbles;
    std::vector<Floats> scales;
    std::vector<std::vector<uint16_t>> halves;
    std::vector<radbox_tensor_f32> f32;
    std::vector<radbox_matrix_q8> q8;
    std::vector<radbox_matrix_q4> q4;

    Weights(const radbox_decoder_shape &shape, bool four) : named(random_weights(shape)) {
        for (const Named &weight : named) {
            const bool matrix = weight.columns > 1 && weight.name.find("embed") == std::string::npos &&
                                weight.name.find("position") == std::string::npos &&
                                weight.name.find("gate") == std::string::npos;
            const bool once = weight.name.find("kv.") != std::string::npos || weight.name.find("vis.") == 0;
            if (!matrix)
                f32.push_back({weight.name.c_str(), weight.values.data(), weight.rows, weight.columns});
            else if (four && !once)
                add_q4(weight);
            else
                add_q8(weight);
        }
    }

    void add_q8(const Named &weight) {
        bytes.emplace_back(weight.values.size());
        scales.emplace_back(static_cast<size_t>(weight.rows), 0.01f);
        for (size_t i = 0; i < weight.values.size(); ++i)
            bytes.back()[i] = static_cast<int8_t>(std::clamp(std::lround(weight.values[i] * 100.0f), -127l, 127l));
        q8.push_back({weight.name.c_str(), bytes.back().data(), scales.back().data(), weight.rows, weight.columns});
    }

    void add_q4(const Named &weight) {
        const auto pairs = static_cast<size_t>(weight.rows * ((weight.columns + 1) / 2));
        const auto groups = static_cast<size_t>(weight.rows * ((weight.columns + 31) / 32));
        nibbles.emplace_back(pairs), halves.emplace_back(groups, uint16_t{0x2c00});  // 1/16
        for (size_t i = 0; i < pairs; ++i) nibbles.back()[i] = static_cast<uint8_t>(i * 37 % 256);
        q4.push_back({weight.name.c_str(), nibbles.back().data(), halves.back().data(), weight.rows, weight.columns});
    }

    radbox_weights given() const {
        const auto count = [](const auto &all) { return static_cast<int64_t>(all.size()); };
        return {f32.data(), count(f32), q8.data(), count(q8), q4.data(), count(q4)};
    }
};

struct Destroy {
    void operator()(radbox_decoder *decoder) const { radbox_decoder_destroy(decoder); }
};
using Handle = std::unique_ptr<radbox_decoder, Destroy>;

constexpr radbox_decoder_shape kShape = {11, 24, 2, 3, 37, 35, 9};
constexpr int64_t kImageTokens = 13;

Handle made(const Weights &weights, int32_t threads_, int32_t images = 1, int32_t sequences = 1,
            const radbox_decoder_shape &shape = kShape) {
    const radbox_decoder_limits limits = {threads_, images, sequences};
    const radbox_weights given = weights.given();
    radbox_decoder *handle = nullptr;
    EXPECT(radbox_decoder_create_quantised(&shape, &limits, &given, &handle) == RADBOX_OK);
    return Handle(handle);
}

struct Picture {
    Floats tokens = random_floats(kImageTokens * kShape.channels), bias = random_floats(kShape.layers * kImageTokens);
};

Floats logits_of(radbox_decoder *decoder, const Picture &picture, int steps) {
    Floats all;
    EXPECT(radbox_decoder_begin_f32(decoder, picture.tokens.data(), picture.bias.data(), kImageTokens) == RADBOX_OK);
    for (int32_t t = 0; t < steps; ++t) {
        Floats logits(11), map(static_cast<size_t>(kShape.layers * kImageTokens));
        EXPECT(radbox_decoder_step_f32(decoder, t % 11, logits.data(), map.data()) == RADBOX_OK);
        double total = 0.0;
        for (const float share : map) total += static_cast<double>(share);
        EXPECT(close(total, kShape.layers));
        all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
}

}  // namespace

void quantised_operators() {
    for (const int64_t inputs : {1, 5, 16, 33, 64, 130})
        for (const int64_t outputs : {1, 31, 32, 65})
            for (const int64_t rows : {1, 2, 3, 5, 8, 9}) {
                const Floats x = random_floats(rows * inputs);
                std::vector<int8_t> values(static_cast<size_t>(outputs * inputs)), quantised(x.size());
                for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int8_t>(static_cast<int>(i * 91 % 255) - 127);
                const Floats scales(static_cast<size_t>(outputs), 0.5f), bias = random_floats(outputs);
                Floats y(static_cast<size_t>(rows * outputs)), x_scales(static_cast<size_t>(rows));
                EXPECT(radbox_quantise_q8(x.data(), rows, inputs, quantised.data(), x_scales.data()) == RADBOX_OK);
                EXPECT(radbox_linear_q8(x.data(), values.data(), scales.data(), bias.data(), rows, inputs, outputs,
                                        y.data()) == RADBOX_OK);
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t o = 0; o < outputs; ++o) {
                        int64_t sum = 0;
                        for (int64_t i = 0; i < inputs; ++i)
                            sum += quantised[static_cast<size_t>(r * inputs + i)] * values[static_cast<size_t>(o * inputs + i)];
                        const double expected = static_cast<double>(sum) * 0.5 * static_cast<double>(x_scales[static_cast<size_t>(r)]) +
                                                static_cast<double>(bias[static_cast<size_t>(o)]);
                        EXPECT(close(static_cast<double>(y[static_cast<size_t>(r * outputs + o)]), expected,
                                     1.0 + std::abs(expected)));
                    }
                const auto pairs = static_cast<size_t>(outputs * ((inputs + 1) / 2));
                const auto groups = static_cast<size_t>(outputs * ((inputs + 31) / 32));
                const std::vector<uint8_t> nibbles(pairs, uint8_t{0xff});     // 7 everywhere
                const std::vector<uint16_t> halves(groups, uint16_t{0x3c00});  // scale 1
                const Floats same(static_cast<size_t>(rows * inputs), 2.0f);
                EXPECT(radbox_linear_q4(same.data(), nibbles.data(), halves.data(), nullptr, rows, inputs, outputs,
                                        y.data()) == RADBOX_OK);
                for (const float value : y) EXPECT(close(static_cast<double>(value), 14.0 * static_cast<double>(inputs), 1e3));
            }
    Floats one{1.0f}, broken{kNaN};
    const int8_t byte = 1;
    int8_t out = 0;
    EXPECT(radbox_linear_q8(broken.data(), &byte, one.data(), nullptr, 1, 1, 1, one.data()) == RADBOX_NOT_FINITE);
    EXPECT(radbox_linear_q8(one.data(), nullptr, one.data(), nullptr, 1, 1, 1, one.data()) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_quantise_q8(broken.data(), 1, 1, &out, one.data()) == RADBOX_NOT_FINITE);
    EXPECT(radbox_linear_q8(one.data(), &byte, one.data(), nullptr, INT64_MAX, INT64_MAX, 1, one.data()) ==
           RADBOX_BAD_ARGUMENT);
}

void quantised_decoder() {
    for (const bool four : {false, true}) {
        const Weights weights(kShape, four);
        const Picture one, other;
        const Handle single = made(weights, 1);
        const Floats expected = logits_of(single.get(), one, kShape.positions);
        logits_of(single.get(), other, 3);
        EXPECT(logits_of(single.get(), one, kShape.positions) == expected);
        for (const int32_t threads_ : {2, 5}) EXPECT(logits_of(made(weights, threads_).get(), one, kShape.positions) == expected);

        Floats logits(11);
        EXPECT(radbox_decoder_step_f32(single.get(), 0, logits.data(), nullptr) == RADBOX_WRONG_STATE);
        EXPECT(radbox_decoder_begin_f32(single.get(), Floats(one.tokens.size(), kNaN).data(), one.bias.data(), kImageTokens) ==
               RADBOX_NOT_FINITE);
        EXPECT(radbox_decoder_step_f32(single.get(), 0, logits.data(), nullptr) == RADBOX_WRONG_STATE);
        EXPECT(radbox_decoder_begin_f32(single.get(), one.tokens.data(), Floats(one.bias.size(), kNaN).data(),
                                        kImageTokens) == RADBOX_NOT_FINITE);
        EXPECT(radbox_decoder_begin_f32(single.get(), one.tokens.data(), Floats(one.bias.size(), -kInfinity).data(),
                                        kImageTokens) == RADBOX_OK);
        EXPECT(radbox_decoder_step_f32(single.get(), 0, logits.data(), nullptr) == RADBOX_NOTHING_ALLOWED);
        EXPECT(logits_of(single.get(), one, 3) == Floats(expected.begin(), expected.begin() + 33));  // none of it stays
        EXPECT(radbox_decoder_begin_f32(single.get(), one.tokens.data(), one.bias.data(), 1) == RADBOX_OK);
        EXPECT(radbox_decoder_step_f32(single.get(), 0, logits.data(), nullptr) == RADBOX_OK);

        radbox_decoder *refused = nullptr;
        radbox_weights fewer = weights.given();
        radbox_decoder_limits limits = {1, 1, 1};
        --fewer.q8_count;
        EXPECT(radbox_decoder_create_quantised(&kShape, &limits, &fewer, &refused) == RADBOX_BAD_ARGUMENT);
        EXPECT(refused == nullptr && std::strstr(radbox_error_message(), "matrix named") != nullptr);
        limits.threads = RADBOX_GREATEST_THREADS + 1;
        const radbox_weights given = weights.given();
        EXPECT(radbox_decoder_create_quantised(&kShape, &limits, &given, &refused) == RADBOX_BAD_ARGUMENT);
    }
}

void batches() {
    const Weights weights(kShape, false);
    const Picture pictures[2];
    constexpr int64_t kBatch = RADBOX_GREATEST_BATCH;
    const Handle alone = made(weights, 1), together = made(weights, 2, 2, kBatch);
    for (int32_t image = 0; image < 2; ++image)
        EXPECT(radbox_decoder_begin_image_f32(together.get(), image, pictures[image].tokens.data(),
                                              pictures[image].bias.data(), kImageTokens) == RADBOX_OK);
    for (int64_t count = 1; count <= kBatch; ++count)
        for (const bool one_image : {true, false}) {
            std::vector<int32_t> sequences, tokens;
            for (int32_t b = 0; b < count; ++b) {
                sequences.push_back(static_cast<int32_t>(kBatch) - 1 - b);
                EXPECT(radbox_decoder_start_sequence(together.get(), sequences.back(), one_image ? 0 : b % 2) == RADBOX_OK);
            }
            Floats logits(static_cast<size_t>(11 * count));
            for (int32_t t = 0; t < 3; ++t) {
                tokens.clear();
                for (int32_t b = 0; b < count; ++b) tokens.push_back((t + b) % 11);
                EXPECT(radbox_decoder_step_batch_f32(together.get(), count, tokens.data(), sequences.data(), logits.data(),
                                                     nullptr) == RADBOX_OK);
            }
            for (int32_t b = 0; b < count; ++b) {
                Floats single(11);
                const Picture &picture = pictures[one_image ? 0 : b % 2];
                EXPECT(radbox_decoder_begin_f32(alone.get(), picture.tokens.data(), picture.bias.data(), kImageTokens) ==
                       RADBOX_OK);
                for (int32_t t = 0; t < 3; ++t)
                    EXPECT(radbox_decoder_step_f32(alone.get(), (t + b) % 11, single.data(), nullptr) == RADBOX_OK);
                EXPECT(std::equal(single.begin(), single.end(), logits.begin() + 11 * b));
            }
        }
    // A beam that forks goes on as the one it came from.
    const int32_t fed[2] = {4, 4}, both[2] = {0, 3}, twice[2] = {0, 0};
    Floats logits(22);
    EXPECT(radbox_decoder_copy_sequence(together.get(), 0, 3) == RADBOX_OK);
    EXPECT(radbox_decoder_step_batch_f32(together.get(), 2, fed, both, logits.data(), nullptr) == RADBOX_OK);
    EXPECT(std::equal(logits.begin(), logits.begin() + 11, logits.begin() + 11));
    EXPECT(radbox_decoder_step_batch_f32(together.get(), 2, fed, twice, logits.data(), nullptr) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_decoder_step_batch_f32(together.get(), 9, fed, both, logits.data(), nullptr) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_decoder_start_sequence(together.get(), 8, 0) == RADBOX_BAD_ARGUMENT);
    EXPECT(radbox_decoder_start_sequence(together.get(), 0, 2) == RADBOX_BAD_ARGUMENT);
}

void generation() {
    const Weights weights(kShape, false);
    const Handle decoder = made(weights, 2);
    const Picture picture;
    EXPECT(radbox_decoder_begin_f32(decoder.get(), picture.tokens.data(), picture.bias.data(), kImageTokens) == RADBOX_OK);
    // Three tokens of 4..7, then token 2: states 0, 1, 2, 3 and the end, 4.
    std::vector<uint8_t> allowed(5 * 11);
    std::vector<int32_t> next(5 * 11);
    for (size_t state = 0; state < 4; ++state)
        for (size_t token = 0; token < 11; ++token) {
            allowed[state * 11 + token] = state < 3 ? token >= 4 && token < 8 : token == 2;
            next[state * 11 + token] = static_cast<int32_t>(state) + 1;
        }
    radbox_grammar grammar = {5, 11, 0, 4, allowed.data(), next.data()};
    int32_t tokens[8], state = -1;
    float logs[8];
    Floats maps(static_cast<size_t>(8 * kShape.layers * kImageTokens));
    int64_t count = 0;
    const auto generate = [&](int64_t capacity) {
        return radbox_decoder_generate_f32(decoder.get(), &grammar, 1, capacity, tokens, logs, maps.data(), &count, &state);
    };
    EXPECT(generate(8) == RADBOX_OK && count == 4 && state == 4 && tokens[3] == 2 && tokens[0] >= 4 && tokens[0] < 8);
    EXPECT(generate(2) == RADBOX_OK && count == 2 && state == 2);
    next[0 * 11 + 4] = next[0 * 11 + 5] = next[0 * 11 + 6] = next[0 * 11 + 7] = 9;
    EXPECT(generate(8) == RADBOX_BAD_ARGUMENT);
    grammar.vocabulary = 12;
    EXPECT(generate(8) == RADBOX_BAD_ARGUMENT);
}

void threads() {
    const Weights weights(kShape, true);
    const Picture picture;
    const Floats expected = logits_of(made(weights, 1).get(), picture, 20);
    const Handle sleepy = made(weights, 4);
    for (int round = 0; round < 4; ++round) {
        EXPECT(logits_of(sleepy.get(), picture, 20) == expected);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));  // long enough for the workers to fall asleep
    }
    // Workers on their way to sleep when the next stage opens: a wake-up that is lost ends in a wait without end.
    const Floats begun = logits_of(made(weights, 1).get(), picture, 2);
    for (int round = 0; round < 200; ++round) {
        EXPECT(logits_of(sleepy.get(), picture, 2) == begun);
        std::this_thread::sleep_for(std::chrono::microseconds(round % 10 * 20));
    }
    for (int round = 0; round < 8; ++round) made(weights, 3);  // ended before they have begun
    Floats found[2];
    std::thread both[2];
    for (int i = 0; i < 2; ++i)
        both[i] = std::thread([&, i] { found[i] = logits_of(made(weights, 3).get(), picture, 20); });
    for (std::thread &thread : both) thread.join();
    EXPECT(found[0] == expected && found[1] == expected);
}
