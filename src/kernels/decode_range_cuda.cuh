// A range of one sequence's keys, and ranges joined: what the kernels of decode share (decode_attention_cuda.cu,
// shared_decode_cuda.cu). Both must give a row the same bits, so every sum is written down to its roundings.
#pragma once

#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm::decode {

constexpr int kWarps = 4;
constexpr int kBlockKeys = 32;  // of one block of the pool, one round of a warp
constexpr int kMostGroup = 16;  // query heads of a kv head: the rows of an mma

struct Operands {
  const bf16* q;
  std::int64_t q_stride;
  const bf16 *k, *v;  // of the new tokens, strides as q's; null where the pool has them and q is turned
  const float *cos, *sin;
  int kv_heads, group;
  float scale_log2;
  const DecodeRow* rows;
  int row_count;
  const std::int32_t* tables;
  KvLayout pool;
  int splits;
  // [rows][heads][splits][kDim] sums, then as many pairs: the highest score (times scale, base 2) and the total weight.
  float* partial;
  unsigned* counters;       // [rows][kv_heads]: ranges that are there; zero before and after
  const DecodeItem* items;  // of shared_decode_cuda.cu, as the next
  const std::int32_t* members;
  bf16* out;
  std::int64_t out_stride;

  // Where a query's ranges begin among the sums, counted in ranges; `query` in the group of a kv head.
  __device__ std::int64_t first_range(int index, int head, int query) const {
    return ((static_cast<std::int64_t>(index) * kv_heads + head) * group + query) * splits;
  }
  template <int kDim>
  __device__ float2* weights() const {
    return reinterpret_cast<float2*>(partial + static_cast<std::int64_t>(row_count) * kv_heads * group * splits * kDim);
  }
  __device__ const bf16* key_block(const DecodeRow& row, int key, int head) const {
    return static_cast<const bf16*>(pool.data) + tables[row.table + key / kBlockKeys] * pool.block_stride +
           head * pool.head_stride;
  }
};

// The new key, turned, and the new value into the pool; by the whole block.
template <int kDim>
__device__ inline void store_newest(const Operands& o, const DecodeRow& row, int head) {
  constexpr int kHalf = kDim / 2;
  const int newest = row.keys - 1, i = static_cast<int>(threadIdx.x);
  bf16* const to = const_cast<bf16*>(o.key_block(row, newest, head)) + newest % kBlockKeys * kDim;
  const std::int64_t at = row.row * o.q_stride + static_cast<std::int64_t>(head) * kDim;
  if (i < kHalf) {
    float a = to_float(o.k[at + i]), b = to_float(o.k[at + kHalf + i]);
    turn(a, b, o.cos[row.row * kHalf + i], o.sin[row.row * kHalf + i]);
    to[i] = from_float<bf16>(a), to[kHalf + i] = from_float<bf16>(b);
  }
  if (i < kDim) to[o.pool.value_offset + i] = o.v[at + i];
  __syncthreads();
}

// A row of an mma: a query of a row of q.
struct Query {
  std::int64_t row = 0;
  int head = 0;
  bool there = false;
};

// Queries g and g + 8 of a tile of 16, turned. As in skinny_cuda.cu: both operands read 16 bytes in a row, the order
// inside k is the same for both.
template <int kDim, bool kTurn>
__device__ inline void load_queries(const Operands& o, const Query (&queries)[2], uint4 (&q0)[kDim / 32],
                                    uint4 (&q1)[kDim / 32]) {
  constexpr int kChunks = kDim / 32, kHalf = kDim / 2;
  const int quad = static_cast<int>(threadIdx.x) % 4;
  const bf16* const first = o.q + queries[0].row * o.q_stride + static_cast<std::int64_t>(queries[0].head) * kDim;
  const bf16* const second = o.q + queries[1].row * o.q_stride + static_cast<std::int64_t>(queries[1].head) * kDim;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = c * 32 + quad * 8;
    q0[c] = queries[0].there ? *reinterpret_cast<const uint4*>(first + at) : make_uint4(0, 0, 0, 0);
    q1[c] = queries[1].there ? *reinterpret_cast<const uint4*>(second + at) : make_uint4(0, 0, 0, 0);
  }
  if constexpr (kTurn) {
#pragma unroll
    for (int c = 0; c < kChunks / 2; ++c) {
      const std::int64_t a = queries[0].row * kHalf + c * 32 + quad * 8;
      const std::int64_t b = queries[1].row * kHalf + c * 32 + quad * 8;
      turn8(q0[c], q0[c + kChunks / 2], o.cos + a, o.sin + a);
      turn8(q1[c], q1[c + kChunks / 2], o.cos + b, o.sin + b);
    }
  }
}

