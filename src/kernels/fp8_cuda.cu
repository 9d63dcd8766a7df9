// Rows of activations to e4m3, and a product of such rows that takes any shape.
#include <algorithm>

#include "kernels/fp8_cuda.cuh"
#include "kernels/plain_product_cuda.cuh"

namespace chiasm {
namespace {

constexpr float kMost = 448, kLeast = 1e-30F;  // precision.h's kMostFp8, kLeastActivation

// Rows for one launch: as many warps a row as keep it in registers (kKept units of kUnit values a lane), but no more
// than a block has; what is left of a longer row is read again, from the cache. Blocks of few rows each have up to
// kRowThreads threads, so that a multiprocessor has as many in flight as its registers allow.
constexpr int kKept = 8, kRowThreads = 128, kMostThreads = 1024;

// A pair of BF16 in a word, or one. As bits without their signs, what is not a number is larger than every number.
__device__ inline std::uint32_t most_of(std::uint32_t most, std::uint32_t pair) {
  return __vmaxu2(most, pair & 0x7FFF7FFF);
}
__device__ inline std::uint32_t most_of(std::uint32_t most, const uint4& raw) {
  return most_of(most_of(most_of(most_of(most, raw.x), raw.y), raw.z), raw.w);
}
__device__ inline std::uint32_t most_of(std::uint32_t most, bf16 one) {
  return most_of(most, __bfloat16_as_ushort(one));
}

// `inverse` is 0 where all are to be zeros.
__device__ inline uint2 fp8_of(const uint4& raw, float inverse) {
  float v[8];
  load8(reinterpret_cast<const bf16*>(&raw), v);
#pragma unroll
  for (int j = 0; j < 8; ++j) v[j] = inverse == 0 ? 0.0F : v[j] * inverse;
  return make_uint2(to_fp8(v), to_fp8(v + 4));
}
__device__ inline unsigned char fp8_of(bf16 one, float inverse) {
  return __nv_cvt_float_to_fp8(inverse == 0 ? 0.0F : to_float(one) * inverse, __NV_SATFINITE, __NV_E4M3);
}

// A row's `units` of eight values (uint4, codes uint2) or of one.
template <class Unit, class Codes>
__global__ void __launch_bounds__(kMostThreads)
    round_rows_kernel(const bf16* x, std::int64_t x_stride, std::int64_t rows, int units, int warps_of_row,
                      unsigned char* codes, std::int64_t row_bytes, float* scales) {
  let_next_begin();
  wait_for_previous();
  __shared__ std::uint32_t of_warps[kMostThreads / kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int together = static_cast<int>(blockDim.x) / kWarp / warps_of_row,
            first_warp = warp / warps_of_row * warps_of_row;
  const std::int64_t wanted = blockIdx.x * static_cast<std::int64_t>(together) + warp / warps_of_row;
  const std::int64_t row = min(wanted, rows - 1);  // the last again: a block's warps meet
  const auto* const from = reinterpret_cast<const Unit*>(x + row * x_stride);
  auto* const to = reinterpret_cast<Codes*>(codes + row * row_bytes);
  const int threads = warps_of_row * kWarp, thread = (warp - first_warp) * kWarp + lane;
  Unit kept[kKept];
  std::uint32_t most = 0;
#pragma unroll
  for (int item = 0; item < kKept; ++item)
    if (const int i = thread + item * threads; i < units) kept[item] = from[i];
#pragma unroll
  for (int item = 0; item < kKept; ++item)
    if (thread + item * threads < units) most = most_of(most, kept[item]);
  for (int i = thread + kKept * threads; i < units; i += threads) most = most_of(most, from[i]);
  most = __reduce_max_sync(0xffffffffU, max(most & 0xFFFF, most >> 16));
  if (warps_of_row > 1) {
    if (lane == 0) of_warps[warp] = most;
    __syncthreads();
    for (int i = 0; i < warps_of_row; ++i) most = max(most, of_warps[first_warp + i]);
  }
  const float largest = __uint_as_float(most << 16);
  const bool finite = most < 0x7F80, usable = finite && largest >= kLeast;
  const float inverse = usable ? __fdiv_rn(kMost, largest) : 0.0F;
  if (thread == 0) scales[row] = usable ? __fdiv_rn(largest, kMost) : finite ? 0.0F : __uint_as_float(0x7FC00000);
#pragma unroll
  for (int item = 0; item < kKept; ++item)
    if (const int i = thread + item * threads; i < units) to[i] = fp8_of(kept[item], inverse);
  for (int i = thread + kKept * threads; i < units; i += threads) to[i] = fp8_of(from[i], inverse);
}

struct Fp8Operands {
  Fp8Rows x;
  CudaMatrix weight;
  const float* bias;
  __device__ float pair(std::int64_t row, std::int64_t output, std::int64_t j, float sum) const {
    return fmaf(from_fp8(static_cast<const unsigned char*>(x.codes)[row * x.row_bytes + j]),
                from_fp8(static_cast<const unsigned char*>(weight.data)[output * weight.row_bytes + j]), sum);
  }
  __device__ float result(float sum, std::int64_t row, std::int64_t output) const {
    return fmaf(sum * x.scales[row], static_cast<const float*>(weight.scales)[output],
                bias != nullptr ? bias[output] : 0);
  }
};

}  // namespace

cudaError_t round_rows_cuda(CudaView x, const Fp8Rows& out, cudaStream_t s) {
  if (x.rows == 0) return cudaSuccess;
  const bool wide = x.cols % 8 == 0 && aligned_rows(x);
  const auto units = static_cast<int>(wide ? x.cols / 8 : x.cols);
  int warps = 1;
  while (warps * kWarp < kMostThreads && warps * kWarp * kKept < units) warps *= 2;
  const int threads = std::max(warps * kWarp, kRowThreads), together = threads / (warps * kWarp);
  const auto blocks = static_cast<unsigned>((x.rows + together - 1) / together);
  const auto kernel = wide ? round_rows_kernel<uint4, uint2> : round_rows_kernel<bf16, unsigned char>;
  return launch_early(kernel, blocks, static_cast<unsigned>(threads), 0, s, static_cast<const bf16*>(x.data), x.stride,
                      x.rows, units, warps, static_cast<unsigned char*>(out.codes), out.row_bytes, out.scales);
}

cudaError_t plain_fp8_matmul_cuda(const Fp8Rows& x, const CudaMatrix& weight, const float* bias, int activation,
                                  bool add_to_out, CudaView out, cudaStream_t s) {
  return plain_product(Fp8Operands{x, weight, bias}, weight.k, activation, add_to_out, out, s);
}

}  // namespace chiasm
