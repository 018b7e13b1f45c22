#include "operators.h"

#include <cstring>

#include "../kernels.h"
#include "tensors.h"

#define RETURN_PROBLEM(check) \
    if (Problem problem = (check); !problem.empty()) return problem

namespace radbox::tflite {
namespace {

constexpr int64_t kVersion = 1;
constexpr int64_t kGreatest = int64_t{1} << 24;

Problem counted(const char *what, size_t got, size_t least, size_t most) {
    if (got >= least && got <= most) return "";
    const std::string range = std::to_string(least) + (most > least ? " to " + std::to_string(most) : "");
    return "expected " + range + " " + what + ", got " + std::to_string(got);
}

Problem of_kernel(int status) { return status == RADBOX_OK ? "" : radbox_error_message(); }

// Inputs: a, query (T, d); keys, values (S, d); gate_weight (d); gate_bias, gate_scale (1); with `bias`: bias (S).
// Outputs: y (T, d); optionally attention (T, S), the softmax averaged over the heads.
Problem read_cross_attention(Attributes &attributes, Taken &node) {
    int64_t version;
    RETURN_PROBLEM(attributes.open(4));
    RETURN_PROBLEM(attributes.integer("version", kVersion, kVersion, version));
    RETURN_PROBLEM(attributes.integer("heads", 1, kGreatest, node.heads));
    RETURN_PROBLEM(attributes.text("gate", "scaled-tanh"));
    RETURN_PROBLEM(attributes.boolean("bias", node.bias));
    RETURN_PROBLEM(counted("inputs", node.inputs.size(), node.bias ? 8 : 7, node.bias ? 8 : 7));
    return counted("outputs", node.outputs.size(), 1, 2);
}

Problem run_cross_attention(const Context &context, const Taken &node, bool compute) {
    const Tensors in(context, node.inputs), out(context, node.outputs);
    RETURN_PROBLEM(in.check(0, "a", {kAny, kAny}));
    RETURN_PROBLEM(in.check(2, "keys", {kAny, kAny}));
    const int64_t width = in.size(0, 0), rows = in.size(0, 1), tokens = in.size(2, 1);
    RETURN_PROBLEM(in.check(1, "query", {rows, width}));
    RETURN_PROBLEM(in.check(2, "keys", {tokens, width}));
    RETURN_PROBLEM(in.check(3, "values", {tokens, width}));
    RETURN_PROBLEM(in.check(4, "gate_weight", {width}));
    RETURN_PROBLEM(in.check(5, "gate_bias", {1}));
    RETURN_PROBLEM(in.check(6, "gate_scale", {1}));
    if (node.bias) RETURN_PROBLEM(in.check(7, "bias", {tokens}));
    RETURN_PROBLEM(out.check(0, "y", {rows, width}));
    const bool maps = node.outputs.size() == 2;
    if (maps) RETURN_PROBLEM(out.check(1, "attention", {rows, tokens}));
    if (width % node.heads != 0)
        return "expected heads that divide a width of " + std::to_string(width) + ", got " + std::to_string(node.heads);
    if (!compute) return "";
    RETURN_PROBLEM(in.check_memory());
    RETURN_PROBLEM(out.check_memory());
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = row * width;
        RETURN_PROBLEM(of_kernel(radbox_gated_cross_attention_f32(
            in.values(0) + at, in.values(1) + at, in.values(2), in.values(3), node.bias ? in.values(7) : nullptr,
            in.values(4), *in.values(5), *in.values(6), tokens, width, node.heads, out.values(0) + at,
            maps ? out.values(1) + row * tokens : nullptr)));
    }
    return "";
}

// Inputs: x, delta (4, n, channels); a (4, channels, states); b, c (4, n, states); d (4, channels), n = height * width.
// Output: y (n, channels).
Problem read_selective_scan(Attributes &attributes, Taken &node) {
    int64_t version, directions;
    RETURN_PROBLEM(attributes.open(4));
    RETURN_PROBLEM(attributes.integer("version", kVersion, kVersion, version));
    RETURN_PROBLEM(attributes.integer("directions", 4, 4, directions));
    RETURN_PROBLEM(attributes.integer("height", 1, kGreatest, node.height));
    RETURN_PROBLEM(attributes.integer("width", 1, kGreatest, node.width));
    RETURN_PROBLEM(counted("inputs", node.inputs.size(), 6, 6));
    return counted("outputs", node.outputs.size(), 1, 1);
}

Problem run_selective_scan(const Context &context, const Taken &node, bool compute) {
    const Tensors in(context, node.inputs), out(context, node.outputs);
    const int64_t tokens = node.height * node.width;  // below 2^48
    RETURN_PROBLEM(in.check(0, "x", {4, tokens, kAny}));
    RETURN_PROBLEM(in.check(2, "a", {4, kAny, kAny}));
    const int64_t channels = in.size(0, 0), states = in.size(2, 0);
    RETURN_PROBLEM(in.check(1, "delta", {4, tokens, channels}));
    RETURN_PROBLEM(in.check(2, "a", {4, channels, states}));
    RETURN_PROBLEM(in.check(3, "b", {4, tokens, states}));
    RETURN_PROBLEM(in.check(4, "c", {4, tokens, states}));
    RETURN_PROBLEM(in.check(5, "d", {4, channels}));
    RETURN_PROBLEM(out.check(0, "y", {tokens, channels}));
    if (states > RADBOX_GREATEST_STATES)
        return "expected states of 1 to " + std::to_string(RADBOX_GREATEST_STATES) + ", got " + std::to_string(states);
    if (!compute) return "";
    RETURN_PROBLEM(in.check_memory());
    RETURN_PROBLEM(out.check_memory());
    return of_kernel(radbox_selective_scan_f32(in.values(0), in.values(1), in.values(2), in.values(3), in.values(4),
                                               in.values(5), node.height, node.width, channels, states, out.values(0)));
}

const Operator kOperators[] = {
    {"radbox.gated_cross_attention", read_cross_attention, run_cross_attention},
    {"radbox.selective_scan", read_selective_scan, run_selective_scan},
};

const CompositeParameters *composite_of(const Node &node, const Registration &registration) {
    const bool is_one = registration.builtin_code == kStablehloComposite;
    return is_one ? static_cast<const CompositeParameters *>(node.builtin) : nullptr;
}

void copy(const IntArray *from, std::vector<int> &to) {
    if (from != nullptr && from->size > 0) to.assign(from->values, from->values + from->size);
}

}  // namespace

const Operator *operator_of(const Node &node, const Registration &registration) {
    const CompositeParameters *composite = composite_of(node, registration);
    const char *name = registration.builtin_code == kCustom ? registration.custom_name
                       : composite != nullptr               ? composite->name
                                                            : nullptr;
    if (name == nullptr) return nullptr;
    for (const Operator &op : kOperators)
        if (std::strcmp(op.name, name) == 0) return &op;
    return nullptr;
}

Problem take(const Operator &op, const Node &node, const Registration &registration, Taken &taken) {
    taken.op = &op;
    copy(node.inputs, taken.inputs);
    copy(node.outputs, taken.outputs);
    if (const CompositeParameters *composite = composite_of(node, registration)) {
        Attributes attributes(composite->attributes, composite->attributes_bytes);
        return op.read(attributes, taken);
    }
    const size_t bytes = node.options_bytes < 0 ? 0 : static_cast<size_t>(node.options_bytes);
    Attributes attributes(static_cast<const uint8_t *>(node.options), bytes);
    return op.read(attributes, taken);
}

}  // namespace radbox::tflite