using Scores = float[kBlockKeys / 8][4];

// Scores of a tile of queries and a block of keys; keys(n, c) is chunk c of a lane's key among the 8 from n * 8.
template <int kChunks, class Keys>
__device__ inline void score(const uint4 (&q0)[kChunks], const uint4 (&q1)[kChunks], const Keys& keys, Scores& scores) {
#pragma unroll
  for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const std::uint32_t low[4] = {q0[c].x, q1[c].x, q0[c].y, q1[c].y}, high[4] = {q0[c].z, q1[c].z, q0[c].w, q1[c].w};
    uint4 k[kBlockKeys / 8];
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n) k[n] = keys(n, c);
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n) {
      const std::uint32_t b[2] = {k[n].x, k[n].y};
      mma_16x8x16(scores[n], low, b);
    }
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n) {
      const std::uint32_t b[2] = {k[n].z, k[n].w};
      mma_16x8x16(scores[n], high, b);
    }
  }
}

// Scores become weights, of which `keys` are there, one at least: of rows g (half 0) and g + 8. The highest score so
// far may rise: what was summed before is worth `fade` of what it was. Totals are a lane's own until add_lanes().
__device__ inline void soften(Scores& scores, int half, int keys, float scale_log2, float& highest, float& total,
                              float& fade) {
  const int quad = static_cast<int>(threadIdx.x) % 4;
  float most = highest;
#pragma unroll
  for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float& s = scores[n][2 * half + i];
      s = n * 8 + quad * 2 + i < keys ? __fmul_rn(s, scale_log2) : -INFINITY;
      most = fmaxf(most, s);
    }
  most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
  most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
  fade = exp2_fast(__fsub_rn(highest, most));  // the first key is there: finite
  highest = most;
  float sum = 0;
#pragma unroll
  for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float& s = scores[n][2 * half + i];
      s = exp2_fast(__fsub_rn(s, most));
      sum = __fadd_rn(sum, s);
    }
  total = __fmaf_rn(total, fade, sum);
}
__device__ inline float add_lanes(float total) {
  total = __fadd_rn(total, __shfl_xor_sync(0xffffffffU, total, 1));
  return __fadd_rn(total, __shfl_xor_sync(0xffffffffU, total, 2));
}

// Weights as an operand of the products with values, 16 keys a step.
using Weights = std::uint32_t[kBlockKeys / 16][4];
__device__ inline void pack(const Scores& scores, Weights& p) {
#pragma unroll
  for (int step = 0; step < kBlockKeys / 16; ++step) {
    const float *low = scores[2 * step], *high = scores[2 * step + 1];
    p[step][0] = pack2(low[0], low[1]), p[step][1] = pack2(low[2], low[3]);
    p[step][2] = pack2(high[0], high[1]), p[step][3] = pack2(high[2], high[3]);
  }
}

// Adds weights times kColumns columns of a block's values, rows of kRow in shared memory.
template <int kColumns, int kRow>
__device__ inline void add_values(const Weights& p, const bf16* values, float (&out)[kColumns / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int step = 0; step < kBlockKeys / 16; ++step) {
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      std::uint32_t b[4];
      ldmatrix_x4_trans(b, values + (step * 16 + lane % 16) * kRow + n * 16 + lane / 16 * 8);
      mma_16x8x16(out[2 * n], p[step], b);
      mma_16x8x16(out[2 * n + 1], p[step], b + 2);
    }
  }
}

