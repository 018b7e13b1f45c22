// The delegate without a runtime: a stand-in hands it one node, whole and broken in every way, for the sanitizers.
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "../kernels.h"
#include "attributes.h"
#include "delegate.h"

using namespace radbox::tflite;

namespace {

constexpr uint8_t kRootMap = 9 << 2;  // the packed type of a map of one-byte values

void expect(bool holds, const std::string &what) {
    if (holds) return;
    std::fprintf(stderr, "selftest of the delegate: expected %s\n", what.c_str());
    std::exit(1);
}

std::vector<int> int_array(const std::vector<int> &values) {
    std::vector<int> array{static_cast<int>(values.size())};
    array.insert(array.end(), values.begin(), values.end());
    return array;
}

// One node, its tensors and the part of a runtime that the delegate talks to.
class Host {
  public:
    Host(const char *name, const std::string &map, const std::vector<std::vector<int>> &inputs,
         const std::vector<std::vector<int>> &outputs)
        : attributes(map.begin(), map.end()), name_(name) {
        uint32_t state = 12345;
        for (const auto *shapes : {&inputs, &outputs})
            for (const auto &shape : *shapes) {
                size_t elements = 1;
                for (const int size : shape) elements *= static_cast<size_t>(size);
                std::vector<float> values(elements);
                for (float &value : values) {
                    state = state * 1664525u + 1013904223u;
                    value = static_cast<float>(state >> 8) / 16777216.0f - 0.5f;
                }
                const int index = static_cast<int>(tensors.size());
                (shapes == &inputs ? input_indices : output_indices).push_back(index);
                Tensor tensor{};
                tensor.type = kFloat32;
                tensor.bytes = elements * sizeof(float);
                tensors.push_back(tensor);
                memory.push_back(values);
                dims.push_back(int_array(shape));
            }
    }

    // Claimed, prepared, invoked and freed; true if all went well. `error` has the sentence otherwise.
    bool run(bool custom = false) {
        for (size_t i = 0; i < tensors.size(); ++i) {
            tensors[i].dims = reinterpret_cast<IntArray *>(dims[i].data());
            tensors[i].values = without_memory == static_cast<int>(i) ? nullptr : memory[i].data();
        }
        std::vector<int> in = int_array(input_indices), out = int_array(output_indices);
        std::vector<uint8_t> exact(attributes);  // no spare byte behind the last one
        exact.shrink_to_fit();
        CompositeParameters composite{name_, 1, exact.data(), exact.size(), 1};
        node_.inputs = reinterpret_cast<IntArray *>(in.data());
        node_.outputs = reinterpret_cast<IntArray *>(out.data());
        node_.builtin = custom ? nullptr : &composite;
        node_.options = custom ? exact.data() : nullptr;
        node_.options_bytes = custom ? static_cast<int>(exact.size()) : 0;
        registration_.builtin_code = custom ? kCustom : kStablehloComposite;
        registration_.custom_name = custom ? name_ : nullptr;
        Context context{};
        context.tensor_count = tensors.size();
        context.tensors = tensors.data();
        context.implementation = this;
        context.execution_plan = [](Context *c, IntArray **plan) {
            *plan = reinterpret_cast<IntArray *>(of(c).plan_);
            return kOk;
        };
        context.node_and_registration = [](Context *c, int, Node **node, Registration **registration) {
            *node = &of(c).node_;
            *registration = &of(c).registration_;
            return kOk;
        };
        context.report_error = keep_error;
        context.replace_nodes = replace;
        error.clear();
        taken = 0;
        Delegate *delegate = tflite_plugin_create_delegate(nullptr, nullptr, 0, nullptr);
        expect(delegate != nullptr, "a delegate");
        const Status status = delegate->prepare(&context, delegate);
        tflite_plugin_destroy_delegate(delegate);
        return status == kOk && taken == 1;
    }

    std::vector<uint8_t> attributes;
    std::vector<Tensor> tensors;
    std::vector<std::vector<float>> memory;
    std::vector<std::vector<int>> dims;
    std::vector<int> input_indices, output_indices;
    std::string error;
    int without_memory = -1, taken = 0;

  private:
    static Host &of(Context *context) { return *static_cast<Host *>(context->implementation); }

    static void keep_error(Context *context, const char *format, ...) {
        char text[512];
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        of(context).error = text;
    }

