// FlexBuffers (flatbuffers.dev/internals, "FlexBuffers"): little-endian, offsets point backwards, and
//   root:  ..., value, packed type (type << 2 | log2 of the width its target uses), width of the value
//   map:   keys' offset, keys' width, count | values ... | one packed type per value      (| = where an offset points)
//   keys:  count | offsets of NUL-terminated strings ...
//   string: byte count | bytes, NUL
#include "attributes.h"

#include <cstring>

namespace radbox::tflite {
namespace {

enum Type : uint8_t { kInteger = 1, kUnsigned = 2, kString = 5, kMap = 9, kBoolean = 26 };

size_t width_of(uint8_t packed) { return size_t{1} << (packed & 3); }

bool is_width(uint64_t width) { return width == 1 || width == 2 || width == 4 || width == 8; }

int64_t as_signed(uint64_t bits, size_t width) {
    const unsigned unused = static_cast<unsigned>(64 - 8 * width);
    return static_cast<int64_t>(bits << unused) >> unused;
}

}  // namespace

bool Attributes::unsigned_at(size_t at, size_t width, uint64_t &value) const {
    if (at > size_ || width > size_ - at) return false;
    value = 0;
    for (size_t i = 0; i < width; ++i) value |= uint64_t{bytes_[at + i]} << (8 * i);
    return true;
}

bool Attributes::target(size_t at, size_t width, size_t &found) const {
    uint64_t offset;
    if (!unsigned_at(at, width, offset) || offset > at) return false;
    found = at - static_cast<size_t>(offset);
    return true;
}

Problem Attributes::open(size_t count) {
    const Problem broken = "expected its attributes as a FlexBuffers map, got other bytes";
    if (bytes_ == nullptr || size_ < 3) return broken;
    const size_t root_width = bytes_[size_ - 1];
    const uint8_t packed = bytes_[size_ - 2];
    if (packed >> 2 != kMap || !is_width(root_width) || root_width > size_ - 2) return broken;
    width_ = width_of(packed);
    if (!target(size_ - 2 - root_width, root_width, values_) || values_ < 3 * width_) return broken;
    uint64_t keys_width, length, keys_length;
    if (!target(values_ - 3 * width_, width_, keys_) || !unsigned_at(values_ - 2 * width_, width_, keys_width) ||
        !unsigned_at(values_ - width_, width_, length) || !is_width(keys_width) || keys_ < keys_width)
        return broken;
    keys_width_ = static_cast<size_t>(keys_width);
    if (!unsigned_at(keys_ - keys_width_, keys_width_, keys_length) || keys_length != length) return broken;
    if (length != count)
        return "expected " + std::to_string(count) + " attributes, got " + std::to_string(length);
    count_ = count;
    uint64_t last;  // the last packed type and the last key lie inside
    if (!unsigned_at(values_ + count_ * width_ + count_ - 1, 1, last) ||
        !unsigned_at(keys_ + (count_ - 1) * keys_width_, keys_width_, last))
        return broken;
    return "";
}

bool Attributes::key_is(size_t index, const char *name) const {
    size_t at;
    const size_t bytes = std::strlen(name) + 1;
    return target(keys_ + index * keys_width_, keys_width_, at) && bytes <= size_ - at &&
           std::memcmp(bytes_ + at, name, bytes) == 0;
}

bool Attributes::find(const char *name, Value &value) const {
    for (size_t i = 0; i < count_; ++i) {
        if (!key_is(i, name)) continue;
        const uint8_t packed = bytes_[values_ + count_ * width_ + i];
        value = {values_ + i * width_, static_cast<uint8_t>(packed >> 2), width_of(packed)};
        return true;
    }
    return false;
}

Problem Attributes::integer(const char *name, int64_t least, int64_t most, int64_t &value) const {
    const std::string expected = std::string("expected the attribute ") + name + " as a whole number of " +
                                 std::to_string(least) + " to " + std::to_string(most) + ", got ";
    Value found;
    uint64_t bits;
    if (!find(name, found)) return expected + "none";
    if ((found.type != kInteger && found.type != kUnsigned) || !unsigned_at(found.at, width_, bits))
        return expected + "something else";
    value = as_signed(bits, width_);
    return value < least || value > most ? expected + std::to_string(value) : "";
}

Problem Attributes::boolean(const char *name, bool &value) const {
    const std::string expected = std::string("expected the attribute ") + name + " as true or false, got ";
    Value found;
    uint64_t bits;
    if (!find(name, found)) return expected + "none";
    if (found.type != kBoolean || !unsigned_at(found.at, width_, bits) || bits > 1) return expected + "something else";
    value = bits == 1;
    return "";
}

Problem Attributes::text(const char *name, const char *wanted) const {
    const std::string expected = std::string("expected the attribute ") + name + " as \"" + wanted + "\", got ";
    Value found;
    size_t at;
    uint64_t bytes;
    if (!find(name, found)) return expected + "none";
    if (found.type != kString || !target(found.at, width_, at) || at < found.width ||
        !unsigned_at(at - found.width, found.width, bytes) || bytes > size_ - at)
        return expected + "something else";
    if (bytes != std::strlen(wanted) || std::memcmp(bytes_ + at, wanted, bytes) != 0) return expected + "another text";
    return "";
}

}  // namespace radbox::tflite
