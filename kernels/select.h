// Which set of kernels this process uses; the export files ask here. Baseline code only.
#pragma once

#include <new>

#include "table.h"

namespace radbox {

// By name, or for NULL by RADBOX_KERNELS, else the best that this CPU runs.
int choose(const char *name);

// The chosen set in `operators` (chosen now if nothing was), or why there is none.
int current(const Operators *&operators);

// The best set that this CPU runs; the names of those that it runs, and of all that exist, best first.
const Operators &best();
const char *runnable_names();
const char *known_names();

// Run `call`; memory that runs out becomes a status.
template <typename Call>
int guarded(Call call) {
    try {
        return call();
    } catch (const std::bad_alloc &) {
        return fail(RADBOX_OUT_OF_MEMORY, "expected enough memory for the kernels, got none");
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
