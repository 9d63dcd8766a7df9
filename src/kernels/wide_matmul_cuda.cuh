// out [m, n] = x [m, k] weight [n, k]^T by wgmma, from tiles that the copy engine brings; both BF16, or both e4m3,
// whose tiles have twice the columns in the same bytes. Included by wide_matmul_cuda.cu and wide_matmul_fp8_cuda.cu
// only.
//
// A block has 128 rows of out and kColumns columns of it at a time, and goes on to its next such tile (a persistent
// grid). Its first warpgroup asks for operands ahead, the two others multiply: either together, 64 rows each, or in
// turn, a tile each, so that one's way out (bias, activation, stores) runs beside the other's products. Two blocks are
// a cluster, which has two tiles below each other: the weights that both need are read once and written to both.
#pragma once

#include <algorithm>

#include "kernels/tensor_map_cuda.h"
#include "kernels/tensor_tiles_cuda.cuh"
#include "kernels/wide_matmul_cuda.h"

namespace chiasm {
namespace {

constexpr int kRows = 128;  // of a tile
template <bool kFp8>
constexpr int kDepth = kFp8 ? kTileRowBytes : kTileRowBytes / 2;  // k of one stage
constexpr int kCluster = 2;
constexpr int kMostShared = 227 * 1024;

// On their way out, 64 rows of 160 bytes (80 BF16 or 40 F32 columns; lanes meet in few banks) are in shared memory, two
// such boxes for each warpgroup in turn.
constexpr int kBoxRows = 64, kBoxRow = 160, kBoxBytes = kBoxRows * kBoxRow, kBoxes = 2;
constexpr int kAllBoxes = 2 * kBoxes * kBoxBytes;

template <int Columns, bool InTurn>
struct Shape {
  static constexpr int kColumns = Columns;
  static constexpr bool kInTurn = InTurn;
  static constexpr int kParts = InTurn ? 2 : 1;          // of 64 rows, that a warpgroup has of a tile
  static constexpr int kWeightBox = Columns / kCluster;  // what a block reads for its cluster
  static constexpr int kXBytes = kRows * kTileRowBytes, kStageBytes = kXBytes + Columns * kTileRowBytes;
  static constexpr int kStages = std::min(8, (kMostShared - 2048 - kAllBoxes) / kStageBytes);
  static constexpr int kShared = kStages * kStageBytes + kAllBoxes + 1024;  // the tiles begin at a multiple of 1024
  static_assert(Columns % 80 == 0 && kWeightBox % 8 == 0 && kStages >= 3);
};

struct Task {
  const float *row_scales, *scales, *bias;
  const float *cos, *sin;
  int m, n, k, turned;
  bool add, fresh_weight;
};

// What is between sums and out. One kernel each: code that is passed through once a tile has to be short.
enum class Way { kBf16, kQuickGelu, kGelu, kTurned, kF32 };

// The tiles of a cluster, two below each other: all columns of two rows of tiles, then of the next two, so that
// clusters at work at the same time read the same rows of x, which L2 gives to several in one go.
template <class S>
struct Tiles {
  int column_tiles, count;  // of clusters
  __host__ __device__ Tiles(int m, int n) {
    constexpr int kAllRows = kCluster * kRows;
    column_tiles = (n + S::kColumns - 1) / S::kColumns, count = (m + kAllRows - 1) / kAllRows * column_tiles;
  }
  // Where the tile of the block of this rank begins.
  __device__ int2 first(int tile, int rank) const {
    return make_int2((tile / column_tiles * kCluster + rank) * kRows, tile % column_tiles * S::kColumns);
  }
};

// activate()'s, with a quick division: what that errs by is far below a BF16 rounding.
__device__ inline float quick_gelu(float x) { return __fdividef(x, 1.0F + __expf(-1.702F * x)); }

__device__ inline void store_shared(std::uint32_t to, std::uint32_t x) {
  asm volatile("st.shared.b32 [%0], %1;\n" ::"r"(to), "r"(x) : "memory");
}
__device__ inline void store_shared(std::uint32_t to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};\n" ::"r"(to), "f"(x), "f"(y) : "memory");
}

// The way out of 64 rows of a tile for one warpgroup: through boxes, from where the copy engine stores them or adds
// them to what is there.
template <Way way, int kColumns, bool kFp8>
struct WayOut {
  static constexpr int kSize = way == Way::kF32 ? 4 : 2, kBoxColumns = kBoxRow / kSize;
  static_assert(kColumns % kBoxColumns == 0);

  const CUtensorMap& map;
  const Task& task;
  std::uint32_t boxes;
  int barrier;  // of this warpgroup
  int next = 0;

