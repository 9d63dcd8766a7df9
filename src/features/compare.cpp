#include "features/compare.h"

#include <bit>
#include <cmath>
#include <limits>

namespace chiasm {
namespace {

double unit_roundoff(DType dtype) {
  if (dtype == DType::kF16) return 0x1p-11;
  if (dtype == DType::kBF16) return 0x1p-8;
  return 0x1p-24;
}

}  // namespace

Result<Drift> drift_of(ConstMatrixView a, ConstMatrixView b) {
  if (a.rows != b.rows || a.cols != b.cols)
    return fail(Code::kFailedPrecondition, "features of different shape: A has [{}, {}], B has [{}, {}]", a.rows,
                a.cols, b.rows, b.cols);
  Drift out{.rows = a.rows, .width = a.cols};
  double squares_a = 0, squares_difference = 0, cosine_sum = 0;
  for (std::int64_t r = 0; r < a.rows; ++r) {
    double aa = 0, bb = 0, ab = 0;
    for (std::int64_t c = 0; c < a.cols; ++c) {
      const float x = a.row(r)[c], y = b.row(r)[c];
      const double difference = std::abs(static_cast<double>(x) - y);
      out.identical = out.identical && std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
      if (difference > out.max_abs) {
        out.max_abs = difference;
        out.max_abs_row = r;
        out.max_abs_column = c;
      }
      squares_difference += difference * difference;
      aa += static_cast<double>(x) * x;
      bb += static_cast<double>(y) * y;
      ab += static_cast<double>(x) * y;
    }
    squares_a += aa;
    double cosine = aa == bb ? 1 : 0;  // without a direction: alike only if both are zero
    if (aa > 0 && bb > 0) cosine = std::fmin(1.0, std::fmax(-1.0, ab / std::sqrt(aa * bb)));
    if (r == 0 || cosine < out.cosine_min) {
      out.cosine_min = cosine;
      out.cosine_min_row = r;
    }
    cosine_sum += cosine;
    out.cosine.push_back(cosine);
  }
  if (a.rows > 0) out.cosine_mean = cosine_sum / static_cast<double>(a.rows);
  if (squares_difference > 0)
    out.relative_l2 =
        squares_a > 0 ? std::sqrt(squares_difference / squares_a) : std::numeric_limits<double>::infinity();
  return out;
}

DriftTolerance DriftTolerance::between(DType a, DType b) {
  constexpr double kBetweenImplementations = 2e-3;
  const double relative = kBetweenImplementations + unit_roundoff(a) + unit_roundoff(b);
  return {.relative_l2 = relative,
          .cosine_min = 1 - 16 * relative * relative / 2,
          .max_abs = std::numeric_limits<double>::infinity()};
}

DriftVerdict judge(const Drift& drift, const DriftTolerance& tolerance) {
  DriftVerdict verdict;
  // Written so that a NaN fails.
  if (!(drift.relative_l2 <= tolerance.relative_l2))
    verdict.reasons.push_back(
        fmt::format("relative_l2 {:.2e} exceeds {:.2e}", drift.relative_l2, tolerance.relative_l2));
  if (!(drift.cosine_min >= tolerance.cosine_min))
    verdict.reasons.push_back(fmt::format("cosine 1 - {:.2e} of row {} is below 1 - {:.2e}", 1 - drift.cosine_min,
                                          drift.cosine_min_row, 1 - tolerance.cosine_min));
  if (!(drift.max_abs <= tolerance.max_abs))
    verdict.reasons.push_back(fmt::format("max_abs {:.2e} (row {}, column {}) exceeds {:.2e}", drift.max_abs,
                                          drift.max_abs_row, drift.max_abs_column, tolerance.max_abs));
  verdict.within = verdict.reasons.empty();
  return verdict;
}

std::vector<MetaDifference> differences(const FeatureMeta& a, const FeatureMeta& b) {
  std::vector<MetaDifference> out;
  const auto add = [&](std::string_view field, std::string x, std::string y) {
    if (x != y) out.push_back({field, std::move(x), std::move(y)});
  };
  const auto grid = [](const FeatureMeta& m) {
    return fmt::format("{},{},{}", m.grid_thw[0], m.grid_thw[1], m.grid_thw[2]);
  };
  add("feature_id", a.id.hex(), b.id.hex());
  add("vision_digest", a.vision_digest.hex(), b.vision_digest.hex());
  add("preprocess_digest", a.preprocess_digest.hex(), b.preprocess_digest.hex());
  add("image_digest", a.image_digest.hex(), b.image_digest.hex());
  add("grid_thw", grid(a), grid(b));
  add("model", a.model, b.model);
  add("arithmetic", a.arithmetic, b.arithmetic);
  add("dtype", std::string(dtype_name(a.dtype)), std::string(dtype_name(b.dtype)));
  return out;
}

}  // namespace chiasm
