// One row of each bicubic pass, vectorised. Private to resize.
#pragma once

#include <cstdint>
#include <vector>

#include "image/resize_weights.h"

namespace chiasm::resample {

inline constexpr std::int64_t kTapGroup = 4;     // taps of SplitWeights come in multiples of this
inline constexpr std::int64_t kRowPadding = 64;  // bytes readable behind a row given to horizontal_row

// Weights cut in two for 16-bit products: value = high * 2^kLowBits + low. Pairs of taps lie side by side:
// high (t, t + 1), low (t, t + 1), high (t + 2, t + 3), ...
struct SplitWeights {
  std::int64_t taps = 0;
  std::vector<std::int64_t> first;
  std::vector<std::int16_t> values;  // [out][taps * 2]

  const std::int16_t* of(std::int64_t i) const { return values.data() + i * taps * 2; }
};

inline constexpr int kLowBits = 12;

SplitWeights split_weights(const Weights& weights);

// out[width * 3] from `in` interleaved R, G, B with kRowPadding readable bytes behind it.
void horizontal_row(const std::uint8_t* in, const SplitWeights& weights, std::int64_t width, std::uint8_t* out);

// out[bytes] from `weights.taps` rows; rows[t] of an unused tap is any readable row.
void vertical_row(const std::uint8_t* const* rows, const std::int16_t* weights, std::int64_t taps, std::int64_t bytes,
                  std::uint8_t* out);

}  // namespace chiasm::resample
