// Attention of one query by one warp, slow and careful. Included by *_cuda.cu only.
#pragma once

#include "kernels/cuda_common.cuh"

namespace chiasm {

// out = softmax(scale q k^T) v over `keys` rows of k and v, with a running maximum: right for scores of any size, and
// for infinities and NaN what the softmax's definition gives. All pointers 16-byte aligned, strides in elements, whole
// pieces of 8. Sums run in one order.
template <int kDim>
__device__ inline void attend_row(const bf16* q, const bf16* k, std::int64_t k_stride, const bf16* v,
                                  std::int64_t v_stride, int keys, float scale_log2, bf16* out) {
  constexpr int kPairs = kDim / 2, kOwn = (kPairs + kWarp - 1) / kWarp;  // of columns; a lane has every kWarp-th
  static_assert(kDim % 8 == 0);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  // Scores count from `shift`, the highest so far as it was rounded, so that what was summed fits what comes.
  float shift = -INFINITY, total = 0, sums[kOwn][2] = {};
  for (int first = 0; first < keys; first += kWarp) {
    const int count = min(kWarp, keys - first);
    float score = -INFINITY;
    if (lane < count) {
      score = 0;
      const bf16* const key = k + (first + lane) * k_stride;
#pragma unroll 2
      for (int column = 0; column < kDim; column += 8) {
        float a[8], b[8];
        load8(q + column, a), load8(key + column, b);
#pragma unroll
        for (int i = 0; i < 8; ++i) score = fmaf(a[i], b[i], score);
      }
    }
    float most = fmaxf(shift, lane < count ? score * scale_log2 : -INFINITY);
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
      most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, offset));
    const float from = most == -INFINITY ? 0.0F : most;  // keys that weigh nothing, so far
    const float fade = exp2_fast(shift - from);
    const float weight = lane < count ? exp2_fast(fmaf(score, scale_log2, -from)) : 0.0F;
    shift = most;
    total = total * fade + weight;
#pragma unroll
    for (int own = 0; own < kOwn; ++own) sums[own][0] *= fade, sums[own][1] *= fade;
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const float p = __shfl_sync(0xffffffffU, weight, i);
#pragma unroll
      for (int own = 0; own < kOwn; ++own) {
        const int pair = own * kWarp + lane;
        if (pair >= kPairs) continue;
        const auto both = *reinterpret_cast<const std::uint32_t*>(v + (first + i) * v_stride + 2 * pair);
        sums[own][0] = fmaf(p, __uint_as_float(both << 16), sums[own][0]);
        sums[own][1] = fmaf(p, __uint_as_float(both & 0xffff0000U), sums[own][1]);
      }
    }
  }
  total = warp_sum(total);
#pragma unroll
  for (int own = 0; own < kOwn; ++own)
    if (const int pair = own * kWarp + lane; pair < kPairs)
      *reinterpret_cast<std::uint32_t*>(out + 2 * pair) = pack2(sums[own][0] / total, sums[own][1] / total);
}

}  // namespace chiasm
