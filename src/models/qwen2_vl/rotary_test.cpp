#include "models/qwen2_vl/rotary.h"

#include <cmath>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

TEST(Rotary, InverseFrequencies) {
  for (const auto& [theta, dim] : {std::pair{10000.0, 40}, {1e6, 128}, {10000.0, 2}}) {
    const std::vector<float> frequencies = inverse_frequencies(theta, dim);
    ASSERT_EQ(frequencies.size(), static_cast<std::size_t>(dim / 2));
    EXPECT_EQ(frequencies[0], 1.0F);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
      const double exact = std::exp(-std::log(theta) * 2 * static_cast<double>(i) / dim);
      EXPECT_NEAR(frequencies[i] / exact, 1, 1e-6) << i;
    }
  }
}

TEST(Rotary, TableOfAngles) {
  const auto ops = make_ref_ops();
  // The first pair turns with the second axis, the other with the first.
  const std::vector<std::int32_t> first{0, 100, 200}, second{0, 1, 2}, axis{1, 0};
  const std::vector<float> frequency{1, 1};
  const std::vector<std::span<const std::int32_t>> positions{first, second};
  const auto table = make_rotary_table(*ops, 3, {positions, axis, frequency});
  ASSERT_TRUE(table);
  const ConstMatrixView cos = table->cos.view().f32(), sin = table->sin.view().f32();
  for (std::int64_t row = 0; row < 3; ++row) {
    const double r = static_cast<double>(row);
    EXPECT_NEAR(cos.row(row)[0], std::cos(r), 1e-7);
    EXPECT_NEAR(sin.row(row)[0], std::sin(r), 1e-7);
    EXPECT_NEAR(cos.row(row)[1], std::cos(100 * r), 1e-6);
    EXPECT_NEAR(sin.row(row)[1], std::sin(100 * r), 1e-6);
  }
}

}  // namespace
}  // namespace chiasm
