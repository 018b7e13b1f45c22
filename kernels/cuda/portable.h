// What every kernel here stands on: sizes, the storage types, the status word and reductions in a fixed order.
//
// No header of any toolkit is needed: nvcc and NVRTC (12.x and 13.x, C++17) compile this text for a GPU, g++ compiles
// the same text for the CPU behind shim.h (RADBOX_CUDA_SHIM). No fast-math, no floating-point atomics: a result does not
// depend on the order in which blocks run.
#pragma once

#ifdef RADBOX_CUDA_SHIM
#include "shim.h"
#else
#define RADBOX_INFINITY __int_as_float(0x7f800000)  // NVRTC has no INFINITY
// The block's dynamic shared memory as an array of `type`; its size is the launch's shared_bytes.
#define RADBOX_SHARED(type, name)                                          \
    extern __shared__ __align__(16) unsigned char radbox_shared_storage[]; \
    type *name = reinterpret_cast<type *>(radbox_shared_storage)
#endif

namespace radbox {

constexpr int kWarp = 32;
constexpr int kThreads = 128;  // of every block, unless a kernel says otherwise
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kPadding = 16;  // a weight row is stored with zeros up to a multiple of this many elements

// Words of the step's state in device memory (int32 each). `status` is a radbox_status of kernels.h.
enum StateWord { kToken = 0, kPosition = 1, kStatus = 2, kChosen = 3, kLogProbability = 4, kStateWords = 8 };
enum Status { kOk = 0, kBadArgument = 1, kNotFinite = 2, kNothingAllowed = 3, kWrongState = 6 };

// ---- storage types ---------------------------------------------------------------------------------------------------

struct Half {  // IEEE binary16, only stored: all arithmetic is in float
    unsigned short bits;
};

#ifdef RADBOX_CUDA_SHIM
inline float half_to_float(unsigned short bits) { return shim::half_to_float(bits); }
inline unsigned short float_to_half(float value) { return shim::float_to_half(value); }
#else
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

struct alignas(16) Vector16 {  // one 16-byte load
    unsigned words[4];
};

// How a type is read 16 bytes at a time. kCount: elements in 16 bytes.
template <class T>
struct Stored;

template <>
struct Stored<Half> {
    static constexpr int kCount = 8;
    static constexpr bool kScaledKeys = false;  // keys and values are stored as they are
    static __device__ __forceinline__ void unpack(const Vector16 &packed, float (&values)[kCount]) {
#pragma unroll
        for (int i = 0; i < kCount; ++i)
            values[i] = half_to_float(static_cast<unsigned short>(packed.words[i / 2] >> (16 * (i % 2))));
    }
};

template <>
struct Stored<signed char> {
    static constexpr int kCount = 16;
    static constexpr bool kScaledKeys = true;  // one float scale per row of keys or values
    // 2^23 + (byte ^ 0x80) as a float's bits is exact; one subtraction gives the signed value. It avoids the conversion
    // unit, which runs at a quarter of the rate of the others on sm_87.
    static __device__ __forceinline__ void unpack(const Vector16 &packed, float (&values)[kCount]) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            const unsigned byte = ((packed.words[i / 4] ^ 0x80808080u) >> (8 * (i % 4))) & 0xffu;
            values[i] = __int_as_float(static_cast<int>(0x4b000000u | byte)) - 8388736.0f;
        }
    }
};

template <class T>
__device__ __forceinline__ Vector16 load16(const T *from) {
    return *reinterpret_cast<const Vector16 *>(from);
}

// ---- numbers and the status word ---------------------------------------------------------------------------------------

__device__ __forceinline__ bool is_finite(float value) {
    return (static_cast<unsigned>(__float_as_int(value)) & 0x7f800000u) != 0x7f800000u;
}

// The first failure stays; later ones are its consequence.
__device__ __forceinline__ void report(int *state, int status) { atomicCAS(state + kStatus, kOk, status); }

__device__ __forceinline__ void report_unless_finite(int *state, float value) {
    if (!is_finite(value)) report(state, kNotFinite);
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): gelu_tanh_f32 of reference.py.
__device__ __forceinline__ float gelu_tanh(float x) {
    const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return x * ((tanhf(inner) + 1.0f) * 0.5f);
}

// ---- reductions --------------------------------------------------------------------------------------------------------

// Sum over groups of `lanes` neighbouring lanes (a power of two); every lane of the group gets it. All lanes must call.
template <int lanes>
__device__ __forceinline__ float group_sum(float value) {
#pragma unroll
    for (int offset = lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
    return value;
}

// Sum over the block; `scratch` holds one float per warp and is used by no one else until the block's next barrier but
// one. All threads must call.
template <int warps>
__device__ __forceinline__ float block_sum(float value, float *scratch) {
    value = group_sum<kWarp>(value);
    if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < warps; ++w) sum += scratch[w];
    return sum;
}

}  // namespace radbox
