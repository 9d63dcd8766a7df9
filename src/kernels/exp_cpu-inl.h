// exp of a vector. Included once per Highway target.
#if defined(CHIASM_KERNELS_EXP_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CHIASM_KERNELS_EXP_CPU_INL_H_
#undef CHIASM_KERNELS_EXP_CPU_INL_H_
#else
#define CHIASM_KERNELS_EXP_CPU_INL_H_
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "kernels/tile_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

// exp(x) of x <= 88, within 0.65 of 2^-23 of it where fused multiply-adds are (found over 2e7 values); exactly 1 at 0,
// 0 below -87, NaN where x is NaN. Half the work of hn::Exp, which reaches down into the denormals.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, so exp(x) = 2^n (1 + r + r^2 q(r)). q is the polynomial of degree 4 with the
// smallest relative error of the whole there, 3.1e-9 before its coefficients are rounded.
HWY_INLINE VF32 exp_up_to_88(VF32 x) {
  const F32 d;
  const hn::RebindToSigned<F32> whole;
  const VF32 shift = hn::Set(d, 0x1.8p23F);  // added to a small number, it leaves no room for a fraction
  const VF32 shifted = hn::MulAdd(x, hn::Set(d, 1.44269504088896341F), shift), n = hn::Sub(shifted, shift);
  VF32 r = hn::NegMulAdd(n, hn::Set(d, 0.693145751953125F), x);  // the first digits of ln 2: their product is exact
  r = hn::NegMulAdd(n, hn::Set(d, 1.428606765330187045e-6F), r);
  VF32 p = hn::MulAdd(r, hn::Set(d, 0.0013814433477818966F), hn::Set(d, 0.008368796668946743F));
  p = hn::MulAdd(r, p, hn::Set(d, 0.041668396443128586F));
  p = hn::MulAdd(r, p, hn::Set(d, 0.1666651964187622F));
  p = hn::MulAdd(r, p, hn::Set(d, 0.4999999403953552F));
  p = hn::MulAdd(r, p, hn::Set(d, 1.0F));
  p = hn::MulAdd(r, p, hn::Set(d, 1.0F));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(whole, shifted));
  const VF32 scaled = hn::BitCast(d, hn::Add(hn::BitCast(whole, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.0F)), scaled);
}

// exp(x), from 88 on exp(88).
HWY_INLINE VF32 exp_within_range(VF32 x) { return exp_up_to_88(hn::Min(x, hn::Set(F32(), 88.0F))); }

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CHIASM_KERNELS_EXP_CPU_INL_H_
