// The operators that the delegate serves: by name, from attributes and tensors to a call of ../kernels.h.
#pragma once

#include <vector>

#include "attributes.h"
#include "runtime.h"

namespace radbox::tflite {

struct Operator;

// A node that the delegate took over.
struct Taken {
    const Operator *op = nullptr;
    std::vector<int> inputs, outputs;
    bool bias = false;                        // gated cross-attention
    int64_t heads = 0, height = 0, width = 0;  // of the attention; of the scan
};

struct Operator {
    const char *name;
    Problem (*read)(Attributes &attributes, Taken &node);
    // Checks every tensor; computes only if `compute`.
    Problem (*run)(const Context &context, const Taken &node, bool compute);
};

// Whose composite or custom operator a node is; null if not one of ours.
const Operator *operator_of(const Node &node, const Registration &registration);

// Its tensors' indices and its attributes.
Problem take(const Operator &op, const Node &node, const Registration &registration, Taken &taken);

}  // namespace radbox::tflite
