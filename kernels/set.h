// The end of a unit of one instruction set: the set's table, made of this unit's functions.
//
// A unit says `#define RADBOX_SET avx2`, includes an isa_*.h and then this file. It holds no standard library: what the
// linker merges between units would otherwise run with this unit's instructions everywhere.
#pragma once

#include "operators_f32.h"
#include "stages.h"

#define RADBOX_JOIN_(a, b) a##b
#define RADBOX_JOIN(a, b) RADBOX_JOIN_(a, b)

namespace radbox {

const Operators RADBOX_JOIN(RADBOX_SET, _operators) = {
    kIsaName,
    layer_norm_rows,
    linear_rows,
    gelu_tanh_all,
    swiglu_all,
    self_attention_step,
    gated_cross_attention,
    gaussian_blur_f32_reference,
    anatomical_bias_f32_reference,
    masked_argmax,
    selective_scan,
    &kQuantised,
};

}  // namespace radbox
