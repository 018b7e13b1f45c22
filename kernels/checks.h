// What every exported function checks before a set of kernels sees its arguments. Baseline code only.
#pragma once

#include <cinttypes>
#include <cstddef>
#include <initializer_list>

#include "table.h"

#define RETURN_IF_BAD(check) \
    if (const int status = (check); status != RADBOX_OK) return status

namespace radbox {

constexpr int64_t kGreatestSize = int64_t{1} << 24;      // of one dimension
constexpr int64_t kGreatestElements = int64_t{1} << 29;  // of one array: 2 GiB of floats
constexpr int64_t kGreatestSummed = int64_t{1} << 17;    // products of int8 in one sum: 127 * 127 * 2^17 fits into 32 bits
constexpr int64_t kGreatestLayers = 1024;
constexpr float kGreatestSigma = 1024.0f;                // grid cells

struct Size {
    const char *name;
    int64_t value;
};

struct Pointer {
    const char *name;
    const void *value;
};

// Every size within bounds, and their product an array that can exist.
int check_sizes(const char *operation, std::initializer_list<Size> sizes);
// None null, each aligned to `alignment` bytes.
int check_pointers(const char *operation, size_t alignment, std::initializer_list<Pointer> pointers);
int check_floats(const char *operation, std::initializer_list<Pointer> pointers);
int check_heads(const char *operation, int64_t width, int64_t heads);
int check_sigma(const char *operation, float sigma);
int check_range(const char *operation, const char *what, int64_t value, int64_t least, int64_t most);
int check_shape(const char *operation, const radbox_decoder_shape &shape);
int check_tensors(const char *operation, const radbox_tensor_f32 *tensors, int64_t count);
// Every one of -127 to 127: the negative of -128 is no int8.
int check_int8(const char *operation, const char *what, const int8_t *values, int64_t count);

}  // namespace radbox
