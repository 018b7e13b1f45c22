// CUDA's words for a CPU: this header, shim.cpp and shim_run.cpp run the kernels of this folder without a GPU, one fiber
// per CUDA thread, block after block.
//
// What it finds, because each fiber is a thread of its own to ThreadSanitizer and only __syncthreads orders them: a
// barrier that is missing, two blocks that write the same element. AddressSanitizer: an index out of a buffer or of the
// launch's shared memory. Always: a barrier or a shuffle that not all threads reach (the run ends with a sentence), shared
// memory read before it was written (it starts as NaN), arguments that do not fit the kernel.
// What it cannot find: anything about speed, and rounding of the GPU's own expf and tanhf (they differ in the last bits).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define RADBOX_INFINITY (__builtin_inff())
#define RADBOX_SHARED(type, name) type *name = reinterpret_cast<type *>(shim::shared_memory())

namespace shim {

struct Index {
    unsigned x, y, z;
};

Index thread_index();
Index block_index();
Index grid_size();
void *shared_memory();
void synchronize_block();
std::uint32_t exchange(std::uint32_t mask, std::uint32_t bits, int lane_mask);

float half_to_float(unsigned short bits);
unsigned short float_to_half(float value);  // to nearest, ties to even

struct Argument {
    const void *bytes;
    std::size_t size;
};

// A kernel by name, called with untyped arguments. `sizes` is checked against them before a launch.
struct Kernel {
    std::string name;
    std::vector<std::size_t> sizes;
    void (*call)(const void *function, const Argument *arguments);
    const void *function;
};

void add_kernel(Kernel kernel);

struct Registration {
    template <class... Types>
    Registration(const char *name, void (*function)(Types...)) {
        add_kernel({name, {sizeof(Types)...}, &invoke<Types...>, reinterpret_cast<const void *>(function)});
    }

private:
    template <class... Types>
    static void invoke(const void *function, const Argument *arguments) {
        invoke_each(reinterpret_cast<void (*)(Types...)>(const_cast<void *>(function)), arguments,
                    std::index_sequence_for<Types...>{});
    }
    template <class... Types, std::size_t... at>
    static void invoke_each(void (*function)(Types...), const Argument *arguments, std::index_sequence<at...>) {
        function(read<Types>(arguments[at].bytes)...);
    }
    template <class T>
    static T read(const void *bytes) {
        T value;
        std::memcpy(&value, bytes, sizeof value);
        return value;
    }
};

// Run every block of a launch. Returns "" or a sentence on what was wrong with the request.
std::string launch(const std::string &name, Index grid, unsigned threads, std::size_t shared_bytes,
                   const std::vector<Argument> &arguments);

}  // namespace shim

#define threadIdx (shim::thread_index())
#define blockIdx (shim::block_index())
#define gridDim (shim::grid_size())

inline void __syncthreads() { shim::synchronize_block(); }

inline float __shfl_xor_sync(unsigned mask, float value, int lane_mask) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = shim::exchange(mask, bits, lane_mask);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int __shfl_xor_sync(unsigned mask, int value, int lane_mask) {
    return static_cast<int>(shim::exchange(mask, static_cast<std::uint32_t>(value), lane_mask));
}

inline int atomicCAS(int *at, int expected, int desired) {
    __atomic_compare_exchange_n(at, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

inline int __float_as_int(float value) {
    int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyintf(value)); }
