// A few rows times a weight: decode. Bound by reading the weight once; the tensor cores only keep the arithmetic out of
// the way.
//
// A warp computes 16 outputs (the M side of m16n8k16) for up to 8 rows at a time (the N side). The order of k
// inside a product does not matter as long as both operands agree, so every lane reads 16 bytes in a row from a weight
// row and from x and hands them to two mma's as they are: no shared memory, no shuffles. The warps of a block split k;
// how, is fixed by the weight's shape, and each row's sums are its own column: a row's bits do not depend on how many
// there are.
#include "kernels/cuda_common.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kOutputs = 16;  // of one mma
constexpr int kChunk = 32;    // k of one read: 4 lanes of 8 values
constexpr int kMostWarps = 8;
constexpr int kUnroll = 4;  // a warp's share of k is in multiples of so many chunks

__device__ inline uint4 load_stream(const bf16* p) {  // read once: past L1
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ inline uint4 load_shared_by_all(const bf16* p) {  // x: every block reads it
  uint4 v;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];\n" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

// kTiles: groups of 8 rows. It does not change the order of a sum.
template <int kTiles, class Out>
__global__ void __launch_bounds__(kMostWarps* kWarp)
    skinny_kernel(const bf16* x, std::int64_t x_stride, int rows, const bf16* weight, int n, int k, int chunks_per_warp,
                  const float* bias, int activation, bool add, Out* out, std::int64_t out_stride) {
  extern __shared__ float partial[];  // [warps][kTiles * 8][kOutputs]
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group = lane / 4, quad = lane % 4;
  const int first = static_cast<int>(blockIdx.x) * kOutputs;
  // Outputs beyond the last read the last one's row; nobody stores them.
  const bf16* w[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) w[i] = weight + static_cast<std::int64_t>(min(first + group + 8 * i, n - 1)) * k;
  float sums[kTiles][4] = {};
  const int chunks = (k + kChunk - 1) / kChunk;
  const int begin = warp * chunks_per_warp, end = min(chunks, begin + chunks_per_warp);
  // One round of reads is always on its way while the one before is multiplied: the compiler would otherwise read and
  // multiply in turns.
  uint4 next_a[kUnroll][2], next_b[kUnroll][kTiles];
  const auto read = [&](int chunk) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (chunk + u) * kChunk + quad * 8;
      const bool inside = chunk + u < end && at < k;
#pragma unroll
      for (int i = 0; i < 2; ++i) next_a[u][i] = inside ? load_stream(w[i] + at) : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = t * 8 + group;
        next_b[u][t] = inside && row < rows ? load_shared_by_all(x + row * x_stride + at) : make_uint4(0, 0, 0, 0);
      }
    }
  };
  read(begin);
  for (int chunk = begin; chunk < end; chunk += kUnroll) {
    uint4 a[kUnroll][2], b[kUnroll][kTiles];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int i = 0; i < 2; ++i) a[u][i] = next_a[u][i];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) b[u][t] = next_b[u][t];
    }
    read(chunk + kUnroll);
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
  }
  // sums: outputs group and group + 8, rows 2 * quad and 2 * quad + 1 of each tile.
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    float* to = partial + (warp * kTiles * 8 + t * 8 + 2 * quad) * kOutputs + group;
    to[0] = sums[t][0];
    to[kOutputs] = sums[t][1];
    to[8] = sums[t][2];
    to[kOutputs + 8] = sums[t][3];
  }
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int i = static_cast<int>(threadIdx.x); i < rows * kOutputs; i += static_cast<int>(blockDim.x)) {
    const int row = i / kOutputs, output = first + i % kOutputs;
    if (output >= n) continue;
    float sum = 0;
    for (int j = 0; j < warps; ++j) sum += partial[j * kTiles * 8 * kOutputs + i];
    if (bias != nullptr) sum += bias[output];
    sum = activate(sum, activation);
    Out* to = out + row * out_stride + output;
    *to = from_float<Out>(add ? to_float(*to) + sum : sum);
  }
}

// How many warps share k: as many as keep the card's memory busy where there are few outputs, at least two rounds of
// reads each. A function of the weight's shape: the order of a sum follows from it.
int warps_for(int n, int k) {
  const int blocks = (n + kOutputs - 1) / kOutputs, chunks = (k + kChunk - 1) / kChunk;
  int warps = 1;
  while (warps < kMostWarps && blocks * warps < 132 * 16 && chunks / (2 * warps) >= 2 * kUnroll) warps *= 2;
  return warps < 4 ? 4 : warps;
}

struct Launch {
  CudaView x, out;
  const void* weight;
  const float* bias;
  int activation;
  bool add;
  cudaStream_t stream;
};

template <int kTiles, class Out>
cudaError_t launch(const Launch& l) {
  const int n = static_cast<int>(l.out.cols), k = static_cast<int>(l.x.cols);
  const int warps = warps_for(n, k), chunks = (k + kChunk - 1) / kChunk;
  const int per_warp = ((chunks + warps - 1) / warps + kUnroll - 1) / kUnroll * kUnroll;
  const std::size_t shared = static_cast<std::size_t>(warps) * kTiles * 8 * kOutputs * sizeof(float);
  skinny_kernel<kTiles, Out><<<static_cast<unsigned>((n + kOutputs - 1) / kOutputs),
                               static_cast<unsigned>(warps * kWarp), shared, l.stream>>>(
      static_cast<const bf16*>(l.x.data), l.x.stride, static_cast<int>(l.x.rows), static_cast<const bf16*>(l.weight), n,
      k, per_warp, l.bias, l.activation, l.add, static_cast<Out*>(l.out.data), l.out.stride);
  return cudaGetLastError();
}

template <class Out>
cudaError_t by_rows(const Launch& l) {
  return l.x.rows <= 8 ? launch<1, Out>(l) : launch<2, Out>(l);
}

}  // namespace

cudaError_t skinny_matmul_cuda(CudaView x, const void* weight, const float* bias, int activation, bool add_to_out,
                               CudaView out, cudaStream_t s) {
  if (x.rows == 0) return cudaSuccess;
  const Launch l{x, out, weight, bias, activation, add_to_out, s};
  return out.f32 ? by_rows<float>(l) : by_rows<bf16>(l);
}

}  // namespace chiasm
