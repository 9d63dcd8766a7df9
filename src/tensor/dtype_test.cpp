#include "tensor/dtype.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The value of an IEEE binary16 by its definition.
double half_value(std::uint16_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = bits >> 10 & 31, fraction = bits & 0x3FF;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * kInf;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(DType, NamesThereAndBack) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64, DType::kU8})
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)).value(), dtype);
  for (int i = 0; i <= static_cast<int>(DType::kF4); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)).value(), dtype);
    EXPECT_GT(bits_of(dtype), 0U);
    EXPECT_EQ(size_of(dtype), bits_of(dtype) / 8);
    EXPECT_EQ(is_weight_dtype(dtype), i < 3) << dtype_name(dtype);
  }
  EXPECT_EQ(dtype_from_name("F8_E4M4").error().code, Code::kUnimplemented);
  EXPECT_NE(dtype_from_name("f32").error().message.find("'f32'"), std::string::npos);
}

TEST(DType, EveryHalfThereAndBack) {
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float value = f16_to_f32(bits);
    if (std::isnan(half_value(bits))) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      ASSERT_EQ(static_cast<double>(value), half_value(bits)) << i;
      ASSERT_EQ(f32_to_f16(value), bits) << i;
    }
  }
}

// Between any two neighbouring halves: the midpoint goes to the even one, a hair beside it to the nearer one.
TEST(DType, HalfRoundsToNearestEven) {
  for (std::uint32_t i = 0; i < 0x7BFF; ++i) {
    const auto low = static_cast<std::uint16_t>(i), high = static_cast<std::uint16_t>(i + 1);
    const auto middle = static_cast<float>((half_value(low) + half_value(high)) / 2);
    ASSERT_EQ(f32_to_f16(middle), i % 2 == 0 ? low : high) << i;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0F)), low) << i;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, kInf)), high) << i;
    ASSERT_EQ(f32_to_f16(-middle), (i % 2 == 0 ? low : high) | 0x8000) << i;
  }
}

TEST(DType, HalfAtTheEdges) {
  EXPECT_EQ(f32_to_f16(65519.996F), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(f32_to_f16(1e30F), 0x7C00);
  EXPECT_EQ(f32_to_f16(-kInf), 0xFC00);
  EXPECT_EQ(f32_to_f16(-0.0F), 0x8000);
  EXPECT_EQ(f32_to_f16(1e-30F), 0);
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0x7F800001U)) & 0x7C00, 0x7C00);
  EXPECT_NE(f32_to_f16(std::bit_cast<float>(0x7F800001U)) & 0x03FF, 0);
}

TEST(DType, Bfloat16) {
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float value = bf16_to_f32(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << i;
    } else {
      ASSERT_EQ(f32_to_bf16(value), bits);
    }
  }
  const auto from_bits = [](std::uint32_t bits) { return f32_to_bf16(std::bit_cast<float>(bits)); };
  EXPECT_EQ(from_bits(0x3F808000), 0x3F80);  // a tie, to even: down
  EXPECT_EQ(from_bits(0x3F818000), 0x3F82);  // a tie, to even: up
  EXPECT_EQ(from_bits(0x3F808001), 0x3F81);
  EXPECT_EQ(from_bits(0x3F807FFF), 0x3F80);
  EXPECT_EQ(from_bits(0x7F7FFFFF), 0x7F80);  // the largest float carries into infinity
  EXPECT_EQ(from_bits(0xFF800000), 0xFF80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(from_bits(0x7F800001))));  // a NaN whose bits are all below the cut
  EXPECT_TRUE(std::isnan(bf16_to_f32(from_bits(0xFFFFFFFF))));
}

}  // namespace
}  // namespace chiasm