  // sums[n / 8 * 4 + half * 2 + i] is row lane / 4 + 8 half of its warp's 16, column n + lane % 4 * 2 + i.
  __device__ void store(float (&sums)[kColumns / 2], int first_row, int first_column) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp % 4;
    const int row = warp * 16 + lane / 4, pair = lane % 4 * 2;
    if constexpr (kFp8) {
      scale_and_add_bias(sums, first_row + row, first_column, pair);
    } else {
      if (task.bias != nullptr) add_bias(sums, first_column, pair);
    }
    if constexpr (way == Way::kTurned) {
      turn_heads<0>(sums, first_row + row, first_column, pair);
      turn_heads<1>(sums, first_row + row + 8, first_column, pair);
    }
    const bool asks = threadIdx.x % kWarpgroup == 0;
#pragma unroll
    for (int box = 0; box < kColumns / kBoxColumns; ++box) {
      const int column = first_column + box * kBoxColumns;
      if (column >= task.n) break;
      if (asks) bulk_wait_read<kBoxes - 1>();
      turn_wait(barrier, kWarpgroup);
      const std::uint32_t to = boxes + next * kBoxBytes, own = to + row * kBoxRow + pair * kSize;
#pragma unroll
      for (int block = 0; block < kBoxColumns / 8; ++block)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float a = sums[4 * (box * (kBoxColumns / 8) + block) + 2 * half];
          float b = sums[4 * (box * (kBoxColumns / 8) + block) + 2 * half + 1];
          if constexpr (way == Way::kQuickGelu) a = quick_gelu(a), b = quick_gelu(b);
          if constexpr (way == Way::kGelu) a = activate(a, 2), b = activate(b, 2);
          const std::uint32_t at = own + half * 8 * kBoxRow + block * 8 * kSize;
          if constexpr (way == Way::kF32)
            store_shared(at, a, b);
          else
            store_shared(at, pack2(a, b));
        }
      fence_for_copies();
      turn_wait(barrier, kWarpgroup);
      if (asks) {
        if (way == Way::kF32 && task.add)
          add_box(map, column, first_row, to);
        else
          store_box(map, column, first_row, to);
        bulk_commit();
      }
      next ^= 1;
    }
  }

  // Before the block ends.
  __device__ void finish() const { bulk_wait_read<0>(); }

 private:
  __device__ void add_bias(float (&sums)[kColumns / 2], int first_column, int pair) const {
    constexpr int kBlocks = kColumns / 8, kAhead = 10;
    const float* const from = task.bias + first_column + pair;
#pragma unroll
    for (int group = 0; group < kBlocks; group += kAhead) {
      float2 bias[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        bias[i] = make_float2(0, 0);
        if (first_column + (group + i) * 8 < task.n) bias[i] = *reinterpret_cast<const float2*>(from + (group + i) * 8);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        float* const sum = sums + 4 * (group + i);
        sum[0] += bias[i].x, sum[1] += bias[i].y, sum[2] += bias[i].x, sum[3] += bias[i].y;
      }
    }
  }

  __device__ void scale_and_add_bias(float (&sums)[kColumns / 2], int row, int first_column, int pair) const {
    constexpr int kBlocks = kColumns / 8, kAhead = 5;
    const float upper = task.row_scales[min(row, task.m - 1)], lower = task.row_scales[min(row + 8, task.m - 1)];
    const std::int64_t first = first_column + pair;
#pragma unroll
    for (int group = 0; group < kBlocks; group += kAhead) {
      float2 scale[kAhead], bias[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        scale[i] = bias[i] = make_float2(0, 0);
        if (first_column + (group + i) * 8 >= task.n) continue;
        const std::int64_t at = first + (group + i) * 8;
        scale[i] = *reinterpret_cast<const float2*>(task.scales + at);
        if (task.bias != nullptr) bias[i] = *reinterpret_cast<const float2*>(task.bias + at);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        float* const sum = sums + 4 * (group + i);
        sum[0] = fmaf(sum[0] * upper, scale[i].x, bias[i].x), sum[1] = fmaf(sum[1] * upper, scale[i].y, bias[i].y);
        sum[2] = fmaf(sum[2] * lower, scale[i].x, bias[i].x), sum[3] = fmaf(sum[3] * lower, scale[i].y, bias[i].y);
      }
    }
  }

  template <int kHalf>
  __device__ void turn_heads(float (&sums)[kColumns / 2], int row, int first_column, int pair) const {
    constexpr int kHalfHead = kTurnedHead / 2, kBlocks = kHalfHead / 8;
    if (first_column >= task.turned) return;
    const std::int64_t angles = static_cast<std::int64_t>(min(row, task.m - 1)) * kHalfHead + pair;
    const float *const all_cos = task.cos + angles, *const all_sin = task.sin + angles;
    float2 cos[kBlocks], sin[kBlocks];
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      cos[i] = *reinterpret_cast<const float2*>(all_cos + i * 8);
      sin[i] = *reinterpret_cast<const float2*>(all_sin + i * 8);
    }
