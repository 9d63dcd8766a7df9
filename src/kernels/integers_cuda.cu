// Rows of small integers and of e4m3 as numbers: for products of many rows, which are BF16 ones, and for embeddings.
#include "kernels/integers_cuda.cuh"
#include "kernels/kernels_cuda.h"

namespace chiasm {
namespace {

constexpr int kRowsOfBlock = 8;  // a warp's each

struct RowList {
  std::int64_t first;
  const std::int32_t* rows;
  std::int64_t count;
};

// Eight elements, not scaled, as BF16.
template <CudaFormat kFormat>
__device__ inline uint4 eight_elements(const unsigned char* p) {
  if constexpr (kFormat == CudaFormat::kInt4) {
    return int4_pairs(__ldg(reinterpret_cast<const std::uint32_t*>(p)));
  } else {
    constexpr auto kPairs = kFormat == CudaFormat::kFp8 ? fp8_pairs : int8_pairs;
    const uint2 words = __ldg(reinterpret_cast<const uint2*>(p));
    const uint2 a = kPairs(words.x), b = kPairs(words.y);
    return make_uint4(a.x, a.y, b.x, b.y);
  }
}

// Eight inputs of a row a lane. kWhole: out's rows are aligned and k is a multiple of 8.
template <CudaFormat kFormat, class Out, bool kWhole>
__global__ void __launch_bounds__(kRowsOfBlock* kWarp)
    dequantise_kernel(const CudaMatrix w, const RowList list, Out* out, std::int64_t out_stride) {
  let_next_begin();
  wait_for_previous();
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kRowsOfBlock) + threadIdx.x / kWarp;
  if (i >= list.count) return;
  const std::int64_t row = list.rows == nullptr ? list.first + i : list.rows[i];
  constexpr bool kFp8 = kFormat == CudaFormat::kFp8;
  constexpr int kBits = kFormat == CudaFormat::kInt4 ? 4 : 8;
  const int k = static_cast<int>(w.k), group_shift = kFp8 ? 0 : __ffs(w.group) - 1;
  const auto* const values = static_cast<const unsigned char*>(w.data) + row * w.row_bytes;
  const auto* const scales = static_cast<const bf16*>(w.scales) + row * ((w.row_bytes * 8 / kBits) >> group_shift);
  Out* const to = out + i * out_stride;
#pragma unroll 4
  for (int at = static_cast<int>(threadIdx.x) % kWarp * 8; at < k; at += kWarp * 8) {
    const uint4 elements = eight_elements<kFormat>(values + at * kBits / 8);
    const float scale = kFp8 ? static_cast<const float*>(w.scales)[row] : to_float(scales[at >> group_shift]);
    float v[8];
    load8(reinterpret_cast<const bf16*>(&elements), v);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] *= scale;
    if constexpr (kWhole) {
      store8(to + at, v);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (at + j < k) to[at + j] = from_float<Out>(v[j]);
    }
  }
}

}  // namespace

cudaError_t dequantise_cuda(const CudaMatrix& weight, std::int64_t first, const std::int32_t* rows, CudaView out,
                            cudaStream_t s) {
  if (out.rows * out.cols == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((out.rows + kRowsOfBlock - 1) / kRowsOfBlock);
  const bool whole = aligned_rows(out) && weight.k % 8 == 0;
  const auto launch = [&]<class Out>(Out* to) {
    const auto of_format = [&]<CudaFormat kFormat>() {
      return whole ? dequantise_kernel<kFormat, Out, true> : dequantise_kernel<kFormat, Out, false>;
    };
    const auto kernel = weight.format == CudaFormat::kFp8    ? of_format.template operator()<CudaFormat::kFp8>()
                        : weight.format == CudaFormat::kInt8 ? of_format.template operator()<CudaFormat::kInt8>()
                                                             : of_format.template operator()<CudaFormat::kInt4>();
    return launch_early(kernel, blocks, kRowsOfBlock * kWarp, 0, s, weight, RowList{first, rows, out.rows}, to,
                        out.stride);
  };
  return out.f32 ? launch(static_cast<float*>(out.data)) : launch(static_cast<bf16*>(out.data));
}

}  // namespace chiasm
