// Attention of one row a sequence over the pool: decode. A block takes a range of keys of one sequence and kv head, for
// all query heads of the group; the last block of a row to end joins its ranges (Flash-Decoding's split, with ranges
// that depend on the sequence alone, so that a row's bits do too). Asked to, it does what comes before as well: turns
// the query, turns the new key and stores it and the new value.
#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kWarps = 4;
constexpr int kBlockKeys = 32;  // of one block of the pool, one round of a warp
constexpr int kMostGroup = 16;  // query heads of a kv head: the rows of an mma
constexpr float kLog2E = 1.4426950408889634F;

struct Operands {
  const bf16* q;
  std::int64_t q_stride;
  const bf16 *k, *v;  // of the new tokens, strides as q's; null where the pool has them and q is turned
  const float *cos, *sin;
  int kv_heads, group;
  float scale_log2;
  const DecodeRow* rows;
  const std::int32_t* tables;
  KvLayout pool;
  int splits;
  // [rows][heads][splits][kDim] sums, then as many pairs: the highest score (times scale, base 2) and the total weight.
  float* partial;
  unsigned* counters;  // [rows][kv_heads]: ranges that are there; zero before and after
  bf16* out;
  std::int64_t out_stride;
};

template <int kDim>
__device__ bf16* key_block(const Operands& o, const DecodeRow& row, int key, int head) {
  return static_cast<bf16*>(o.pool.data) + o.tables[row.table + key / kBlockKeys] * o.pool.block_stride +
         head * o.pool.head_stride;
}

// The new key, turned, and the new value into the pool; by the whole block.
template <int kDim>
__device__ void store_newest(const Operands& o, const DecodeRow& row, int head) {
  constexpr int kHalf = kDim / 2;
  const int newest = row.keys - 1, i = static_cast<int>(threadIdx.x);
  bf16* const to = key_block<kDim>(o, row, newest, head) + newest % kBlockKeys * kDim;
  const std::int64_t at = row.row * o.q_stride + static_cast<std::int64_t>(head) * kDim;
  if (i < kHalf) {
    float a = to_float(o.k[at + i]), b = to_float(o.k[at + kHalf + i]);
    turn(a, b, o.cos[row.row * kHalf + i], o.sin[row.row * kHalf + i]);
    to[i] = from_float<bf16>(a), to[kHalf + i] = from_float<bf16>(b);
  }
  if (i < kDim) to[o.pool.value_offset + i] = o.v[at + i];
  __syncthreads();
}

// The ranges of one kv head's queries, joined: a warp a query.
template <int kDim>
__device__ void join(const Operands& o, const DecodeRow& row, int head, int count, const float2* weights) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  constexpr int kValues = kDim / kWarp;  // of a lane
  for (int query = static_cast<int>(threadIdx.x) / kWarp; query < o.group; query += kWarps) {
    const std::int64_t first =
        ((static_cast<std::int64_t>(blockIdx.y) * o.kv_heads + head) * o.group + query) * o.splits;
    // A lane has two ranges' highest score and weight.
    static_assert(kMostSplits <= 2 * kWarp);
    const float2 none = make_float2(-INFINITY, 0);
    float2 a = lane < count ? __ldcg(weights + first + lane) : none;
    float2 b = lane + kWarp < count ? __ldcg(weights + first + lane + kWarp) : none;
    float most = fmaxf(a.x, b.x);
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
      most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, offset));
    a.x = exp2_fast(a.x - most), b.x = exp2_fast(b.x - most);
    const float total = warp_sum(a.x * a.y + b.x * b.y);
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
      for (int i = 0; i < kValues; ++i) sum[i] += weight * v[i];
    }
    bf16* const to = o.out + row.row * o.out_stride + (head * o.group + query) * kDim + lane * kValues;
#pragma unroll
    for (int i = 0; i < kValues; i += 2)
      *reinterpret_cast<std::uint32_t*>(to + i) = pack2(sum[i] / total, sum[i + 1] / total);
  }
}

