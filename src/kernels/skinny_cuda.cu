// A few rows times a weight: decode. Bound by reading the weight once; the tensor cores only keep the arithmetic out of
// the way.
//
// A warp computes 16 outputs (the M side of m16n8k16) for up to 8 rows at a time (the N side). The order of k
// inside a product does not matter as long as both operands agree, so every lane reads 16 bytes in a row from a weight
// row and from x and hands them to the mma's as they are: no shared memory, no shuffles. Small weights become BF16 in
// registers. A team of warps has a tile of outputs and divides k; how, is fixed by the weight's shape, and each row's
// sums are its own column: a row's bits do not depend on how many there are. There are as many teams as run at once,
// and they walk over the outputs; the next weights are always on their way.
#include <algorithm>

#include "kernels/integers_cuda.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kOutputs = 16;               // of one mma
constexpr int kPartialRow = kOutputs + 4;  // in shared memory: a store's lanes meet other banks
template <class Inputs>
constexpr int kChunk = 4 * Inputs::kInputs;  // k of one read: 4 lanes
constexpr int kReadBytes = 4 * 16;

constexpr int kMultiprocessors = 132;
constexpr std::size_t kPlainShared = 48 << 10;  // what a block gets without asking

__device__ inline uint4 load_stream(const unsigned char* p) {  // read once: past L1
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
// The warps of a team.
__device__ inline void team_meets(int team, int warps) {
  if (warps == 1) return __syncwarp();
  asm volatile("bar.sync %0, %1;\n" ::"r"(team + 1), "r"(warps * kWarp) : "memory");
}

// How a weight is divided: a function of its shape, the order of a sum follows from it.
struct Division {
  int blocks = 1;           // at most
  int teams = 1;            // of a block
  int warps = 1;            // of a team
  int most_warps = 1;       // of a block that is compiled for as many
  int chunks_per_warp = 1;  // reads of all lanes
  int results = kOutputs;   // of a tile
  int passes = 1;           // tiles of a team, at most
};
// Small weights have one kind of block. BF16 has two: where outputs are few a block has its multiprocessor alone, so
// that more warps read more of k at once; else two share it, and one begins to read while one of the kernel in front
// still ends.
constexpr int kSmallWarps = 16, kFewOutputsWarps = 12, kSharingWarps = 8;

struct Operands {
  const void* x;  // BF16, or F32 that is normed first
  std::int64_t x_stride;
  int rows;
  CudaMatrix weight;
  int n, k;
  Division division;
  int normed_at;  // in shared memory, in floats
  const float *norm_weight, *bias;
  float eps;
  int activation;
  bool add;
};

// Elements between two rows of normed values in shared memory: neighbours lie in other banks.
__host__ __device__ constexpr int normed_stride(int k) { return k + 32; }

__device__ inline void prefetch_line(const void* p) { asm volatile("prefetch.global.L2 [%0];\n" ::"l"(p)); }

// kTiles: groups of 8 rows; it does not change the order of a sum. kNorm: x are F32 rows, normed by every block for
// itself. kGated: a tile is up to 8 outputs of the gate and the same of the other half, of which one result is made.
template <class Inputs, int kTiles, class Out, bool kNorm, bool kGated, int kMostWarps>
__global__ void __launch_bounds__(kMostWarps* kWarp, kMostWarps == kSharingWarps ? 2 : 1)
    skinny_kernel(const Operands o, int tiles, Out* out, std::int64_t out_stride) {
  extern __shared__ __align__(16) float shared[];  // twice [warps][kTiles * 8][kPartialRow], then normed x
  constexpr int kUnroll = kTiles == 1 ? Inputs::kReads : 2;
  constexpr int kWide = kChunk<Inputs>, kLane = Inputs::kInputs, kUnits = kLane / 8;
  constexpr Scaling kScaling = Inputs::kScaling;
  constexpr int kScales = kScaling == Scaling::kOutputs ? 1 : kUnroll / Inputs::kReadsOfGroup;
  constexpr bool kByGroups = kScaling == Scaling::kGroups;
  constexpr int kChains = kScaling == Scaling::kNone ? 1 : 2, kReadsAtOnce = kUnits == 1 ? kUnroll : 1;
  const int k = o.k, rows = o.rows, warps = o.division.warps;
  const int results_of_tile = kScaling == Scaling::kNone ? (kGated ? kOutputs / 2 : kOutputs) : o.division.results;
  const int chunks_per_warp = o.division.chunks_per_warp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int team = warp / warps, part = warp % warps;
  const int group = lane / 4, quad = lane % 4;
  const int results = kGated ? o.n / 2 : o.n;
  const int chunks = (k + kWide - 1) / kWide;
  const int begin = part * chunks_per_warp, end = min(chunks, begin + chunks_per_warp);
  const int stride = static_cast<int>(gridDim.x) * o.division.teams;  // of a team's tiles
  let_next_begin();
  // Two rounds of weights are always on their way, across outputs too. They never move between registers: a move would
  // wait for them.
  struct Round {
    uint4 raw[kUnroll][2];
    typename Inputs::Scale scale[kScales][2];
  };
  Round even, odd;
  int tile = static_cast<int>(blockIdx.x) + team * static_cast<int>(gridDim.x), reading = tile, chunk_to_read = begin;
  const unsigned char* w[2];
  const void* scales[2];
  bool used[2];  // a lane's rows of the weight
  const auto go_to = [&](int next) {
    reading = next;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int place = kGated ? group : group + 8 * i, output = reading * results_of_tile + place;
      used[i] = place < results_of_tile && output < results;
      const std::int64_t row = used[i] ? output + (kGated && i == 1 ? results : 0) : 0;
      w[i] = static_cast<const unsigned char*>(o.weight.data) + row * o.weight.row_bytes;
      if constexpr (kScaling == Scaling::kOutputs) {
        scales[i] = static_cast<const float*>(o.weight.scales) + row;
      } else if constexpr (kScaling != Scaling::kNone) {
        scales[i] = static_cast<const bf16*>(o.weight.scales) + row * (o.weight.row_bytes / Inputs::kGroupBytes);
      }
    }
  };
  const auto read_weights = [&](Round& to) {
    const int at = chunk_to_read * kWide + quad * kLane;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const bool inside = chunk_to_read + u < end && at + u * kWide < k;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        to.raw[u][i] =
            inside && used[i] ? load_stream(w[i] + at * 16 / kLane + u * kReadBytes) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if constexpr (kScaling == Scaling::kOutputs) {
        to.scale[0][i] = used[i] ? *static_cast<const float*>(scales[i]) : 0.0F;
      } else if constexpr (kScaling != Scaling::kNone) {
#pragma unroll
        for (int u = 0; u < kScales; ++u) {
          const int chunk = chunk_to_read + u * Inputs::kReadsOfGroup;
          // A group's scale is for the sums of all lanes' inputs, whichever lane has them.
          const bool inside = used[i] && chunk < end && (kByGroups || chunk * kWide + quad * kLane < k);
          to.scale[u][i] =
              inside ? static_cast<const bf16*>(scales[i])[Inputs::scale_at(chunk, quad)] : __ushort_as_bfloat16(0);
        }
      }
    }
    chunk_to_read += kUnroll;
    if (chunk_to_read >= begin + chunks_per_warp) {
      chunk_to_read = begin;
      go_to(reading + stride);
    }
  };
  go_to(tile);
  read_weights(even);  // nobody's result: they come while kernels in front still run
  read_weights(odd);
  if (o.bias != nullptr && part == 0 && lane < kOutputs / 8)
    prefetch_line(o.bias + min(tile * results_of_tile + lane * 8, o.n - 1));
  if (kNorm && blockIdx.x == 0 && threadIdx.x == 0) prefetch_to_l2(o.norm_weight, k * 4 / 16 * 16);
  wait_for_previous();
  bf16* const normed = reinterpret_cast<bf16*>(shared + o.normed_at);
  if constexpr (kNorm) {
    for (int row = 0; row < rows; ++row) {
      rms_norm_row(static_cast<const float*>(o.x) + row * o.x_stride, o.norm_weight, k, o.eps, shared,
                   normed + row * normed_stride(k));
      __syncthreads();
    }
  }
  // Two chains of sums where there is much to do besides, so that an mma waits for the last but one; where groups are
  // scaled, of a group.
  float sums[kChains][kTiles][4] = {}, scaled[kTiles][4] = {};
  const auto multiply = [&](const Round& weights, int chunk) {
    uint4 b[kReadsAtOnce][kUnits][kTiles];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (u % kReadsAtOnce == 0) {
#pragma unroll
        for (int j = 0; j < kReadsAtOnce * kUnits; ++j) {
          const int read = chunk + u + j / kUnits, at = read * kWide + quad * kLane + j % kUnits * 8;
          const bool inside = read < end && at < k;
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            const int row = t * 8 + group;
            const bf16* const from =
                kNorm ? normed + row * normed_stride(k) : static_cast<const bf16*>(o.x) + row * o.x_stride;
            b[j / kUnits][j % kUnits][t] =
                inside && row < rows ? *reinterpret_cast<const uint4*>(from + at) : make_uint4(0, 0, 0, 0);
          }
        }
      }
