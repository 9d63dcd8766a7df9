// A product of any shape and alignment: a warp an output, the lanes split k, so that a row's bits do not depend on the
// others. Slow, and seldom used. Included by *_cuda.cu only.
#pragma once

#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {

// `operands`: pair(row, output, j, sum) is `sum` and the product of inputs j; result(sum, row, output) what is
// activated.
template <class Operands, class Out>
__global__ void plain_product_kernel(const Operands operands, std::int64_t rows, std::int64_t n, std::int64_t k,
                                     int activation, bool add, Out* out, std::int64_t out_stride) {
  const std::int64_t i = (blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x) / kWarp;
  if (i >= rows * n) return;
  const std::int64_t row = i / n, output = i % n;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0;
  for (std::int64_t j = lane; j < k; j += kWarp) sum = operands.pair(row, output, j, sum);
  sum = warp_sum(sum);
  if (lane != 0) return;
  sum = activate(operands.result(sum, row, output), activation);
  Out* to = out + row * out_stride + output;
  *to = from_float<Out>(add ? to_float(*to) + sum : sum);
}

template <class Operands>
cudaError_t plain_product(const Operands& operands, std::int64_t k, int activation, bool add_to_out, CudaView out,
                          cudaStream_t s) {
  if (out.rows * out.cols == 0) return cudaSuccess;
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((out.rows * out.cols * kWarp + kThreads - 1) / kThreads);
  const auto launch = [&]<class Out>(Out* to) {
    plain_product_kernel<<<blocks, kThreads, 0, s>>>(operands, out.rows, out.cols, k, activation, add_to_out, to,
                                                     out.stride);
  };
  if (out.f32) {
    launch(static_cast<float*>(out.data));
  } else {
    launch(static_cast<bf16*>(out.data));
  }
  return cudaGetLastError();
}

}  // namespace chiasm