template <int kDim, bool kTurn>
__global__ void __launch_bounds__(kWarps* kWarp, 3) decode_kernel(const Operands o) {
  constexpr int kRow = kDim + 8, kChunks = kDim / 32, kWide = kDim / 8, kHalf = kDim / 2;
  static_assert(kDim <= kWarps * kWarp);
  __shared__ __align__(16) bf16 values[kWarps][kBlockKeys * kRow];
  __shared__ float highest_of[kWarps][16], total_of[kWarps][16];
  let_next_begin();
  const DecodeRow row = o.rows[blockIdx.y];
  const int split = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.z), group = o.group;
  const int first_key = split * row.split_keys;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, quad = lane % 4;
  // Keys of earlier steps are there: they come to L2 while the kernel in front still runs.
  for (int first = first_key + warp * kBlockKeys; lane == 0 && first < min(first_key + row.split_keys, row.keys);
       first += kWarps * kBlockKeys) {
    const bf16* const block = key_block<kDim>(o, row, first, head);
    prefetch_to_l2(block, kBlockKeys * kDim * 2);
    prefetch_to_l2(block + o.pool.value_offset, kBlockKeys * kDim * 2);
  }
  wait_for_previous();
  if (first_key >= row.keys) return;
  if constexpr (kTurn) {
    if (row.keys - 1 < first_key + row.split_keys) store_newest<kDim>(o, row, head);
  }
  // As in skinny_cuda.cu: both operands read 16 bytes in a row, the order inside k is the same for both.
  uint4 q0[kChunks], q1[kChunks];
  const bf16* const query = o.q + row.row * o.q_stride + static_cast<std::int64_t>(head) * group * kDim;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = c * 32 + quad * 8;
    q0[c] = g < group ? *reinterpret_cast<const uint4*>(query + g * kDim + at) : make_uint4(0, 0, 0, 0);
    q1[c] = g + 8 < group ? *reinterpret_cast<const uint4*>(query + (g + 8) * kDim + at) : make_uint4(0, 0, 0, 0);
  }
  if constexpr (kTurn) {
#pragma unroll
    for (int c = 0; c < kChunks / 2; ++c) {
      const std::int64_t at = row.row * kHalf + c * 32 + quad * 8;
      turn8(q0[c], q0[c + kChunks / 2], o.cos + at, o.sin + at);
      turn8(q1[c], q1[c + kChunks / 2], o.cos + at, o.sin + at);
    }
  }
  float out[kWide][4] = {};
  float highest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int first = first_key + warp * kBlockKeys; first < min(first_key + row.split_keys, row.keys);
       first += kWarps * kBlockKeys) {
    const bf16* const block = key_block<kDim>(o, row, first, head);
    const bf16* const value_rows = block + o.pool.value_offset;
    __syncwarp();  // the values of the round before are read
    for (int i = lane; i < kBlockKeys * kWide; i += kWarp)
      copy_async_16(&values[warp][i / kWide * kRow + i % kWide * 8], value_rows + i * 8, first + i / kWide < row.keys);
    commit_copies();
    uint4 keys[kBlockKeys / 8][kChunks];  // all are asked for before the first is used
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n)
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
        keys[n][c] = first + n * 8 + g < row.keys
                         ? *reinterpret_cast<const uint4*>(block + (n * 8 + g) * kDim + c * 32 + quad * 8)
                         : make_uint4(0, 0, 0, 0);
    float scores[kBlockKeys / 8][4] = {};
#pragma unroll
    for (int n = 0; n < kBlockKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const std::uint32_t low[4] = {q0[c].x, q1[c].x, q0[c].y, q1[c].y},
                            high[4] = {q0[c].z, q1[c].z, q0[c].w, q1[c].w};
        const uint4& k = keys[n][c];
        const std::uint32_t b_low[2] = {k.x, k.y}, b_high[2] = {k.z, k.w};
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
          s = first + n * 8 + quad * 2 + i < row.keys ? s * o.scale_log2 : -INFINITY;
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
  // The warps' sums, brought to one highest score, lie beside each other where the values were.
  static_assert(sizeof(float) * kWarps * kMostGroup * kDim <= sizeof(values));
  __syncthreads();
  auto* const joined = reinterpret_cast<float*>(&values[0][0]);  // [kWarps][group][kDim]
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = half * 8 + g;
    if (query >= group) continue;
    float most = -INFINITY;
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, highest_of[w][query]);
    const float fade = exp2_fast(highest[half] - most);  // a warp without keys: exp2(-inf) = 0
