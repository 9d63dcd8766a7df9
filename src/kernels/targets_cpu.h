// Which Highway targets the kernels are built for: the x86-64 base line, AVX2 and AVX-512 (and NEON on Arm).
// Include before any Highway header.
#pragma once

#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
