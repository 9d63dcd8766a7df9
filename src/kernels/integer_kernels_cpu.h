// The ways to multiply integers, each in its own file, and whether this machine has them. Used by the products only.
// Thread contract: pure functions.
#pragma once

#include "kernels/gemm_quantised_cpu.h"

namespace chiasm {

const IntegerKernel& highway_integer_kernel();  // int16 pairs, on every target of Highway
// Null where the machine, or the build, has no such instructions.
const IntegerKernel* avx512_vnni_integer_kernel();
const IntegerKernel* amx_integer_kernel();

}  // namespace chiasm
