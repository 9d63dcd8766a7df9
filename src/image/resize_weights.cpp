#include "image/resize_weights.h"

#include <algorithm>
#include <cmath>

namespace chiasm::resample {

namespace {

// Keys' cubic kernel with a = -0.5, in the order of operations that Pillow uses: the last bit counts.
double bicubic(double x) {
  constexpr double kA = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

}  // namespace

Weights bicubic_weights(std::int64_t in, std::int64_t out, std::int64_t multiple) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double filter_scale = std::max(scale, 1.0), support = 2.0 * filter_scale;
  const std::int64_t most = std::min(in, static_cast<std::int64_t>(std::ceil(support)) * 2 + 1);

  Weights weights;
  weights.taps = (most + multiple - 1) / multiple * multiple;
  weights.first.resize(static_cast<std::size_t>(out));
  weights.count.resize(static_cast<std::size_t>(out));
  weights.values.assign(static_cast<std::size_t>(out) * static_cast<std::size_t>(weights.taps), 0);
  std::vector<double> raw(static_cast<std::size_t>(most));
  for (std::int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale, inverse = 1.0 / filter_scale;
    // Truncation towards zero, as a C cast does it. NOLINTBEGIN(bugprone-incorrect-roundings): what Pillow computes
    const std::int64_t first = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
    const std::int64_t count = std::min(static_cast<std::int64_t>(centre + support + 0.5), in) - first;
    // NOLINTEND(bugprone-incorrect-roundings)
    double sum = 0;
    for (std::int64_t t = 0; t < count; ++t) {
      raw[t] = bicubic((static_cast<double>(t + first) - centre + 0.5) * inverse);
      sum += raw[t];
    }
    weights.first[i] = first;
    weights.count[i] = count;
    for (std::int64_t t = 0; t < count; ++t) {
      const double value = (sum != 0 ? raw[t] / sum : raw[t]) * (1 << kFractionBits);
      weights.values[i * weights.taps + t] = static_cast<std::int32_t>(value < 0 ? value - 0.5 : value + 0.5);
    }
  }
  return weights;
}

}  // namespace chiasm::resample
