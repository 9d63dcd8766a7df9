// Products of many rows of e4m3 operands. The tensor cores keep 13 bits of a sum's fraction between two of its terms of
// 32 products; what that errs by is far below what the operands' rounding does (docs/adr/0012-precision.md).
#include "kernels/wide_matmul_cuda.cuh"

namespace chiasm {

cudaError_t wide_matmul_fp8_cuda(const WideProduct& product, CudaView out, int multiprocessors, cudaStream_t s) {
  return multiply_wide<true>(product, out, multiprocessors, s);
}

}  // namespace chiasm
