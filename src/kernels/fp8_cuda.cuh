// e4m3 in registers, as tensor/precision.h defines it. Included by *_cuda.cu only.
#pragma once

#include <cstdint>

#include <cuda_fp8.h>

#include "kernels/cuda_common.cuh"

namespace chiasm {

// The number of a code; exact.
__device__ inline float from_fp8(unsigned char code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

// The codes of four numbers.
__device__ inline std::uint32_t to_fp8(const float* v) {
  const std::uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(v[0], v[1]), __NV_SATFINITE, __NV_E4M3);
  const std::uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(v[2], v[3]), __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}

}  // namespace chiasm