#pragma unroll
      for (int unit = 0; unit < kUnits; ++unit) {
        uint4 a[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          a[i] = Inputs::eight(weights.raw[u][i], unit);
          if constexpr (kScaling == Scaling::kInputs)
            a[i] = multiply8(a[i], pair_of(__bfloat16_as_ushort(weights.scale[u][i])));
        }
        const uint4 &top = a[0], &bottom = a[1];
        const std::uint32_t low[4] = {top.x, bottom.x, top.y, bottom.y}, high[4] = {top.z, bottom.z, top.w, bottom.w};
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          const uint4& x = b[u % kReadsAtOnce][unit][t];
          const std::uint32_t b_low[2] = {x.x, x.y}, b_high[2] = {x.z, x.w};
          mma_16x8x16(sums[0][t], low, b_low);
          mma_16x8x16(sums[kChains - 1][t], high, b_high);
        }
      }
      if constexpr (kByGroups) {
        if ((u + 1) % Inputs::kReadsOfGroup != 0) continue;
#pragma unroll
        for (int t = 0; t < kTiles; ++t)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            scaled[t][i] = fmaf(sums[0][t][i] + sums[kChains - 1][t][i],
                                to_float(weights.scale[u / Inputs::kReadsOfGroup][i / 2]), scaled[t][i]);
            sums[0][t][i] = sums[kChains - 1][t][i] = 0;
          }
      }
    }
  };
  // What a tile's sums are, in the first chain's place.
  const auto settle = [&](const Round& last) {
    if constexpr (kScaling != Scaling::kNone) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float sum = kByGroups ? scaled[t][i] : sums[0][t][i] + sums[kChains - 1][t][i];
          if constexpr (kScaling == Scaling::kOutputs) sum *= last.scale[0][i / 2];
          scaled[t][i] = sums[kChains - 1][t][i] = 0;
          sums[0][t][i] = sum;
        }
    }
  };
  // The warps' sums of a tile are joined in two rooms in turn: who is in the second has left the first.
  int parity = 0;
  const auto finish = [&] {
    constexpr int kRoom = kTiles * 8 * kPartialRow;  // floats of a warp
    float* const partial = shared + (2 * team + parity) * warps * kRoom;
    parity ^= 1;
    // sums: outputs group and group + 8, rows 2 * quad and 2 * quad + 1 of each group of 8.
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[part * kRoom + (t * 8 + 2 * quad + i % 2) * kPartialRow + group + i / 2 * 8] = sums[0][t][i];
        sums[0][t][i] = 0;
      }
    // What a result needs besides is read before the others' sums are waited for.
    struct Result {
      int place, output;
      bool inside;
      Out* to;
      float bias, other_bias, before;
      const float* sums;
    };
    const auto result_of = [&](int i) {
      const int row = i / results_of_tile;
      Result r{};
      r.place = i - row * results_of_tile;
      r.output = tile * results_of_tile + r.place;
      r.inside = row < rows && r.output < results;
      if (!r.inside) return r;
      r.to = out + row * out_stride + r.output;
      r.sums = partial + row * kPartialRow + r.place;
      r.bias = o.bias == nullptr ? 0.0F : o.bias[r.output];
      if constexpr (kGated) r.other_bias = o.bias == nullptr ? 0.0F : o.bias[r.output + results];
      if (o.add) r.before = to_float(*r.to);
      return r;
    };
    int i = part * kWarp + lane;
    Result r = result_of(i);
    team_meets(team, warps);
    while (i < rows * results_of_tile) {
      if (r.inside) {
        float value = 0, other = 0;
        for (int j = 0; j < warps; ++j) {
          value += r.sums[j * kRoom];
          if constexpr (kGated) other += r.sums[j * kRoom + 8];
        }
        value += r.bias;
        if constexpr (kGated) {
          value = silu(value) * (other + r.other_bias);
        } else {
          value = activate(value, o.activation);
        }
        *r.to = from_float<Out>(o.add ? r.before + value : value);
      }
      i += warps * kWarp;
      r = result_of(i);
    }
  };
  int chunk = begin;
  // One round; false behind the last.
  const auto advance = [&](Round& weights) {
    multiply(weights, chunk);
    chunk += kUnroll;
    const bool done = chunk >= begin + chunks_per_warp;
    if (done) settle(weights);
    read_weights(weights);
    if (!done) return true;
    finish();
    chunk = begin;
    tile += stride;
    return tile < tiles;
  };
  if (tile >= tiles) return;
  while (advance(even) && advance(odd)) {
  }
}

