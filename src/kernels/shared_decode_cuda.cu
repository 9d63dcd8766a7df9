// Decode where sequences share ranges of keys (the same blocks of the pool in their tables: many questions about one
// picture). A block takes an item: a range that several sequences share, for the queries of up to kSharedQueries of
// them, its keys and values brought to shared memory once; or a range of one sequence, as decode_attention_cuda.cu
// does. A second kernel joins the ranges.
//
// A row's bits are those of range_of_one(): there a warp has 32 keys and the four warps' sums are added, here a warp
// has 16 queries and takes the same four steps one after the other.
#include "kernels/decode_range_cuda.cuh"

namespace chiasm::decode {
namespace {

constexpr int kTile = 16;  // queries of a warp
static_assert(kSharedQueries == kWarps * kTile && kSplitKeys == kWarps * kBlockKeys);

template <int kDim>
struct SharedRange {
  // Rows 64 bytes apart in the banks: 8 lanes that read 16 bytes each, 4 in a row, meet all of them.
  static constexpr int kKeyRow = kDim + 32, kRow = kDim + 8;
  alignas(16) bf16 keys[kSplitKeys * kKeyRow];
  alignas(16) bf16 values[kSplitKeys * kRow];
};

template <int kDim>
union Memory {
  SharedRange<kDim> many;
  OneRange<kDim> one;
};

// Keys and values of the range on their way, a block of the pool a warp, as two groups of copies.
template <int kDim>
__device__ void bring(const Operands& o, const DecodeItem& item, int head, SharedRange<kDim>& shared) {
  constexpr int kWide = kDim / 8;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = warp * kBlockKeys;  // of the range
  const bf16* const block =
      static_cast<const bf16*>(o.pool.data) +
      o.tables[item.table + (item.range * static_cast<int>(kSplitKeys) + first) / kBlockKeys] * o.pool.block_stride +
      head * o.pool.head_stride;
#pragma unroll 4
  for (int i = lane; i < kBlockKeys * kWide; i += kWarp)
    copy_async_16(shared.keys + (first + i / kWide) * SharedRange<kDim>::kKeyRow + i % kWide * 8, block + i * 8, true);
  commit_copies();
#pragma unroll 4
  for (int i = lane; i < kBlockKeys * kWide; i += kWarp)
    copy_async_16(shared.values + (first + i / kWide) * SharedRange<kDim>::kRow + i % kWide * 8,
                  block + o.pool.value_offset + i * 8, true);
  commit_copies();
}

template <int kDim, bool kTurn>
__device__ void range_of_many(const Operands& o, const DecodeItem& item, int head, SharedRange<kDim>& shared) {
  constexpr int kChunks = kDim / 32, kColumns = kDim / 2, kSteps = kWarps;
  constexpr int kKeyRow = SharedRange<kDim>::kKeyRow, kRow = SharedRange<kDim>::kRow;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, quad = lane % 4, group = o.group;
  // Whole ranges of earlier steps: nothing writes there in this one, so they need not wait for the kernel in front.
  bring<kDim>(o, item, head, shared);
  int indices[2];
  Query queries[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = warp * kTile + half * 8 + g;
    const bool there = place < item.count * group;
    indices[half] = o.members[item.first + (there ? place / group : 0)];
    queries[half] = {o.rows[indices[half]].row, head * group + (there ? place % group : 0), there};
  }
  const bool idle = warp * kTile >= item.count * group;
  wait_for_previous();
  uint4 q0[kChunks], q1[kChunks];
  if (!idle) load_queries<kDim, kTurn>(o, queries, q0, q1);
  wait_for_copies<1>();
  __syncthreads();
  Weights p[kSteps];
  float highest[2][kSteps], total[2][kSteps];
  if (!idle) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const bf16* const keys = shared.keys + (step * kBlockKeys + g) * kKeyRow + quad * 8;
      const auto key = [&](int n, int c) { return *reinterpret_cast<const uint4*>(keys + n * 8 * kKeyRow + c * 32); };
      Scores scores;
      score<kChunks>(q0, q1, key, scores);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float fade;
        highest[half][step] = -INFINITY, total[half][step] = 0;
        soften(scores, half, kBlockKeys, o.scale_log2, highest[half][step], total[half][step], fade);
        total[half][step] = add_lanes(total[half][step]);
      }
      pack(scores, p[step]);
    }
  }
  wait_for_copies<0>();
  __syncthreads();
  if (idle) return;
  // From here a step's `highest` is what its sums are worth beside the highest of all.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = -INFINITY, sum = 0;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) most = fmaxf(most, highest[half][step]);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      highest[half][step] = exp2_fast(__fsub_rn(highest[half][step], most));
      sum = __fmaf_rn(total[half][step], highest[half][step], sum);
    }
    if (!queries[half].there || quad != 0) continue;
    o.weights<kDim>()[o.first_range(indices[half], head, queries[half].head - head * group) + item.range] =
        make_float2(most, sum);
  }
