// Attention of tiles of queries: softmax in one walk over the keys, 64 at a time (online softmax, arXiv 1805.02867;
// tiles as in FlashAttention-2, arXiv 2307.08691). Keys stand in rows (vision) or in the blocks of the pool (prefill).
//
// A block holds 128 queries and streams keys and values through two stages of shared memory. The walk begins at a
// sequence's first key and its tiles are the same whoever else is computed; keys that a row may not see weigh nothing
// and change no bit of it. So a row depends on its own sequence only.
#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kKeys = 64;  // of a tile
constexpr float kLog2E = 1.4426950408889634F;

struct Operands {
  const bf16 *q, *k, *v;
  std::int64_t q_stride, k_stride, v_stride;
  bf16* out;
  std::int64_t out_stride;
  int head_dim, group;
  float scale_log2;
  bool aligned;  // rows can be read 16 bytes at a time
  const std::int32_t* tables;
  KvLayout pool;
};

// One row of a tile into shared memory, kDim wide: what the head has, then zeros.
template <int kDim>
__device__ inline void load_chunk(bf16* to, const bf16* from, int column, int head_dim, bool valid, bool aligned) {
  if (aligned) {
    copy_async_16(to + column, from + (column < head_dim ? column : 0), valid && column < head_dim);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      to[column + i] = valid && column + i < head_dim ? from[column + i] : __float2bfloat16_rn(0.0F);
  }
}

template <int kDim, bool kPaged, int kWarps, int kTall>  // kTall: 16-row tiles of a warp
__global__ void __launch_bounds__(kWarps* kWarp, kDim > 80 ? 1 : 2)
    attention_kernel(const Operands args, const QueryTile* tiles) {
  constexpr int kRow = kDim + 8;  // of shared memory: no two rows of an ldmatrix in the same banks
  constexpr int kSteps = kDim / 16, kWide = kDim / 8, kQueries = kWarps * 16 * kTall, kThreads = kWarps * kWarp;
  static_assert(kQueries == kQueryTileRows);
  extern __shared__ __align__(16) bf16 shared[];
  bf16* const q_tile = shared;
  bf16* const stages = shared + kQueries * kRow;  // [2][K or V][kKeys][kRow]
  const QueryTile tile = tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y);  // kv head where paged
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int d = args.head_dim;

  const auto query_offset = [&](int pair, std::int64_t stride) {
    if constexpr (kPaged)
      return (tile.first_row + pair / args.group) * stride + (head * args.group + pair % args.group) * d;
    else
      return (tile.first_row + pair) * stride + static_cast<std::int64_t>(head) * d;
  };
  const auto visible = [&](int pair) {
    if constexpr (kPaged)
      return tile.past + min(pair, tile.queries - 1) / args.group + 1;
    else
      return tile.keys;
  };
  const int last_pair = min(tile.first_query + kQueries, tile.queries) - 1;
  const int all_keys = visible(last_pair), seen_by_all = visible(tile.first_query);
  const int tile_count = (all_keys + kKeys - 1) / kKeys;

  for (int i = thread; i < kQueries * kWide; i += kThreads) {
    const int row = i / kWide, pair = tile.first_query + row;
    const bool valid = pair < tile.queries;
    load_chunk<kDim>(q_tile + row * kRow, args.q + query_offset(valid ? pair : tile.first_query, args.q_stride),
                     i % kWide * 8, d, valid, args.aligned);
  }
  const auto load_keys = [&](int index) {
    bf16* const keys = stages + index % 2 * 2 * kKeys * kRow;
    bf16* const values = keys + kKeys * kRow;
    for (int i = thread; i < kKeys * kWide; i += kThreads) {
      const int row = i / kWide, column = i % kWide * 8, key = index * kKeys + row;
      const bool valid = key < all_keys;
      const int safe = valid ? key : 0;
      const bf16 *k, *v;
      if constexpr (kPaged) {
        const int tokens = static_cast<int>(args.pool.block_tokens);
        k = static_cast<const bf16*>(args.pool.data) +
            args.tables[tile.table + safe / tokens] * args.pool.block_stride + head * args.pool.head_stride +
            static_cast<std::int64_t>(safe % tokens) * d;
        v = k + args.pool.value_offset;
      } else {
        k = args.k + (tile.first_row + safe) * args.k_stride + static_cast<std::int64_t>(head) * d;
        v = args.v + (tile.first_row + safe) * args.v_stride + static_cast<std::int64_t>(head) * d;
      }
      load_chunk<kDim>(keys + row * kRow, k, column, d, valid, args.aligned);
      load_chunk<kDim>(values + row * kRow, v, column, d, valid, args.aligned);
    }
    commit_copies();
  };
  load_keys(0);  // and the queries

  const int warp_row = warp * 16 * kTall;
  float out[kTall][kWide][4] = {};
  float highest[kTall][2], total[kTall][2] = {};
