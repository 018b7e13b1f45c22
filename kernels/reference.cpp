// Every operator in plain C++17: the readable twin of edge/reading/ops/reference.py, which holds papers and equations.
//
// No intrinsics and no fast-math. Sums run over a fixed number of lanes (dot products) or in double (statistics), so a
// result depends on neither the compiler's vector width nor the number of threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "table.h"

namespace radbox {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kLanes = 4;        // partial sums of a dot product: one vector on every CPU we run on
constexpr int64_t kBlock = 4;        // weight rows that share one read of x
constexpr double kFlatRange = 1e-6;  // below it a map has no shape to rescale

int not_finite(const char *operation) {
    return fail(RADBOX_NOT_FINITE, "expected finite numbers in %s, got NaN, infinity or an overflow", operation);
}

bool all_finite(const float *x, int64_t count) {
    uint32_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        found |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return found == 0;
}

// Four floats in one register: the compilers' own vector type, SSE2 or NEON or plain code as the target has it.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

Lanes load(const float *from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

// out[r] = w[r * stride + 0..count) . x, for R rows at once.
template <int64_t R>
void dots(const float *w, int64_t stride, const float *x, int64_t count, float *out) {
    Lanes sums[R] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        const Lanes shared = load(x + i);
        for (int64_t r = 0; r < R; ++r) sums[r] += load(w + r * stride + i) * shared;
    }
    for (int64_t r = 0; r < R; ++r) {
        out[r] = (sums[r][0] + sums[r][2]) + (sums[r][1] + sums[r][3]);
        for (int64_t rest = i; rest < count; ++rest) out[r] += w[r * stride + rest] * x[rest];
    }
}

// out (rows) = w (rows, count; rows `stride` apart) x
void matrix_vector(const float *w, int64_t stride, int64_t rows, const float *x, int64_t count, float *out) {
    int64_t r = 0;
    for (; r + kBlock <= rows; r += kBlock) dots<kBlock>(w + r * stride, stride, x, count, out + r);
    for (; r < rows; ++r) dots<1>(w + r * stride, stride, x, count, out + r);
}

// y (count) = p (rows) v (rows, count; rows `stride` apart)
void weighted_rows(const float *p, const float *v, int64_t stride, int64_t rows, int64_t count, float *y) {
    std::fill(y, y + count, 0.0f);
    int64_t r = 0;
    for (; r + kBlock <= rows; r += kBlock) {
        const float *v0 = v + r * stride, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
        const float p0 = p[r], p1 = p[r + 1], p2 = p[r + 2], p3 = p[r + 3];
        for (int64_t i = 0; i < count; ++i) y[i] += (p0 * v0[i] + p1 * v1[i]) + (p2 * v2[i] + p3 * v3[i]);
    }
    for (; r < rows; ++r)
        for (int64_t i = 0; i < count; ++i) y[i] += p[r] * v[r * stride + i];
}

// scores := softmax(scores * scale + bias) in place. A bias of -inf hides its key; hiding all of them is an error.
int scaled_softmax(float *scores, const float *bias, int64_t count, float scale, const char *operation) {
    if (!all_finite(scores, count)) return not_finite(operation);
    float greatest = -kInfinity;
    for (int64_t i = 0; i < count; ++i) {
        const float added = bias == nullptr ? 0.0f : bias[i];
        if (std::isnan(added) || added == kInfinity) return not_finite(operation);
        scores[i] = scores[i] * scale + added;
        greatest = std::max(greatest, scores[i]);
    }
    if (greatest == -kInfinity)
        return fail(RADBOX_NOTHING_ALLOWED, "expected at least one visible key in %s, got a bias of -inf on all",
                    operation);
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) {
        scores[i] = std::exp(scores[i] - greatest);
        sum += static_cast<double>(scores[i]);
    }
    const float inverse = static_cast<float>(1.0 / sum);
    for (int64_t i = 0; i < count; ++i) scores[i] *= inverse;
    return RADBOX_OK;
}

int layer_norm_f32_reference(const float *x, const float *weight, const float *bias, int64_t rows, int64_t width,
                             float epsilon, float *y) {
    for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
        double sum = 0.0, squares = 0.0;
        for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(x[i]);
        const double mean = sum / static_cast<double>(width);
        for (int64_t i = 0; i < width; ++i) squares += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
        const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(epsilon));
        for (int64_t i = 0; i < width; ++i)
            y[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * inverse) * weight[i] + bias[i];
        if (!all_finite(y, width)) return not_finite("layer_norm_f32");
    }
    return RADBOX_OK;
}

int linear_f32_reference(const float *x, const float *weight, const float *bias, int64_t rows, int64_t inputs,
                         int64_t outputs, float *y) {
    for (int64_t r = 0; r < rows; ++r, x += inputs, y += outputs) {
        matrix_vector(weight, inputs, outputs, x, inputs, y);
        if (bias != nullptr)
            for (int64_t o = 0; o < outputs; ++o) y[o] += bias[o];
        if (!all_finite(y, outputs)) return not_finite("linear_f32");
    }
    return RADBOX_OK;
}

