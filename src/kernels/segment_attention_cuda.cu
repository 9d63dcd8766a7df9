// A block holds 128 queries of a head in the registers of two warpgroups, which take turns: while one has the tensor
// cores the other does its softmax (the turns of FlashAttention-3, arXiv 2407.08608). A third warpgroup's first thread
// asks for queries, keys and values ahead, from where they lie. Blocks go on to their next tile (a persistent grid).
//
// The softmax has no running maximum. A row's scores count from the highest of its first 128 keys, which is given
// 2^-kRoom to leave room for what comes; sums of F32 then hold rows whose later scores are up to 2^(kRoom + 126), 115
// nats, above. Weights below 2^(kRoom - 126) of that highest are zero. What runs over, and whatever is not finite,
// shows in the row's sums: such rows are computed again (attention_row_cuda.cuh), and stored from there only. The walk
// begins at the segment's first key and its tiles have one size; rows of the next segment in its last tile are taken
// out of it.
#include "kernels/segment_attention_cuda.h"

#include <algorithm>

#include "kernels/attention_row_cuda.cuh"
#include "kernels/tensor_map_cuda.h"
#include "kernels/tensor_tiles_cuda.cuh"

namespace chiasm {
namespace {

constexpr int kDim = 80, kSteps = kDim / kSlabColumns;
constexpr int kKeys = 128;  // of a tile
constexpr int kGroups = 2, kGroupRows = 64, kQueries = kGroups * kGroupRows;
static_assert(kQueries == kQueryTileRows);
constexpr float kLog2E = 1.4426950408889634F;
constexpr float kRoom = 40, kMostSum = 0x1p126F;

// Shared memory. A tile of values is slabs; one of keys has its first 64 columns in rows of 128 bytes, which the copy
// engine writes faster, and then a slab.
constexpr int kSlots = 4;         // of keys and values, in turn
constexpr int kQueryBuffers = 2;  // of this tile and of the next
constexpr int kKeyRowsBytes = kKeys * kTileRowBytes;
constexpr int kKeySlab = kKeys * kSlabRow, kTile = kSteps * kKeySlab;
constexpr int kQuerySlab = kGroupRows * kSlabRow, kQueryBox = kSteps * kQuerySlab;
static_assert(kKeyRowsBytes + kKeySlab == kTile && kTile % 1024 == 0 && kQueryBox % 1024 == 0);
constexpr int kShared = kSlots * 2 * kTile + kQueryBuffers * kGroups * kQueryBox + 1024;

struct Operands {
  const bf16 *q, *k, *v;
  std::int64_t q_stride, k_stride, v_stride;
  bf16* out;
  std::int64_t out_stride;
  const QueryTile* tiles;
  int tile_count, items;  // an item is a tile of a head
  float scale_log2;
};

// 16 columns of a warp's 16 rows, as wgmma takes them.
__device__ inline void load_rows(std::uint32_t* r, std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void clear_16(std::uint32_t address) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};\n" ::"r"(address), "r"(0) : "memory");
}

// A ring of buffers with a barrier each for "is full" and "is empty"; `use` counts its uses from the beginning.
template <int kCount>
struct Ring {
  std::uint32_t full, empty;  // barriers
  static constexpr int kBarriers = 2 * kCount;
  __device__ explicit Ring(std::uint32_t barriers) : full(barriers), empty(barriers + 8 * kCount) {}
  __device__ void init() const {
    for (int i = 0; i < kCount; ++i) barrier_init(full + 8 * i, 1), barrier_init(empty + 8 * i, kGroups * 4);
  }
  __device__ static int buffer(int use) { return use % kCount; }
  // By who fills it; the first uses do not wait. Gives the barrier on which `bytes` of copies complete.
  __device__ std::uint32_t begin(int use, int bytes) const {
    const std::uint32_t barrier = full + 8 * buffer(use);
    barrier_wait(empty + 8 * buffer(use), use / kCount % 2 ^ 1);
    barrier_expect(barrier, bytes);
    return barrier;
  }
  __device__ void wait(int use) const { barrier_wait(full + 8 * buffer(use), use / kCount % 2); }
  // By every warp that has read it.
  __device__ void release(int use) const {
    __syncwarp();
    if (threadIdx.x % kWarp == 0) barrier_arrive(empty + 8 * buffer(use));
  }
};

// The maps: queries, keys' first 64 columns, keys, values.
__global__ void __launch_bounds__((kGroups + 1) * kWarpgroup, 1)
    segment_kernel(const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap key_rows_map,
                   const __grid_constant__ CUtensorMap key_map, const __grid_constant__ CUtensorMap value_map,
                   const Operands args) {
  extern __shared__ unsigned char shared[];
  using Tiles = Ring<kSlots>;
  using QueryTiles = Ring<kQueryBuffers>;
  __shared__ __align__(8) std::uint64_t barriers[2 * Tiles::kBarriers + QueryTiles::kBarriers];
  const std::uint32_t keys_at = (shared_address(shared) + 1023) / 1024 * 1024, values_at = keys_at + kSlots * kTile;
  const std::uint32_t queries_at = values_at + kSlots * kTile;
  const Tiles key_ring(shared_address(barriers)), value_ring(key_ring.full + 8 * Tiles::kBarriers);
  const QueryTiles query_ring(value_ring.full + 8 * Tiles::kBarriers);
  let_next_begin();
  if (threadIdx.x == 0) {
    prefetch_map(q_map), prefetch_map(key_rows_map), prefetch_map(key_map), prefetch_map(value_map);
    key_ring.init(), value_ring.init(), query_ring.init();
    fence_barrier_init();
  }
  __syncthreads();
  const int first_item = static_cast<int>(blockIdx.x), items_ahead = static_cast<int>(gridDim.x);

  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x != 0) return;
    wait_for_previous();
    int use = 0, query_use = 0;
    for (int item = first_item; item < args.items; item += items_ahead, ++query_use) {
      const QueryTile tile = args.tiles[item % args.tile_count];
      const int head = item / args.tile_count, count = (tile.keys + kKeys - 1) / kKeys;
      std::uint32_t barrier = query_ring.begin(query_use, kGroups * kQueryBox);
      for (int group = 0; group < kGroups; ++group)
        copy_slabs(queries_at + (QueryTiles::buffer(query_use) * kGroups + group) * kQueryBox, q_map, head * kSteps,
                   tile.first_row + tile.first_query + group * kGroupRows, barrier);
      for (int i = 0; i < count; ++i, ++use) {
        const int row = tile.first_row + i * kKeys, at = Tiles::buffer(use) * kTile;
        barrier = key_ring.begin(use, kTile);
        copy_box(keys_at + at, key_rows_map, head * kDim, row, barrier);
        copy_slabs(keys_at + at + kKeyRowsBytes, key_map, head * kSteps + kSteps - 1, row, barrier);
        barrier = value_ring.begin(use, kTile);
        copy_slabs(values_at + at, value_map, head * kSteps, row, barrier);
      }
    }
  } else {
    take_registers<240>();
    wait_for_previous();
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1,
              thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const int warp = thread / kWarp, lane = thread % kWarp;
    // The groups have the tensor cores in turn: one's products run beside the other's softmax. The first begins.
    const auto wait_turn = [&] { turn_wait(1 + group, 2 * kWarpgroup); };
    const auto give_turn = [&](bool last) {
      if (!(last && group == kGroups - 1)) turn_give(2 - group, 2 * kWarpgroup);
    };
    if (group == 1) turn_give(1, 2 * kWarpgroup);
    int use = 0, query_use = 0;
    for (int item = first_item; item < args.items; item += items_ahead, ++query_use) {
      const QueryTile tile = args.tiles[item % args.tile_count];
      const int head = item / args.tile_count, count = (tile.keys + kKeys - 1) / kKeys;
      const bool last_item = item + items_ahead >= args.items;
      std::uint32_t queries[4 * kSteps];
      query_ring.wait(query_use);
      const int own_row = warp * 16 + lane % 16, half_row = lane / 16 ^ own_row / 4 % 2;
#pragma unroll
      for (int step = 0; step < kSteps; ++step)
        load_rows(queries + 4 * step, queries_at + (QueryTiles::buffer(query_use) * kGroups + group) * kQueryBox +
                                          step * kQuerySlab + own_row * kSlabRow + half_row * 16);
      query_ring.release(query_use);

      const std::uint64_t key_slabs = slab_descriptor(keys_at + kKeyRowsBytes, kKeySlab),
                          value_slabs = slab_descriptor(values_at, kKeySlab);
      float scores[kKeys / 2], out[kDim / 2] = {};
      std::uint32_t weights[kKeys / 4];
      float shift[2] = {}, total[2] = {};
      const auto ask_scores = [&](int use) {
        const int at = Tiles::buffer(use) * kTile;
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < kSteps - 1; ++step)
          wgmma(scores, queries + 4 * step, tile_descriptor(keys_at + at, step), step != 0);
        wgmma(scores, queries + 4 * (kSteps - 1), advanced(key_slabs, at), 1);
        wgmma_commit();
      };
      const auto ask_values = [&](int use) {
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < kKeys / 16; ++step)
          wgmma(out, weights + 4 * step, advanced(value_slabs, Tiles::buffer(use) * kTile + step * 16 * kSlabRow));
        wgmma_commit();
      };
      const auto mask = [&](int index) {
        if ((index + 1) * kKeys <= tile.keys) return;
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i)
          if (index * kKeys + i / 4 * 8 + lane % 4 * 2 + i % 2 >= tile.keys) scores[i] = -INFINITY;
      };
      const auto set_shift = [&] {
#pragma unroll
        for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8
          float most = -INFINITY;
#pragma unroll
          for (int n = 0; n < kKeys / 8; ++n)
            most = fmaxf(most, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
          most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
          most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
          shift[half] = fmaf(most, args.scale_log2, kRoom);
        }
      };
      // Scores to weights, in place, of one half of the keys.
      const auto soften = [&](int half) {
#pragma unroll
        for (int i = 0; i < kKeys / 4; ++i) {
          float& p = scores[half * (kKeys / 4) + i];
          p = exp2_fast(fmaf(p, args.scale_log2, -shift[i / 2 % 2]));
          total[i / 2 % 2] += p;
        }
      };
      const auto pack = [&](int half) {
#pragma unroll
        for (int i = half * (kKeys / 8); i < (half + 1) * (kKeys / 8); ++i)
          weights[i] = pack2(scores[2 * i], scores[2 * i + 1]);
      };
      // Values of the next segment in this one's last tile: they weigh nothing, but NaN times nothing is NaN. Both
      // groups write the same zeros.
      const auto clear_behind = [&](int use) {
        const int own = tile.keys - (count - 1) * kKeys, pieces = (kKeys - own) * 2;
        if (pieces == 0) return;
        const std::uint32_t behind = values_at + Tiles::buffer(use) * kTile + own * kSlabRow;
        for (int i = thread; i < kSteps * pieces; i += kWarpgroup)
          clear_16(behind + i / pieces * kKeySlab + i % pieces * 16);
        fence_for_copies();
        turn_wait(3 + group, kWarpgroup);
      };

      key_ring.wait(use);
      wait_turn();
      ask_scores(use);
      give_turn(last_item && count == 1);
      wgmma_wait<0>();
      keep_in_place(scores);
      key_ring.release(use);
      mask(0);
      set_shift();
      soften(0), soften(1);
      pack(0), pack(1);
      for (int index = 1; index < count; ++index) {
        ++use;
        key_ring.wait(use);
        wait_turn();
        ask_scores(use);
        value_ring.wait(use - 1);
        ask_values(use - 1);
        give_turn(last_item && index + 1 == count);
        wgmma_wait<1>();
        keep_in_place(scores);
        key_ring.release(use);
        mask(index);
        soften(0);
        wgmma_wait<0>();
        keep_in_place(out);
        value_ring.release(use - 1);
        pack(0);
        soften(1), pack(1);
      }
      value_ring.wait(use);
      clear_behind(use);
      ask_values(use);
      wgmma_wait<0>();
      keep_in_place(out);
      value_ring.release(use);
      ++use;

      const std::int64_t column = static_cast<std::int64_t>(head) * kDim;
      const int warp_query = tile.first_query + group * kGroupRows + warp * 16;
      std::uint32_t wrong = 0;  // rows of the warp, to be computed again: bit 4 (row % 8) + row / 8
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = total[half];
#pragma unroll
        for (int i = 0; i < kDim / 4; ++i)  // changes no bit of it unless one is not finite
          sum = fmaf(out[i / 2 * 4 + 2 * half + i % 2], 0.0F, sum);
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        const bool right = sum < kMostSum;  // NaN is not
        const int query = warp_query + half * 8 + lane / 4;
        if (query < tile.queries && right) {
          const float inverse = 1.0F / sum;
          bf16* const to = args.out + (tile.first_row + query) * args.out_stride + column + lane % 4 * 2;
#pragma unroll
          for (int n = 0; n < kDim / 8; ++n)
            *reinterpret_cast<std::uint32_t*>(to + n * 8) =
                pack2(out[4 * n + 2 * half] * inverse, out[4 * n + 2 * half + 1] * inverse);
        }
        wrong |= __ballot_sync(0xffffffffU, lane % 4 == 0 && query < tile.queries && !right) << half;
      }
      for (; wrong != 0; wrong &= wrong - 1) {
        const int bit = __ffs(static_cast<int>(wrong)) - 1;
        const std::int64_t row = tile.first_row + warp_query + bit / 4 + bit % 4 * 8;
        attend_row<kDim>(args.q + row * args.q_stride + column, args.k + tile.first_row * args.k_stride + column,
                         args.k_stride, args.v + tile.first_row * args.v_stride + column, args.v_stride, tile.keys,
                         args.scale_log2, args.out + row * args.out_stride + column);
      }
    }
  }
}

}  // namespace

