// The set `neon_i8mm`.
#define RADBOX_SET neon_i8mm
#include "isa_neon.h"
#include "set.h"
