// The ways to multiply integers, each in its own file, and whether this machine has them. Used by the products only.
// Thread contract: pure functions.
#pragma once

#include "kernels/gemm_quantised_cpu.h"

namespace chiasm {

// Weights are read once by who multiplies few rows: asks for what lies so far ahead that it is there in time. The
// hardware's own prefetching stops at each page of 4 KiB. Panels lie one after the other, so the next one is ahead too;
// beyond the last there is nothing to fear, a prefetch never faults.
// Inlined by force: gcc takes a function that only prefetches for one that does nothing, and drops its calls.
inline __attribute__((always_inline)) void prefetch_words(const std::uint8_t* at) {
  constexpr std::int64_t kAhead = 2048;
  __builtin_prefetch(at + kAhead);
}

const IntegerKernel& highway_integer_kernel();  // int16 pairs, on every target of Highway
// Null where the machine, or the build, has no such instructions.
const IntegerKernel* avx2_integer_kernel();
const IntegerKernel* avx512_vnni_integer_kernel();
const IntegerKernel* amx_integer_kernel();

}  // namespace chiasm