#pragma unroll
  for (int t = 0; t < kTall; ++t) highest[t][0] = highest[t][1] = -INFINITY;
  std::uint32_t q[kTall][kSteps][4];

  for (int index = 0; index < tile_count; ++index) {
    wait_for_copies<0>();
    __syncthreads();  // this stage is there, and nobody reads the other one any more
    if (index + 1 < tile_count) load_keys(index + 1);
    const bf16* const keys = stages + index % 2 * 2 * kKeys * kRow;
    const bf16* const values = keys + kKeys * kRow;
    if (index == 0) {
#pragma unroll
      for (int t = 0; t < kTall; ++t)
#pragma unroll
        for (int step = 0; step < kSteps; ++step)
          ldmatrix_x4(q[t][step], q_tile + (warp_row + t * 16 + lane % 16) * kRow + step * 16 + lane / 16 * 8);
    }
    float scores[kTall][kKeys / 8][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        std::uint32_t b[4];
        ldmatrix_x4(b, keys + (n * 16 + lane / 16 * 8 + lane % 8) * kRow + step * 16 + lane / 8 % 2 * 8);
#pragma unroll
        for (int t = 0; t < kTall; ++t) {
          mma_16x8x16(scores[t][2 * n], q[t][step], b);
          mma_16x8x16(scores[t][2 * n + 1], q[t][step], b + 2);
        }
      }
    }
    if ((index + 1) * kKeys > seen_by_all) {
#pragma unroll
      for (int t = 0; t < kTall; ++t) {
        const int pair = tile.first_query + warp_row + t * 16 + lane / 4;
        const int sees[2] = {visible(pair), visible(pair + 8)};
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (index * kKeys + n * 8 + lane % 4 * 2 + i % 2 >= sees[i / 2]) scores[t][n][i] = -INFINITY;
      }
    }
#pragma unroll
    for (int t = 0; t < kTall; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8
        float most = highest[t][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
          most = fmaxf(most, fmaxf(scores[t][n][2 * half], scores[t][n][2 * half + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
        const float shift = most * args.scale_log2;  // the first key is seen by every row: finite
        // Exactly 1 where nothing changed: a tile that a row does not see must leave its bits alone.
        const float fade = exp2_fast((highest[t][half] - most) * args.scale_log2);
        highest[t][half] = most;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& p = scores[t][n][2 * half + i];
            p = exp2_fast(fmaf(p, args.scale_log2, -shift));
            sum += p;
          }
        }
        total[t][half] = total[t][half] * fade + sum;
#pragma unroll
        for (int n = 0; n < kWide; ++n) out[t][n][2 * half] *= fade, out[t][n][2 * half + 1] *= fade;
      }
    }
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      std::uint32_t p[kTall][4];
#pragma unroll
      for (int t = 0; t < kTall; ++t) {
        const float *low = scores[t][2 * step], *high = scores[t][2 * step + 1];
        p[t][0] = pack2(low[0], low[1]), p[t][1] = pack2(low[2], low[3]);
        p[t][2] = pack2(high[0], high[1]), p[t][3] = pack2(high[2], high[3]);
      }
#pragma unroll
      for (int n = 0; n < kWide / 2; ++n) {
        std::uint32_t b[4];
        ldmatrix_x4_trans(b, values + (step * 16 + lane % 16) * kRow + n * 16 + lane / 16 * 8);
#pragma unroll
        for (int t = 0; t < kTall; ++t) {
          mma_16x8x16(out[t][2 * n], p[t], b);
          mma_16x8x16(out[t][2 * n + 1], p[t], b + 2);
        }
      }
    }
  }

