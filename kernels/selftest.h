// What both halves of the self test share.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels.h"

using Floats = std::vector<float>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void expect(bool holds, const char *what, const char *file, int line);
#define EXPECT(condition) expect((condition), #condition, __FILE__, __LINE__)

Floats random_floats(int64_t count, float scale = 1.0f);
bool close(double got, double expected, double scale = 1.0);

struct Named {
    std::string name;
    int64_t rows, columns;
    Floats values;
};
std::vector<Named> random_weights(const radbox_decoder_shape &shape);

// selftest_quantised.cpp, with the chosen set of kernels
void quantised_operators();
void quantised_decoder();
void batches();
void generation();
// Once: the pool's threads going to sleep, waking, ending, and two decoders at work at the same time.
void threads();