// What the warps of range_of_one() keep in shared memory.
template <int kDim>
struct OneRange {
  static constexpr int kRow = kDim + 8;
  alignas(16) bf16 values[kWarps][kBlockKeys * kRow];
  float highest[kWarps][kMostGroup], total[kWarps][kMostGroup];
};

// Keys of earlier steps are there: they come to L2 while the kernel in front still runs.
template <int kDim>
__device__ inline void prefetch_range(const Operands& o, const DecodeRow& row, int split, int head) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, first_key = split * row.split_keys;
  if (threadIdx.x % kWarp != 0) return;
  for (int first = first_key + warp * kBlockKeys; first < min(first_key + row.split_keys, row.keys);
       first += kWarps * kBlockKeys) {
    const bf16* const block = o.key_block(row, first, head);
    prefetch_to_l2(block, kBlockKeys * kDim * 2);
    prefetch_to_l2(block + o.pool.value_offset, kBlockKeys * kDim * 2);
  }
}

// A range of one sequence for all query heads of a kv head, by the whole block, to its place among the sums: each warp
// takes every fourth block of keys. The new key is stored first where it is in the range. `index`: of the row.
template <int kDim, bool kTurn>
__device__ inline void range_of_one(const Operands& o, const DecodeRow& row, int index, int split, int head,
                                    OneRange<kDim>& shared) {
  constexpr int kRow = OneRange<kDim>::kRow, kChunks = kDim / 32, kWide = kDim / 8;
  static_assert(kDim <= kWarps * kWarp);
  const int group = o.group, first_key = split * row.split_keys;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, quad = lane % 4;
  if constexpr (kTurn) {
    if (row.keys - 1 < first_key + row.split_keys) store_newest<kDim>(o, row, head);
  }
  uint4 q0[kChunks], q1[kChunks];
  load_queries<kDim, kTurn>(o, {{row.row, head * group + g, g < group}, {row.row, head * group + g + 8, g + 8 < group}},
                            q0, q1);
  float out[kWide][4] = {};
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int first = first_key + warp * kBlockKeys; first < min(first_key + row.split_keys, row.keys);
       first += kWarps * kBlockKeys) {
    const bf16* const block = o.key_block(row, first, head);
    const bf16* const value_rows = block + o.pool.value_offset;
    __syncwarp();  // the values of the round before are read
    for (int i = lane; i < kBlockKeys * kWide; i += kWarp)
      copy_async_16(&shared.values[warp][i / kWide * kRow + i % kWide * 8], value_rows + i * 8,
                    first + i / kWide < row.keys);
    commit_copies();
    uint4 keys[kBlockKeys / 8][kChunks];  // all are asked for before the first is used
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
        keys[n][c] = first + n * 8 + g < row.keys
                         ? *reinterpret_cast<const uint4*>(block + (n * 8 + g) * kDim + c * 32 + quad * 8)
                         : make_uint4(0, 0, 0, 0);
    Scores scores;
    score<kChunks>(q0, q1, [&](int n, int c) { return keys[n][c]; }, scores);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float fade;
      soften(scores, half, row.keys - first, o.scale_log2, highest[half], total[half], fade);
#pragma unroll
      for (int n = 0; n < kWide; ++n) out[n][2 * half] *= fade, out[n][2 * half + 1] *= fade;
    }
    wait_for_copies<0>();
    __syncwarp();
    Weights p;
    pack(scores, p);
    add_values<kDim, kRow>(p, shared.values[warp], out);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] = add_lanes(total[half]);
    if (quad == 0) shared.highest[warp][half * 8 + g] = highest[half], shared.total[warp][half * 8 + g] = total[half];
  }
  // The warps' sums, brought to one highest score, lie beside each other where the values were.
  static_assert(sizeof(float) * kWarps * kMostGroup * kDim <= sizeof(shared.values));
  __syncthreads();
  auto* const joined = reinterpret_cast<float*>(&shared.values[0][0]);  // [kWarps][group][kDim]
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = half * 8 + g;
    if (query >= group) continue;
    float most = -INFINITY;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, shared.highest[w][query]);
    const float fade = exp2_fast(highest[half] - most);  // a warp without keys: exp2(-inf) = 0