#pragma unroll
    for (int head = 0; head < kColumns / kTurnedHead; ++head) {
      if (first_column + head * kTurnedHead >= task.turned) break;
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        const int first = 4 * (head * 2 * kBlocks + i) + 2 * kHalf, second = first + 4 * kBlocks;
        turn(sums[first], sums[second], cos[i].x, sin[i].x);
        turn(sums[first + 1], sums[second + 1], cos[i].y, sin[i].y);
      }
    }
  }
};

template <class S, Way way, bool kFp8>
__global__ void __launch_bounds__(3 * kWarpgroup, 1)
    wide_matmul_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                       const __grid_constant__ CUtensorMap out, const Task task) {
  constexpr int kStages = S::kStages, kStep = kDepth<kFp8>;
  extern __shared__ unsigned char shared[];
  __shared__ __align__(8) std::uint64_t barriers[2 * kStages];
  const std::uint32_t stages = (shared_address(shared) + 1023) / 1024 * 1024;
  const std::uint32_t full = shared_address(barriers), empty = full + 8 * kStages;
  let_next_begin();
  const int rank = rank_in_cluster();
  if (threadIdx.x == 0) {
    prefetch_map(x), prefetch_map(weight), prefetch_map(out);
    for (int i = 0; i < kStages; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kCluster * 4 * (S::kInTurn ? 1 : 2));
    }
    fence_barrier_init();
  }
  cluster_meet();
  const Tiles<S> tiles(task.m, task.n);
  const int cluster = static_cast<int>(blockIdx.x) / kCluster, clusters = static_cast<int>(gridDim.x) / kCluster;
  const int steps = (task.k + kStep - 1) / kStep;

  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      constexpr std::uint16_t kAll = (1 << kCluster) - 1;
      int stage = 0, parity = 1;  // a stage's first user does not wait
      bool waited = task.fresh_weight;
      if (waited) wait_for_previous();
      for (int tile = cluster; tile < tiles.count; tile += clusters) {
        const auto [row, column] = tiles.first(tile, rank);
        for (int step = 0; step < steps; ++step) {
          barrier_wait(empty + 8 * stage, parity);
          const std::uint32_t to = stages + stage * S::kStageBytes, barrier = full + 8 * stage;
          barrier_expect(barrier, S::kStageBytes);
          copy_box(to + S::kXBytes + rank * S::kWeightBox * kTileRowBytes, weight, step * kStep,
                   column + rank * S::kWeightBox, barrier, kAll);
          if (!waited) wait_for_previous();  // the weight was there before
          waited = true;
          // Not the form for several blocks: of that L2 does not join what different clusters ask for.
          copy_box(to, x, step * kStep, row, barrier);
          if (++stage == kStages) stage = 0, parity ^= 1;
        }
      }
    }
  } else {
    take_registers<240>();
    wait_for_previous();
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1, lane = static_cast<int>(threadIdx.x) % kWarp;
    const int own_row = S::kInTurn ? 0 : group * 64 * S::kParts;
    const auto release = [&](int stage) {
      __syncwarp();
      if (lane < kCluster) barrier_arrive_at(empty + 8 * stage, lane);
    };
    WayOut<way, S::kColumns, kFp8> way_out{.map = out,
                                           .task = task,
                                           .boxes = stages + kStages * S::kStageBytes + group * kBoxes * kBoxBytes,
                                           .barrier = 3 + group};
    int stage = 0, parity = 0, turn_of = 0;
    for (int tile = cluster; tile < tiles.count; tile += clusters) {
      if constexpr (S::kInTurn) {
        const bool other = turn_of != group;
        turn_of ^= 1;
        if (other) {
          const int next = stage + steps;
          parity ^= next / kStages % 2, stage = next % kStages;
          continue;
        }
        // One that waited for a stage ahead of the other group would take an earlier phase of its barrier for its own.
        if (group == 1 || tile != cluster) turn_wait(1 + group, 2 * kWarpgroup);
      }
      float sums[S::kParts][S::kColumns / 2];
      int before = 0;
      for (int step = 0; step < steps; ++step) {
        barrier_wait(full + 8 * stage, parity);
        const std::uint32_t x_tile = stages + stage * S::kStageBytes + own_row * kTileRowBytes;
        const std::uint32_t weight_tile = stages + stage * S::kStageBytes + S::kXBytes;
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < kTileRowBytes / kWgmmaBytes; ++i)
#pragma unroll
          for (int part = 0; part < S::kParts; ++part)
            wgmma<kFp8>(sums[part], tile_descriptor(x_tile + part * 64 * kTileRowBytes, i),
                        tile_descriptor(weight_tile, i), step + i != 0);
        wgmma_commit();
        if (step > 0) {
          wgmma_wait<1>();
          release(before);
        }
        before = stage;
        if (++stage == kStages) stage = 0, parity ^= 1;
      }
      if (S::kInTurn && tile + clusters < tiles.count) turn_give(2 - group, 2 * kWarpgroup);
      wgmma_wait<0>();
      release(before);
      const auto [row, column] = tiles.first(tile, rank);
#pragma unroll
      for (int part = 0; part < S::kParts; ++part) {
        keep_in_place(sums[part]);
        way_out.store(sums[part], row + own_row + part * 64, column);
      }
    }
    if (threadIdx.x % kWarpgroup == 0) way_out.finish();
  }
  cluster_meet();  // the other block may still write here
}

