// A decoder behind the C ABI: composed of a set's float operators (decoder.cpp) or quantised (quantised_decoder.cpp).
#pragma once

#include "table.h"

// Opaque to C. It keeps the kernels that it was born with. Arguments have been checked against `shape` and `limits`.
struct radbox_decoder {
    const radbox_decoder_shape shape;
    const radbox::Operators &operators;
    const int64_t image_count, sequence_count;

    radbox_decoder(const radbox_decoder_shape &shape_, const radbox::Operators &operators_, int64_t images_,
                   int64_t sequences_)
        : shape(shape_), operators(operators_), image_count(images_), sequence_count(sequences_) {}
    radbox_decoder(const radbox_decoder &) = delete;
    radbox_decoder &operator=(const radbox_decoder &) = delete;
    virtual ~radbox_decoder() = default;

    // Cross keys and values of an image, once. Sequences on the image that was there before are forgotten.
    virtual int begin(int64_t image, const float *tokens, const float *bias, int64_t image_tokens) = 0;
    // An empty sequence on an image.
    virtual int start(int64_t sequence, int64_t image) = 0;
    virtual int copy(int64_t from, int64_t to) = 0;
    // Image tokens that a sequence attends to, 0 without an image.
    virtual int64_t image_tokens(int64_t sequence) const = 0;
    // One token for each of `count` different sequences; attention (count, layers, image tokens) or NULL.
    virtual int step(int64_t count, const int32_t *tokens, const int32_t *sequences, float *logits, float *attention) = 0;
};

namespace radbox {

// Both throw std::bad_alloc. *decoder is set only with RADBOX_OK.
int make_composed_decoder(const Operators &operators, const radbox_decoder_shape &shape,
                          const radbox_tensor_f32 *tensors, int64_t count, radbox_decoder **decoder);
int make_quantised_decoder(const Operators &operators, const radbox_decoder_shape &shape,
                           const radbox_decoder_limits &limits, const radbox_weights &weights, radbox_decoder **decoder);

}  // namespace radbox