int gelu_tanh_f32_reference(const float *x, int64_t count, float *y) {
    constexpr float kRootTwoOverPi = 0.7978845608028654f;
    for (int64_t i = 0; i < count; ++i) {
        const float u = x[i];
        y[i] = u * ((std::tanh(kRootTwoOverPi * (u + 0.044715f * u * u * u)) + 1.0f) * 0.5f);
    }
    return all_finite(y, count) ? static_cast<int>(RADBOX_OK) : not_finite("gelu_tanh_f32");
}

int swiglu_f32_reference(const float *gate, const float *up, int64_t count, float *y) {
    if (!all_finite(gate, count) || !all_finite(up, count)) return not_finite("swiglu_f32");
    for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    return all_finite(y, count) ? static_cast<int>(RADBOX_OK) : not_finite("swiglu_f32");
}

int self_attention_step_f32_reference(const float *query, const float *key, const float *value, float *cache_keys,
                                      float *cache_values, int64_t position, int64_t width, int64_t heads,
                                      float *scores, float *y) {
    const int64_t head_width = width / heads, length = position + 1;
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_width));
    std::copy(key, key + width, cache_keys + position * width);
    std::copy(value, value + width, cache_values + position * width);
    for (int64_t h = 0; h < heads; ++h) {
        const int64_t first = h * head_width;
        matrix_vector(cache_keys + first, width, length, query + first, head_width, scores);
        const int status = scaled_softmax(scores, nullptr, length, scale, "self_attention_step_f32");
        if (status != RADBOX_OK) return status;
        weighted_rows(scores, cache_values + first, width, length, head_width, y + first);
    }
    return all_finite(y, width) ? static_cast<int>(RADBOX_OK) : not_finite("self_attention_step_f32");
}

int gated_cross_attention_f32_reference(const float *a, const float *query, const float *keys, const float *values,
                                        const float *bias, const float *gate_weight, float gate_bias, float gate_scale,
                                        int64_t image_tokens, int64_t width, int64_t heads, float *scores, float *y,
                                        float *attention) {
    const int64_t head_width = width / heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_width));
    if (attention != nullptr) std::fill(attention, attention + image_tokens, 0.0f);
    for (int64_t h = 0; h < heads; ++h) {
        const int64_t first = h * head_width;
        matrix_vector(keys + first, width, image_tokens, query + first, head_width, scores);
        const int status = scaled_softmax(scores, bias, image_tokens, scale, "gated_cross_attention_f32");
        if (status != RADBOX_OK) return status;
        weighted_rows(scores, values + first, width, image_tokens, head_width, y + first);
        if (attention != nullptr)
            for (int64_t n = 0; n < image_tokens; ++n) attention[n] += scores[n] / static_cast<float>(heads);
    }
    float gate;
    dots<1>(gate_weight, width, a, width, &gate);
    gate = std::tanh(gate + gate_bias) * gate_scale;
    for (int64_t i = 0; i < width; ++i) y[i] = a[i] + gate * y[i];
    return all_finite(y, width) ? static_cast<int>(RADBOX_OK) : not_finite("gated_cross_attention_f32");
}

// Index of a cell that lies outside 0..size-1, mirrored about the edge cells as often as needed.
int64_t reflected(int64_t index, int64_t size) {
    if (size == 1) return 0;
    const int64_t period = 2 * (size - 1);
    const int64_t folded = ((index % period) + period) % period;
    return std::min(folded, period - folded);
}

// One direction of the blur over `lines` lines of `size` cells.
void blur_lines(const double *from, double *to, const std::vector<double> &kernel, int64_t lines, int64_t line_stride,
                int64_t size, int64_t cell_stride) {
    const int64_t radius = static_cast<int64_t>(kernel.size()) / 2;
    for (int64_t line = 0; line < lines; ++line)
        for (int64_t cell = 0; cell < size; ++cell) {
            double sum = 0.0;
            for (int64_t k = -radius; k <= radius; ++k)
                sum += kernel[static_cast<size_t>(k + radius)] *
                       from[line * line_stride + reflected(cell + k, size) * cell_stride];
            to[line * line_stride + cell * cell_stride] = sum;
        }
}

std::vector<double> blurred(const std::vector<double> &grid, int64_t height, int64_t width, float sigma) {
    const int64_t radius = static_cast<int64_t>(std::ceil(3.0 * static_cast<double>(sigma)));
    if (radius == 0) return grid;
    std::vector<double> kernel(static_cast<size_t>(2 * radius + 1)), half(grid.size()), whole(grid.size());
    double total = 0.0;
    for (int64_t k = -radius; k <= radius; ++k) {
        const double distance = static_cast<double>(k) / static_cast<double>(sigma);
        total += kernel[static_cast<size_t>(k + radius)] = std::exp(-0.5 * distance * distance);
    }
    for (double &tap : kernel) tap /= total;
    blur_lines(grid.data(), half.data(), kernel, height, width, width, 1);
    blur_lines(half.data(), whole.data(), kernel, width, 1, height, width);
    return whole;
}

