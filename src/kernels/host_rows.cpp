#include "kernels/host_rows.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace chiasm {

void check_rope_angles(const RopeAngles& angles, std::int64_t rows, std::int64_t pairs) {
  CHECK(static_cast<std::int64_t>(angles.axis.size()) == pairs &&
        static_cast<std::int64_t>(angles.frequency.size()) == pairs);
  for (const auto& positions : angles.positions) CHECK(static_cast<std::int64_t>(positions.size()) == rows);
  for (const std::int32_t axis : angles.axis)
    CHECK(axis >= 0 && axis < static_cast<std::int64_t>(angles.positions.size()));
}

void rope_table_host(const RopeAngles& angles, MatrixView cos, MatrixView sin) {
  CHECK(same_shape(cos, sin));
  check_rope_angles(angles, cos.rows, cos.cols);
  for (std::int64_t row = 0; row < cos.rows; ++row) {
    for (std::int64_t pair = 0; pair < cos.cols; ++pair) {
      const auto p = static_cast<std::size_t>(pair);
      const std::int32_t position =
          angles.positions[static_cast<std::size_t>(angles.axis[p])][static_cast<std::size_t>(row)];
      const float angle = static_cast<float>(position) * angles.frequency[p];
      cos.row(row)[pair] = std::cos(angle);
      sin.row(row)[pair] = std::sin(angle);
    }
  }
}

void gather_rows_host(ConstMatrixView from, std::span<const std::int32_t> rows, MatrixView to) {
  CHECK(static_cast<std::int64_t>(rows.size()) == to.rows && from.cols == to.cols);
  for (std::int64_t i = 0; i < to.rows; ++i) {
    const std::int32_t row = rows[static_cast<std::size_t>(i)];
    CHECK(row >= 0 && row < from.rows);
    std::copy_n(from.row(row), to.cols, to.row(i));
  }
}

void argmax_host(ConstMatrixView x, std::span<std::int32_t> out) {
  CHECK(static_cast<std::int64_t>(out.size()) == x.rows);
  for (std::int64_t i = 0; i < x.rows; ++i) {
    const float* row = x.row(i);
    bool finite = x.cols > 0;
    std::int64_t best = 0;
    for (std::int64_t j = 0; j < x.cols; ++j) {
      finite &= std::isfinite(row[j]);
      if (row[j] > row[best]) best = j;
    }
    out[static_cast<std::size_t>(i)] = finite ? static_cast<std::int32_t>(best) : -1;
  }
}

}  // namespace chiasm
