// A product of any shape and alignment: what neither cuBLASLt nor the skinny kernel takes. A warp an output, the lanes
// split k: a row's bits do not depend on the others. Slow, and seldom used.
#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

template <class Out>
__global__ void plain_kernel(const bf16* x, std::int64_t x_stride, std::int64_t rows, const bf16* weight,
                             std::int64_t n, std::int64_t k, const float* bias, int activation, bool add, Out* out,
                             std::int64_t out_stride) {
  const std::int64_t i = (blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x) / kWarp;
  if (i >= rows * n) return;
  const std::int64_t row = i / n, output = i % n;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0;
  for (std::int64_t j = lane; j < k; j += kWarp)
    sum = fmaf(to_float(x[row * x_stride + j]), to_float(weight[output * k + j]), sum);
  sum = warp_sum(sum);
  if (lane != 0) return;
  if (bias != nullptr) sum += bias[output];
  sum = activate(sum, activation);
  Out* to = out + row * out_stride + output;
  *to = from_float<Out>(add ? to_float(*to) + sum : sum);
}

}  // namespace

cudaError_t plain_matmul_cuda(CudaView x, const void* weight, const float* bias, int activation, bool add_to_out,
                              CudaView out, cudaStream_t s) {
  if (x.rows * out.cols == 0) return cudaSuccess;
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((x.rows * out.cols * kWarp + kThreads - 1) / kThreads);
  const auto launch = [&]<class Out>(Out* to) {
    plain_kernel<<<blocks, kThreads, 0, s>>>(static_cast<const bf16*>(x.data), x.stride, x.rows,
                                             static_cast<const bf16*>(weight), out.cols, x.cols, bias, activation,
                                             add_to_out, to, out.stride);
  };
  if (out.f32) {
    launch(static_cast<float*>(out.data));
  } else {
    launch(static_cast<bf16*>(out.data));
  }
  return cudaGetLastError();
}

}  // namespace chiasm