int up(int a, int b) { return (a + b - 1) / b; }

// Into teams that have at most so many warps, a warp's part of k in whole rounds. `even`: tiles of fewer outputs, as
// many as lets all teams have the same number of tiles.
template <class Inputs>
Division divide(int results, int k, bool gated, int blocks, int teams, int most_warps, bool even) {
  const int chunks = up(k, kChunk<Inputs>), most = gated ? kOutputs / 2 : kOutputs, places = blocks * teams;
  Division out{.blocks = blocks, .teams = teams, .most_warps = most_warps, .results = most};
  out.chunks_per_warp = up(up(chunks, Inputs::kReads), most_warps / teams) * Inputs::kReads;
  out.warps = up(chunks, out.chunks_per_warp);
  out.passes = up(results, most * places);
  if (even) out.results = up(results, out.passes * places);
  return out;
}

template <class Inputs>
Division division_of(int results, int k, bool gated) {
  if constexpr (Inputs::kScaling == Scaling::kNone) {
    const bool few = up(results, gated ? kOutputs / 2 : kOutputs) <= kMultiprocessors;
    return few ? divide<Inputs>(results, k, gated, kMultiprocessors, 1, kFewOutputsWarps, false)
               : divide<Inputs>(results, k, gated, 2 * kMultiprocessors, 1, kSharingWarps, false);
  }
  // Small weights are bound by what is done to make numbers of them, in a tile's unused places too, and by warps that
  // wait for each other at its end: the division with the least of both. The two constants are fitted to times of the
  // published sizes' shapes in every format.
  constexpr int kOneWarp = 8, kOneTile = 48, kUnits = Inputs::kInputs / 8;
  const auto cost = [](const Division& d) {
    return d.passes * (kUnits * (d.teams * d.warps + kOneWarp) * d.chunks_per_warp + kOneTile);
  };
  Division best;
  for (int teams = 1; teams <= kSmallWarps / 2; ++teams) {
    const Division d = divide<Inputs>(results, k, gated, kMultiprocessors, teams, kSmallWarps, true);
    if (teams == 1 || cost(d) < cost(best)) best = d;
  }
  return best;
}

