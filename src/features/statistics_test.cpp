#include "features/statistics.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

TEST(Statistics, ByHand) {
  const std::vector<float> values = {3, 4, 0, -5, 12, 0};
  const auto s = statistics_of({values.data(), 2, 3, 3});
  EXPECT_EQ(s.rows, 2);
  EXPECT_EQ(s.width, 3);
  EXPECT_EQ(s.zeros, 2);
  EXPECT_EQ(s.min, -5);
  EXPECT_EQ(s.max, 12);
  EXPECT_DOUBLE_EQ(s.mean, 14.0 / 6);
  EXPECT_DOUBLE_EQ(s.stddev, std::sqrt(194.0 / 6 - std::pow(14.0 / 6, 2)));
  EXPECT_EQ(s.row_norm_min, 5);
  EXPECT_EQ(s.row_norm_max, 13);
  EXPECT_DOUBLE_EQ(s.row_norm_mean, 9);
}

TEST(Statistics, AViewWithAStride) {
  const std::vector<float> values = {1, 2, 99, 3, 4, 99};
  const auto s = statistics_of({values.data(), 2, 2, 3});
  EXPECT_EQ(s.max, 4);
  EXPECT_DOUBLE_EQ(s.mean, 2.5);
}

TEST(Statistics, ASmallDeviationOfALargeMean) {
  std::vector<float> values(1000, 1e6F);
  for (std::size_t i = 0; i < values.size(); i += 2) values[i] += 0.5F;
  EXPECT_NEAR(statistics_of({values.data(), 10, 100, 100}).stddev, 0.25, 1e-9);
}

TEST(Statistics, Empty) {
  EXPECT_EQ(statistics_of({}).stddev, 0);
  EXPECT_EQ(statistics_of({}).min, 0);
}

}  // namespace
}  // namespace chiasm
