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

Result<RotaryTable> make_rotary_table(const Ops& ops, std::int64_t rows, std::int64_t pairs,
                                      const std::function<float(std::int64_t row, std::int64_t pair)>& angle) {
  RotaryTable table;
  ASSIGN_OR_RETURN(table.cos, ops.allocate(rows, pairs));
  ASSIGN_OR_RETURN(table.sin, ops.allocate(rows, pairs));
  std::vector<float> cos, sin;
  cos.reserve(static_cast<std::size_t>(rows * pairs));
  sin.reserve(static_cast<std::size_t>(rows * pairs));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      const float a = angle(row, pair);
      cos.push_back(std::cos(a));
      sin.push_back(std::sin(a));
    }
  }
  ops.upload(cos, table.cos.view());
  ops.upload(sin, table.sin.view());
  return table;
}

}  // namespace chiasm
