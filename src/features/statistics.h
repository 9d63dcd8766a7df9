// What `chiasm inspect` says about the values of a feature. Printing is the command line's.
//
// Thread contract: pure functions.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace chiasm {

struct FeatureStatistics {
  std::int64_t rows = 0, width = 0;
  std::int64_t zeros = 0;  // values equal to 0
  double min = 0, max = 0;
  double mean = 0, stddev = 0;                                   // of all values; stddev of the population
  double row_norm_min = 0, row_norm_mean = 0, row_norm_max = 0;  // L2 norms of rows
};

// rows [rows, width], finite; an empty matrix gives zeros. Sums are in double.
FeatureStatistics statistics_of(ConstMatrixView rows);

}  // namespace chiasm