    static Status replace(Context *context, Registration kernel, const IntArray *nodes, Delegate *delegate) {
        of(context).taken = nodes->size;
        std::vector<int> copy(&nodes->size, &nodes->size + 1 + nodes->size);
        DelegateParameters parameters{delegate, reinterpret_cast<IntArray *>(copy.data()), nullptr, nullptr};
        Node node{};
        node.user = kernel.init(context, reinterpret_cast<const char *>(&parameters), 0);
        Status status = kernel.prepare(context, &node);
        if (status == kOk) status = kernel.invoke(context, &node);
        kernel.free(context, node.user);
        return status;
    }

    const char *name_;
    int plan_[2] = {1, 0};
    Node node_{};
    Registration registration_{};
};

// Attributes as litert-torch 0.10 writes them: {bias: true, gate: "scaled-tanh", heads: 3, version: 1} and
// {directions: 4, height: 5, version: 1, width: 3}.
constexpr char kCross[] =
    "bias\0gate\0\x0bscaled-tanh\0heads\0version\0\x04&\"\x11\x0c\x04\x01\x04\x01#\x03\x01h\x14\x04\x04\x08$\x01";
constexpr char kScan[] =
    "directions\0height\0version\0width\0\x04!\x17\x11\n\x04\x01\x04\x04\x05\x01\x03\x04\x04\x04\x04\x08$\x01";

Host cross() {
    return {"radbox.gated_cross_attention", {kCross, sizeof kCross - 1},
            {{1, 2, 33}, {1, 2, 33}, {1, 7, 33}, {1, 7, 33}, {33}, {1}, {1}, {1, 7}}, {{1, 2, 33}, {1, 2, 7}}};
}

Host scan() {
    return {"radbox.selective_scan", {kScan, sizeof kScan - 1},
            {{4, 15, 17}, {4, 15, 17}, {4, 17, 16}, {4, 15, 16}, {4, 15, 16}, {4, 17}}, {{15, 17}}};
}

void whole(bool custom) {
    Host c = cross(), s = scan();
    expect(c.run(custom), "a gated cross-attention, got: " + c.error);
    std::vector<float> y(66), map(14);
    for (size_t row = 0; row < 2; ++row)
        radbox_gated_cross_attention_f32(&c.memory[0][row * 33], &c.memory[1][row * 33], c.memory[2].data(),
                                         c.memory[3].data(), c.memory[7].data(), c.memory[4].data(), c.memory[5][0],
                                         c.memory[6][0], 7, 33, 3, &y[row * 33], &map[row * 7]);
    expect(y == c.memory[8] && map == c.memory[9], "the kernel's own numbers of the cross-attention");
    expect(s.run(custom), "a selective scan, got: " + s.error);
    y.resize(15 * 17);
    radbox_selective_scan_f32(s.memory[0].data(), s.memory[1].data(), s.memory[2].data(), s.memory[3].data(),
                              s.memory[4].data(), s.memory[5].data(), 5, 3, 17, 16, y.data());
    expect(y == s.memory[6], "the kernel's own numbers of the scan");
}

void refused(Host (*make)(), const std::string &what, const std::function<void(Host &)> &spoil) {
    Host host = make();
    spoil(host);
    expect(!host.run() && !host.error.empty(), "an error for " + what);
}

void broken(Host (*make)()) {
    const size_t tensors = make().tensors.size();
    for (size_t i = 0; i < tensors; ++i) {
        const std::string name = "tensor " + std::to_string(i);
        refused(make, name + " of int8", [&](Host &h) { h.tensors[i].type = 9; });
        refused(make, name + " of fewer bytes", [&](Host &h) { h.tensors[i].bytes -= 4; });
        refused(make, name + " without memory", [&](Host &h) { h.without_memory = static_cast<int>(i); });
        refused(make, name + " of 7 axes", [&](Host &h) { h.dims[i] = {7, 1, 1, 1, 1, 1, 1, 1}; });
        for (size_t axis = 1; axis < make().dims[i].size(); ++axis)
            for (const int size : {0, -1, 1 << 23, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()})
                refused(make, name + " with an axis of " + std::to_string(size),
                        [&](Host &h) { h.dims[i][axis] = size; });
    }
    const size_t inputs = make().input_indices.size();
    for (size_t i = 0; i < inputs; ++i)
        for (const int index : {-1, 1000})
            refused(make, "input " + std::to_string(i) + " of an index beyond the tensors",
                    [&](Host &h) { h.input_indices[i] = index; });
    refused(make, "an input too few", [](Host &h) { h.input_indices.pop_back(); });
    refused(make, "no inputs", [](Host &h) { h.input_indices.clear(); });
    refused(make, "no outputs", [](Host &h) { h.output_indices.clear(); });
    refused(make, "an output too many", [](Host &h) { h.output_indices.assign(3, 0); });
    refused(make, "no attributes", [](Host &h) { h.attributes.clear(); });
    refused(make, "NaN in", [](Host &h) { h.memory[0][0] = std::numeric_limits<float>::quiet_NaN(); });
}

// Whatever the bytes of the attributes, the node is served or refused with a sentence.
void mangled(Host (*make)()) {
    const std::vector<uint8_t> good = make().attributes;
    const auto answered = [&](const std::vector<uint8_t> &bytes) {
        Host host = make();
        host.attributes = bytes;
        expect(host.run() || !host.error.empty(), "an answer to mangled attributes");
    };
    for (size_t size = 0; size < good.size(); ++size) {
        answered({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)});
        for (int byte = 0; byte < 256; ++byte) {
            std::vector<uint8_t> bytes = good;
            bytes[size] = static_cast<uint8_t>(byte);
            answered(bytes);
        }
    }
}

