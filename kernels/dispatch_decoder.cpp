// The exported functions of decoders: check every argument, then call the handle.
#include <vector>

#include "checks.h"
#include "decoder.h"
#include "select.h"

namespace radbox {
namespace {

constexpr int64_t kGreatestKept = 64;  // images or sequences of one decoder

int check_decoder(const char *operation, const radbox_decoder *decoder) {
    if (decoder != nullptr) return RADBOX_OK;
    return fail(RADBOX_BAD_ARGUMENT, "%s: expected a decoder, got null", operation);
}

int check_values(const radbox_matrix_q8 &matrix) {
    RETURN_IF_BAD(check_range(matrix.name, "columns", matrix.columns, 1, kGreatestSummed));
    return check_int8(matrix.name, "values", matrix.values, matrix.rows * matrix.columns);
}

int check_values(const radbox_matrix_q4 &) { return RADBOX_OK; }

template <typename Matrix>
int check_matrices(const char *operation, const Matrix *matrices, int64_t count, size_t scale_alignment) {
    if (count == 0) return RADBOX_OK;
    RETURN_IF_BAD(check_pointers(operation, alignof(Matrix), {{"matrices", matrices}}));
    RETURN_IF_BAD(check_sizes(operation, {{"count", count}}));
    for (int64_t i = 0; i < count; ++i) {
        const Matrix &matrix = matrices[i];
        if (matrix.name == nullptr)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected every matrix named, got null", operation);
        RETURN_IF_BAD(check_sizes(matrix.name, {{"rows", matrix.rows}, {"columns", matrix.columns}}));
        RETURN_IF_BAD(check_pointers(operation, 1, {{matrix.name, matrix.values}}));
        RETURN_IF_BAD(check_pointers(operation, scale_alignment, {{matrix.name, matrix.scales}}));
        RETURN_IF_BAD(check_values(matrix));
    }
    return RADBOX_OK;
}

int check_image(const char *operation, const radbox_decoder &decoder, const float *tokens, const float *bias,
                int64_t image_tokens) {
    const radbox_decoder_shape &shape = decoder.shape;
    RETURN_IF_BAD(check_sizes(operation, {{"image_tokens", image_tokens}, {"channels", shape.channels}}));
    RETURN_IF_BAD(check_sizes(operation, {{"image_tokens", image_tokens}, {"width", shape.width}}));
    RETURN_IF_BAD(check_sizes(operation, {{"image_tokens", image_tokens}, {"layers", shape.layers}}));
    RETURN_IF_BAD(check_range(operation, "image_tokens", image_tokens, 1, kGreatestSummed));
    return check_floats(operation, {{"tokens", tokens}, {"bias", bias}});
}

int check_token(const char *operation, const radbox_decoder &decoder, int32_t token) {
    return check_range(operation, "a token", token, 0, decoder.shape.vocabulary - 1);
}

int check_grammar(const char *operation, const radbox_decoder &decoder, const radbox_grammar &grammar) {
    if (grammar.vocabulary != decoder.shape.vocabulary)
        return fail(RADBOX_BAD_ARGUMENT, "%s: expected a grammar of %d tokens, got %d", operation,
                    decoder.shape.vocabulary, grammar.vocabulary);
    RETURN_IF_BAD(check_sizes(operation, {{"states", grammar.states}, {"vocabulary", grammar.vocabulary}}));
    RETURN_IF_BAD(check_range(operation, "the first state", grammar.start, 0, grammar.states - 1));
    RETURN_IF_BAD(check_range(operation, "the final state", grammar.final, 0, grammar.states - 1));
    RETURN_IF_BAD(check_pointers(operation, 1, {{"allowed", grammar.allowed}}));
    return check_pointers(operation, alignof(int32_t), {{"next", grammar.next}});
}

int generate(radbox_decoder &decoder, const radbox_grammar &grammar, int32_t token, int64_t capacity, int32_t *tokens,
             float *log_probabilities, float *attention, int64_t *count, int32_t *state) {
    static const int32_t first_sequence = 0;
    const int64_t vocabulary = grammar.vocabulary, map = decoder.shape.layers * decoder.image_tokens(0);
    std::vector<float> logits(static_cast<size_t>(vocabulary));
    *count = 0, *state = grammar.start;
    while (*state != grammar.final && *count < capacity) {
        const int64_t row = *state * vocabulary;
        float *step_attention = attention == nullptr ? nullptr : attention + *count * map;
        RETURN_IF_BAD(decoder.step(1, &token, &first_sequence, logits.data(), step_attention));
        RETURN_IF_BAD(decoder.operators.masked_argmax_f32(logits.data(), grammar.allowed + row, vocabulary, &token,
                                                          log_probabilities + *count));
        tokens[(*count)++] = token;
        const int32_t next = grammar.next[row + token];
        RETURN_IF_BAD(check_range("radbox_decoder_generate_f32", "a next state", next, 0, grammar.states - 1));
        *state = next;
    }
    return RADBOX_OK;
}

}  // namespace
}  // namespace radbox

