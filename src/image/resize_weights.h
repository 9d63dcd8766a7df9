// The weights of an antialiased bicubic pass in one direction, and the order of the two. Private to resize.
#pragma once

#include <cstdint>
#include <vector>

#include "image/image.h"

namespace chiasm::resample {

inline constexpr int kFractionBits = 32 - 8 - 2;  // of a weight; leaves room for 8-bit samples and overshoot

// For each of `out` samples: `taps` weights (the unused ones 0) that apply to input samples from first[i], count[i] of
// them.
struct Weights {
  std::int64_t taps = 0;
  std::vector<std::int64_t> first, count;
  std::vector<std::int32_t> values;  // [out][taps], times 2^kFractionBits

  const std::int32_t* of(std::int64_t i) const { return values.data() + i * taps; }
};

// `taps` is rounded up to a multiple of `multiple`.
Weights bicubic_weights(std::int64_t in, std::int64_t out, std::int64_t multiple);

// Which pass comes first: the picture between them has 8 bits, so the order shows in the result. Pillow 13.0 began to
// scale vertically first where that takes away more than twice as many rows as the other pass takes columns; up to 12
// it was always horizontal first.
inline bool vertical_first(ImageSize from, ImageSize to) {
  const std::int64_t rows = from.height - to.height, columns = from.width - to.width;
  return rows > 0 && rows > 2 * columns;
}

inline std::uint8_t to_sample(std::int32_t sum) {
  const std::int32_t value = (sum + (1 << (kFractionBits - 1))) >> kFractionBits;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

}  // namespace chiasm::resample
