#include "features/statistics.h"

#include <algorithm>
#include <cmath>

namespace chiasm {

FeatureStatistics statistics_of(ConstMatrixView rows) {
  FeatureStatistics out{.rows = rows.rows, .width = rows.cols};
  if (rows.rows <= 0 || rows.cols <= 0) return out;
  const double count = static_cast<double>(rows.rows) * static_cast<double>(rows.cols);
  out.min = out.max = rows.row(0)[0];
  double sum = 0;
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < rows.cols; ++c) {
      const double value = rows.row(r)[c];
      out.min = std::min(out.min, value);
      out.max = std::max(out.max, value);
      out.zeros += value == 0;
      sum += value;
      squares += value * value;
    }
    const double norm = std::sqrt(squares);
    out.row_norm_min = r == 0 ? norm : std::min(out.row_norm_min, norm);
    out.row_norm_max = std::max(out.row_norm_max, norm);
    out.row_norm_mean += norm / static_cast<double>(rows.rows);
  }
  out.mean = sum / count;
  // A second pass: the difference of two large sums would lose a small deviation.
  double deviation = 0;
  for (std::int64_t r = 0; r < rows.rows; ++r)
    for (std::int64_t c = 0; c < rows.cols; ++c) deviation += std::pow(rows.row(r)[c] - out.mean, 2);
  out.stddev = std::sqrt(deviation / count);
  return out;
}

}  // namespace chiasm
