// Weights on their way from rows to vectors: 16 bytes of every one of kLanes rows become 4 to 8 vectors that hold one
// input of all these outputs each. Halves travel in pairs, as 32-bit words, so that one turning of 4 x 4 words serves
// all dtypes. Included once per Highway target.
#if defined(CHIASM_KERNELS_TURN_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CHIASM_KERNELS_TURN_CPU_INL_H_
#undef CHIASM_KERNELS_TURN_CPU_INL_H_
#else
#define CHIASM_KERNELS_TURN_CPU_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <hwy/highway.h>

#include "kernels/tile_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chiasm::HWY_NAMESPACE {

using U32 = hn::Repartition<std::uint32_t, F32>;
using VU32 = hn::Vec<U32>;

// Inputs in a block of 16 bytes.
template <class B>
constexpr std::int64_t kBlockInputs = 16 / sizeof(B);

#if HWY_TARGET == HWY_SCALAR

// words[i]: the i-th 32-bit word of the only row.
HWY_INLINE void turn(const std::byte* row, std::int64_t, VU32 (&words)[4]) {
  std::uint32_t values[4];
  std::memcpy(values, row, sizeof(values));
  for (int i = 0; i < 4; ++i) words[i] = hn::Set(U32(), values[i]);
}

#else

static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16);

// 16 bytes of rows 0, 4, 8 .. below Lanes, which are `step` bytes apart; they may lie at any address.
template <std::int64_t Lanes>
HWY_INLINE auto load_across(const std::byte* p, std::int64_t step) {
  const hn::FixedTag<std::uint32_t, Lanes> d;
  if constexpr (Lanes == 4) {
    return hn::BitCast(d, hn::LoadU(hn::FixedTag<std::uint8_t, 16>(), reinterpret_cast<const std::uint8_t*>(p)));
  } else {
    return hn::Combine(d, load_across<Lanes / 2>(p + Lanes / 2 * step, step), load_across<Lanes / 2>(p, step));
  }
}

// words[i]: the i-th 32-bit word of kLanes rows.
HWY_INLINE void turn(const std::byte* rows, std::int64_t step, VU32 (&words)[4]) {
  const U32 d;
  const hn::Repartition<std::uint64_t, U32> pairs;
  const VU32 r0 = load_across<kLanes>(rows, step), r1 = load_across<kLanes>(rows + step, step);
  const VU32 r2 = load_across<kLanes>(rows + 2 * step, step), r3 = load_across<kLanes>(rows + 3 * step, step);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  words[0] = hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23));
  words[1] = hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23));
  words[2] = hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23));
  words[3] = hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23));
}

#endif

// Input i of the block whose words these are.
template <class B>
HWY_INLINE VF32 input(const VU32 (&words)[4], std::int64_t i) {
  const F32 d;
  if constexpr (sizeof(B) == 4) {
    return hn::BitCast(d, words[i]);
  } else {
    const VU32 pair = words[i / 2];
    if constexpr (std::is_same_v<B, hwy::bfloat16_t>) {
      return hn::BitCast(d, i % 2 == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(U32(), 0xFFFF0000U)));
    } else {
      const hn::Rebind<std::uint16_t, U32> d16;
      const VU32 half = i % 2 == 0 ? hn::And(pair, hn::Set(U32(), 0xFFFFU)) : hn::ShiftRight<16>(pair);
      return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, F32>(), hn::TruncateTo(d16, half)));
    }
  }
}

// Rows of `depth` floats as columns, four at once: out[k * height + r].
HWY_INLINE void turn_four_rows(const float* const (&rows)[4], std::int64_t depth, std::int64_t height, float* out) {
  std::int64_t k = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  for (; k + 4 <= depth; k += 4) {
    const auto r0 = hn::LoadU(d, rows[0] + k), r1 = hn::LoadU(d, rows[1] + k);
    const auto r2 = hn::LoadU(d, rows[2] + k), r3 = hn::LoadU(d, rows[3] + k);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
    float* to = out + k * height;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + height);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * height);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * height);
  }
#endif
  for (; k < depth; ++k)
    for (std::int64_t r = 0; r < 4; ++r) out[k * height + r] = rows[r][k];
}

// Any number of rows; row(i) is where the i-th begins.
template <class Row>
HWY_INLINE void turn_rows(std::int64_t count, const Row& row, std::int64_t depth, std::int64_t height, float* out) {
  const auto turn_from = [&](std::int64_t i) HWY_ATTR {
    turn_four_rows({row(i), row(i + 1), row(i + 2), row(i + 3)}, depth, height, out + i);
  };
  for (std::int64_t i = 0; i + 4 <= count; i += 4) turn_from(i);
  if (count < 4) {
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t k = 0; k < depth; ++k) out[k * height + i] = row(i)[k];
  } else if (count % 4 != 0) {
    turn_from(count - 4);  // the last four, some of them once more
  }
}

}  // namespace chiasm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CHIASM_KERNELS_TURN_CPU_INL_H_
