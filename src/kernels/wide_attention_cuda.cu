// Attention of many queries over their whole segment, on the tensor cores of compute capability 9.0 (vision).
//
// Keys and values are packed first: tiles of kWideKeys keys of one head in the very form that wgmma reads from shared
// memory, so that a tile is one copy of the bulk engine. A block holds 128 queries in the registers of two warpgroups,
// which take turns: while one has the tensor cores the other does its softmax (the turns of FlashAttention-3, arXiv
// 2407.08608). A third warpgroup's first thread asks for tiles ahead. The walk begins at the segment's first key and
// its tiles have one size: a row's bits depend on its own segment only.
#include "kernels/kernels_cuda.h"
#include "kernels/wgmma_cuda.cuh"

namespace chiasm {
namespace {

constexpr int kKeys = static_cast<int>(kWideKeys);
constexpr int kGroups = 2, kQueries = kGroups * 64;
constexpr int kSlots = 4;  // tiles of keys and of values, in turn
constexpr float kLog2E = 1.4426950408889634F;
static_assert(kQueries == kQueryTileRows);

// A tile's bytes in the order of shared memory: slabs of 16 columns, halves of rows swapped as wgmma_cuda.cuh has it.
template <int kDim>
__global__ void pack_kernel(const bf16* k, const bf16* v, std::int64_t k_stride, std::int64_t v_stride,
                            const KeyTile* tiles, uint4* out) {
  constexpr int kPieces = kKeys * kDim / 8;
  const KeyTile tile = tiles[blockIdx.x];
  const auto head = static_cast<std::int64_t>(blockIdx.y), heads = static_cast<std::int64_t>(gridDim.y);
  const bf16* const from = (blockIdx.z == 0 ? k : v) + head * kDim;
  const std::int64_t stride = blockIdx.z == 0 ? k_stride : v_stride;
  out += ((blockIdx.x * heads + head) * 2 + blockIdx.z) * kPieces;
  for (int i = static_cast<int>(threadIdx.x); i < kPieces; i += static_cast<int>(blockDim.x)) {
    const int slab = i / (kKeys * 2), row = i % (kKeys * 2) / 2, half = i % 2 ^ row / 4 % 2;
    const int key = tile.first_key + row;
    out[i] = key < tile.keys
                 ? *reinterpret_cast<const uint4*>(from + (tile.first_row + key) * stride + slab * 16 + half * 8)
                 : make_uint4(0, 0, 0, 0);
  }
}

struct Operands {
  const bf16* q;
  std::int64_t q_stride;
  const unsigned char* packed;
  bf16* out;
  std::int64_t out_stride;
  float scale_log2;
};

template <int kDim>
__global__ void __launch_bounds__((kGroups + 1) * kWarpgroup, 1)
    wide_kernel(const Operands args, const QueryTile* tiles) {
  constexpr int kSteps = kDim / kSlabColumns, kWide = kDim / 8;
  constexpr int kKeySlab = kKeys * kSlabRow, kTile = kSteps * kKeySlab;
  extern __shared__ __align__(1024) unsigned char shared[];  // [kSlots] tiles
  __shared__ __align__(8) std::uint64_t barriers[2 * kSlots];
  const std::uint32_t slots = shared_address(shared), full = shared_address(barriers), empty = full + 8 * kSlots;
  const QueryTile tile = tiles[blockIdx.x];
  const auto head = static_cast<std::int64_t>(blockIdx.y), heads = static_cast<std::int64_t>(gridDim.y);
  const int tile_count = (tile.keys + kKeys - 1) / kKeys;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kGroups * 4);
    }
    fence_barrier_init();
  }
  __syncthreads();

  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x != 0) return;
    const unsigned char* const from = args.packed + (tile.table * heads + head) * 2 * kTile;
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
    const bf16* const q_head = args.q + tile.first_row * args.q_stride + head * kDim;
    const int first_query = tile.first_query + group * 64 + warp * 16 + lane / 4;  // of this thread; its other is 8 on
    std::uint32_t queries[4 * kSteps];
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = first_query + i % 2 * 8;
        queries[4 * step + i] = query < tile.queries
                                    ? *reinterpret_cast<const std::uint32_t*>(q_head + query * args.q_stride +
                                                                              step * 16 + i / 2 * 8 + lane % 4 * 2)
                                    : 0;
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
      if ((index + 1) * kKeys > tile.keys) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i)
          if (index * kKeys + i / 4 * 8 + lane % 4 * 2 + i % 2 >= tile.keys) scores[i] = -INFINITY;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // rows lane / 4 and lane / 4 + 8
        float most = highest[half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
          most = fmaxf(most, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
        const float shift = most * args.scale_log2;  // every tile has a key of the segment: finite
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
      bf16* const to = args.out + (tile.first_row + query) * args.out_stride + head * kDim + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kWide; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack2(out[4 * n + 2 * half] * inverse, out[4 * n + 2 * half + 1] * inverse);
    }
  }
}

bool aligned_rows(const CudaView& v) { return v.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0; }

}  // namespace

bool can_attend_wide_cuda(CudaView q, CudaView k, CudaView v, CudaView out, std::int64_t heads) {
  return q.cols == heads * 80 && aligned_rows(q) && aligned_rows(k) && aligned_rows(v) && aligned_rows(out);
}

cudaError_t wide_attention_cuda(CudaView q, CudaView k, CudaView v, std::int64_t heads, float scale,
                                const KeyTile* key_tiles, std::int64_t key_tile_count, const QueryTile* tiles,
                                std::int64_t tile_count, void* packed, CudaView out, cudaStream_t s) {
  constexpr int kDim = 80;
  if (tile_count == 0) return cudaSuccess;
  pack_kernel<kDim><<<dim3(static_cast<unsigned>(key_tile_count), static_cast<unsigned>(heads), 2), 256, 0, s>>>(
      static_cast<const bf16*>(k.data), static_cast<const bf16*>(v.data), k.stride, v.stride, key_tiles,
      static_cast<uint4*>(packed));
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  constexpr int kShared = 2 * kDim * kSlots * kKeys;
  const cudaError_t raised =
      cudaFuncSetAttribute(wide_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (raised != cudaSuccess) return raised;
  const Operands args{static_cast<const bf16*>(q.data), q.stride,   static_cast<const unsigned char*>(packed),
                      static_cast<bf16*>(out.data),     out.stride, scale * kLog2E};
  wide_kernel<kDim><<<dim3(static_cast<unsigned>(tile_count), static_cast<unsigned>(heads)), (kGroups + 1) * kWarpgroup,
                      kShared, s>>>(args, tiles);
  return cudaGetLastError();
}

}  // namespace chiasm
