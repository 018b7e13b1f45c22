// The external delegate: asks for our nodes, and answers the runtime's init, prepare and invoke for them.
#include "delegate.h"

#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include "../kernels.h"
#include "operators.h"

namespace radbox::tflite {
namespace {

std::atomic<int64_t> nodes_taken{0}, nodes_computed{0};

void report(Context *context, const Operator *op, const char *problem) {
    context->report_error(context, "%s: %s. ", op == nullptr ? "radbox" : op->name, problem);
}

// Nothing is thrown through the runtime's C frames.
template <typename Body>
Status guarded(Context *context, Body body) {
    try {
        return body();
    } catch (const std::exception &error) {
        report(context, nullptr, error.what());
        return kError;
    }
}

Status take_node(Context *context, int index, Taken &taken, bool &ours) {
    Node *node = nullptr;
    Registration *registration = nullptr;
    if (context->node_and_registration(context, index, &node, &registration) != kOk) return kError;
    const Operator *op = operator_of(*node, *registration);
    ours = op != nullptr;
    if (!ours) return kOk;
    const Problem problem = take(*op, *node, *registration, taken);
    if (!problem.empty()) report(context, op, problem.c_str());
    return problem.empty() ? kOk : kError;
}

void *init(Context *context, const char *buffer, size_t) {
    std::unique_ptr<Taken> taken;
    const Status status = guarded(context, [&] {
        const IntArray &nodes = *reinterpret_cast<const DelegateParameters *>(buffer)->nodes;
        bool ours = false;
        taken = std::make_unique<Taken>();
        return nodes.size == 1 && take_node(context, nodes.values[0], *taken, ours) == kOk && ours ? kOk : kError;
    });
    if (status != kOk) return nullptr;
    ++nodes_taken;
    return taken.release();
}

void release(Context *, void *taken) { delete static_cast<Taken *>(taken); }

Status run(Context *context, Node *node, bool compute) {
    return guarded(context, [&] {
        const auto *taken = static_cast<const Taken *>(node->user);
        if (taken == nullptr) {
            report(context, nullptr, "expected the node of this kernel, got none");
            return kError;
        }
        const Problem problem = taken->op->run(*context, *taken, compute);
        if (!problem.empty()) {
            report(context, taken->op, problem.c_str());
            return kError;
        }
        nodes_computed += compute ? 1 : 0;
        return kOk;
    });
}

Status prepare(Context *context, Node *node) { return run(context, node, false); }

Status invoke(Context *context, Node *node) { return run(context, node, true); }

// One kernel per node: of neighbours in one kernel the runtime would give the tensors between them no memory.
Status replace(Context *context, Delegate *delegate, int index) {
    Registration kernel{};
    kernel.init = init;
    kernel.free = release;
    kernel.prepare = prepare;
    kernel.invoke = invoke;
    kernel.builtin_code = kDelegate;
    kernel.custom_name = "RadboxKernels";
    kernel.version = 1;
    const IntArray node{1, {index}};
    return context->replace_nodes(context, kernel, &node, delegate);
}

// Called once per subgraph. The runtime's plan is overwritten by its next answer, so it is copied first.
Status claim(Context *context, Delegate *delegate) {
    return guarded(context, [&] {
        IntArray *plan = nullptr;
        if (context->execution_plan(context, &plan) != kOk) return kError;
        std::vector<int> wanted;
        for (const int index : std::vector<int>(plan->values, plan->values + plan->size)) {
            Taken taken;
            bool ours;
            if (take_node(context, index, taken, ours) != kOk) return kError;
            if (ours) wanted.push_back(index);
        }
        for (const int index : wanted)
            if (replace(context, delegate, index) != kOk) return kError;
        return kOk;
    });
}

const char *unusable(size_t options) {
    if (options != 0) return "radbox: expected no option, got one";
    if (radbox_abi_version() != RADBOX_ABI_VERSION)
        return "radbox: expected the kernels' library that this delegate was built with, got another ABI version";
    return radbox_kernels_name()[0] == '\0' ? radbox_error_message() : nullptr;
}

}  // namespace
}  // namespace radbox::tflite

using namespace radbox::tflite;

Delegate *tflite_plugin_create_delegate(const char *const *, const char *const *, size_t count,
                                        void (*report)(const char *)) {
    if (const char *problem = unusable(count)) {
        if (report != nullptr) report(problem);
        return nullptr;
    }
    auto *delegate = new (std::nothrow) Delegate{};
    if (delegate == nullptr) return nullptr;
    delegate->prepare = claim;
    // Without this the runtime prepares every node first, and refuses a custom operator that only we know.
    delegate->flags = kAllowDynamicTensors;
    return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { delete delegate; }

int64_t radbox_tflite_nodes_taken(void) { return nodes_taken.load(); }

int64_t radbox_tflite_nodes_computed(void) { return nodes_computed.load(); }
