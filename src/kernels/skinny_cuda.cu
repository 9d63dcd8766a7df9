// A few rows times a weight: decode. Bound by reading the weight once; the tensor cores only keep the arithmetic out of
// the way.
//
// A warp computes 16 outputs (the M side of m16n8k16) for up to 8 rows at a time (the N side). The order of k
// inside a product does not matter as long as both operands agree, so every lane reads 16 bytes in a row from a weight
// row and from x and hands them to two mma's as they are: no shared memory, no shuffles. The warps of a block split k;
// how, is fixed by the weight's shape, and each row's sums are its own column: a row's bits do not depend on how many
// there are. Integers become BF16 in registers, times their scale, and are multiplied as such. There are as many blocks
// as run at once, and they walk over the outputs; the next weights are always on their way.
#include <algorithm>

#include "kernels/integers_cuda.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kOutputs = 16;  // of one mma
// A warp's share of k is in multiples of so many reads of all lanes.
template <class Inputs>
constexpr int kRound = Inputs::kScaled ? 2 : 4;
template <class Inputs>
constexpr int kChunk = 4 * Inputs::kInputs;  // k of one read: 4 lanes

constexpr int kMultiprocessors = 132;
// Blocks of a weight with few outputs have their multiprocessor alone: more warps read more of k at once. Else two
// share it, and one begins to read while one of the kernel in front still ends.
constexpr int kFewWarps = 8, kManyWarps = 12;
constexpr std::size_t kPlainShared = 48 << 10;  // what a block gets without asking

