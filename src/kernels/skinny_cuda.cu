// A few rows times a weight: decode. Bound by reading the weight once; the tensor cores only keep the arithmetic out of
// the way.
//
// A warp computes 16 outputs (the M side of m16n8k16) for up to 8 rows at a time (the N side). The order of k
// inside a product does not matter as long as both operands agree, so every lane reads 16 bytes in a row from a weight
// row and from x and hands them to two mma's as they are: no shared memory, no shuffles. The warps of a block split k;
// how, is fixed by the weight's shape, and each row's sums are its own column: a row's bits do not depend on how many
// there are. There are as many blocks as run at once, and they walk over the outputs; the next weights are always on
// their way.
#include <algorithm>

#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kOutputs = 16;  // of one mma
constexpr int kChunk = 32;    // k of one read: 4 lanes of 8 values
constexpr int kMultiprocessors = 132;
// Blocks of a weight with few outputs have their multiprocessor alone: more warps read more of k at once. Else two
// share it, and one begins to read while one of the kernel in front still ends.
constexpr int kFewWarps = 8, kManyWarps = 12;
constexpr std::size_t kPlainShared = 48 << 10;  // what a block gets without asking
constexpr int kRound = 4;                       // a warp's share of k is in multiples of so many chunks

__device__ inline uint4 load_stream(const bf16* p) {  // read once: past L1
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
  const bf16* weight;
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
template <int kTiles, class Out, bool kNorm, bool kGated, int kMostWarps>
__global__ void __launch_bounds__(kMostWarps* kWarp, kMostWarps == kFewWarps ? 2 : 1)
    skinny_kernel(const Operands o, int blocks, Out* out, std::int64_t out_stride) {
  extern __shared__ __align__(16) float shared[];  // twice [warps][kTiles * 8][kOutputs], then normed x
  constexpr int kResults = kGated ? kOutputs / 2 : kOutputs;
  constexpr int kUnroll = kTiles == 1 ? kRound : kRound / 2;
  const int warps = static_cast<int>(blockDim.x) / kWarp, k = o.k, rows = o.rows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group = lane / 4, quad = lane % 4;
  const int results = kGated ? o.n / 2 : o.n;
  const int chunks = (k + kChunk - 1) / kChunk;
  const int begin = warp * o.chunks_per_warp, end = min(chunks, begin + o.chunks_per_warp);
  let_next_begin();
  const bf16* w[2];
  const auto go_to = [&](int block) {
    // Outputs beyond the last read the last one's row; nobody stores them.
    const std::int64_t first = block * kResults + group;
    const std::int64_t top = min(first, static_cast<std::int64_t>(results - 1));
    const std::int64_t bottom = kGated ? results + top : min(first + 8, static_cast<std::int64_t>(results - 1));
    w[0] = o.weight + top * k;
    w[1] = o.weight + bottom * k;
  };
  // Two rounds of weights are always on their way, across outputs too. They never move between registers: a move would
  // wait for them.
  uint4 even[kUnroll][2], odd[kUnroll][2];
  int block = static_cast<int>(blockIdx.x), reading = block, chunk_to_read = begin;
  const auto read_weights = [&](uint4(&to)[kUnroll][2]) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (chunk_to_read + u) * kChunk + quad * 8;
      const bool inside = chunk_to_read + u < end && at < k && reading < blocks;
#pragma unroll
      for (int i = 0; i < 2; ++i) to[u][i] = inside ? load_stream(w[i] + at) : make_uint4(0, 0, 0, 0);
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
  const auto multiply = [&](const uint4(&a)[kUnroll][2], int chunk) {
    uint4 b[kUnroll][kTiles];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (chunk + u) * kChunk + quad * 8;
      const bool inside = chunk + u < end && at < k;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = t * 8 + group;
        const bf16* const from =
            kNorm ? normed + row * normed_stride(k) : static_cast<const bf16*>(o.x) + row * o.x_stride;
        b[u][t] = inside && row < rows ? *reinterpret_cast<const uint4*>(from + at) : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const uint4 &top = a[u][0], &bottom = a[u][1];
      const std::uint32_t low[4] = {top.x, bottom.x, top.y, bottom.y}, high[4] = {top.z, bottom.z, top.w, bottom.w};
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const std::uint32_t b_low[2] = {b[u][t].x, b[u][t].y}, b_high[2] = {b[u][t].z, b[u][t].w};
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
  const auto advance = [&](uint4(&weights)[kUnroll][2]) {
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

template <int kTiles, class Out, bool kNorm, bool kGated, int kMostWarps>
cudaError_t launch_with(Operands o, const CudaView& out, cudaStream_t s) {
  // As many warps as have whole rounds of k to read: a function of the shape, the order of a sum follows from it.
  const int chunks = (o.k + kChunk - 1) / kChunk;
  const int rounds = (chunks + kRound * kMostWarps - 1) / (kRound * kMostWarps);
  const int warps = (chunks + kRound * rounds - 1) / (kRound * rounds);
  o.chunks_per_warp = rounds * kRound;
  std::size_t shared = 2 * static_cast<std::size_t>(warps) * kTiles * 8 * kOutputs * sizeof(float);
  if (kNorm) {  // the squares lie where the sums will
    shared = (std::max(shared, static_cast<std::size_t>(o.k)) + 15) / 16 * 16;
    o.normed_at = static_cast<int>(shared / sizeof(float));
    shared += static_cast<std::size_t>(o.rows) * normed_stride(o.k) * sizeof(bf16);
  }
  const auto kernel = skinny_kernel<kTiles, Out, kNorm, kGated, kMostWarps>;
  if (shared > kPlainShared) {
    const auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (const cudaError_t error = cudaFuncSetAttribute(kernel, most, static_cast<int>(shared)); error != cudaSuccess)
      return error;
  }
  const int blocks = blocks_of(o), most = kMostWarps == kFewWarps ? 2 * kMultiprocessors : kMultiprocessors;
  return launch_early(kernel, static_cast<unsigned>(std::min(blocks, most)), static_cast<unsigned>(warps * kWarp),
                      shared, s, o, blocks, static_cast<Out*>(out.data), out.stride);
}

template <int kTiles, class Out, bool kNorm, bool kGated>
cudaError_t launch(const Operands& o, const CudaView& out, cudaStream_t s) {
  return blocks_of(o) <= kMultiprocessors ? launch_with<kTiles, Out, kNorm, kGated, kManyWarps>(o, out, s)
                                          : launch_with<kTiles, Out, kNorm, kGated, kFewWarps>(o, out, s);
}

template <class Out>
cudaError_t by_form(const Operands& o, bool gated, const CudaView& out, cudaStream_t s) {
  if (o.norm_weight != nullptr)
    return gated ? launch<1, Out, true, true>(o, out, s) : launch<1, Out, true, false>(o, out, s);
  if (o.rows <= 8) return gated ? launch<1, Out, false, true>(o, out, s) : launch<1, Out, false, false>(o, out, s);
  return gated ? launch<2, Out, false, true>(o, out, s) : launch<2, Out, false, false>(o, out, s);
}

}  // namespace

cudaError_t skinny_matmul_cuda(const SkinnyProduct& p, CudaView out, cudaStream_t s) {
  if (p.x.rows == 0) return cudaSuccess;
  const Operands o{.x = p.x.data,
                   .x_stride = p.x.stride,
                   .rows = static_cast<int>(p.x.rows),
                   .weight = static_cast<const bf16*>(p.weight),
                   .n = static_cast<int>(out.cols),
                   .k = static_cast<int>(p.x.cols),
                   .chunks_per_warp = 0,
                   .normed_at = 0,
                   .norm_weight = p.norm_weight,
                   .bias = p.bias,
                   .eps = p.eps,
                   .activation = p.activation,
                   .add = p.add_to_out};
  return out.f32 ? by_form<float>(o, p.gated, out, s) : by_form<bf16>(o, p.gated, out, s);
}

}  // namespace chiasm
