// Rows of activations to e4m3, and a product of such rows that takes any shape.
#include <algorithm>

#include "kernels/fp8_cuda.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr float kMost = 448, kLeast = 1e-30F;  // precision.h's kMostFp8, kLeastActivation

// As bits, so that what is not a number is larger than every number.
__device__ inline std::uint32_t size_bits(float x) { return __float_as_uint(x) & 0x7FFFFFFF; }

// A block a row, kUnit values at a time. The row is read from memory once where it fits the registers (kKept units a
// thread), and again from the cache otherwise.
template <class In, int kUnit>
__global__ void round_rows_kernel(const In* x, std::int64_t x_stride, int cols, unsigned char* codes,
                                  std::int64_t row_bytes, float* scales) {
  let_next_begin();
  wait_for_previous();
  constexpr int kKept = 32 / kUnit;
  __shared__ std::uint32_t of_warps[kWarp];
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), units = cols / kUnit;
  x += blockIdx.x * x_stride;
  codes += blockIdx.x * row_bytes;
  const auto load = [&](int i, float* v) {
    if constexpr (kUnit == 8) {
      load8(x + i * 8, v);
    } else {
      v[0] = to_float(x[i]);
    }
  };
  std::uint32_t most = 0;
  const auto look = [&](const float* v) {
#pragma unroll
    for (int j = 0; j < kUnit; ++j) most = max(most, size_bits(v[j]));
  };
  float kept[kKept][kUnit];
#pragma unroll
  for (int item = 0; item < kKept; ++item) {
    const int i = thread + item * threads;
    if (i >= units) continue;
    load(i, kept[item]);
    look(kept[item]);
  }
  for (int i = thread + kKept * threads; i < units; i += threads) {
    float v[kUnit];
    load(i, v);
    look(v);
  }
  most = __reduce_max_sync(0xffffffffU, most);
  if (thread % kWarp == 0) of_warps[thread / kWarp] = most;
  __syncthreads();
  for (int i = 0; i < threads / kWarp; ++i) most = max(most, of_warps[i]);
  const float largest = __uint_as_float(most);
  const bool finite = most < 0x7F800000, usable = finite && largest >= kLeast;
  const float inverse = usable ? __fdiv_rn(kMost, largest) : 0.0F;
  if (thread == 0)
    scales[blockIdx.x] = usable ? __fdiv_rn(largest, kMost) : finite ? 0.0F : __uint_as_float(0x7FC00000);
  const auto store = [&](int i, const float* v) {
    float scaled[kUnit];
#pragma unroll
    for (int j = 0; j < kUnit; ++j) scaled[j] = usable ? v[j] * inverse : 0.0F;
    if constexpr (kUnit == 8) {
      reinterpret_cast<uint2*>(codes)[i] = make_uint2(to_fp8(scaled), to_fp8(scaled + 4));
    } else {
      codes[i] = __nv_cvt_float_to_fp8(scaled[0], __NV_SATFINITE, __NV_E4M3);
    }
  };
#pragma unroll
  for (int item = 0; item < kKept; ++item)
    if (const int i = thread + item * threads; i < units) store(i, kept[item]);
  for (int i = thread + kKept * threads; i < units; i += threads) {
    float v[kUnit];
    load(i, v);
    store(i, v);
  }
}

// A warp an output, as plain_matmul_cuda.cu.
template <class Out>
__global__ void plain_fp8_kernel(const Fp8Rows x, const CudaMatrix weight, std::int64_t n, const float* bias,
                                 int activation, bool add, Out* out, std::int64_t out_stride) {
  const std::int64_t i = (blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x) / kWarp;
  if (i >= x.rows * n) return;
  const std::int64_t row = i / n, output = i % n;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned char* const codes = static_cast<const unsigned char*>(x.codes) + row * x.row_bytes;
  const unsigned char* const weights = static_cast<const unsigned char*>(weight.data) + output * weight.row_bytes;
  float sum = 0;
  for (std::int64_t k = lane; k < weight.k; k += kWarp) sum = fmaf(from_fp8(codes[k]), from_fp8(weights[k]), sum);
  sum = warp_sum(sum);
  if (lane != 0) return;
  sum = fmaf(sum * x.scales[row], static_cast<const float*>(weight.scales)[output], bias != nullptr ? bias[output] : 0);
  sum = activate(sum, activation);
  Out* to = out + row * out_stride + output;
  *to = from_float<Out>(add ? to_float(*to) + sum : sum);
}

}  // namespace

cudaError_t round_rows_cuda(CudaView x, const Fp8Rows& out, cudaStream_t s) {
  if (x.rows == 0) return cudaSuccess;
  const bool wide = x.cols % 8 == 0 && aligned_rows(x);
  const std::int64_t units = wide ? x.cols / 8 : x.cols, wanted = (units / 2 + kWarp - 1) / kWarp * kWarp;
  const auto threads = static_cast<unsigned>(std::clamp<std::int64_t>(wanted, kWarp, 1024));
  const auto launch = [&]<class In>(const In* from) {
    const auto kernel = wide ? round_rows_kernel<In, 8> : round_rows_kernel<In, 1>;
    return launch_early(kernel, static_cast<unsigned>(x.rows), threads, 0, s, from, x.stride, static_cast<int>(x.cols),
                        static_cast<unsigned char*>(out.codes), out.row_bytes, out.scales);
  };
  return x.f32 ? launch(static_cast<const float*>(x.data)) : launch(static_cast<const bf16*>(x.data));
}

cudaError_t plain_fp8_matmul_cuda(const Fp8Rows& x, const CudaMatrix& weight, const float* bias, int activation,
                                  bool add_to_out, CudaView out, cudaStream_t s) {
  if (x.rows * out.cols == 0) return cudaSuccess;
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((x.rows * out.cols * kWarp + kThreads - 1) / kThreads);
  const auto launch = [&]<class Out>(Out* to) {
    plain_fp8_kernel<<<blocks, kThreads, 0, s>>>(x, weight, out.cols, bias, activation, add_to_out, to, out.stride);
  };
  if (out.f32) {
    launch(static_cast<float*>(out.data));
  } else {
    launch(static_cast<bf16*>(out.data));
  }
  return cudaGetLastError();
}

}  // namespace chiasm
