// Highway compiles this file once for each instruction set and picks one at run time. All arithmetic is in integers and
// exact, so every one of them gives the same bytes.
#include "image/resize_rows.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "image/resize_rows.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h comes first
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace chiasm::resample::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void horizontal(const std::uint8_t* in, const SplitWeights& weights, std::int64_t width, std::uint8_t* out) {
  for (std::int64_t x = 0; x < width; ++x) {
    const std::int16_t* w = weights.of(x);
    for (int c = 0; c < 3; ++c) {
      const std::uint8_t* p = in + 3 * weights.first[x] + c;
      std::int32_t sum = 0;
      for (std::int64_t t = 0; t < weights.taps; ++t) {
        const std::int64_t k = t / 2 * 4 + t % 2;
        sum += p[3 * t] * (w[k] * (1 << kLowBits) + w[k + 2]);
      }
      out[3 * x + c] = to_sample(sum);
    }
  }
}

void vertical(const std::uint8_t* const* rows, const std::int16_t* weights, std::int64_t taps, std::int64_t bytes,
              std::uint8_t* out) {
  for (std::int64_t x = 0; x < bytes; ++x) {
    std::int32_t sum = 0;
    for (std::int64_t t = 0; t < taps; ++t) {
      const std::int64_t k = t / 2 * 4 + t % 2;
      sum += rows[t][x] * (weights[k] * (1 << kLowBits) + weights[k + 2]);
    }
    out[x] = to_sample(sum);
  }
}

#else

using Bytes16 = hn::Full128<std::uint8_t>;
using Shorts8 = hn::Full128<std::int16_t>;
using Ints4 = hn::Full128<std::int32_t>;

// Sums of products of the high and of the low halves of the weights.
struct Sums {
  hn::Vec<Ints4> high, high_rest, low, low_rest;

  // No constructor: GCC compiles an implicit one without the instruction set of this file's pass.
  static HWY_INLINE Sums zero() {
    const auto none = hn::Zero(Ints4());
    return {none, none, none, none};
  }

  // `samples`: pairs (tap t, tap t + 1) of four outputs; `weights` as in SplitWeights.
  HWY_INLINE void add(hn::Vec<Shorts8> samples, const std::int16_t* weights) {
    const Ints4 ints;
    std::int32_t pair[2];
    std::memcpy(pair, weights, sizeof pair);
    const auto high_pair = hn::BitCast(Shorts8(), hn::Set(ints, pair[0]));
    const auto low_pair = hn::BitCast(Shorts8(), hn::Set(ints, pair[1]));
    high = hn::ReorderWidenMulAccumulate(ints, samples, high_pair, high, high_rest);
    low = hn::ReorderWidenMulAccumulate(ints, samples, low_pair, low, low_rest);
  }

  // Four samples, not yet clipped.
  HWY_INLINE hn::Vec<Ints4> samples() const {
    const Ints4 ints;
    const auto sum = hn::Add(hn::ShiftLeft<kLowBits>(hn::RearrangeToOddPlusEven(high, high_rest)),
                             hn::RearrangeToOddPlusEven(low, low_rest));
    return hn::ShiftRight<kFractionBits>(hn::Add(sum, hn::Set(ints, 1 << (kFractionBits - 1))));
  }
};

void horizontal(const std::uint8_t* in, const SplitWeights& weights, std::int64_t width, std::uint8_t* out) {
  const Bytes16 bytes;
  const Shorts8 shorts;
  // Four pixels R G B to 16-bit pairs (R0 R1) (G0 G1) (B0 B1) (0 0); 0x80 gives 0.
  alignas(16) static constexpr std::uint8_t kFirst[16] = {0, 0x80, 3, 0x80, 1,    0x80, 4,    0x80,
                                                          2, 0x80, 5, 0x80, 0x80, 0x80, 0x80, 0x80};
  alignas(16) static constexpr std::uint8_t kSecond[16] = {6, 0x80, 9,  0x80, 7,    0x80, 10,   0x80,
                                                           8, 0x80, 11, 0x80, 0x80, 0x80, 0x80, 0x80};
  const auto first = hn::Load(bytes, kFirst), second = hn::Load(bytes, kSecond);
  const hn::Half<Shorts8> half_shorts;
  const hn::Rebind<std::uint8_t, decltype(half_shorts)> four_bytes;
  for (std::int64_t x = 0; x < width; ++x) {
    const std::uint8_t* p = in + 3 * weights.first[x];
    const std::int16_t* w = weights.of(x);
    Sums sums = Sums::zero();
    for (std::int64_t t = 0; t < weights.taps; t += kTapGroup, p += 3 * kTapGroup, w += 2 * kTapGroup) {
      const auto pixels = hn::LoadU(bytes, p);
      sums.add(hn::BitCast(shorts, hn::TableLookupBytesOr0(pixels, first)), w);
      sums.add(hn::BitCast(shorts, hn::TableLookupBytesOr0(pixels, second)), w + 4);
    }
    alignas(16) std::uint8_t rgb[4];
    hn::Store(hn::DemoteTo(four_bytes, hn::DemoteTo(half_shorts, sums.samples())), four_bytes, rgb);
    std::memcpy(out + 3 * x, rgb, 3);
  }
}

