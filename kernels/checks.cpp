#include "checks.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>

namespace radbox {
namespace {

thread_local char message[512] = "";

}  // namespace

int fail(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return status;
}

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

int check_pointers(const char *operation, size_t alignment, std::initializer_list<Pointer> pointers) {
    for (const Pointer &pointer : pointers) {
        if (pointer.value == nullptr)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected %s to point to an array, got null", operation, pointer.name);
        if (reinterpret_cast<uintptr_t>(pointer.value) % alignment != 0)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected %s aligned to %zu bytes, got %p", operation, pointer.name,
                        alignment, pointer.value);
    }
    return RADBOX_OK;
}

int check_floats(const char *operation, std::initializer_list<Pointer> pointers) {
    return check_pointers(operation, alignof(float), pointers);
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

int check_range(const char *operation, const char *what, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return RADBOX_OK;
    return fail(RADBOX_BAD_ARGUMENT, "%s: expected %s of %" PRId64 " to %" PRId64 ", got %" PRId64, operation, what, least,
                most, value);
}

int check_int8(const char *operation, const char *what, const int8_t *values, int64_t count) {
    bool found = false;
    for (int64_t i = 0; i < count; ++i) found |= values[i] == INT8_MIN;
    return found ? fail(RADBOX_BAD_ARGUMENT, "%s: expected %s of -127 to 127, got -128", operation, what) : int{RADBOX_OK};
}

int check_shape(const char *operation, const radbox_decoder_shape &s) {
    int status = check_sizes(operation, {{"vocabulary", s.vocabulary}, {"width", s.width}});
    if (status == RADBOX_OK) status = check_range(operation, "layers", s.layers, 1, kGreatestLayers);
    if (status == RADBOX_OK) status = check_sizes(operation, {{"ffn", s.ffn}, {"width", s.width}});
    if (status == RADBOX_OK) status = check_sizes(operation, {{"channels", s.channels}, {"width", s.width}});
    if (status == RADBOX_OK) status = check_sizes(operation, {{"width", s.width}, {"3 * width", int64_t{3} * s.width}});
    if (status == RADBOX_OK)
        status = check_sizes(operation, {{"layers", s.layers}, {"positions", s.positions}, {"width", s.width}});
    return status == RADBOX_OK ? check_heads(operation, s.width, s.heads) : status;
}

int check_tensors(const char *operation, const radbox_tensor_f32 *tensors, int64_t count) {
    RETURN_IF_BAD(check_pointers(operation, alignof(radbox_tensor_f32), {{"tensors", tensors}}));
    RETURN_IF_BAD(check_sizes(operation, {{"count", count}}));
    for (int64_t i = 0; i < count; ++i) {
        if (tensors[i].name == nullptr)
            return fail(RADBOX_BAD_ARGUMENT, "%s: expected every tensor named, got null", operation);
        RETURN_IF_BAD(check_sizes(tensors[i].name, {{"rows", tensors[i].rows}, {"columns", tensors[i].columns}}));
        RETURN_IF_BAD(check_floats(operation, {{tensors[i].name, tensors[i].values}}));
    }
    return RADBOX_OK;
}

}  // namespace radbox

extern "C" const char *radbox_error_message(void) { return radbox::message; }