// The map {p: "ab", q: 1}, in memory of exactly its size; then with single bytes changed so that a read would go wrong.
std::vector<uint8_t> small_map(const std::vector<std::pair<size_t, int>> &changes) {
    std::vector<uint8_t> bytes = {'p', 0, 'q', 0,               // 0: the keys
                                  2, 'a', 'b', 0,               // 4: the text
                                  2, 9, 8,                      // 8: their count, where the keys are
                                  2, 1, 2, 9, 1, 0x14, 0x04,    // 11: the map: keys, their width, count, values, types
                                  4, kRootMap, 1};              // 18: where the map is, its type, a width
    for (const auto &[at, value] : changes) bytes[at] = static_cast<uint8_t>(value);
    return bytes;
}

void small_maps() {
    const std::vector<uint8_t> whole = small_map({});
    Attributes map(whole.data(), whole.size());
    int64_t number = 0;
    bool flag;
    expect(map.open(2).empty() && map.text("p", "ab").empty(), "the text of a small map");
    expect(map.integer("q", 0, 5, number).empty() && number == 1, "the number of a small map");
    expect(!map.text("p", "abc").empty() && !map.text("q", "ab").empty() && !map.boolean("q", flag).empty() &&
               !map.integer("p", 0, 9, number).empty() && !map.integer("q", 2, 5, number).empty() &&
               !map.integer("r", 0, 9, number).empty() && !map.integer("longer than all of it", 0, 9, number).empty(),
           "no other attributes of a small map");

    const std::vector<uint8_t> negative = small_map({{15, 0xff}});
    Attributes signs(negative.data(), negative.size());
    expect(signs.open(2).empty() && signs.integer("q", -5, 5, number).empty() && number == -1, "a negative number");

    const std::vector<uint8_t> overlong = small_map({{14, 8}, {15, 0}, {17, 0x14}});  // 8 bytes of text from byte 15 on
    Attributes text(overlong.data(), overlong.size());
    expect(text.open(2).empty() && !text.text("q", "abcdefgh").empty(), "no text beyond the end");

    const std::vector<std::pair<size_t, int>> changed[] = {
        {{8, 3}},                  // more keys than values
        {{11, 200}},               // keys before the beginning
        {{12, 3}},                 // no width
        {{18, 200}},               // a map before the beginning
        {{18, 17}},                // one too near to it
        {{19, 0x28}},              // another type
        {{20, 3}},                 // no width
        {{10, 5}, {11, 0}, {12, 1}, {13, 0}, {14, 2}, {15, 0}, {18, 2}, {19, kRootMap + 1}}};  // types beyond the end
    for (const auto &changes : changed) {
        const std::vector<uint8_t> bytes = small_map(changes);
        Attributes broken(bytes.data(), bytes.size());
        expect(!broken.open(2).empty(), "no map where byte " + std::to_string(changes[0].first) + " is changed");
    }
}

}  // namespace

int main() {
    small_maps();
    whole(false);
    whole(true);
    for (Host (*make)() : {cross, scan}) {
        broken(make);
        mangled(make);
    }
    refused(cross, "all keys hidden", [](Host &h) {
        h.memory[7].assign(h.memory[7].size(), -std::numeric_limits<float>::infinity());
    });
    expect(tflite_plugin_create_delegate(nullptr, nullptr, 1, nullptr) == nullptr, "no delegate for an unknown option");
    expect(radbox_tflite_nodes_taken() > 0 && radbox_tflite_nodes_computed() > 0, "counts");
    std::puts("the delegate's self test passed");
    return 0;
}
