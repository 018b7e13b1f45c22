// The machine's limits for a decoder: how fast a working set is read, and int8 products per second.
//
// Built with the kernels' thread pool into a library of its own (roofline.py). Compiled for this machine only.
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
typedef int64_t Line __attribute__((vector_size(64)));

double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

constexpr size_t kHugePage = size_t{2} << 20;

struct Roofline {
    radbox::Pool pool;
    const int64_t lines;
    Line *memory;
    Line sink[RADBOX_GREATEST_THREADS] = {};

    Roofline(int threads, int64_t bytes) : pool(threads), lines(bytes / static_cast<int64_t>(sizeof(Line))) {
        const size_t rounded = (static_cast<size_t>(bytes) + kHugePage - 1) / kHugePage * kHugePage;
        memory = static_cast<Line *>(std::aligned_alloc(kHugePage, rounded));
        madvise(memory, rounded, MADV_HUGEPAGE);
        std::memset(memory, 1, rounded);
    }
    ~Roofline() { std::free(memory); }
};

constexpr int64_t kPiece = 1024;  // lines of an item that threads share: 64 KiB

void read_lines(void *context, int64_t, int64_t first, int64_t last, int thread) {
    Roofline &roofline = *static_cast<Roofline *>(context);
    const Line *lines = roofline.memory;
    const int64_t end = last * kPiece < roofline.lines ? last * kPiece : roofline.lines;
    Line sums[4] = {};
    for (int64_t i = first * kPiece; i + 4 <= end; i += 4)
        for (int lane = 0; lane < 4; ++lane) sums[lane] |= lines[i + lane];
    roofline.sink[thread] |= (sums[0] | sums[1]) | (sums[2] | sums[3]);
}

constexpr int kProducts = 100000;
constexpr int kChains = 12;  // independent sums, enough to hide the instruction's latency
#define EACH_CHAIN(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

void int8_products() {
#if defined(__AVX512VNNI__)
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);
#define START(c) __m512i sum##c = _mm512_setzero_si512();
#define ADD(c) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum##c) : "v"(a), "v"(b));
#elif defined(__AVX2__)
    const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(2), ones = _mm256_set1_epi16(1);
    __m256i t;
#define START(c) __m256i sum##c = _mm256_setzero_si256();
#define ADD(c)                                                                             \
    asm volatile("vpmaddubsw %3, %2, %1\n vpmaddwd %4, %1, %1\n vpaddd %1, %0, %0"         \
                 : "+x"(sum##c), "=&x"(t)                                                  \
                 : "x"(a), "x"(b), "x"(ones));
#elif defined(__ARM_FEATURE_DOTPROD)
    const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(2);
#define START(c) int32x4_t sum##c = vdupq_n_s32(0);
#define ADD(c) asm volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum##c) : "w"(a), "w"(b));
#else
#define START(c)
#define ADD(c)
#endif
    EACH_CHAIN(START)
    for (int i = 0; i < kProducts; ++i) {
        EACH_CHAIN(ADD)
    }
}

double products_per_instruction() {
#if defined(__AVX512VNNI__)
    return 64.0;
#elif defined(__AVX2__)
    return 32.0;
#elif defined(__ARM_FEATURE_DOTPROD)
    return 16.0;
#else
    return 0.0;
#endif
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void *roofline_create(int threads, int64_t bytes) {
    return new Roofline(threads, bytes);
}

__attribute__((visibility("default"))) void roofline_destroy(void *roofline) { delete static_cast<Roofline *>(roofline); }

// Reads the whole working set once; seconds.
__attribute__((visibility("default"))) double roofline_read(void *roofline) {
    Roofline &r = *static_cast<Roofline *>(roofline);
    const int64_t items = (r.lines + kPiece - 1) / kPiece;
    const Clock::time_point began = Clock::now();
    r.pool.run(&items, 1, read_lines, &r);
    return seconds_since(began);
}

// int8 products (multiply and add) per second of one core, 0 if this CPU has no instruction that is known here.
__attribute__((visibility("default"))) double roofline_int8_products_per_s(void) {
    double best = 0.0;
    for (int round = 0; round < 15; ++round) {
        const Clock::time_point began = Clock::now();
        int8_products();
        const double rate = products_per_instruction() * kChains * kProducts / seconds_since(began);
        best = rate > best ? rate : best;
    }
    return best;
}

}  // extern "C"