#pragma unroll 1
  for (int first = 0; first < kDim; first += kColumns) {
    float sum[kColumns / 8][4];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      float out[kColumns / 8][4] = {};
      add_values<kColumns, kRow>(p[step], shared.values + step * kBlockKeys * kRow + first, out);
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float part = __fmul_rn(out[n][i], highest[i / 2][step]);
          sum[n][i] = step == 0 ? part : __fadd_rn(sum[n][i], part);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!queries[half].there) continue;
      float* const to = o.partial +
                        (o.first_range(indices[half], head, queries[half].head - head * group) + item.range) * kDim +
                        first + quad * 2;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n)
        *reinterpret_cast<float2*>(to + n * 8) = make_float2(sum[n][2 * half], sum[n][2 * half + 1]);
    }
  }
}

template <int kDim, bool kTurn>
__global__ void __launch_bounds__(kWarps* kWarp, 3) shared_kernel(const Operands o) {
  extern __shared__ uint4 dynamic[];
  auto& memory = *reinterpret_cast<Memory<kDim>*>(dynamic);
  let_next_begin();
  const DecodeItem item = o.items[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y);
  if (item.count > 1) return range_of_many<kDim, kTurn>(o, item, head, memory.many);
  if (item.count == 0) return wait_for_previous();  // the list has room to grow
  const int index = o.members[item.first];
  const DecodeRow row = o.rows[index];
  prefetch_range<kDim>(o, row, item.range, head);
  wait_for_previous();
  range_of_one<kDim, kTurn>(o, row, index, item.range, head, memory.one);
}

// A warp a query.
template <int kDim>
__global__ void __launch_bounds__(kWarps* kWarp) join_kernel(const Operands o) {
  let_next_begin();
  const int query = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kWarp), heads = o.kv_heads * o.group;
  const int index = query / heads, head = query % heads;
  DecodeRow row;
  if (index < o.row_count) row = o.rows[index];
  wait_for_previous();
  if (index >= o.row_count) return;
  join<kDim>(o, row, index, head / o.group, head % o.group, (row.keys + row.split_keys - 1) / row.split_keys);
}

template <int kDim>
cudaError_t launch(const Operands& o, int item_count, cudaStream_t s) {
  constexpr int kShared = sizeof(Memory<kDim>);
  const auto kernel = o.k != nullptr ? shared_kernel<kDim, true> : shared_kernel<kDim, false>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  const dim3 grid(static_cast<unsigned>(item_count), static_cast<unsigned>(o.kv_heads));
  if (error == cudaSuccess) error = launch_early(kernel, grid, kWarps * kWarp, kShared, s, o);
  const int queries = o.row_count * o.kv_heads * o.group;
  const auto blocks = static_cast<unsigned>((queries + kWarps - 1) / kWarps);
  if (error == cudaSuccess) error = launch_early(join_kernel<kDim>, blocks, kWarps * kWarp, 0, s, o);
  return error;
}

}  // namespace

cudaError_t shared_decode(const Operands& o, int item_count, int head_dim, cudaStream_t s) {
  return head_dim == 64 ? launch<64>(o, item_count, s) : launch<128>(o, item_count, s);
}

}  // namespace chiasm::decode
