#include "kernels/stream_cpu.h"

#include <algorithm>
#include <cstring>

#include "tensor/dtype.h"

// Highway compiles this file once for each target: the order of these lines matters.
// clang-format off
#include "kernels/targets_cpu.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/stream_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/cache_control.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// How many of `count` elements stand before the first that is at a multiple of a vector.
template <class T>
std::int64_t before_aligned(const T* to, std::int64_t lanes, std::int64_t count) {
  const auto size = static_cast<std::uintptr_t>(lanes) * sizeof(T);
  const std::uintptr_t past = reinterpret_cast<std::uintptr_t>(to) % size;
  return std::min(count, static_cast<std::int64_t>((size - past) % size / sizeof(T)));
}

void copy(const std::uint8_t* from, std::int64_t bytes, std::uint8_t* to) {
  const hn::ScalableTag<std::uint8_t> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = before_aligned(to, lanes, bytes);
  std::memcpy(to, from, static_cast<std::size_t>(i));
  for (; i + lanes <= bytes; i += lanes) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  std::memcpy(to + i, from + i, static_cast<std::size_t>(bytes - i));
  hwy::FlushStream();
}

#if HWY_TARGET == HWY_SCALAR
void round(const float* from, std::int64_t count, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = f32_to_bf16(from[i]);
}
#else
void round(const float* from, std::int64_t count, std::uint16_t* to) {
  const hn::ScalableTag<float> df;
  const hn::RebindToSigned<decltype(df)> d32;
  const hn::ScalableTag<std::int16_t> d16;
  const hn::Half<decltype(d16)> half16;
  const hn::RebindToUnsigned<decltype(d16)> du16;
  const auto wide = static_cast<std::int64_t>(hn::Lanes(df)), lanes = 2 * wide;
  const auto half = [&](const float* p) HWY_ATTR {
    const auto value = hn::LoadU(df, p);
    const auto bits = hn::BitCast(d32, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
    const auto up = hn::Add(hn::Add(bits, hn::Set(d32, 0x7FFF)), odd);
    const auto quiet = hn::Or(bits, hn::Set(d32, 0x00400000));
    // Arithmetic, so that the 16 bits are in the range of the narrower type.
    return hn::DemoteTo(half16,
                        hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(d32, hn::Eq(value, value)), up, quiet)));
  };
  std::int64_t i = before_aligned(to, lanes, count);
  for (std::int64_t j = 0; j < i; ++j) to[j] = f32_to_bf16(from[j]);
  for (; i + lanes <= count; i += lanes) {
    const auto both = hn::Combine(d16, half(from + i + wide), half(from + i));
    hn::Stream(hn::BitCast(du16, both), du16, to + i);
  }
  for (; i < count; ++i) to[i] = f32_to_bf16(from[i]);
  hwy::FlushStream();
}
#endif

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chiasm {

HWY_EXPORT(copy);
HWY_EXPORT(round);

void copy_past_caches(const std::byte* from, std::uint64_t bytes, std::byte* to) {
  HWY_DYNAMIC_DISPATCH(copy)
  (reinterpret_cast<const std::uint8_t*>(from), static_cast<std::int64_t>(bytes), reinterpret_cast<std::uint8_t*>(to));
}

void round_past_caches(const float* from, std::int64_t count, std::byte* to) {
  HWY_DYNAMIC_DISPATCH(round)(from, count, reinterpret_cast<std::uint16_t*>(to));
}

}  // namespace chiasm
#endif  // HWY_ONCE