bool can_attend_segments_cuda(CudaView q, CudaView k, CudaView v, CudaView out, std::int64_t heads) {
  return q.cols == heads * kDim && aligned_rows(q) && aligned_rows(k) && aligned_rows(v) && aligned_rows(out);
}

cudaError_t segment_attention_cuda(CudaView q, CudaView k, CudaView v, std::int64_t heads, float scale,
                                   const QueryTile* tiles, std::int64_t tile_count, CudaView out, int multiprocessors,
                                   cudaStream_t s) {
  if (tile_count == 0) return cudaSuccess;
  CUtensorMap q_map, key_rows_map, key_map, value_map;
  cudaError_t error = make_slab_map(q, kGroupRows, kSteps, q_map);
  if (error == cudaSuccess) error = make_tile_map(k, kKeys, key_rows_map);
  if (error == cudaSuccess) error = make_slab_map(k, kKeys, 1, key_map);
  if (error == cudaSuccess) error = make_slab_map(v, kKeys, kSteps, value_map);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(segment_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const Operands args{.q = static_cast<const bf16*>(q.data),
                      .k = static_cast<const bf16*>(k.data),
                      .v = static_cast<const bf16*>(v.data),
                      .q_stride = q.stride,
                      .k_stride = k.stride,
                      .v_stride = v.stride,
                      .out = static_cast<bf16*>(out.data),
                      .out_stride = out.stride,
                      .tiles = tiles,
                      .tile_count = static_cast<int>(tile_count),
                      .items = static_cast<int>(tile_count * heads),
                      .scale_log2 = scale * kLog2E};
  return launch_early(segment_kernel, static_cast<unsigned>(std::min(multiprocessors, args.items)),
                      (kGroups + 1) * kWarpgroup, kShared, s, q_map, key_rows_map, key_map, value_map, args);
}

}  // namespace chiasm
