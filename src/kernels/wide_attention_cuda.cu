// Attention of many queries on the tensor cores of compute capability 9.0, causal over the pool (prefill, heads of 128,
// the queries of a kv head's group side by side).
//
// Keys and values are packed first: tiles of kWideKeys keys of one head in the very form that wgmma reads from shared
// memory, so that a tile is one copy of the bulk engine. A block holds 128 queries in the registers of two warpgroups,
// which take turns: while one has the tensor cores the other does its softmax (the turns of FlashAttention-3, arXiv
// 2407.08608). A third warpgroup's first thread asks for tiles ahead. The walk begins at the sequence's first key and
// its tiles have one size: a row's bits depend on its own sequence only.
#include "kernels/kernels_cuda.h"
#include "kernels/wgmma_cuda.cuh"

namespace chiasm {
namespace {

constexpr int kDim = 128;
constexpr int kKeys = static_cast<int>(kWideKeys);
constexpr int kGroups = 2, kQueries = kGroups * 64;
constexpr int kSlots = 4;  // tiles of keys and of values, in turn
constexpr float kLog2E = 1.4426950408889634F;
static_assert(kQueries == kQueryTileRows);

// Where keys or values stand in the pool.
struct PoolRows {
  const bf16* data;
  KvLayout pool;
  const std::int32_t* tables;
  __device__ uint4 piece(const KeyTile& tile, int key, std::int64_t head, int at) const {
    const auto tokens = static_cast<int>(pool.block_tokens);
    return *reinterpret_cast<const uint4*>(data + tables[tile.table + key / tokens] * pool.block_stride +
                                           head * pool.head_stride + key % tokens * kDim + at);
  }
};

// A tile's bytes in the order of shared memory: slabs of 16 columns, halves of rows swapped as wgmma_cuda.cuh has it.
__global__ void pack_kernel(const PoolRows keys, const PoolRows values, const KeyTile* tiles, uint4* out) {
  constexpr int kPieces = kKeys * kDim / 8;
  let_next_begin();
  wait_for_previous();
  const KeyTile tile = tiles[blockIdx.x];
  const auto head = static_cast<std::int64_t>(blockIdx.y), heads = static_cast<std::int64_t>(gridDim.y);
  const PoolRows from = blockIdx.z == 0 ? keys : values;
  out += ((blockIdx.x * heads + head) * 2 + blockIdx.z) * kPieces;
  for (int i = static_cast<int>(threadIdx.x); i < kPieces; i += static_cast<int>(blockDim.x)) {
    const int slab = i / (kKeys * 2), row = i % (kKeys * 2) / 2, half = i % 2 ^ row / 4 % 2;
    const int key = tile.first_key + row;
    out[i] = key < tile.keys ? from.piece(tile, key, head, slab * 16 + half * 8) : make_uint4(0, 0, 0, 0);
  }
}

struct Operands {
  const bf16* q;
  std::int64_t q_stride;
  const unsigned char* packed;
  bf16* out;
  std::int64_t out_stride;
  float scale_log2;
  int group;  // query heads of a kv head
};

// Queries are (row, head of the group) pairs, and each sees its row's keys only.
__global__ void __launch_bounds__((kGroups + 1) * kWarpgroup, 1)
    wide_kernel(const Operands args, const QueryTile* tiles) {
  constexpr int kSteps = kDim / kSlabColumns, kWide = kDim / 8;
  constexpr int kKeySlab = kKeys * kSlabRow, kTile = kSteps * kKeySlab;
  extern __shared__ __align__(1024) unsigned char shared[];  // [kSlots] tiles
  __shared__ __align__(8) std::uint64_t barriers[2 * kSlots];
  const std::uint32_t slots = shared_address(shared), full = shared_address(barriers), empty = full + 8 * kSlots;
  let_next_begin();
  const QueryTile tile = tiles[blockIdx.x];
  const auto head = static_cast<std::int64_t>(blockIdx.y), heads = static_cast<std::int64_t>(gridDim.y);
  const auto visible = [&](int query) { return tile.past + min(query, tile.queries - 1) / args.group + 1; };
  const int tile_count = (visible(tile.first_query + kQueries - 1) + kKeys - 1) / kKeys;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kGroups * 4);
    }
    fence_barrier_init();
  }
  __syncthreads();
  wait_for_previous();

  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x != 0) return;
    const unsigned char* const from = args.packed + (tile.first_key_tile * heads + head) * 2 * kTile;
    int slot = 0, parity = 1;  // a slot's first user does not wait
    for (int index = 0; index < 2 * tile_count; ++index) {
      if (index >= kSlots) barrier_wait(empty + 8 * slot, parity);
      barrier_expect(full + 8 * slot, kTile);
      copy_bulk(slots + slot * kTile, from + (index / 2 * heads * 2 + index % 2) * kTile, kTile, full + 8 * slot);
      if (++slot == kSlots) slot = 0, parity ^= 1;
    }
  } else {
    take_registers<240>();
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1,
              thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const int warp = thread / kWarp, lane = thread % kWarp;
    // Elements from a matrix' beginning to a query's head.
    const auto query_at = [&](int query, std::int64_t stride) {
      return (tile.first_row + query / args.group) * stride + (head * args.group + query % args.group) * kDim;
    };
    const int first_query = tile.first_query + group * 64 + warp * 16 + lane / 4;  // of this thread; its other is 8 on
    std::uint32_t queries[4 * kSteps];
    int last_key[2];  // of each of the two, and one more
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = first_query + half * 8;
      last_key[half] = visible(query);
      const bf16* const from = args.q + query_at(min(query, tile.queries - 1), args.q_stride) + lane % 4 * 2;
#pragma unroll
      for (int step = 0; step < kSteps; ++step)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          queries[4 * step + 2 * i + half] = *reinterpret_cast<const std::uint32_t*>(from + step * 16 + i * 8);
    }

    const std::uint64_t tiles_at = slab_descriptor(slots, kKeySlab);
    float scores[kKeys / 2], out[kDim / 2] = {};
    std::uint32_t weights[kKeys / 4];
    float highest[2] = {-INFINITY, -INFINITY}, total[2] = {}, fade[2];
    const auto ask_scores = [&](int slot) {
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kSteps; ++step)
        wgmma(scores, queries + 4 * step, advanced(tiles_at, slot * kTile + step * kKeySlab), step != 0);
      wgmma_commit();
    };
    const auto ask_values = [&](int slot) {
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step)
        wgmma(out, weights + 4 * step, advanced(tiles_at, slot * kTile + step * 16 * kSlabRow));
      wgmma_commit();
    };
    const auto release = [&](int slot) {
      __syncwarp();
      if (lane == 0) barrier_arrive(empty + 8 * slot);
    };
    // Scores to weights, in place; `fade` is what the sums so far must be multiplied by.
    const auto soften = [&](int index) {
      if ((index + 1) * kKeys > last_key[0]) {  // the first's are no more than the second's
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i)
          if (index * kKeys + i / 4 * 8 + lane % 4 * 2 + i % 2 >= last_key[i / 2 % 2]) scores[i] = -INFINITY;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8
        float most = highest[half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
          most = fmaxf(most, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
        const float shift = most * args.scale_log2;  // the first tile has a key for every query: finite
        fade[half] = exp2_fast((highest[half] - most) * args.scale_log2);
        highest[half] = most;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& p = scores[4 * n + 2 * half + i];
            p = exp2_fast(fmaf(p, args.scale_log2, -shift));
            sum += p;
          }
        total[half] = total[half] * fade[half] + sum;
      }
    };
    const auto pack = [&] {
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) weights[i] = pack2(scores[2 * i], scores[2 * i + 1]);
    };
    // The groups have the tensor cores in turn: one's products run beside the other's softmax. The first begins.
    const auto wait_turn = [&] {
      if (group == 0)
        turn_wait(1, 2 * kWarpgroup);
      else
        turn_wait(2, 2 * kWarpgroup);
    };
    const auto give_turn = [&](bool last) {
      if (group == 0)
        turn_give(2, 2 * kWarpgroup);
      else if (!last)
        turn_give(1, 2 * kWarpgroup);
    };

    barrier_wait(full, 0);
    if (group == 1) wait_turn();
    ask_scores(0);
    give_turn(tile_count == 1);
    wgmma_wait<0>();
    keep_in_place(scores);
    release(0);
    soften(0);
    pack();
    int k_slot = 2, v_slot = 1, k_parity = 0, v_parity = 0;
    for (int index = 1; index < tile_count; ++index) {
      barrier_wait(full + 8 * k_slot, k_parity);
      wait_turn();
      ask_scores(k_slot);
      barrier_wait(full + 8 * v_slot, v_parity);
      ask_values(v_slot);  // of the tile before
      give_turn(index + 1 == tile_count);
      wgmma_wait<1>();
      keep_in_place(scores);
      release(k_slot);
      soften(index);
      wgmma_wait<0>();
      keep_in_place(out);
      release(v_slot);
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) out[i] *= fade[i / 2 % 2];
      pack();
      k_slot += 2, v_slot += 2;
      if (k_slot >= kSlots) k_slot -= kSlots, k_parity ^= 1;
      if (v_slot >= kSlots) v_slot -= kSlots, v_parity ^= 1;
    }
    barrier_wait(full + 8 * v_slot, v_parity);
    ask_values(v_slot);
    wgmma_wait<0>();
    keep_in_place(out);

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = total[half];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const float inverse = 1.0F / sum;
      const int query = first_query + half * 8;
      if (query >= tile.queries) continue;
      bf16* const to = args.out + query_at(query, args.out_stride) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kWide; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack2(out[4 * n + 2 * half] * inverse, out[4 * n + 2 * half + 1] * inverse);
    }
  }
}

}  // namespace

