// Products of many rows: which can be done, and those of BF16.
#include "kernels/wide_matmul_cuda.cuh"

namespace chiasm {

bool can_multiply_wide_cuda(const WideProduct& product, CudaView out) {
  constexpr std::int64_t kMost = 1 << 30;
  const bool aligned = product.scales != nullptr
                           ? product.x.stride % 16 == 0 && reinterpret_cast<std::uintptr_t>(product.x.data) % 16 == 0
                           : product.x.cols % 8 == 0 && aligned_rows(product.x);
  return product.x.rows > 0 && product.x.rows < kMost && out.cols < kMost && product.x.cols < kMost && aligned &&
         out.cols % 8 == 0 && aligned_rows(out) && reinterpret_cast<std::uintptr_t>(product.weight) % 16 == 0 &&
         (out.f32 ? product.activation == 0 && product.turned == 0 : !product.add_to_out) &&
         product.turned % kTurnedHead == 0;
}

cudaError_t wide_matmul_cuda(const WideProduct& product, CudaView out, int multiprocessors, cudaStream_t s) {
  return product.scales != nullptr ? wide_matmul_fp8_cuda(product, out, multiprocessors, s)
                                   : multiply_wide<false>(product, out, multiprocessors, s);
}

}  // namespace chiasm