using Widest = Shape<240, false>;
using Wide = Shape<160, true>;
using Narrow = Shape<80, true>;

// In units of one column of a tile, which e4m3 has in half the time: what the busiest block does.
template <class S, bool kFp8>
std::int64_t cost(int m, int n, int multiprocessors) {
  // A tile's way out with nothing beside it; a change of turns, and the way out of the last.
  constexpr std::int64_t kUnits = kFp8 ? 2 : 1, kWayOut = 32 * kUnits, kChange = 4 * kUnits, kLast = 48 * kUnits;
  const std::int64_t clusters = multiprocessors / kCluster, turns = (Tiles<S>(m, n).count + clusters - 1) / clusters;
  return S::kInTurn ? turns * (S::kColumns + kChange) + kLast : turns * (S::kColumns + kWayOut);
}

template <class S, Way way, bool kFp8>
cudaError_t launch(const WideProduct& product, CudaView out, const Task& task, int multiprocessors, cudaStream_t s) {
  CUtensorMap x, weight, to;
  const std::int64_t stride = kFp8 ? product.x.stride : task.k;
  const CudaView weights{const_cast<void*>(product.weight), task.n, task.k, stride, false};
  const auto make_map = kFp8 ? make_fp8_tile_map : make_tile_map;
  cudaError_t error = make_map(product.x, kRows, x);
  if (error == cudaSuccess) error = make_map(weights, S::kWeightBox, weight);
  if (error == cudaSuccess) error = make_box_map(out, kBoxRows, WayOut<way, S::kColumns, kFp8>::kBoxColumns, to);
  const auto kernel = wide_matmul_kernel<S, way, kFp8>;
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kShared);
  if (error != cudaSuccess) return error;
  const auto grid = static_cast<unsigned>(multiprocessors / kCluster * kCluster);
  return launch_early_in_clusters(kernel, kCluster, grid, 3 * kWarpgroup, S::kShared, s, x, weight, to, task);
}

template <Way way, bool kFp8>
cudaError_t launch_best(const WideProduct& product, CudaView out, const Task& task, int multiprocessors,
                        cudaStream_t s) {
  const std::int64_t widest = cost<Widest, kFp8>(task.m, task.n, multiprocessors),
                     wide = cost<Wide, kFp8>(task.m, task.n, multiprocessors),
                     narrow = cost<Narrow, kFp8>(task.m, task.n, multiprocessors);
  if (wide <= widest && wide <= narrow) return launch<Wide, way, kFp8>(product, out, task, multiprocessors, s);
  if (widest <= narrow) return launch<Widest, way, kFp8>(product, out, task, multiprocessors, s);
  return launch<Narrow, way, kFp8>(product, out, task, multiprocessors, s);
}

template <bool kFp8>
cudaError_t multiply_wide(const WideProduct& product, CudaView out, int multiprocessors, cudaStream_t s) {
  const Task task{.row_scales = product.row_scales,
                  .scales = product.scales,
                  .bias = product.bias,
                  .cos = product.cos,
                  .sin = product.sin,
                  .m = static_cast<int>(product.x.rows),
                  .n = static_cast<int>(out.cols),
                  .k = static_cast<int>(product.x.cols),
                  .turned = static_cast<int>(product.turned),
                  .add = product.add_to_out,
                  .fresh_weight = product.fresh_weight};
  const auto by = [&]<Way way>() { return launch_best<way, kFp8>(product, out, task, multiprocessors, s); };
  if (out.f32) return by.template operator()<Way::kF32>();
  if (product.turned > 0) return by.template operator()<Way::kTurned>();
  if (product.activation == 1) return by.template operator()<Way::kQuickGelu>();
  if (product.activation == 2) return by.template operator()<Way::kGelu>();
  return by.template operator()<Way::kBf16>();
}

}  // namespace
}  // namespace chiasm
