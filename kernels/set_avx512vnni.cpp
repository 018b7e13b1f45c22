// The set `avx512vnni`.
#define RADBOX_SET avx512vnni
#include "isa_avx512vnni.h"
#include "set.h"
