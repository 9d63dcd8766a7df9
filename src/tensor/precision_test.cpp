// Rounding to eight bits. What the rounding to integers makes of weights and activations is tested with the products of
// integers (kernels/integer_products_test.cpp).
#include "tensor/precision.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// The number that a code stands for, by the format's definition.
double number_of(int code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const double size = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return (code & 0x80) != 0 ? -size : size;
}

TEST(PrecisionTest, NamesAreThoseOfTheOption) {
  for (const char* name : {"exact", "int8", "int4", "fp8"}) EXPECT_EQ(precision_name(*precision_from_name(name)), name);
  EXPECT_EQ(*precision_from_name("fp8"), Precision::kFp8);
  EXPECT_THAT(precision_from_name("int8 in groups of 32").error().message, HasSubstr("int4 or fp8"));
  EXPECT_FALSE(is_integer(Precision::kFp8) || is_integer(Precision::kExact));
}

TEST(PrecisionTest, EveryFp8CodeIsItsNumberAndComesBack) {
  for (int code = 0; code < 256; ++code) {
    const auto bits = static_cast<std::uint8_t>(code);
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(e4m3_to_f32(bits))) << code;
      EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(bits)) & 0x7F, 0x7F);
      continue;
    }
    EXPECT_EQ(static_cast<double>(e4m3_to_f32(bits)), number_of(code)) << code;
    EXPECT_EQ(std::signbit(e4m3_to_f32(bits)), (code & 0x80) != 0) << code;
    EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(bits)), bits) << code;
  }
}

TEST(PrecisionTest, Fp8RoundsToNearestTiesToEven) {
  for (int code = 0; code + 1 < 0x7F; ++code) {
    const auto low = static_cast<float>(number_of(code)), high = static_cast<float>(number_of(code + 1));
    const float middle = (low + high) / 2;  // exact in f32
    for (const float sign : {1.0F, -1.0F}) {
      const int bit = sign < 0 ? 0x80 : 0;
      EXPECT_EQ(f32_to_e4m3(sign * std::nextafter(middle, 0.0F)), code | bit) << middle;
      EXPECT_EQ(f32_to_e4m3(sign * middle), (code % 2 == 0 ? code : code + 1) | bit) << middle;
      EXPECT_EQ(f32_to_e4m3(sign * std::nextafter(middle, kInf)), (code + 1) | bit) << middle;
    }
  }
  EXPECT_EQ(f32_to_e4m3(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f32_to_e4m3(-0.0F), 0x80);
}

TEST(PrecisionTest, Fp8SaturatesAndKeepsWhatIsNoNumber) {
  for (const float x : {448.0F, 463.9F, 464.0F, 480.0F, 1e9F, std::numeric_limits<float>::max(), kInf}) {
    EXPECT_EQ(f32_to_e4m3(x), 0x7E) << x;
    EXPECT_EQ(f32_to_e4m3(-x), 0xFE) << x;
  }
  EXPECT_EQ(f32_to_e4m3(kNan) & 0x7F, 0x7F);
}

TEST(PrecisionTest, RowsInFp8AreNearAndUseTheWholeRange) {
  std::mt19937_64 random(std::random_device{}());
  std::normal_distribution<float> value;
  for (int round = 0; round < 50; ++round) {
    const auto count = std::uniform_int_distribution<std::int64_t>(1, 700)(random);
    const float size = std::ldexp(1.0F, std::uniform_int_distribution<int>(-90, 90)(random));
    std::vector<float> x(static_cast<std::size_t>(count));
    float largest = 0;
    for (float& one : x) one = value(random) * size, largest = std::max(largest, std::abs(one));
    std::vector<std::uint8_t> codes(x.size());
    const float scale = round_row_to_fp8(x.data(), count, codes.data());
    EXPECT_EQ(scale, largest / 448);
    int most = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      most = std::max(most, codes[i] & 0x7F);
      EXPECT_EQ(codes[i], f32_to_e4m3(x[i] * (448 / largest)));
      // Half a step: 2^-4 of the value, 2^-10 of the scale for the smallest; and what the scale's roundings add.
      EXPECT_NEAR(e4m3_to_f32(codes[i]) * scale, x[i], 1.0001F * (std::abs(x[i]) / 16 + scale / 1024)) << x[i];
    }
    EXPECT_EQ(most, 0x7E);
  }
}

TEST(PrecisionTest, RowsInFp8OfNothingAndOfWhatIsNotFinite) {
  std::vector<std::uint8_t> codes(3, 0xAA);
  for (const float small : {0.0F, -0.0F, 1e-31F, std::numeric_limits<float>::denorm_min()}) {
    const std::vector<float> x{0.0F, small, -small};
    EXPECT_EQ(round_row_to_fp8(x.data(), 3, codes.data()), 0.0F) << small;
    EXPECT_EQ(codes, (std::vector<std::uint8_t>{0, 0, 0}));
  }
  for (const float broken : {kNan, -kNan, kInf, -kInf}) {
    const std::vector<float> x{1.0F, broken, 2.0F};
    EXPECT_TRUE(std::isnan(round_row_to_fp8(x.data(), 3, codes.data()))) << broken;
    EXPECT_EQ(codes, (std::vector<std::uint8_t>{0, 0, 0}));
  }
  const std::vector<float> huge{std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(), 1.0F};
  EXPECT_TRUE(std::isfinite(round_row_to_fp8(huge.data(), 3, codes.data())));
  EXPECT_EQ(codes, (std::vector<std::uint8_t>{0x7E, 0xFE, 0}));
  EXPECT_EQ(round_row_to_fp8(nullptr, 0, nullptr), 0.0F);
}

}  // namespace
}  // namespace chiasm
