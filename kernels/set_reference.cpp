// The quantised half of the set `reference`: the same code as every other set's, over plain arrays of sixteen.
#include "isa_plain.h"
#include "stages.h"

namespace radbox {

extern const Quantised reference_quantised;
const Quantised reference_quantised = kQuantised;

}  // namespace radbox
