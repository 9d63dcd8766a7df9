// Products of many rows on the card through cuBLASLt, which is loaded when it is first needed: a program built with
// CUDA starts where there is none.
//
// The algorithm of a shape is the first that cuBLASLt's heuristic names, and is remembered: no
// timing decides, so the same shape gives the same bits in every run. Thread contract: any thread.
#pragma once

#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

#include "base/result.h"
#include "kernels/kernels_cuda.h"

namespace chiasm {

class CudaProducts {
 public:
  // kUnavailable where the library is not found.
  static Result<std::unique_ptr<CudaProducts>> load();
  virtual ~CudaProducts() = default;

  // out [m, n] (F32 or BF16) = x [m, k] * weight [n, k]^T + bias, or added to out. BF16 operands with rows of whole 16
  // bytes; `bias` of out's dtype or null. `split`: k may be split, which is faster for few rows and sums in an order
  // that depends on their number. False: it has no algorithm for this.
  virtual Result<bool> multiply(const CudaView& x, const void* weight, const void* bias, bool add_to_out, bool split,
                                const CudaView& out, cudaStream_t stream) = 0;
};

}  // namespace chiasm