__device__ inline uint4 load_stream(const unsigned char* p) {  // read once: past L1
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

struct Operands {
  const void* x;  // BF16, or F32 that is normed first
  std::int64_t x_stride;
  int rows;
  CudaMatrix weight;
  int n, k, chunks_per_warp;
  int normed_at;  // in shared memory, in floats
  const float *norm_weight, *bias;
  float eps;
  int activation;
  bool add;
};

// Elements between two rows of normed values in shared memory: neighbours lie in other banks.
__host__ __device__ constexpr int normed_stride(int k) { return k + 32; }

// kTiles: groups of 8 rows; it does not change the order of a sum. kNorm: x are F32 rows, normed by every block for
// itself. kGated: a block's outputs are 8 of the gate and the same 8 of the other half, of which one result is made.
template <class Inputs, int kTiles, class Out, bool kNorm, bool kGated, int kMostWarps>
__global__ void __launch_bounds__(kMostWarps* kWarp, kMostWarps == kFewWarps ? 2 : 1)
    skinny_kernel(const Operands o, int blocks, Out* out, std::int64_t out_stride) {
  extern __shared__ __align__(16) float shared[];  // twice [warps][kTiles * 8][kOutputs], then normed x
  constexpr int kResults = kGated ? kOutputs / 2 : kOutputs;
  constexpr int kUnroll = kTiles == 1 ? kRound<Inputs> : kRound<Inputs> / 2;
  constexpr int kWide = kChunk<Inputs>, kLane = Inputs::kInputs;
  const int warps = static_cast<int>(blockDim.x) / kWarp, k = o.k, rows = o.rows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group = lane / 4, quad = lane % 4;
  const int results = kGated ? o.n / 2 : o.n;
  const int chunks = (k + kWide - 1) / kWide;
  const int begin = warp * o.chunks_per_warp, end = min(chunks, begin + o.chunks_per_warp);
  let_next_begin();
  const unsigned char* w[2];
  const bf16* scales[2];
  const int groups = Inputs::kScaled ? (k + o.weight.group - 1) / o.weight.group : 0;
  const auto go_to = [&](int block) {
    // Outputs beyond the last read the last one's row; nobody stores them.
    const std::int64_t first = block * kResults + group;
    const std::int64_t top = min(first, static_cast<std::int64_t>(results - 1));
    const std::int64_t bottom = kGated ? results + top : min(first + 8, static_cast<std::int64_t>(results - 1));
    const auto* const data = static_cast<const unsigned char*>(o.weight.data);
    w[0] = data + top * o.weight.row_bytes;
    w[1] = data + bottom * o.weight.row_bytes;
    if constexpr (Inputs::kScaled) {
      scales[0] = static_cast<const bf16*>(o.weight.scales) + top * groups;
      scales[1] = static_cast<const bf16*>(o.weight.scales) + bottom * groups;
    }
  };
  // Two rounds of weights are always on their way, across outputs too. They never move between registers: a move would
  // wait for them.
  struct Round {
    uint4 raw[kUnroll][2];
    bf16 scale[kUnroll][2];
  };
  Round even, odd;
  int block = static_cast<int>(blockIdx.x), reading = block, chunk_to_read = begin;
  const auto read_weights = [&](Round& to) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (chunk_to_read + u) * kWide + quad * kLane;
      const bool inside = chunk_to_read + u < end && at < k && reading < blocks;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        to.raw[u][i] = inside ? load_stream(w[i] + at * 16 / kLane) : make_uint4(0, 0, 0, 0);
        if constexpr (Inputs::kScaled)
          to.scale[u][i] = inside ? scales[i][at / o.weight.group] : __ushort_as_bfloat16(0);
      }
    }
    chunk_to_read += kUnroll;
    if (chunk_to_read >= begin + o.chunks_per_warp) {
      chunk_to_read = begin;
      reading += static_cast<int>(gridDim.x);
      go_to(reading);
    }
  };
  go_to(block);
  read_weights(even);  // nobody's result: they come while kernels in front still run
  read_weights(odd);
  wait_for_previous();
  bf16* const normed = reinterpret_cast<bf16*>(shared + o.normed_at);
  if constexpr (kNorm) {
    for (int row = 0; row < rows; ++row) {
      rms_norm_row(static_cast<const float*>(o.x) + row * o.x_stride, o.norm_weight, k, o.eps, shared,
                   normed + row * normed_stride(k));
      __syncthreads();
    }
  }
  float sums[kTiles][4] = {};
  const auto multiply = [&](const Round& weights, int chunk) {
    uint4 b[kUnroll][kLane / 8][kTiles];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int unit = 0; unit < kLane / 8; ++unit) {
        const int at = (chunk + u) * kWide + quad * kLane + unit * 8;
        const bool inside = chunk + u < end && at < k;
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          const int row = t * 8 + group;
          const bf16* const from =
              kNorm ? normed + row * normed_stride(k) : static_cast<const bf16*>(o.x) + row * o.x_stride;
          b[u][unit][t] = inside && row < rows ? *reinterpret_cast<const uint4*>(from + at) : make_uint4(0, 0, 0, 0);
        }
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int unit = 0; unit < kLane / 8; ++unit) {
        uint4 a[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          a[i] = Inputs::eight(weights.raw[u][i], Inputs::kScaled ? to_float(weights.scale[u][i]) : 1.0F, unit);
        const uint4 &top = a[0], &bottom = a[1];
        const std::uint32_t low[4] = {top.x, bottom.x, top.y, bottom.y}, high[4] = {top.z, bottom.z, top.w, bottom.w};
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          const uint4& x = b[u][unit][t];
          const std::uint32_t b_low[2] = {x.x, x.y}, b_high[2] = {x.z, x.w};
          mma_16x8x16(sums[t], low, b_low);
          mma_16x8x16(sums[t], high, b_high);
        }
      }
  };
  // The warps' sums of a block's outputs are joined in two rooms in turn: who is in the second has left the first.
  int parity = 0;
  const auto finish = [&] {
    float* const partial = shared + parity * warps * kTiles * 8 * kOutputs;
    parity ^= 1;
    // sums: outputs group and group + 8, rows 2 * quad and 2 * quad + 1 of each tile.
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      float* to = partial + (warp * kTiles * 8 + t * 8 + 2 * quad) * kOutputs + group;
      to[0] = sums[t][0];
      to[kOutputs] = sums[t][1];
      to[8] = sums[t][2];
      to[kOutputs + 8] = sums[t][3];
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[t][i] = 0;
    }
    __syncthreads();
    const auto sum_of = [&](int row, int place, int output) {
      float sum = 0;
      for (int j = 0; j < warps; ++j) sum += partial[(j * kTiles * 8 + row) * kOutputs + place];
      return o.bias == nullptr ? sum : sum + o.bias[output];
    };
    for (int i = static_cast<int>(threadIdx.x); i < rows * kResults; i += static_cast<int>(blockDim.x)) {
      const int row = i / kResults, place = i % kResults, output = block * kResults + place;
      if (output >= results) continue;
      float value = sum_of(row, place, output);
      if constexpr (kGated) {
        value = silu(value) * sum_of(row, place + 8, output + results);
      } else {
        value = activate(value, o.activation);
      }
      Out* to = out + row * out_stride + output;
      *to = from_float<Out>(o.add ? to_float(*to) + value : value);
    }
  };
  int chunk = begin;
  // One round; false behind the last.
  const auto advance = [&](Round& weights) {
    multiply(weights, chunk);
    read_weights(weights);
    chunk += kUnroll;
    if (chunk < begin + o.chunks_per_warp) return true;
    finish();
    chunk = begin;
    block += static_cast<int>(gridDim.x);
    return block < blocks;
  };
  while (advance(even) && advance(odd)) {
  }
}