bool can_attend_wide_paged_cuda(CudaView q, CudaView out, std::int64_t heads) {
  return q.cols == heads * 128 && aligned_rows(q) && aligned_rows(out);
}

cudaError_t wide_paged_attention_cuda(CudaView q, std::int64_t heads, std::int64_t kv_heads, float scale,
                                      const WideTiles& tiles, const std::int32_t* tables, const KvLayout& pool,
                                      void* packed, CudaView out, cudaStream_t s) {
  if (tiles.count == 0) return cudaSuccess;
  const auto* const data = static_cast<const bf16*>(pool.data);
  const PoolRows keys{data, pool, tables}, values{data + pool.value_offset, pool, tables};
  const dim3 pieces(static_cast<unsigned>(tiles.key_count), static_cast<unsigned>(kv_heads), 2);
  const cudaError_t packing =
      launch_early(pack_kernel, pieces, 256, 0, s, keys, values, tiles.keys, static_cast<uint4*>(packed));
  if (packing != cudaSuccess) return packing;
  constexpr int kShared = 2 * kDim * kSlots * kKeys;
  const cudaError_t raised = cudaFuncSetAttribute(wide_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (raised != cudaSuccess) return raised;
  const Operands args{.q = static_cast<const bf16*>(q.data),
                      .q_stride = q.stride,
                      .packed = static_cast<const unsigned char*>(packed),
                      .out = static_cast<bf16*>(out.data),
                      .out_stride = out.stride,
                      .scale_log2 = scale * kLog2E,
                      .group = static_cast<int>(heads / kv_heads)};
  return launch_early(wide_kernel, dim3(static_cast<unsigned>(tiles.count), static_cast<unsigned>(kv_heads)),
                      (kGroups + 1) * kWarpgroup, kShared, s, args, tiles.queries);
}

}  // namespace chiasm
