// For tests of kernels only: the Highway target to use, and matrices that show what was not written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "tensor/tensor.h"

// clang-format off
#include "kernels/targets_cpu.h"  // says what is built, so before Highway
#include <hwy/highway.h>
// clang-format on

namespace chiasm {

// 0 returns to the best target.
inline void choose_target(std::int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

inline Matrix poisoned(std::int64_t rows, std::int64_t cols) {
  Matrix out(rows, cols);
  std::fill_n(out.data(), out.size(), std::numeric_limits<float>::quiet_NaN());
  return out;
}

inline Matrix copy_of(const Matrix& from) {
  Matrix out(from.rows(), from.cols());
  std::copy_n(from.data(), from.size(), out.data());
  return out;
}

}  // namespace chiasm