std::vector<double> rescaled(std::vector<double> map) {
    const auto [least, greatest] = std::minmax_element(map.begin(), map.end());
    const double low = *least, range = *greatest - *least;
    for (double &cell : map) cell = range <= kFlatRange ? 0.0 : (cell - low) / range;
    return map;
}

}  // namespace

int gaussian_blur_f32_reference(const float *grid, int64_t height, int64_t width, float sigma, float *y) {
    if (!all_finite(grid, height * width)) return not_finite("gaussian_blur_f32");
    const std::vector<double> whole = blurred(std::vector<double>(grid, grid + height * width), height, width, sigma);
    std::transform(whole.begin(), whole.end(), y, [](double cell) { return static_cast<float>(cell); });
    return RADBOX_OK;
}

int anatomical_bias_f32_reference(const float *masks, int64_t count, int64_t height, int64_t width, const float *sigma,
                                  int64_t layers, float strength, float *y) {
    const int64_t cells = height * width;
    if (!all_finite(masks, count * cells)) return not_finite("anatomical_bias_f32");
    std::vector<double> greatest(masks, masks + cells);
    for (int64_t m = 1; m < count; ++m)
        for (int64_t i = 0; i < cells; ++i) {
            double &cell = greatest[static_cast<size_t>(i)];
            cell = std::max(cell, static_cast<double>(masks[m * cells + i]));
        }
    const std::vector<double> sharp = rescaled(greatest);
    for (int64_t l = 0; l < layers; ++l) {
        const std::vector<double> soft = rescaled(blurred(sharp, height, width, sigma[l]));
        for (int64_t i = 0; i < cells; ++i)
            y[l * cells + i] = static_cast<float>(static_cast<double>(strength) * soft[static_cast<size_t>(i)]);
    }
    return RADBOX_OK;
}

namespace {

int masked_argmax_f32_reference(const float *logits, const uint8_t *allowed, int64_t vocabulary, int32_t *token,
                                float *log_probability) {
    if (!all_finite(logits, vocabulary)) return not_finite("masked_argmax_f32");
    int64_t best = -1;
    for (int64_t i = 0; i < vocabulary; ++i)
        if (allowed[i] != 0 && (best < 0 || logits[i] > logits[best])) best = i;
    if (best < 0) return fail(RADBOX_NOTHING_ALLOWED, "expected at least one allowed token, got none");
    double sum = 0.0;
    for (int64_t i = 0; i < vocabulary; ++i)
        if (allowed[i] != 0) sum += std::exp(static_cast<double>(logits[i]) - static_cast<double>(logits[best]));
    *token = static_cast<int32_t>(best);
    *log_probability = static_cast<float>(-std::log(sum));
    return RADBOX_OK;
}

int selective_scan_f32_reference(const float *x, const float *delta, const float *a, const float *b, const float *c,
                                 const float *d, int64_t height, int64_t width, int64_t channels, int64_t states,
                                 float *y) {
    const int64_t tokens = height * width;
    std::vector<double> sums(static_cast<size_t>(tokens * channels)), state(static_cast<size_t>(states));
    double most = 0.0;
    for (int64_t direction = 0; direction < 4; ++direction)
        for (int64_t channel = 0; channel < channels; ++channel) {
            std::fill(state.begin(), state.end(), 0.0);
            const float *rates = a + (direction * channels + channel) * states;
            for (int64_t step = 0; step < tokens; ++step) {
                const int64_t token = scanned_token(direction, step, height, width), row = direction * tokens + token;
                const double in = static_cast<double>(x[row * channels + channel]);
                const double time = static_cast<double>(delta[row * channels + channel]);
                double out = static_cast<double>(d[direction * channels + channel]) * in;
                for (int64_t n = 0; n < states; ++n) {
                    double &s = state[static_cast<size_t>(n)];
                    const double decay = time * static_cast<double>(rates[n]);
                    most = std::max(most, decay);
                    s = std::exp(decay) * s + time * in * static_cast<double>(b[row * states + n]);
                    out += static_cast<double>(c[row * states + n]) * s;
                }
                sums[static_cast<size_t>(token * channels + channel)] += out;
            }
        }
    if (most > static_cast<double>(kGreatestDecay)) return not_finite("selective_scan_f32");
    std::transform(sums.begin(), sums.end(), y, [](double sum) { return static_cast<float>(sum / 4.0); });
    return all_finite(y, tokens * channels) ? static_cast<int>(RADBOX_OK) : not_finite("selective_scan_f32");
}

}  // namespace

int64_t scanned_token(int64_t direction, int64_t step, int64_t height, int64_t width) {
    const int64_t along = direction % 2 == 0 ? step : height * width - 1 - step;
    return direction < 2 ? along : along % height * width + along / height;
}

const Operators reference_operators = {
    "reference",
    layer_norm_f32_reference,
    linear_f32_reference,
    gelu_tanh_f32_reference,
    swiglu_f32_reference,
    self_attention_step_f32_reference,
    gated_cross_attention_f32_reference,
    gaussian_blur_f32_reference,
    anatomical_bias_f32_reference,
    masked_argmax_f32_reference,
    selective_scan_f32_reference,
    &reference_quantised,
};

}  // namespace radbox
