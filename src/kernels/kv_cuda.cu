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

// A row's q turned in place, its k turned into the pool, its v into the pool: 8 values (of each half) a thread.
__global__ void turn_and_write_kernel(bf16* q, const bf16* k, const bf16* v, std::int64_t stride, int heads,
                                      int kv_heads, int half, const float* cos, const float* sin,
                                      const std::int32_t* slots, const KvLayout pool) {
  let_next_begin();
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const int per_head = half / 8;
  const std::int32_t slot = slots[row];
  bf16* const base = static_cast<bf16*>(pool.data) + slot / pool.block_tokens * pool.block_stride +
                     slot % pool.block_tokens * 2 * half;
  for (int i = static_cast<int>(threadIdx.x); i < (heads + 2 * kv_heads) * per_head;
       i += static_cast<int>(blockDim.x)) {
    const int head = i / per_head, at = i % per_head * 8, kv_head = head - heads;
    if (kv_head >= kv_heads) {
      const int value_head = kv_head - kv_heads;
      const auto* from = reinterpret_cast<const uint4*>(v + row * stride + value_head * 2 * half + at * 2);
      auto* to = reinterpret_cast<uint4*>(base + value_head * pool.head_stride + pool.value_offset + at * 2);
      to[0] = from[0], to[1] = from[1];
      continue;
    }
    const bf16* const from =
        kv_head < 0 ? q + row * stride + head * 2 * half + at : k + row * stride + kv_head * 2 * half + at;
    float a[8], b[8], c[8], s[8];
    load8(from, a), load8(from + half, b), load8(cos + row * half + at, c), load8(sin + row * half + at, s);
#pragma unroll
    for (int j = 0; j < 8; ++j) turn(a[j], b[j], c[j], s[j]);
    bf16* const to = kv_head < 0 ? q + row * stride + head * 2 * half + at : base + kv_head * pool.head_stride + at;
    store8(to, a), store8(to + half, b);
  }
}

}  // namespace

cudaError_t turn_and_write_cuda(CudaView q, CudaView k, CudaView v, std::int64_t kv_heads, const float* cos,
                                const float* sin, const std::int32_t* slots, KvLayout pool, cudaStream_t s) {
  if (q.rows == 0) return cudaSuccess;
  const std::int64_t head_dim = k.cols / kv_heads;
  const int heads = static_cast<int>(q.cols / head_dim), half = static_cast<int>(head_dim / 2);
  const int work = (heads + 2 * static_cast<int>(kv_heads)) * half / 8;
  const auto threads = static_cast<unsigned>(work > 256 ? 256 : (work + kWarp - 1) / kWarp * kWarp);
  return launch_early(turn_and_write_kernel, static_cast<unsigned>(q.rows), threads, 0, s, static_cast<bf16*>(q.data),
                      static_cast<const bf16*>(k.data), static_cast<const bf16*>(v.data), q.stride, heads,
                      static_cast<int>(kv_heads), half, cos, sin, slots, pool);
}

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
