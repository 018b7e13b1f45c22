// IEEE 754 binary16 to and from float, without instructions for it.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace radbox {
namespace {

inline float float_from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, rest = half & 1023u;
    if (exponent == 0) {  // zero or subnormal: rest * 2^-24, exact
        const float magnitude = static_cast<float>(rest) * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    const uint32_t word = sign | (wide << 23) | (rest << 13);
    float out;
    memcpy(&out, &word, sizeof out);
    return out;
}

}  // namespace
}  // namespace radbox
