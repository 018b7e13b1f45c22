#include "tensors.h"

#include <algorithm>

namespace radbox::tflite {
namespace {

constexpr int kGreatestRank = 6;
constexpr int64_t kGreatestSize = int64_t{1} << 24;      // of one axis, as in ../checks.h
constexpr int64_t kGreatestElements = int64_t{1} << 29;  // of one tensor

std::string in_words(const int64_t *sizes, int rank) {
    std::string words = "(";
    for (int i = 0; i < rank; ++i)
        words += (i ? ", " : "") + (sizes[i] == kAny ? std::string("any") : std::to_string(sizes[i]));
    return words + ")";
}

int64_t size_of(const IntArray &dims, int axis) { return axis < dims.size ? dims.values[dims.size - 1 - axis] : 1; }

bool fits(const IntArray &dims, const int64_t *shape, int rank) {
    int64_t elements = 1;
    for (int axis = 0; axis < std::max(dims.size, rank); ++axis) {
        const int64_t got = size_of(dims, axis), wanted = axis < rank ? shape[rank - 1 - axis] : 1;
        if (got < 1 || got > kGreatestSize || (wanted != kAny && got != wanted)) return false;
        elements *= got;
        if (elements > kGreatestElements) return false;
    }
    return true;
}

}  // namespace

Problem Tensors::check(size_t place, const char *name, std::initializer_list<int64_t> shape) const {
    const int rank = static_cast<int>(shape.size()), index = indices_[place];
    const std::string expected =
        std::string("expected ") + name + " as float32 of shape " + in_words(shape.begin(), rank) + ", got ";
    if (index < 0 || static_cast<size_t>(index) >= context_.tensor_count) return expected + "no tensor";
    const Tensor &t = tensor(place);
    if (t.type != kFloat32) return expected + "a tensor of the runtime's type " + std::to_string(t.type);
    if (t.dims == nullptr || t.dims->size < 0 || t.dims->size > kGreatestRank)
        return expected + "more than " + std::to_string(kGreatestRank) + " axes";
    int64_t got[kGreatestRank];
    std::copy_n(t.dims->values, t.dims->size, got);
    if (!fits(*t.dims, shape.begin(), rank)) return expected + in_words(got, t.dims->size);
    size_t bytes = sizeof(float);
    for (int i = 0; i < t.dims->size; ++i) bytes *= static_cast<size_t>(got[i]);
    return t.bytes == bytes ? "" : expected + "a buffer of " + std::to_string(t.bytes) + " bytes";
}

int64_t Tensors::size(size_t place, int axis) const { return size_of(*tensor(place).dims, axis); }

Problem Tensors::check_memory() const {
    for (size_t place = 0; place < indices_.size(); ++place)
        if (tensor(place).values == nullptr) return "expected memory for every tensor, got none for one";
    return "";
}

}  // namespace radbox::tflite
