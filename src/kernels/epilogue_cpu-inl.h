// What happens to a row of sums behind a product: bias, activation, the residual. Shared by the products.
// Included once per Highway target.
#if defined(CHIASM_KERNELS_EPILOGUE_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CHIASM_KERNELS_EPILOGUE_CPU_INL_H_
#undef CHIASM_KERNELS_EPILOGUE_CPU_INL_H_
#else
#define CHIASM_KERNELS_EPILOGUE_CPU_INL_H_
#endif

#include <cmath>
#include <cstdint>

#include <hwy/highway.h>

#include "kernels/exp_cpu-inl.h"
#include "kernels/ops.h"
#include "kernels/tile_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

// out[i] = activation(sum[i] + bias[i]), or added to out.
HWY_INLINE void finish_row(const float* sum, const Epilogue& epilogue, const float* bias, std::int64_t count,
                           float* out) {
  const F32 d;
  std::int64_t j = 0;
  if (epilogue.activation != Activation::kGelu) {
    for (; j + kLanes <= count; j += kLanes) {
      VF32 v = hn::LoadU(d, sum + j);
      if (bias != nullptr) v = hn::Add(v, hn::LoadU(d, bias + j));
      if (epilogue.activation == Activation::kQuickGelu) {
        const VF32 e = exp_within_range(hn::Mul(v, hn::Set(d, -1.702F)));
        v = hn::Div(v, hn::Add(hn::Set(d, 1.0F), e));
      }
      if (epilogue.add_to_out) v = hn::Add(v, hn::LoadU(d, out + j));
      hn::StoreU(v, d, out + j);
    }
  }
  for (; j < count; ++j) {
    float v = sum[j];
    if (bias != nullptr) v += bias[j];
    if (epilogue.activation == Activation::kQuickGelu) v = v / (1.0F + std::exp(-1.702F * v));
    if (epilogue.activation == Activation::kGelu) v = 0.5F * v * (1.0F + std::erf(v * 0.70710678118654752F));
    out[j] = epilogue.add_to_out ? out[j] + v : v;
  }
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CHIASM_KERNELS_EPILOGUE_CPU_INL_H_