template <class Inputs, int kTiles, class Out, bool kNorm, bool kGated, int kMostWarps>
cudaError_t launch(Operands o, const CudaView& out, cudaStream_t s) {
  const Division& d = o.division;
  const int tiles = up(kGated ? o.n / 2 : o.n, d.results);
  std::size_t shared = 2 * static_cast<std::size_t>(d.teams) * d.warps * kTiles * 8 * kPartialRow * sizeof(float);
  if (kNorm) {  // the squares lie where the sums will
    shared = (std::max(shared, static_cast<std::size_t>(o.k)) + 15) / 16 * 16;
    o.normed_at = static_cast<int>(shared / sizeof(float));
    shared += static_cast<std::size_t>(o.rows) * normed_stride(o.k) * sizeof(bf16);
  }
  const auto kernel = skinny_kernel<Inputs, kTiles, Out, kNorm, kGated, kMostWarps>;
  if (shared > kPlainShared) {
    const auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (const cudaError_t error = cudaFuncSetAttribute(kernel, most, static_cast<int>(shared)); error != cudaSuccess)
      return error;
  }
  return launch_early(kernel, static_cast<unsigned>(std::min(tiles, d.blocks)),
                      static_cast<unsigned>(d.teams * d.warps * kWarp), shared, s, o, tiles,
                      static_cast<Out*>(out.data), out.stride);
}

