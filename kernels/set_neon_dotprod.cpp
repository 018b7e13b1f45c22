// The set `neon_dotprod`.
#define RADBOX_SET neon_dotprod
#include "isa_neon.h"
#include "set.h"
