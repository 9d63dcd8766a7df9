#include "models/qwen2_vl/rotary.h"

#include <cmath>

namespace chiasm {

std::vector<float> inverse_frequencies(double theta, std::int64_t dim) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    out.push_back(1.0F / std::pow(static_cast<float>(theta), exponent));
  }
  return out;
}

Result<RotaryTable> make_rotary_table(const Ops& ops, std::int64_t rows, const RopeAngles& angles) {
  const auto pairs = static_cast<std::int64_t>(angles.frequency.size());
  RotaryTable table;
  ASSIGN_OR_RETURN(table.cos, ops.allocate(rows, pairs));
  ASSIGN_OR_RETURN(table.sin, ops.allocate(rows, pairs));
  ops.rope_table(angles, table.cos.view(), table.sin.view());
  return table;
}

}  // namespace chiasm