using namespace radbox;

extern "C" {

int radbox_decoder_create_f32(const radbox_decoder_shape *shape, const radbox_tensor_f32 *tensors, int64_t count,
                              radbox_decoder **decoder) {
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_decoder *), {{"decoder", decoder}}));
    *decoder = nullptr;
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_decoder_shape), {{"shape", shape}}));
    RETURN_IF_BAD(check_shape(__func__, *shape));
    RETURN_IF_BAD(check_tensors(__func__, tensors, count));
    return run([&](const Operators &k) { return make_composed_decoder(k, *shape, tensors, count, decoder); });
}

int radbox_decoder_create_quantised(const radbox_decoder_shape *shape, const radbox_decoder_limits *limits,
                                    const radbox_weights *weights, radbox_decoder **decoder) {
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_decoder *), {{"decoder", decoder}}));
    *decoder = nullptr;
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_decoder_shape), {{"shape", shape}, {"limits", limits}}));
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_weights), {{"weights", weights}}));
    RETURN_IF_BAD(check_shape(__func__, *shape));
    RETURN_IF_BAD(check_range(__func__, "positions", shape->positions, 1, kGreatestSummed));
    RETURN_IF_BAD(check_range(__func__, "width", shape->width, 1, kGreatestSummed));
    RETURN_IF_BAD(check_range(__func__, "ffn", shape->ffn, 1, kGreatestSummed));
    RETURN_IF_BAD(check_range(__func__, "channels", shape->channels, 1, kGreatestSummed));
    RETURN_IF_BAD(check_range(__func__, "threads", limits->threads, 1, RADBOX_GREATEST_THREADS));
    RETURN_IF_BAD(check_range(__func__, "images", limits->images, 1, kGreatestKept));
    RETURN_IF_BAD(check_range(__func__, "sequences", limits->sequences, 1, kGreatestKept));
    RETURN_IF_BAD(check_tensors(__func__, weights->f32, weights->f32_count));
    RETURN_IF_BAD(check_matrices(__func__, weights->q8, weights->q8_count, alignof(float)));
    RETURN_IF_BAD(check_matrices(__func__, weights->q4, weights->q4_count, alignof(uint16_t)));
    return run([&](const Operators &k) { return make_quantised_decoder(k, *shape, *limits, *weights, decoder); });
}

int radbox_decoder_begin_image_f32(radbox_decoder *decoder, int32_t image, const float *tokens, const float *bias,
                                   int64_t image_tokens) {
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_range(__func__, "an image", image, 0, decoder->image_count - 1));
    RETURN_IF_BAD(check_image(__func__, *decoder, tokens, bias, image_tokens));
    return guarded([&] { return decoder->begin(image, tokens, bias, image_tokens); });
}

