#include "tensor/tensor.h"

#include <array>
#include <cstring>

#include <gtest/gtest.h>

namespace chiasm {
namespace {

TEST(Shape, CountsInSixtyFourBits) {
  EXPECT_EQ(element_count({}).value(), 1);
  EXPECT_EQ(element_count({2, 3, 4}).value(), 24);
  EXPECT_EQ(element_count({5, 0}).value(), 0);
  EXPECT_FALSE(element_count({2, -1}));
  EXPECT_FALSE(element_count({INT64_MAX, 2}));
  EXPECT_FALSE(element_count({std::int64_t{1} << 32, std::int64_t{1} << 32}));
  EXPECT_FALSE(element_count({INT64_MAX, 2, 0}));
  EXPECT_EQ(byte_count({2, 3}, DType::kBF16).value(), 12U);
  EXPECT_EQ(byte_count({INT64_MAX}, DType::kU8).value(), static_cast<std::uint64_t>(INT64_MAX));
  EXPECT_FALSE(byte_count({INT64_MAX}, DType::kF32));
  EXPECT_EQ(shape_text({2, 3}), "[2, 3]");
  EXPECT_EQ(shape_text({}), "[]");
}

template <class T, std::size_t N>
TensorView view_of(DType dtype, const std::array<T, N>& values) {
  return {dtype, {static_cast<std::int64_t>(N)}, std::as_bytes(std::span(values))};
}

TEST(TensorView, ReadsEveryFloatType) {
  const std::array<float, 3> f32{1.0F, -2.5F, 3e-8F};
  const std::array<std::uint16_t, 2> bf16{0x3F80, 0xC020}, f16{0x3C00, 0xC100};
  EXPECT_EQ(to_f32(view_of(DType::kF32, f32)).value(), std::vector<float>(f32.begin(), f32.end()));
  EXPECT_EQ(to_f32(view_of(DType::kBF16, bf16)).value(), (std::vector<float>{1.0F, -2.5F}));
  EXPECT_EQ(to_f32(view_of(DType::kF16, f16)).value(), (std::vector<float>{1.0F, -2.5F}));
  EXPECT_EQ(element_as_f32(view_of(DType::kBF16, bf16), 1), -2.5F);
  EXPECT_EQ(element_as_f32(view_of(DType::kF16, f16), 1), -2.5F);
  EXPECT_EQ(element_as_f32(view_of(DType::kF32, f32), 2), 3e-8F);
  const std::array<std::int64_t, 1> integers{7};
  EXPECT_FALSE(to_f32(view_of(DType::kI64, integers)));
  EXPECT_TRUE(to_f32(TensorView{DType::kF32, {0, 4}, {}})->empty());
}

TEST(TensorView, UnalignedBytesAndWrongSizes) {
  std::array<std::byte, 9> raw{};
  const std::array<float, 2> values{1.5F, -4.0F};
  std::memcpy(raw.data() + 1, values.data(), 8);
  EXPECT_EQ(to_f32({DType::kF32, {2}, std::span(raw).subspan(1)}).value(), (std::vector<float>{1.5F, -4.0F}));
  EXPECT_FALSE(to_f32({DType::kF32, {3}, std::span(raw).subspan(1)}));
  EXPECT_FALSE(to_f32({DType::kF32, {-1}, raw}));
}

TEST(Matrix, IsAlignedAndRowMajor) {
  Matrix m(3, 5);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(m.data()) % 64, 0U);
  for (std::int64_t i = 0; i < m.size(); ++i) m.data()[i] = static_cast<float>(i);
  EXPECT_EQ(m.row(2)[1], 11.0F);
  const ConstMatrixView part = ConstMatrixView(m.view()).row_range(1, 2).col_range(2, 2);
  EXPECT_EQ(part.row(1)[1], 13.0F);
  EXPECT_EQ(part.stride, 5);
  Matrix moved = std::move(m);
  EXPECT_EQ(moved.row(0)[4], 4.0F);
  EXPECT_EQ(Matrix(0, 7).size(), 0);
  EXPECT_EQ(Matrix().data(), nullptr);
}

}  // namespace
}  // namespace chiasm
