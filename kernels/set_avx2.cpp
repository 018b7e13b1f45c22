// The set `avx2`.
#define RADBOX_SET avx2
#include "isa_avx2.h"
#include "set.h"
