// Weights found by name, with their shape checked; remembers the first failure. Baseline code only.
#pragma once

#include <string>
#include <vector>

#include "table.h"

namespace radbox {

using Floats = std::vector<float>;

inline size_t at(int64_t index) { return static_cast<size_t>(index); }

class Weights {
public:
    Weights(const radbox_tensor_f32 *tensors, int64_t count) : tensors_(tensors), count_(count) {}

    // The tensor's values, or null after a failure.
    const float *find(const std::string &name, int64_t rows, int64_t columns = 1) {
        if (status != RADBOX_OK) return nullptr;
        for (int64_t i = 0; i < count_; ++i)
            if (name == tensors_[i].name)
                return fits(name, tensors_[i].rows, tensors_[i].columns, rows, columns) ? tensors_[i].values : nullptr;
        status = fail(RADBOX_BAD_ARGUMENT, "expected a weight named %s, got none", name.c_str());
        return nullptr;
    }

    // A copy with `padding` zeros after it.
    Floats take(const std::string &name, int64_t rows, int64_t columns = 1, int64_t padding = 0) {
        const float *values = find(name, rows, columns);
        if (values == nullptr) return {};
        Floats copy(values, values + rows * columns);
        copy.resize(copy.size() + at(padding));
        return copy;
    }

    // Whether a tensor has the expected shape; a failure if not.
    bool fits(const std::string &name, int64_t rows, int64_t columns, int64_t expected_rows, int64_t expected_columns) {
        if (rows == expected_rows && columns == expected_columns) return true;
        status = fail(RADBOX_BAD_ARGUMENT, "expected %s of shape (%lld, %lld), got (%lld, %lld)", name.c_str(),
                      static_cast<long long>(expected_rows), static_cast<long long>(expected_columns),
                      static_cast<long long>(rows), static_cast<long long>(columns));
        return false;
    }

    int status = RADBOX_OK;

private:
    const radbox_tensor_f32 *tensors_;
    int64_t count_;
};

}  // namespace radbox
