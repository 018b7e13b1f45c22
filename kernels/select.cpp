// The sets of kernels by name, best first, with the test that says whether this CPU runs them.
#include "select.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace radbox {
namespace {

struct Set {
    const char *name;
    const Operators *operators;  // null: built for the other architecture only
    bool (*runs_here)();
    const char *needs;
};

bool never() { return false; }
bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#define RADBOX_X86(set) &set##_operators, has_##set
#else
#define RADBOX_X86(set) nullptr, never
#endif

#if defined(__aarch64__)
// Bits of the auxiliary vector, as in Linux' asm/hwcap.h; older C libraries lack the later names.
bool has_neon() { return (getauxval(AT_HWCAP) & (1ul << 1)) != 0; }
bool has_neon_dotprod() { return has_neon() && (getauxval(AT_HWCAP) & (1ul << 20)) != 0; }
bool has_neon_i8mm() { return has_neon_dotprod() && (getauxval(AT_HWCAP2) & (1ul << 13)) != 0; }
#define RADBOX_ARM(set) &set##_operators, has_##set
#else
#define RADBOX_ARM(set) nullptr, never
#endif

const Set kSets[] = {
    {"avx512vnni", RADBOX_X86(avx512vnni), "x86-64 with AVX-512 F, BW, DQ, VL and VNNI"},
    {"avx2", RADBOX_X86(avx2), "x86-64 with AVX2, FMA and F16C"},
    {"neon_i8mm", RADBOX_ARM(neon_i8mm), "aarch64 with the dot product and int8 matrix instructions"},
    {"neon_dotprod", RADBOX_ARM(neon_dotprod), "aarch64 with the dot product instructions"},
    {"neon", RADBOX_ARM(neon), "aarch64"},
    {"reference", &reference_operators, always, "any CPU"},
};

std::atomic<const Operators *> chosen{nullptr};
std::atomic<const char *> refused{""};

template <typename Wanted>
std::string names(Wanted wanted) {
    std::string all;
    for (const Set &set : kSets)
        if (wanted(set)) all += (all.empty() ? "" : ", ") + std::string(set.name);
    return all;
}

int choose_named(const char *name, bool from_environment) {
    for (const Set &set : kSets) {
        if (std::strcmp(name, set.name) != 0) continue;
        if (!set.runs_here() && from_environment) {
            refused.store(set.name), chosen.store(&reference_operators);
            return RADBOX_OK;
        }
        if (!set.runs_here())
            return fail(RADBOX_UNSUPPORTED_KERNELS, "expected kernels that this CPU runs (%s), got \"%s\", which need %s",
                        runnable_names(), name, set.needs);
        refused.store(""), chosen.store(set.operators);
        return RADBOX_OK;
    }
    return fail(RADBOX_UNKNOWN_KERNELS, "expected kernels named one of: %s; got \"%.64s\"", known_names(), name);
}

}  // namespace

const Operators &best() {
    for (const Set &set : kSets)
        if (set.runs_here()) return *set.operators;
    return reference_operators;
}

const char *runnable_names() {
    static const std::string runnable = names([](const Set &set) { return set.runs_here(); });
    return runnable.c_str();
}

const char *known_names() {
    static const std::string known = names([](const Set &) { return true; });
    return known.c_str();
}

int choose(const char *name) {
    const bool from_environment = name == nullptr;
    if (from_environment) name = std::getenv("RADBOX_KERNELS");
    if (name != nullptr && name[0] != '\0') return choose_named(name, from_environment);
    refused.store(""), chosen.store(&best());
    return RADBOX_OK;
}

const char *refused_name() { return refused.load(); }

int current(const Operators *&operators) {
    operators = chosen.load();
    if (operators != nullptr) return RADBOX_OK;
    const int status = choose(nullptr);
    operators = chosen.load();
    return status;
}

}  // namespace radbox