int radbox_decoder_start_sequence(radbox_decoder *decoder, int32_t sequence, int32_t image) {
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_range(__func__, "a sequence", sequence, 0, decoder->sequence_count - 1));
    RETURN_IF_BAD(check_range(__func__, "an image", image, 0, decoder->image_count - 1));
    return guarded([&] { return decoder->start(sequence, image); });
}

int radbox_decoder_copy_sequence(radbox_decoder *decoder, int32_t from, int32_t to) {
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_range(__func__, "a sequence", from, 0, decoder->sequence_count - 1));
    RETURN_IF_BAD(check_range(__func__, "a sequence", to, 0, decoder->sequence_count - 1));
    return guarded([&] { return decoder->copy(from, to); });
}

int radbox_decoder_begin_f32(radbox_decoder *decoder, const float *tokens, const float *bias, int64_t image_tokens) {
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_image(__func__, *decoder, tokens, bias, image_tokens));
    return guarded([&] {
        RETURN_IF_BAD(decoder->begin(0, tokens, bias, image_tokens));
        return decoder->start(0, 0);
    });
}

int radbox_decoder_step_f32(radbox_decoder *decoder, int32_t token, float *logits, float *attention) {
    static const int32_t first_sequence = 0;
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_floats(__func__, {{"logits", logits}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    RETURN_IF_BAD(check_token(__func__, *decoder, token));
    return guarded([&] { return decoder->step(1, &token, &first_sequence, logits, attention); });
}

int radbox_decoder_step_batch_f32(radbox_decoder *decoder, int64_t count, const int32_t *tokens,
                                  const int32_t *sequences, float *logits, float *attention) {
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_range(__func__, "a batch", count, 1, RADBOX_GREATEST_BATCH));
    RETURN_IF_BAD(check_floats(__func__, {{"tokens", tokens}, {"sequences", sequences}, {"logits", logits}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    for (int64_t b = 0; b < count; ++b) {
        RETURN_IF_BAD(check_token(__func__, *decoder, tokens[b]));
        RETURN_IF_BAD(check_range(__func__, "a sequence", sequences[b], 0, decoder->sequence_count - 1));
        for (int64_t other = 0; other < b; ++other)
            if (sequences[other] == sequences[b])
                return fail(RADBOX_BAD_ARGUMENT, "%s: expected different sequences, got %d twice", __func__, sequences[b]);
        if (attention != nullptr && decoder->image_tokens(sequences[b]) != decoder->image_tokens(sequences[0]))
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected images of one size with attention, got %lld and %lld tokens",
                        __func__, static_cast<long long>(decoder->image_tokens(sequences[0])),
                        static_cast<long long>(decoder->image_tokens(sequences[b])));
    }
    return guarded([&] { return decoder->step(count, tokens, sequences, logits, attention); });
}

int radbox_decoder_generate_f32(radbox_decoder *decoder, const radbox_grammar *grammar, int32_t token, int64_t capacity,
                                int32_t *tokens, float *log_probabilities, float *attention, int64_t *count,
                                int32_t *state) {
    RETURN_IF_BAD(check_decoder(__func__, decoder));
    RETURN_IF_BAD(check_pointers(__func__, alignof(radbox_grammar), {{"grammar", grammar}}));
    RETURN_IF_BAD(check_grammar(__func__, *decoder, *grammar));
    RETURN_IF_BAD(check_token(__func__, *decoder, token));
    RETURN_IF_BAD(check_sizes(__func__, {{"capacity", capacity}}));
    RETURN_IF_BAD(check_floats(__func__, {{"tokens", tokens}, {"log_probabilities", log_probabilities}, {"state", state}}));
    RETURN_IF_BAD(check_pointers(__func__, alignof(int64_t), {{"count", count}}));
    if (attention != nullptr) RETURN_IF_BAD(check_floats(__func__, {{"attention", attention}}));
    return guarded([&] {
        return generate(*decoder, *grammar, token, capacity, tokens, log_probabilities, attention, count, state);
    });
}

void radbox_decoder_destroy(radbox_decoder *decoder) { delete decoder; }

}  // extern "C"
