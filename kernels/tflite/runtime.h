/* What an external delegate touches of the TFLite runtime's C ABI, declared here because no wheel ships its headers.
 *
 * Layouts as in tensorflow/lite/core/c/common.h and builtin_op_data.h on 64-bit systems; only what is read has a name
 * that matters, and the asserts below pin every offset. The runtimes that loaded it are listed in
 * docs/tflite-custom-op.md.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace radbox::tflite {

enum Status : int { kOk = 0, kError = 1 };
enum TensorType : int { kFloat32 = 1 };
enum BuiltinCode : int { kCustom = 32, kDelegate = 51, kStablehloComposite = 206 };
constexpr int64_t kAllowDynamicTensors = 1;

struct Context;
struct Delegate;

struct IntArray {
    int size;
    int values[1];  // `size` of them
};

struct Tensor {
    int type;
    void *values;
    IntArray *dims;
    struct {
        float scale;
        int32_t zero_point;
    } params;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    Delegate *delegate;
    int buffer_handle;
    bool values_are_stale;
    bool is_variable;
    struct {
        int type;
        void *params;
    } quantization;
    void *sparsity;
    const IntArray *dims_signature;
};

struct Node {
    IntArray *inputs;
    IntArray *outputs;
    IntArray *intermediates;
    IntArray *temporaries;
    void *user;           // what our init returned
    void *builtin;        // of a composite: CompositeParameters
    const void *options;  // of a custom operator
    int options_bytes;
    Delegate *delegate;
    bool might_have_side_effect;
};

struct CompositeParameters {
    const char *name;
    int32_t subgraph;
    const uint8_t *attributes;
    size_t attributes_bytes;
    int32_t version;
};

struct DelegateParameters {
    Delegate *delegate;
    IntArray *nodes;
    IntArray *inputs;
    IntArray *outputs;
};

struct Registration {
    void *(*init)(Context *, const char *, size_t);
    void (*free)(Context *, void *);
    Status (*prepare)(Context *, Node *);
    Status (*invoke)(Context *, Node *);
    const char *(*profiling_string)(const Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *external;
    void *async_kernel;
    uint64_t inplace_operator;
    uint64_t beyond[8];  // handed over by value: zeros, should the runtime's struct have grown
};

struct Context {
    size_t tensor_count;
    Status (*execution_plan)(Context *, IntArray **);
    Tensor *tensors;
    void *implementation;
    Status (*resize_tensor)(Context *, Tensor *, IntArray *);
    void (*report_error)(Context *, const char *, ...);
    Status (*add_tensors)(Context *, int, int *);
    Status (*node_and_registration)(Context *, int, Node **, Registration **);
    Status (*replace_nodes)(Context *, Registration, const IntArray *, Delegate *);
};

struct Delegate {
    void *own;
    Status (*prepare)(Context *, Delegate *);
    void *copy_from_buffer_handle;
    void *copy_to_buffer_handle;
    void *free_buffer_handle;
    int64_t flags;
    void *opaque_builder;
    uint64_t beyond[8];
};

static_assert(sizeof(void *) == 8, "the layouts are those of 64-bit systems");
static_assert(sizeof(Tensor) == 112 && offsetof(Tensor, values) == 8 && offsetof(Tensor, dims) == 16 &&
              offsetof(Tensor, params) == 24 && offsetof(Tensor, allocation_type) == 32 &&
              offsetof(Tensor, bytes) == 40 && offsetof(Tensor, name) == 56 && offsetof(Tensor, delegate) == 64 &&
              offsetof(Tensor, quantization) == 80 && offsetof(Tensor, dims_signature) == 104);
static_assert(offsetof(IntArray, values) == 4);
static_assert(offsetof(Node, user) == 32 && offsetof(Node, builtin) == 40 && offsetof(Node, options) == 48 &&
              offsetof(Node, options_bytes) == 56 && offsetof(Node, delegate) == 64);
static_assert(offsetof(CompositeParameters, subgraph) == 8 && offsetof(CompositeParameters, attributes) == 16 &&
              offsetof(CompositeParameters, attributes_bytes) == 24 && offsetof(CompositeParameters, version) == 32);
static_assert(offsetof(DelegateParameters, nodes) == 8 && offsetof(DelegateParameters, outputs) == 24);
static_assert(offsetof(Registration, invoke) == 24 && offsetof(Registration, builtin_code) == 40 &&
              offsetof(Registration, custom_name) == 48 && offsetof(Registration, version) == 56 &&
              offsetof(Registration, external) == 64 && offsetof(Registration, inplace_operator) == 80);
static_assert(offsetof(Context, execution_plan) == 8 && offsetof(Context, tensors) == 16 &&
              offsetof(Context, report_error) == 40 && offsetof(Context, node_and_registration) == 56 &&
              offsetof(Context, replace_nodes) == 64);
static_assert(offsetof(Delegate, prepare) == 8 && offsetof(Delegate, flags) == 40);

}  // namespace radbox::tflite
