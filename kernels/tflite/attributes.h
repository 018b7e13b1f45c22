// The attributes of a composite or the options of a custom operator: a FlexBuffers map, read with every offset checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace radbox::tflite {

using Problem = std::string;  // "expected X, got Y", or "" if there is none

// A view of the map; the bytes belong to the model and outlive it.
class Attributes {
  public:
    Attributes(const uint8_t *bytes, size_t size) : bytes_(bytes), size_(size) {}

    // A map of exactly `count` attributes.
    Problem open(size_t count);

    Problem integer(const char *name, int64_t least, int64_t most, int64_t &value) const;
    Problem boolean(const char *name, bool &value) const;
    Problem text(const char *name, const char *wanted) const;

  private:
    struct Value {
        size_t at;
        uint8_t type;
        size_t width;  // of what an offset leads to
    };

    bool unsigned_at(size_t at, size_t width, uint64_t &value) const;
    bool target(size_t at, size_t width, size_t &found) const;
    bool key_is(size_t index, const char *name) const;
    bool find(const char *name, Value &value) const;

    const uint8_t *bytes_;
    size_t size_;
    size_t values_ = 0, count_ = 0, width_ = 0, keys_ = 0, keys_width_ = 0;
};

}  // namespace radbox::tflite