int blocks_of(const Operands& o) { return (o.n + kOutputs - 1) / kOutputs; }

template <class Inputs, int kTiles, class Out, bool kNorm, bool kGated, int kMostWarps>
cudaError_t launch_with(Operands o, const CudaView& out, cudaStream_t s) {
  // As many warps as have whole rounds of k to read: a function of the shape, the order of a sum follows from it.
  constexpr int kReads = kRound<Inputs>;
  const int chunks = (o.k + kChunk<Inputs> - 1) / kChunk<Inputs>;
  const int rounds = (chunks + kReads * kMostWarps - 1) / (kReads * kMostWarps);
  const int warps = (chunks + kReads * rounds - 1) / (kReads * rounds);
  o.chunks_per_warp = rounds * kReads;
  std::size_t shared = 2 * static_cast<std::size_t>(warps) * kTiles * 8 * kOutputs * sizeof(float);
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
  const int blocks = blocks_of(o), most = kMostWarps == kFewWarps ? 2 * kMultiprocessors : kMultiprocessors;
  return launch_early(kernel, static_cast<unsigned>(std::min(blocks, most)), static_cast<unsigned>(warps * kWarp),
                      shared, s, o, blocks, static_cast<Out*>(out.data), out.stride);
}

template <class Inputs, int kTiles, class Out, bool kNorm, bool kGated>
cudaError_t launch(const Operands& o, const CudaView& out, cudaStream_t s) {
  return blocks_of(o) <= kMultiprocessors ? launch_with<Inputs, kTiles, Out, kNorm, kGated, kManyWarps>(o, out, s)
                                          : launch_with<Inputs, kTiles, Out, kNorm, kGated, kFewWarps>(o, out, s);
}

template <class Inputs, class Out>
cudaError_t by_form(const Operands& o, bool gated, const CudaView& out, cudaStream_t s) {
  const auto form = [&]<int kTiles, bool kNorm>() {
    return gated ? launch<Inputs, kTiles, Out, kNorm, true>(o, out, s)
                 : launch<Inputs, kTiles, Out, kNorm, false>(o, out, s);
  };
  if (o.norm_weight != nullptr) return form.template operator()<1, true>();
  return o.rows <= 8 ? form.template operator()<1, false>() : form.template operator()<2, false>();
}

template <class Inputs>
cudaError_t by_dtype(const Operands& o, bool gated, const CudaView& out, cudaStream_t s) {
  return out.f32 ? by_form<Inputs, float>(o, gated, out, s) : by_form<Inputs, bf16>(o, gated, out, s);
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
                   .chunks_per_warp = 0,
                   .normed_at = 0,
                   .norm_weight = p.norm_weight,
                   .bias = p.bias,
                   .eps = p.eps,
                   .activation = p.activation,
                   .add = p.add_to_out};
  if (p.weight.format == CudaFormat::kInt8) return by_dtype<Int8Inputs>(o, p.gated, out, s);
  if (p.weight.format == CudaFormat::kInt4) return by_dtype<Int4Inputs>(o, p.gated, out, s);
  return by_dtype<Bf16Inputs>(o, p.gated, out, s);
}

}  // namespace chiasm
