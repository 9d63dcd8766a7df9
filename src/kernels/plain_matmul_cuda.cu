// What neither cuBLASLt nor the skinny kernel takes.
#include "kernels/plain_product_cuda.cuh"

namespace chiasm {
namespace {

struct Bf16Operands {
  const bf16* x;
  std::int64_t x_stride;
  const bf16* weight;
  std::int64_t k;
  const float* bias;
  __device__ float pair(std::int64_t row, std::int64_t output, std::int64_t j, float sum) const {
    return fmaf(to_float(x[row * x_stride + j]), to_float(weight[output * k + j]), sum);
  }
  __device__ float result(float sum, std::int64_t, std::int64_t output) const {
    return bias != nullptr ? sum + bias[output] : sum;
  }
};

}  // namespace

cudaError_t plain_matmul_cuda(CudaView x, const void* weight, const float* bias, int activation, bool add_to_out,
                              CudaView out, cudaStream_t s) {
  const Bf16Operands operands{static_cast<const bf16*>(x.data), x.stride, static_cast<const bf16*>(weight), x.cols,
                              bias};
  return plain_product(operands, x.cols, activation, add_to_out, out, s);
}

}  // namespace chiasm