template <class Inputs, class Out, int kMostWarps>
cudaError_t by_form(const Operands& o, bool gated, const CudaView& out, cudaStream_t s) {
  const auto form = [&]<int kTiles, bool kNorm>() {
    return gated ? launch<Inputs, kTiles, Out, kNorm, true, kMostWarps>(o, out, s)
                 : launch<Inputs, kTiles, Out, kNorm, false, kMostWarps>(o, out, s);
  };
  if (o.norm_weight != nullptr) return form.template operator()<1, true>();
  return o.rows <= 8 ? form.template operator()<1, false>() : form.template operator()<2, false>();
}

template <class Inputs>
cudaError_t by_division(Operands o, bool gated, const CudaView& out, cudaStream_t s) {
  o.division = division_of<Inputs>(gated ? o.n / 2 : o.n, o.k, gated);
  const auto blocks_of = [&]<int kMostWarps>() {
    return out.f32 ? by_form<Inputs, float, kMostWarps>(o, gated, out, s)
                   : by_form<Inputs, bf16, kMostWarps>(o, gated, out, s);
  };
  if constexpr (Inputs::kScaling != Scaling::kNone) {
    return blocks_of.template operator()<kSmallWarps>();
  } else {
    return o.division.most_warps == kFewOutputsWarps ? blocks_of.template operator()<kFewOutputsWarps>()
                                                     : blocks_of.template operator()<kSharingWarps>();
  }
}

cudaError_t multiply(const Operands& o, bool gated, const CudaView& out, cudaStream_t s) {
  switch (o.weight.format) {
    case CudaFormat::kBf16: return by_division<Bf16Inputs>(o, gated, out, s);
    case CudaFormat::kInt8:
      return o.weight.group == 32 ? by_division<Int8FineInputs>(o, gated, out, s)
                                  : by_division<Int8Inputs>(o, gated, out, s);
    case CudaFormat::kInt4: return by_division<Int4Inputs>(o, gated, out, s);
    case CudaFormat::kFp8: return by_division<Fp8Inputs>(o, gated, out, s);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t skinny_matmul_cuda(const SkinnyProduct& p, CudaView out, cudaStream_t s) {
  if (p.x.rows == 0) return cudaSuccess;
  const Operands o{.x = p.x.data,
                   .x_stride = p.x.stride,
                   .rows = static_cast<int>(p.x.rows),
                   .weight = p.weight,
                   .n = static_cast<int>(out.cols),
                   .k = static_cast<int>(p.x.cols),
                   .division = {},
                   .normed_at = 0,
                   .norm_weight = p.norm_weight,
                   .bias = p.bias,
                   .eps = p.eps,
                   .activation = p.activation,
                   .add = p.add_to_out};
  return multiply(o, p.gated, out, s);
}

}  // namespace chiasm
