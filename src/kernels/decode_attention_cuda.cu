// Attention of one row a sequence over the pool: decode. A block takes kSplitKeys keys of one sequence and kv head, for
// all query heads of the group; a second kernel joins the ranges (Flash-Decoding's split, with ranges that depend on
// the sequence alone, so that a row's bits do too).
#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kWarps = 4;
constexpr int kBlockKeys = 32;  // of one block of the pool, one round of a warp
constexpr int kRounds = kSplitKeys / (kWarps * kBlockKeys);
constexpr int kMostGroup = 16;  // query heads of a kv head: the rows of an mma
constexpr float kLog2E = 1.4426950408889634F;

// partial [rows][heads][splits]: kDim sums, then the highest score (times scale, base 2) and the total weight.
template <int kDim>
__global__ void __launch_bounds__(kWarps* kWarp)
    decode_kernel(const bf16* q, std::int64_t q_stride, int kv_heads, int group, float scale_log2,
                  const DecodeRow* rows, const std::int32_t* tables, const KvLayout pool, int splits, float* partial) {
  constexpr int kRow = kDim + 8, kChunks = kDim / 32, kWide = kDim / 8;
  __shared__ __align__(16) bf16 values[kWarps][kBlockKeys * kRow];
  __shared__ float highest_of[kWarps][16], total_of[kWarps][16];
  const DecodeRow row = rows[blockIdx.y];
  const int split = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.z);
  const int first_key = split * static_cast<int>(kSplitKeys);
  if (first_key >= row.keys) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, quad = lane % 4;
  // As in skinny_cuda.cu: both operands read 16 bytes in a row, the order inside k is the same for both.
  uint4 q0[kChunks], q1[kChunks];
  const bf16* const query = q + row.row * q_stride + static_cast<std::int64_t>(head) * group * kDim;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = c * 32 + quad * 8;
    q0[c] = g < group ? *reinterpret_cast<const uint4*>(query + g * kDim + at) : make_uint4(0, 0, 0, 0);
    q1[c] = g + 8 < group ? *reinterpret_cast<const uint4*>(query + (g + 8) * kDim + at) : make_uint4(0, 0, 0, 0);
  }
  float out[kWide][4] = {};
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int round = 0; round < kRounds; ++round) {
    const int first = first_key + (warp * kRounds + round) * kBlockKeys;
    if (first >= row.keys) break;
    const bf16* const block = static_cast<const bf16*>(pool.data) +
                              tables[row.table + first / kBlockKeys] * pool.block_stride + head * pool.head_stride;
    const bf16* const value_rows = block + pool.value_offset;
    __syncwarp();  // the values of the round before are read
    for (int i = lane; i < kBlockKeys * kWide; i += kWarp)
      copy_async_16(&values[warp][i / kWide * kRow + i % kWide * 8], value_rows + i * 8, first + i / kWide < row.keys);
    commit_copies();
    float scores[kBlockKeys / 8][4] = {};
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n) {
      const int key = n * 8 + g;
      const bool valid = first + key < row.keys;
      uint4 k[kChunks];
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
        k[c] = valid ? *reinterpret_cast<const uint4*>(block + key * kDim + c * 32 + quad * 8) : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const std::uint32_t low[4] = {q0[c].x, q1[c].x, q0[c].y, q1[c].y},
                            high[4] = {q0[c].z, q1[c].z, q0[c].w, q1[c].w};
        const std::uint32_t b_low[2] = {k[c].x, k[c].y}, b_high[2] = {k[c].z, k[c].w};
        mma_16x8x16(scores[n], low, b_low);
        mma_16x8x16(scores[n], high, b_high);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = highest[half];
#pragma unroll
      for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = scores[n][2 * half + i];
          s = first + n * 8 + quad * 2 + i < row.keys ? s * scale_log2 : -INFINITY;
          most = fmaxf(most, s);
        }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
      const float fade = exp2_fast(highest[half] - most);  // the first key of a round is there: finite
      highest[half] = most;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = scores[n][2 * half + i];
          s = exp2_fast(s - most);
          sum += s;
        }
      total[half] = total[half] * fade + sum;
#pragma unroll
      for (int n = 0; n < kWide; ++n) out[n][2 * half] *= fade, out[n][2 * half + 1] *= fade;
    }
    wait_for_copies<0>();
    __syncwarp();
