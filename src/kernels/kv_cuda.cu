// Keys and values into the pool.
#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

__global__ void kv_write_kernel(const bf16* k, std::int64_t k_stride, const bf16* v, std::int64_t v_stride,
                                const std::int32_t* slots, int block_tokens, int kv_heads, int head_dim, bf16* pool,
                                std::int64_t head_stride, std::int64_t block_stride, std::int64_t value_offset) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t slot = slots[row];
  bf16* base = pool + slot / block_tokens * block_stride + static_cast<std::int64_t>(slot % block_tokens) * head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < kv_heads * head_dim; i += static_cast<int>(blockDim.x)) {
    bf16* to = base + i / head_dim * head_stride + i % head_dim;
    to[0] = k[row * k_stride + i];
    to[value_offset] = v[row * v_stride + i];
  }
}

}  // namespace

cudaError_t kv_write_cuda(CudaView k, CudaView v, const std::int32_t* slots, std::int64_t kv_heads, KvLayout pool,
                          cudaStream_t s) {
  if (k.rows == 0) return cudaSuccess;
  const int width = static_cast<int>(k.cols), threads = width >= 256 ? 256 : 64;
  kv_write_kernel<<<static_cast<unsigned>(k.rows), static_cast<unsigned>(threads), 0, s>>>(
      static_cast<const bf16*>(k.data), k.stride, static_cast<const bf16*>(v.data), v.stride, slots,
      static_cast<int>(pool.block_tokens), static_cast<int>(kv_heads), width / static_cast<int>(kv_heads),
      static_cast<bf16*>(pool.data), pool.head_stride, pool.block_stride, pool.value_offset);
  return cudaGetLastError();
}

}  // namespace chiasm
