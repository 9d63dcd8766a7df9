// Rows of small integers and of e4m3 as numbers: for products of many rows of integers, which are BF16 ones, and for
// embeddings.
#include "kernels/fp8_cuda.cuh"
#include "kernels/integers_cuda.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kThreads = 256;

// Eight inputs of a row a thread, stored at once where they are `whole`.
template <CudaFormat kFormat, class Out>
__global__ void dequantise_kernel(const CudaMatrix w, std::int64_t first, const std::int32_t* rows, std::int64_t count,
                                  Out* out, std::int64_t out_stride, bool whole) {
  let_next_begin();
  wait_for_previous();
  const std::int64_t units = (w.k + 7) / 8;
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= count * units) return;
  const std::int64_t row = rows == nullptr ? first + i / units : rows[i / units], at = i % units * 8;
  constexpr int kBits = kFormat == CudaFormat::kInt4 ? 4 : 8;
  const auto* const words = reinterpret_cast<const std::uint32_t*>(static_cast<const unsigned char*>(w.data) +
                                                                   row * w.row_bytes + at * kBits / 8);
  float v[8];
  if constexpr (kFormat == CudaFormat::kFp8) {
    from_fp8(words[0], v), from_fp8(words[1], v + 4);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] *= static_cast<const float*>(w.scales)[row];
  } else {
    const std::int64_t groups = w.row_bytes * 8 / kBits / w.group;
    const float scale = to_float(static_cast<const bf16*>(w.scales)[row * groups + at / w.group]);
    if constexpr (kBits == 8) {
      Int8Inputs::eight(words[0], words[1], scale, v);
    } else {
      Int4Inputs::eight(words[0], scale, v);
    }
  }
  Out* const to = out + i / units * out_stride + at;
  if (whole) return store8(to, v);
#pragma unroll
  for (int j = 0; j < 8; ++j)
    if (at + j < w.k) to[j] = from_float<Out>(v[j]);
}

}  // namespace

cudaError_t dequantise_cuda(const CudaMatrix& weight, std::int64_t first, const std::int32_t* rows, CudaView out,
                            cudaStream_t s) {
  if (out.rows * out.cols == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((out.rows * ((weight.k + 7) / 8) + kThreads - 1) / kThreads);
  const auto launch = [&]<class Out>(Out* to) {
    const auto kernel = weight.format == CudaFormat::kFp8    ? dequantise_kernel<CudaFormat::kFp8, Out>
                        : weight.format == CudaFormat::kInt8 ? dequantise_kernel<CudaFormat::kInt8, Out>
                                                             : dequantise_kernel<CudaFormat::kInt4, Out>;
    return launch_early(kernel, blocks, kThreads, 0, s, weight, first, rows, out.rows, to, out.stride,
                        weight.k % 8 == 0 && aligned_rows(out));
  };
  return out.f32 ? launch(static_cast<float*>(out.data)) : launch(static_cast<bf16*>(out.data));
}

}  // namespace chiasm
