// Which set of kernels this process uses; the export files ask here. Baseline code only.
#pragma once

#include <new>
#include <system_error>

#include "table.h"

namespace radbox {

// By name, or for NULL by RADBOX_KERNELS, else the best that this CPU runs. A set in RADBOX_KERNELS that this CPU lacks is
// replaced by `reference` (a setting that came from another box); refused_name() then names it.
int choose(const char *name);
const char *refused_name();

// The chosen set in `operators` (chosen now if nothing was), or why there is none.
int current(const Operators *&operators);

// The best set that this CPU runs; the names of those that it runs, and of all that exist, best first.
const Operators &best();
const char *runnable_names();
const char *known_names();

// Run `call`; memory or threads that run out become a status.
template <typename Call>
int guarded(Call call) {
    try {
        return call();
    } catch (const std::bad_alloc &) {
        return fail(RADBOX_OUT_OF_MEMORY, "expected enough memory for the kernels, got none");
    } catch (const std::system_error &error) {
        return fail(RADBOX_OUT_OF_MEMORY, "expected the system to give the kernels their threads, got: %s", error.what());
    }
}

// Run `call` with the chosen set.
template <typename Call>
int run(Call call) {
    const Operators *operators = nullptr;
    const int status = current(operators);
    return status == RADBOX_OK ? guarded([&] { return call(*operators); }) : status;
}

}  // namespace radbox