#pragma unroll
    for (int n = 0; n < kWide; ++n)
      *reinterpret_cast<float2*>(joined + (warp * group + query) * kDim + n * 8 + quad * 2) =
          make_float2(out[n][2 * half] * fade, out[n][2 * half + 1] * fade);
  }
  __syncthreads();
  const std::int64_t first_range = o.first_range(index, head, 0) + split;
  for (int i = static_cast<int>(threadIdx.x); i < group * kDim / 4; i += kWarps * kWarp) {
    float4 sum = reinterpret_cast<const float4*>(joined)[i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float4 more = reinterpret_cast<const float4*>(joined)[w * group * kDim / 4 + i];
      sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
    }
    const std::int64_t at = first_range + i / (kDim / 4) * o.splits;
    reinterpret_cast<float4*>(o.partial)[at * (kDim / 4) + i % (kDim / 4)] = sum;
  }
  if (static_cast<int>(threadIdx.x) < group) {
    const int i = static_cast<int>(threadIdx.x);
    float high = -INFINITY, sum = 0;
    for (int w = 0; w < kWarps; ++w) high = fmaxf(high, shared.highest[w][i]);
    for (int w = 0; w < kWarps; ++w) sum = __fmaf_rn(shared.total[w][i], exp2_fast(shared.highest[w][i] - high), sum);
    o.weights<kDim>()[first_range + i * o.splits] = make_float2(high, sum);
  }
}

// The `count` ranges of a query of a row, joined, by a warp.
template <int kDim>
__device__ inline void join(const Operands& o, const DecodeRow& row, int index, int head, int query, int count) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  constexpr int kValues = kDim / kWarp;  // of a lane
  const std::int64_t first = o.first_range(index, head, query);
  const float2* const weights = o.weights<kDim>() + first;
  // A lane has two ranges' highest score and weight.
  static_assert(kMostSplits <= 2 * kWarp);
  const float2 none = make_float2(-INFINITY, 0);
  float2 a = lane < count ? __ldcg(weights + lane) : none;
  float2 b = lane + kWarp < count ? __ldcg(weights + lane + kWarp) : none;
  float most = fmaxf(a.x, b.x);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, offset));
  a.x = exp2_fast(a.x - most), b.x = exp2_fast(b.x - most);
  const float total = warp_sum(__fmaf_rn(a.x, a.y, __fmul_rn(b.x, b.y)));
  float sum[kValues] = {};
  const float* const from = o.partial + first * kDim + lane * kValues;
#pragma unroll 8
  for (int s = 0; s < count; ++s) {
    float v[kValues];
    if constexpr (kValues == 4) {
      const float4 four = __ldcg(reinterpret_cast<const float4*>(from + s * kDim));
      v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
    } else {
      const float2 two = __ldcg(reinterpret_cast<const float2*>(from + s * kDim));
      v[0] = two.x, v[1] = two.y;
    }
    const float weight = __shfl_sync(0xffffffffU, s < kWarp ? a.x : b.x, s % kWarp);
#pragma unroll
    for (int i = 0; i < kValues; ++i) sum[i] = __fmaf_rn(weight, v[i], sum[i]);
  }
  bf16* const to = o.out + row.row * o.out_stride + (head * o.group + query) * kDim + lane * kValues;
#pragma unroll
  for (int i = 0; i < kValues; i += 2)
    *reinterpret_cast<std::uint32_t*>(to + i) = pack2(sum[i] / total, sum[i + 1] / total);
}

// Of the shared ranges' program (shared_decode_cuda.cu); heads of kDim.
cudaError_t shared_decode(const Operands& o, int item_count, int head_dim, cudaStream_t s);

}  // namespace chiasm::decode
