// Attention of one row a sequence over the pool: decode. A block takes a range of keys of one sequence and kv head, for
// all query heads of the group; the last block of a row to end joins its ranges (Flash-Decoding's split, with ranges
// that depend on the sequence alone, so that a row's bits do too). Asked to, it does what comes before as well: turns
// the query, turns the new key and stores it and the new value.
#include "kernels/decode_range_cuda.cuh"

namespace chiasm {
namespace decode {
namespace {

constexpr float kLog2E = 1.4426950408889634F;

template <int kDim, bool kTurn>
__global__ void __launch_bounds__(kWarps* kWarp, 3) decode_kernel(const Operands o) {
  __shared__ OneRange<kDim> shared;
  let_next_begin();
  const int index = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.z);
  const DecodeRow row = o.rows[index];
  prefetch_range<kDim>(o, row, split, head);
  wait_for_previous();
  if (split * row.split_keys >= row.keys) return;
  range_of_one<kDim, kTurn>(o, row, index, split, head, shared);
  // The last range joins: it sees the others' since they were written before their count.
  __shared__ bool last;
  const int count = (row.keys + row.split_keys - 1) / row.split_keys;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned before = atomicInc(o.counters + index * o.kv_heads + head, static_cast<unsigned>(count - 1));
    last = before == static_cast<unsigned>(count - 1);
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int query = static_cast<int>(threadIdx.x) / kWarp; query < o.group; query += kWarps)
    join<kDim>(o, row, index, head, query, count);
}

}  // namespace
}  // namespace decode

bool can_decode_cuda(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  return (head_dim == 64 || head_dim == 128) && heads / kv_heads <= decode::kMostGroup;
}

cudaError_t decode_attention_cuda(const DecodeQueries& queries, const DecodeStep& step, const KvLayout& pool,
                                  float scale, CudaView out, cudaStream_t s) {
  using decode::decode_kernel;
  if (step.count == 0) return cudaSuccess;
  const decode::Operands o{.q = static_cast<const bf16*>(queries.q.data),
                           .q_stride = queries.q.stride,
                           .k = static_cast<const bf16*>(queries.k),
                           .v = static_cast<const bf16*>(queries.v),
                           .cos = queries.cos,
                           .sin = queries.sin,
                           .kv_heads = static_cast<int>(queries.kv_heads),
                           .group = static_cast<int>(queries.heads / queries.kv_heads),
                           .scale_log2 = scale * decode::kLog2E,
                           .rows = step.rows,
                           .row_count = static_cast<int>(step.count),
                           .tables = step.tables,
                           .pool = pool,
                           .splits = static_cast<int>(step.splits),
                           .partial = step.partial,
                           .counters = step.counters,
                           .items = step.items,
                           .members = step.members,
                           .out = static_cast<bf16*>(out.data),
                           .out_stride = out.stride};
  const auto head_dim = static_cast<int>(queries.q.cols / queries.heads);
  if (step.item_count > 0) return decode::shared_decode(o, static_cast<int>(step.item_count), head_dim, s);
  const dim3 grid(static_cast<unsigned>(step.splits), static_cast<unsigned>(step.count),
                  static_cast<unsigned>(queries.kv_heads));
  const auto launch = [&](auto* kernel) { return launch_early(kernel, grid, decode::kWarps * kWarp, 0, s, o); };
  const bool turn = queries.k != nullptr;
  if (head_dim == 64) return launch(turn ? decode_kernel<64, true> : decode_kernel<64, false>);
  return launch(turn ? decode_kernel<128, true> : decode_kernel<128, false>);
}

}  // namespace chiasm
