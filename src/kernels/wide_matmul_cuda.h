// Products of many rows by own kernels (compute capability 9.0), with what comes behind the sums in them
// (wide_matmul_cuda.cu). Used by ops_cuda.cpp only. Thread contract: pure functions.
//
// Every output is one chain of sums from k = 0 up, whatever the number of rows and the tiles that are chosen for it: a
// row's bits do not depend on its companions.
#pragma once

#include "kernels/kernels_cuda.h"

namespace chiasm {

// Heads of this size can be turned on their way out.
inline constexpr std::int64_t kTurnedHead = 80;

struct WideProduct {
  CudaView x;                    // [m, k] BF16
  const void* weight = nullptr;  // [n, k] BF16
  // The weight is what a kernel in front of this one in the stream writes: it is not read before that has ended.
  bool fresh_weight = false;
  // Not null: x and weight are e4m3, rows of both x.stride bytes apart, and a sum is multiplied by its row's and its
  // output's scale.
  const float *row_scales = nullptr, *scales = nullptr;  // [m], [n]
  const float* bias = nullptr;                           // [n], or null
  int activation = 0;                                    // without add_to_out
  bool add_to_out = false;                               // out is F32
  // Not null: of the first `turned` columns of out (BF16) every head of kTurnedHead is turned by cos and sin
  // [m, kTurnedHead / 2].
  const float *cos = nullptr, *sin = nullptr;
  std::int64_t turned = 0;
};
bool can_multiply_wide_cuda(const WideProduct& product, CudaView out);
cudaError_t wide_matmul_cuda(const WideProduct& product, CudaView out, int multiprocessors, cudaStream_t s);
// Its part for e4m3 (wide_matmul_fp8_cuda.cu).
cudaError_t wide_matmul_fp8_cuda(const WideProduct& product, CudaView out, int multiprocessors, cudaStream_t s);

}  // namespace chiasm