#pragma unroll
    for (int step = 0; step < kBlockKeys / 16; ++step) {
      const float *low = scores[2 * step], *high = scores[2 * step + 1];
      const std::uint32_t p[4] = {pack2(low[0], low[1]), pack2(low[2], low[3]), pack2(high[0], high[1]),
                                  pack2(high[2], high[3])};
#pragma unroll
      for (int n = 0; n < kWide / 2; ++n) {
        std::uint32_t b[4];
        ldmatrix_x4_trans(b, &values[warp][(step * 16 + lane % 16) * kRow + n * 16 + lane / 16 * 8]);
        mma_16x8x16(out[2 * n], p, b);
        mma_16x8x16(out[2 * n + 1], p, b + 2);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(0xffffffffU, total[half], 1);
    total[half] += __shfl_xor_sync(0xffffffffU, total[half], 2);
    if (quad == 0) highest_of[warp][half * 8 + g] = highest[half], total_of[warp][half * 8 + g] = total[half];
  }
  // The warps join one after the other: [16][kDim] floats fit where the values were.
  static_assert(sizeof(float) * 16 * kDim <= sizeof(bf16) * kWarps * kBlockKeys * kRow);
  auto* const joined = reinterpret_cast<float*>(&values[0][0]);
  __syncthreads();
  float most[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    most[half] = -INFINITY;
    for (int w = 0; w < kWarps; ++w) most[half] = fmaxf(most[half], highest_of[w][half * 8 + g]);
  }
  for (int w = 0; w < kWarps; ++w) {
    if (warp == w) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float fade = exp2_fast(highest[half] - most[half]);  // a warp without keys: exp2(-inf) = 0
#pragma unroll
        for (int n = 0; n < kWide; ++n) {
          float* const to = joined + (half * 8 + g) * kDim + n * 8 + quad * 2;
          to[0] = (w == 0 ? 0.0F : to[0]) + out[n][2 * half] * fade;
          to[1] = (w == 0 ? 0.0F : to[1]) + out[n][2 * half + 1] * fade;
        }
      }
    }
    __syncthreads();
  }
  const int heads = kv_heads * group;
  for (int i = static_cast<int>(threadIdx.x); i < group * kDim; i += kWarps * kWarp) {
    const std::int64_t at = (static_cast<std::int64_t>(blockIdx.y) * heads + head * group + i / kDim) * splits + split;
    partial[at * (kDim + 2) + i % kDim] = joined[i];
  }
  if (static_cast<int>(threadIdx.x) < group) {
    const int i = static_cast<int>(threadIdx.x);
    float high = -INFINITY, sum = 0;
    for (int w = 0; w < kWarps; ++w) high = fmaxf(high, highest_of[w][i]);
    for (int w = 0; w < kWarps; ++w) sum += total_of[w][i] * exp2_fast(highest_of[w][i] - high);
    const std::int64_t at = (static_cast<std::int64_t>(blockIdx.y) * heads + head * group + i) * splits + split;
    partial[at * (kDim + 2) + kDim] = high;
    partial[at * (kDim + 2) + kDim + 1] = sum;
  }
}

template <int kDim>
__global__ void join_kernel(const float* partial, const DecodeRow* rows, int heads, int splits, bf16* out,
                            std::int64_t out_stride) {
  const DecodeRow row = rows[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y), i = static_cast<int>(threadIdx.x);
  const int count = (row.keys + static_cast<int>(kSplitKeys) - 1) / static_cast<int>(kSplitKeys);
  const float* p = partial + (static_cast<std::int64_t>(blockIdx.x) * heads + head) * splits * (kDim + 2);
  float most = -INFINITY, total = 0, sum = 0;
  for (int s = 0; s < count; ++s) most = fmaxf(most, p[s * (kDim + 2) + kDim]);
  for (int s = 0; s < count; ++s) {
    const float weight = exp2_fast(p[s * (kDim + 2) + kDim] - most);
    total += weight * p[s * (kDim + 2) + kDim + 1];
    sum += weight * p[s * (kDim + 2) + i];
  }
  out[row.row * out_stride + head * kDim + i] = __float2bfloat16_rn(sum / total);
}

}  // namespace

bool can_decode_cuda(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  return (head_dim == 64 || head_dim == 128) && heads / kv_heads <= kMostGroup;
}

cudaError_t decode_attention_cuda(CudaView q, std::int64_t heads, std::int64_t kv_heads, float scale,
                                  const DecodeRow* rows, std::int64_t row_count, std::int64_t splits,
                                  const std::int32_t* tables, const KvLayout& pool, float* partial, CudaView out,
                                  cudaStream_t s) {
  if (row_count == 0) return cudaSuccess;
  const int group = static_cast<int>(heads / kv_heads);
  const dim3 grid(static_cast<unsigned>(splits), static_cast<unsigned>(row_count), static_cast<unsigned>(kv_heads));
  const dim3 join_grid(static_cast<unsigned>(row_count), static_cast<unsigned>(heads));
  const auto launch = [&]<int kDim>() {
    decode_kernel<kDim><<<grid, kWarps * kWarp, 0, s>>>(static_cast<const bf16*>(q.data), q.stride,
                                                        static_cast<int>(kv_heads), group, scale * kLog2E, rows, tables,
                                                        pool, static_cast<int>(splits), partial);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
    join_kernel<kDim><<<join_grid, kDim, 0, s>>>(partial, rows, static_cast<int>(heads), static_cast<int>(splits),
                                                 static_cast<bf16*>(out.data), out.stride);
    return cudaGetLastError();
  };
  return q.cols / heads == 64 ? launch.template operator()<64>() : launch.template operator()<128>();
}

}  // namespace chiasm