#pragma unroll
    for (int n = 0; n < kWide; ++n)
      *reinterpret_cast<float2*>(joined + (warp * group + query) * kDim + n * 8 + quad * 2) =
          make_float2(out[n][2 * half] * fade, out[n][2 * half + 1] * fade);
  }
  __syncthreads();
  const std::int64_t first_query = (static_cast<std::int64_t>(blockIdx.y) * o.kv_heads + head) * group;
  for (int i = static_cast<int>(threadIdx.x); i < group * kDim / 4; i += kWarps * kWarp) {
    float4 sum = reinterpret_cast<const float4*>(joined)[i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float4 more = reinterpret_cast<const float4*>(joined)[w * group * kDim / 4 + i];
      sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
    }
    const std::int64_t at = (first_query + i / (kDim / 4)) * o.splits + split;
    reinterpret_cast<float4*>(o.partial)[at * (kDim / 4) + i % (kDim / 4)] = sum;
  }
  float2* const weights = reinterpret_cast<float2*>(o.partial + static_cast<std::int64_t>(gridDim.y) * o.kv_heads *
                                                                    group * o.splits * kDim);
  if (static_cast<int>(threadIdx.x) < group) {
    const int i = static_cast<int>(threadIdx.x);
    float high = -INFINITY, sum = 0;
    for (int w = 0; w < kWarps; ++w) high = fmaxf(high, highest_of[w][i]);
    for (int w = 0; w < kWarps; ++w) sum += total_of[w][i] * exp2_fast(highest_of[w][i] - high);
    weights[(first_query + i) * o.splits + split] = make_float2(high, sum);
  }
  // The last range joins: it sees the others' since they were written before their count.
  __shared__ bool last;
  const int count = (row.keys + row.split_keys - 1) / row.split_keys;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned before = atomicInc(o.counters + blockIdx.y * o.kv_heads + head, static_cast<unsigned>(count - 1));
    last = before == static_cast<unsigned>(count - 1);
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  join<kDim>(o, row, head, count, weights);
}

}  // namespace

bool can_decode_cuda(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  return (head_dim == 64 || head_dim == 128) && heads / kv_heads <= kMostGroup;
}

cudaError_t decode_attention_cuda(const DecodeQueries& queries, const DecodeStep& step, const KvLayout& pool,
                                  float scale, CudaView out, cudaStream_t s) {
  if (step.count == 0) return cudaSuccess;
  const Operands o{.q = static_cast<const bf16*>(queries.q.data),
                   .q_stride = queries.q.stride,
                   .k = static_cast<const bf16*>(queries.k),
                   .v = static_cast<const bf16*>(queries.v),
                   .cos = queries.cos,
                   .sin = queries.sin,
                   .kv_heads = static_cast<int>(queries.kv_heads),
                   .group = static_cast<int>(queries.heads / queries.kv_heads),
                   .scale_log2 = scale * kLog2E,
                   .rows = step.rows,
                   .tables = step.tables,
                   .pool = pool,
                   .splits = static_cast<int>(step.splits),
                   .partial = step.partial,
                   .counters = step.counters,
                   .out = static_cast<bf16*>(out.data),
                   .out_stride = out.stride};
  const dim3 grid(static_cast<unsigned>(step.splits), static_cast<unsigned>(step.count),
                  static_cast<unsigned>(queries.kv_heads));
  const auto launch = [&](auto* kernel) { return launch_early(kernel, grid, kWarps * kWarp, 0, s, o); };
  const bool turn = queries.k != nullptr;
  if (queries.q.cols / queries.heads == 64) return launch(turn ? decode_kernel<64, true> : decode_kernel<64, false>);
  return launch(turn ? decode_kernel<128, true> : decode_kernel<128, false>);
}

}  // namespace chiasm
