#include "features/compare.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>

#include "features/test_features.h"

namespace chiasm {
namespace {

using ::testing::HasSubstr;

TEST(Drift, ByHand) {
  const std::vector<float> a = {3, 4, 1, 0}, b = {3, 4.5F, 0, 1};
  const auto drift = drift_of({a.data(), 2, 2, 2}, {b.data(), 2, 2, 2}).value();
  EXPECT_EQ(drift.max_abs, 1);
  EXPECT_EQ(drift.max_abs_row, 1);
  EXPECT_EQ(drift.max_abs_column, 0);
  EXPECT_DOUBLE_EQ(drift.relative_l2, std::sqrt(2.25 / 26));
  ASSERT_EQ(drift.cosine.size(), 2U);
  EXPECT_DOUBLE_EQ(drift.cosine[0], 27 / (5 * std::sqrt(29.25)));
  EXPECT_DOUBLE_EQ(drift.cosine[1], 0);
  EXPECT_EQ(drift.cosine_min, 0);
  EXPECT_EQ(drift.cosine_min_row, 1);
  EXPECT_DOUBLE_EQ(drift.cosine_mean, drift.cosine[0] / 2);
  EXPECT_FALSE(drift.identical);
}

TEST(Drift, OfAFeatureWithItself) {
  const Feature feature = sample_feature(1);
  const auto drift = drift_of(feature.rows.view(), feature.rows.view()).value();
  EXPECT_TRUE(drift.identical);
  EXPECT_EQ(drift.max_abs, 0);
  EXPECT_EQ(drift.relative_l2, 0);
  EXPECT_NEAR(drift.cosine_min, 1, 1e-15);
  EXPECT_LE(drift.cosine_min, 1);
  EXPECT_TRUE(judge(drift, DriftTolerance::between(DType::kF32, DType::kF32)).within);
}

TEST(Drift, ZeroRows) {
  const std::vector<float> a = {0, 0, 0, 0, 1, 1}, b = {0, 0, 1, 1, 0, 0};
  const auto drift = drift_of({a.data(), 3, 2, 2}, {b.data(), 3, 2, 2}).value();
  EXPECT_EQ(drift.cosine, (std::vector<double>{1, 0, 0}));
  const auto from_zero = drift_of({a.data(), 2, 2, 2}, {b.data(), 2, 2, 2}).value();
  EXPECT_TRUE(std::isinf(from_zero.relative_l2));
  EXPECT_FALSE(judge(from_zero, {.relative_l2 = 1e300, .cosine_min = -1, .max_abs = 10}).within);
}

TEST(Drift, ShapesMustAgree) {
  const Feature a = sample_feature(1), b = sample_feature(1, 9);
  const auto drift = drift_of(a.rows.view(), b.rows.view());
  EXPECT_EQ(drift.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(drift.error().message, HasSubstr("A has [6, 8], B has [6, 9]"));
}

// What storage in 16 bits does must pass the tolerance of that type, and noise beyond it must not.
TEST(Drift, TolerancesOfTypes) {
  const Feature exact = sample_feature(1, 64, 8, 8);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    Feature rounded = sample_feature(1, 64, 8, 8);
    ASSERT_TRUE(round_feature(rounded, dtype).has_value());
    const auto drift = drift_of(exact.rows.view(), rounded.rows.view()).value();
    EXPECT_FALSE(drift.identical);
    EXPECT_LE(drift.relative_l2, dtype == DType::kF16 ? 0x1p-11 : 0x1p-8);
    const auto tolerance = DriftTolerance::between(DType::kF32, dtype);
    EXPECT_TRUE(judge(drift, tolerance).within);
    for (std::int64_t i = 0; i < rounded.rows.size(); ++i) rounded.rows.data()[i] *= i % 2 == 0 ? 0.98F : 1.02F;
    const auto worse = judge(drift_of(exact.rows.view(), rounded.rows.view()).value(), tolerance);
    EXPECT_FALSE(worse.within);
    EXPECT_THAT(worse.reasons.at(0), HasSubstr("relative_l2 2.0"));
  }
  EXPECT_LT(DriftTolerance::between(DType::kF32, DType::kF32).relative_l2,
            DriftTolerance::between(DType::kF32, DType::kBF16).relative_l2);
}

TEST(Drift, EachLimitHasItsReason) {
  Drift drift{.max_abs = 2, .max_abs_row = 3, .max_abs_column = 4, .relative_l2 = 0.5, .cosine_min = 0.25};
  EXPECT_TRUE(judge(drift, {.relative_l2 = 0.5, .cosine_min = 0.25, .max_abs = 2}).within);
  EXPECT_EQ(judge(drift, {.relative_l2 = 0.4, .cosine_min = 0.3, .max_abs = 1}).reasons.size(), 3U);
  EXPECT_THAT(judge(drift, {.relative_l2 = 1, .cosine_min = 0, .max_abs = 1}).reasons.at(0),
              HasSubstr("row 3, column 4"));
  drift.relative_l2 = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(judge(drift, {.relative_l2 = 1e9, .cosine_min = -1, .max_abs = 1e9}).within);
}

TEST(Differences, NamesTheFields) {
  const FeatureMeta a = sample_feature(1).meta;
  EXPECT_TRUE(differences(a, a).empty());
  FeatureMeta b = a;
  b.image_digest = digest_of(bytes_of("other"));
  b.grid_thw = {2, 4, 6};
  b.arithmetic = "BF16";
  b.dtype = DType::kF16;
  const auto found = differences(a, b);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0].field, "image_digest");
  EXPECT_EQ(found[1].a, "1,4,6");
  EXPECT_EQ(found[1].b, "2,4,6");
  EXPECT_EQ(found[2].field, "arithmetic");
  EXPECT_EQ(found[3].b, "F16");
}

}  // namespace
}  // namespace chiasm
