// The set `neon`.
#define RADBOX_SET neon
#include "isa_neon.h"
#include "set.h"