void vertical(const std::uint8_t* const* rows, const std::int16_t* weights, std::int64_t taps, std::int64_t bytes,
              std::uint8_t* out) {
  const Bytes16 d;
  const Shorts8 shorts;
  const hn::Half<Bytes16> eight_bytes;
  const hn::Half<Shorts8> four_shorts;
  constexpr std::int64_t kStep = 16;
  std::int64_t x = 0;
  for (; x + kStep <= bytes; x += kStep) {
    Sums sums[4] = {Sums::zero(), Sums::zero(), Sums::zero(), Sums::zero()};
    const std::int16_t* w = weights;
    for (std::int64_t t = 0; t < taps; t += 2, w += 4) {
      const auto a = hn::LoadU(d, rows[t] + x), b = hn::LoadU(d, rows[t + 1] + x);
      const auto lower = hn::InterleaveLower(d, a, b), upper = hn::InterleaveUpper(d, a, b);
      sums[0].add(hn::PromoteTo(shorts, hn::LowerHalf(eight_bytes, lower)), w);
      sums[1].add(hn::PromoteTo(shorts, hn::UpperHalf(eight_bytes, lower)), w);
      sums[2].add(hn::PromoteTo(shorts, hn::LowerHalf(eight_bytes, upper)), w);
      sums[3].add(hn::PromoteTo(shorts, hn::UpperHalf(eight_bytes, upper)), w);
    }
    for (int half = 0; half < 2; ++half) {
      const auto both = hn::Combine(shorts, hn::DemoteTo(four_shorts, sums[2 * half + 1].samples()),
                                    hn::DemoteTo(four_shorts, sums[2 * half].samples()));
      hn::StoreU(hn::DemoteTo(eight_bytes, both), eight_bytes, out + x + 8 * half);
    }
  }
  for (; x < bytes; ++x) {
    std::int32_t sum = 0;
    for (std::int64_t t = 0; t < taps; ++t) {
      const std::int64_t k = t / 2 * 4 + t % 2;
      sum += rows[t][x] * (weights[k] * (1 << kLowBits) + weights[k + 2]);
    }
    out[x] = to_sample(sum);
  }
}

#endif  // HWY_SCALAR

}  // namespace chiasm::resample::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm::resample {

HWY_EXPORT(horizontal);
HWY_EXPORT(vertical);

SplitWeights split_weights(const Weights& weights) {
  SplitWeights split{.taps = weights.taps, .first = weights.first};
  split.values.resize(weights.values.size() * 2);
  for (std::size_t i = 0; i < weights.values.size(); ++i) {
    const std::int32_t value = weights.values[i], high = value >> kLowBits;
    const std::size_t at = i / 2 * 4 + i % 2;
    split.values[at] = static_cast<std::int16_t>(high);
    split.values[at + 2] = static_cast<std::int16_t>(value - high * (1 << kLowBits));
  }
  return split;
}

void horizontal_row(const std::uint8_t* in, const SplitWeights& weights, std::int64_t width, std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(horizontal)(in, weights, width, out);
}

void vertical_row(const std::uint8_t* const* rows, const std::int16_t* weights, std::int64_t taps, std::int64_t bytes,
                  std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(vertical)(rows, weights, taps, bytes, out);
}

}  // namespace chiasm::resample
#endif  // HWY_ONCE