#pragma unroll
  for (int t = 0; t < kTall; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = total[t][half];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const float inverse = 1.0F / sum;
      const int pair = tile.first_query + warp_row + t * 16 + half * 8 + lane / 4;
      if (pair >= tile.queries) continue;
      bf16* const to = args.out + query_offset(pair, args.out_stride);
#pragma unroll
      for (int n = 0; n < kWide; ++n) {
        const int column = n * 8 + lane % 4 * 2;
        const float a = out[t][n][2 * half] * inverse, b = out[t][n][2 * half + 1] * inverse;
        if (args.aligned && column < d) {
          *reinterpret_cast<std::uint32_t*>(to + column) = pack2(a, b);
        } else {
          if (column < d) to[column] = __float2bfloat16_rn(a);
          if (column + 1 < d) to[column + 1] = __float2bfloat16_rn(b);
        }
      }
    }
  }
}

template <int kDim, bool kPaged, int kWarps, int kTall>
cudaError_t launch(const Operands& args, const QueryTile* tiles, std::int64_t tile_count, std::int64_t heads,
                   cudaStream_t s) {
  constexpr std::size_t kShared = sizeof(bf16) * (kQueryTileRows + 4 * kKeys) * (kDim + 8);
  const auto kernel = attention_kernel<kDim, kPaged, kWarps, kTall>;
  const cudaError_t raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kShared));
  if (raised != cudaSuccess) return raised;
  kernel<<<dim3(static_cast<unsigned>(tile_count), static_cast<unsigned>(heads)), kWarps * kWarp, kShared, s>>>(args,
                                                                                                                tiles);
  return cudaGetLastError();
}

template <bool kPaged>
cudaError_t by_head_dim(const Operands& args, const QueryTile* tiles, std::int64_t tile_count, std::int64_t heads,
                        cudaStream_t s) {
  if (tile_count == 0) return cudaSuccess;
  if (args.head_dim <= 32) return launch<32, kPaged, 4, 2>(args, tiles, tile_count, heads, s);
  if (args.head_dim <= 64) return launch<64, kPaged, 4, 2>(args, tiles, tile_count, heads, s);
  if (args.head_dim <= 80) return launch<80, kPaged, 4, 2>(args, tiles, tile_count, heads, s);
  if (args.head_dim <= kMostHeadDim) return launch<128, kPaged, 8, 1>(args, tiles, tile_count, heads, s);
  return cudaErrorNotSupported;
}

}  // namespace

cudaError_t attention_cuda(CudaView q, CudaView k, CudaView v, std::int64_t heads, float scale, const QueryTile* tiles,
                           std::int64_t tile_count, CudaView out, cudaStream_t s) {
  Operands args{};
  args.q = static_cast<const bf16*>(q.data), args.q_stride = q.stride;
  args.k = static_cast<const bf16*>(k.data), args.k_stride = k.stride;
  args.v = static_cast<const bf16*>(v.data), args.v_stride = v.stride;
  args.out = static_cast<bf16*>(out.data), args.out_stride = out.stride;
  args.head_dim = static_cast<int>(q.cols / heads), args.group = 1;
  args.scale_log2 = scale * kLog2E;
  args.aligned = args.head_dim % 8 == 0 && aligned_rows(q) && aligned_rows(k) && aligned_rows(v) && aligned_rows(out);
  return by_head_dim<false>(args, tiles, tile_count, heads, s);
}

cudaError_t paged_attention_cuda(CudaView q, std::int64_t heads, std::int64_t kv_heads, float scale,
                                 const QueryTile* tiles, std::int64_t tile_count, const std::int32_t* tables,
                                 const KvLayout& pool, CudaView out, cudaStream_t s) {
  Operands args{};
  args.q = static_cast<const bf16*>(q.data), args.q_stride = q.stride;
  args.out = static_cast<bf16*>(out.data), args.out_stride = out.stride;
  args.head_dim = static_cast<int>(q.cols / heads), args.group = static_cast<int>(heads / kv_heads);
  args.scale_log2 = scale * kLog2E;
  args.aligned = args.head_dim % 8 == 0 && aligned_rows(q) && aligned_rows(out);
  args.tables = tables;
  args.pool = pool;
  return by_head_dim<true>(args, tiles, tile_count, kv_heads, s);
}

}  // namespace chiasm
