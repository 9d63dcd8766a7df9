// Drift between two features: how far the rows of B lie from those of A, and whether that is within a tolerance.
//
// Features of one picture differ slightly between devices, libraries and precisions; this says by how much. Printing is
// the command line's. Thread contract: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "features/feature.h"

namespace chiasm {

struct Drift {
  std::int64_t rows = 0, width = 0;
  double max_abs = 0;  // largest |a - b|, and where
  std::int64_t max_abs_row = 0, max_abs_column = 0;
  double relative_l2 = 0;      // |a - b| / |a| over all values; A is the reference. 0 where both are zero
  std::vector<double> cosine;  // per row; 1 where both rows are zero, 0 where one is
  double cosine_min = 1, cosine_mean = 1;
  std::int64_t cosine_min_row = 0;
  bool identical = true;  // every value has the same bits
};

// a, b: [rows, width], finite. kFailedPrecondition, naming both shapes, when they differ.
Result<Drift> drift_of(ConstMatrixView a, ConstMatrixView b);

// Limits that a drift must keep; max_abs depends on the model's scale, so it is infinite unless asked for.
struct DriftTolerance {
  double relative_l2 = 0;
  double cosine_min = 0;
  double max_abs = 0;

  // For two files of these types: relative_l2 = 2e-3 (what this project allows between its encoder and the reference
  // implementation) + the unit roundoff of each type (F16: 2^-11, BF16: 2^-8), as rounding moves a vector by at most
  // that much of its length. cosine_min = 1 - (4 * relative_l2)^2 / 2: one row may drift four times as far as the
  // whole.
  static DriftTolerance between(DType a, DType b);
};

struct DriftVerdict {
  bool within = true;
  std::vector<std::string> reasons;  // one line for each limit exceeded: "relative_l2 3.1e-02 exceeds 2.0e-03"
};
DriftVerdict judge(const Drift& drift, const DriftTolerance& tolerance);

// A field in which two files' metadata differ, as text. An image_digest among them says that the drift compares
// different pictures; a vision_digest, different weights.
struct MetaDifference {
  std::string_view field;
  std::string a, b;
};
std::vector<MetaDifference> differences(const FeatureMeta& a, const FeatureMeta& b);

}  // namespace chiasm
