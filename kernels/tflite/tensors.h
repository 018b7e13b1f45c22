// A node's tensors, checked against the shapes that an operator expects before a kernel sees a pointer.
#pragma once

#include <initializer_list>
#include <vector>

#include "attributes.h"
#include "runtime.h"

namespace radbox::tflite {

constexpr int64_t kAny = -1;

// Indices of a node's inputs or outputs in the runtime's list of tensors.
class Tensors {
  public:
    Tensors(const Context &context, const std::vector<int> &indices) : context_(context), indices_(indices) {}

    // Tensor number `place` is dense float32 of `shape`, aligned at the last axis; axes beyond it, and axes that it
    // lacks, count as 1. kAny matches any size above 0, which `size(place, axis)` tells.
    Problem check(size_t place, const char *name, std::initializer_list<int64_t> shape) const;

    // Size of an axis counted from the last (0); 1 if the tensor has none. For tensors that were checked.
    int64_t size(size_t place, int axis) const;

    // Every tensor has memory; the runtime gives it before it invokes.
    Problem check_memory() const;

    float *values(size_t place) const { return static_cast<float *>(tensor(place).values); }

  private:
    const Tensor &tensor(size_t place) const { return context_.tensors[indices_[place]]; }

    const Context &context_;
    const std::vector<int> &indices_;
};

}  // namespace radbox::tflite
