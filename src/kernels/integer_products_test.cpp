// Products in small integers: every kernel and SIMD target of this machine against the plain reference, the row
// contract bit for bit, and how far from the exact product the rounding may lead.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/result.h"
#include "base/test_support.h"
#include "kernels/gemm_quantised_cpu.h"
#include "kernels/ops.h"

// clang-format off
#include "kernels/targets_cpu.h"  // says what is built, so before Highway
#include <hwy/highway.h>
// clang-format on

#include "kernels/test_matrices.h"

namespace chiasm {
namespace {

struct Way {
  const IntegerKernel* kernel = nullptr;
  std::int64_t target = 0;  // of Highway, for the rest
};

std::vector<Way> ways() {
  std::vector<Way> out;
  for (const IntegerKernel* kernel : integer_kernels()) {
    if (kernel != integer_kernels().back()) {
      out.push_back({kernel, 0});
      continue;
    }
    for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) out.push_back({kernel, target});
  }
  return out;
}

class IntegerProductsTest : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    choose_target(GetParam().target);
    random_.seed(std::random_device{}());
  }
  void TearDown() override { choose_target(0); }

  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  Matrix random(std::int64_t rows, std::int64_t cols) {
    Matrix out(rows, cols);
    std::normal_distribution<float> value;
    std::generate_n(out.data(), out.size(), [&] { return value(random_); });
    return out;
  }
  static TensorView view_of(const Matrix& m) {
    return {DType::kF32, {m.rows(), m.cols()}, std::as_bytes(std::span(m.data(), static_cast<std::size_t>(m.size())))};
  }
  static bool same_bits(ConstMatrixView a, ConstMatrixView b) {
    for (std::int64_t i = 0; i < a.rows; ++i)
      if (std::memcmp(a.row(i), b.row(i), static_cast<std::size_t>(a.cols) * sizeof(float)) != 0) return false;
    return true;
  }

  ThreadPool threads_{3};
  std::unique_ptr<Ops> cpu_ = make_cpu_ops(threads_, *GetParam().kernel), ref_ = make_ref_ops();
  std::mt19937_64 random_;
};

TEST_P(IntegerProductsTest, MatchTheReference) {
  for (int round = 0; round < 60; ++round) {
    const Precision precision = std::array{Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}[round % 3];
    const std::int64_t m = pick(1, round % 8 < 2 ? 200 : 20), n = pick(1, 330), k = pick(1, round % 6 < 2 ? 1200 : 300);
    const Matrix w = random(n, k), x = random(m, k), bias = random(1, n), before = random(m, n);
    const TensorView weight = view_of(w);
    TensorView bias_view = view_of(bias);
    bias_view.shape = {n};
    const std::span<const TensorView> biases(&bias_view, pick(0, 1) == 1 ? 1 : 0);
    Epilogue epilogue;
    epilogue.activation = std::array{Activation::kNone, Activation::kQuickGelu, Activation::kGelu}[pick(0, 2)];
    epilogue.add_to_out = pick(0, 1) == 1;
    Matrix got = epilogue.add_to_out ? copy_of(before) : poisoned(m, n);
    Matrix want = epilogue.add_to_out ? copy_of(before) : poisoned(m, n);
    cpu_->matmul(x.view(), *must(cpu_->quantise({&weight, 1}, biases, precision)), epilogue, got.view());
    ref_->matmul(x.view(), *must(ref_->quantise({&weight, 1}, biases, precision)), epilogue, want.view());
    // The groups' sums are the same integers; what is left are a few roundings a group where a target has no fused
    // multiply-add, of sums below 8 sqrt(k), and those of the activation.
    const float bound = std::numeric_limits<float>::epsilon() *
                        (8 * std::sqrt(static_cast<float>(k)) * (4 + static_cast<float>(k) / 32) + 16);
    for (std::int64_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got.data()[i], want.data()[i], bound)
          << precision_name(precision) << ' ' << m << " x " << n << " x " << k << " at " << i / n << ", " << i % n;
  }
}

// A gated product is the product and silu_mul, bit for bit, whether its halves are whole panels or not.
TEST_P(IntegerProductsTest, AGatedProductIsItsParts) {
  for (int round = 0; round < 12; ++round) {
    const Precision precision = std::array{Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}[round % 3];
    const std::int64_t half = round < 6 ? 32 * pick(1, 8) : pick(1, 200);
    const std::int64_t m = round % 2 == 0 ? pick(1, 20) : pick(25, 300), k = pick(1, 400);
    const Matrix w = random(2 * half, k), x = random(m, k), bias = random(1, 2 * half);
    const TensorView weight = view_of(w);
    TensorView bias_view = view_of(bias);
    bias_view.shape = {2 * half};
    const std::span<const TensorView> biases(&bias_view, pick(0, 1) == 1 ? 1 : 0);
    const auto prepared = must(cpu_->quantise({&weight, 1}, biases, precision));
    Matrix got = poisoned(m, 2 * half), want = poisoned(m, 2 * half);
    cpu_->matmul(x.view(), *prepared, {.gated = true}, got.view());
    cpu_->matmul(x.view(), *prepared, {}, want.view());
    const MatrixView gate = want.view().col_range(0, half);
    cpu_->silu_mul(gate, want.view().col_range(half, half), gate);
    ASSERT_TRUE(same_bits(got.view().col_range(0, half), gate))
        << precision_name(precision) << ' ' << m << " x 2 * " << half << " x " << k;
  }
}

TEST_P(IntegerProductsTest, RowsDoNotDependOnTheirCompany) {
  for (const Precision precision : {Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}) {
    const std::int64_t m = 317, n = pick(1, 300), k = pick(500, 1100);
    const Matrix w = random(n, k), x = random(m, k);
    const TensorView weight = view_of(w);
    const auto prepared = must(cpu_->quantise({&weight, 1}, {}, precision));
    const Epilogue epilogue{.activation = Activation::kQuickGelu};
    Matrix all = poisoned(m, n);
    cpu_->matmul(x.view(), *prepared, epilogue, all.view());
    for (std::int64_t first = 0; first < m;) {
      const std::int64_t count = std::min(m - first, pick(1, 40));
      Matrix some = poisoned(count, n);
      cpu_->matmul(x.view().row_range(first, count), *prepared, epilogue, some.view());
      ASSERT_TRUE(same_bits(some.view(), all.view().row_range(first, count))) << first << " + " << count;
      first += count;
    }
  }
}

// |sum of w x - sum of w' x'| is at most the sum of |w| dx + |x'| dw: half a step of each group's scale.
TEST_P(IntegerProductsTest, AreWithinHalfAStepOfTheExactOnes) {
  for (const Precision precision : {Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}) {
    const IntegerFormat format = integer_format(precision);
    const std::int64_t m = pick(1, 12), n = pick(1, 60), k = pick(1, 700);
    const Matrix w = random(n, k), x = random(m, k);
    const TensorView weight = view_of(w);
    Matrix got = poisoned(m, n);
    cpu_->matmul(x.view(), *must(cpu_->quantise({&weight, 1}, {}, precision)), {}, got.view());
    const auto largest = [&](const float* row, std::int64_t g) {
      double most = 0;
      for (std::int64_t i = g * format.group; i < std::min(k, (g + 1) * format.group); ++i)
        most = std::max(most, std::abs(static_cast<double>(row[i])));
      return most;
    };
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double exact = 0, bound = 1e-4;
        for (std::int64_t l = 0; l < k; ++l) {
          const double a = static_cast<double>(x.row(i)[l]), b = static_cast<double>(w.row(j)[l]);
          // A scale is rounded to 8 bits away from zero. Of int4 a positive extreme beside a negative scale, or the
          // other way about, loses up to a whole step.
          const double x_step = largest(x.row(i), l / format.group) / 127;
          const double w_step = largest(w.row(j), l / format.group) / (format.bits == 8 ? 127 : 8) * (1 + 1.0 / 128);
          exact += a * b;
          bound += std::abs(b) * x_step / 2 + (std::abs(a) + x_step / 2) * w_step * (format.bits == 8 ? 0.5 : 1.0);
        }
        ASSERT_LE(std::abs(static_cast<double>(got.row(i)[j]) - exact), bound) << precision_name(precision);
      }
    }
  }
}

// What a large value does to its row stays in its group.
TEST_P(IntegerProductsTest, AMassiveActivationSpoilsItsGroupAlone) {
  const std::int64_t k = 1024, n = 40;
  Matrix w = random(n, k), x = random(1, k);
  for (std::int64_t j = 0; j < n; ++j) w.row(j)[700] = 0;  // the massive one itself does not count
  const TensorView weight = view_of(w);
  const auto prepared = must(cpu_->quantise({&weight, 1}, {}, Precision::kInt8));
  Matrix calm = poisoned(1, n), wild = poisoned(1, n);
  cpu_->matmul(x.view(), *prepared, {}, calm.view());
  x.row(0)[700] = 1e4F;
  cpu_->matmul(x.view(), *prepared, {}, wild.view());
  // The others of its 128 inputs are rounded away: a sum of 128 products of normal numbers, of which the deviation is
  // sqrt(128).
  for (std::int64_t j = 0; j < n; ++j) EXPECT_NEAR(wild.row(0)[j], calm.row(0)[j], 6 * std::sqrt(128.0F));
}

TEST_P(IntegerProductsTest, WhatIsNotFiniteStaysSo) {
  const Matrix w = random(33, 200);
  const TensorView weight = view_of(w);
  for (const Precision precision : {Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}) {
    const auto prepared = must(cpu_->quantise({&weight, 1}, {}, precision));
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      Matrix x = random(3, 200), out = poisoned(3, 33);
      x.row(1)[150] = bad;
      cpu_->matmul(x.view(), *prepared, {}, out.view());
      for (std::int64_t j = 0; j < 33; ++j) {
        EXPECT_TRUE(std::isfinite(out.row(0)[j]) && std::isfinite(out.row(2)[j]));
        EXPECT_FALSE(std::isfinite(out.row(1)[j]));
      }
    }
    Matrix broken = copy_of(w);
    broken.row(7)[3] = NAN;
    const TensorView broken_view = view_of(broken);
    const Matrix x = random(2, 200);
    Matrix out = poisoned(2, 33);
    cpu_->matmul(x.view(), *must(cpu_->quantise({&broken_view, 1}, {}, precision)), {}, out.view());
    for (std::int64_t j = 0; j < 33; ++j) EXPECT_EQ(std::isfinite(out.row(0)[j]), j != 7);
    // Zeros and what is next to them give zeros.
    Matrix nothing(2, 200);
    std::fill_n(nothing.data(), nothing.size(), 0.0F);
    nothing.row(1)[5] = 1e-40F;
    cpu_->matmul(nothing.view(), *prepared, {}, out.view());
    for (std::int64_t j = 0; j < 66; ++j) EXPECT_EQ(out.data()[j], 0);
  }
}

TEST_P(IntegerProductsTest, EmbedGivesTheRoundedRows) {
  for (const Precision precision : {Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}) {
    const Matrix w = random(70, 90);
    const TensorView weight = view_of(w);
    const std::vector<std::int32_t> ids{3, 69, 0};
    Matrix got = poisoned(3, 90), want = poisoned(3, 90);
    cpu_->embed(ids, *must(cpu_->quantise({&weight, 1}, {}, precision)), got.view());
    ref_->embed(ids, *must(ref_->quantise({&weight, 1}, {}, precision)), want.view());
    EXPECT_TRUE(same_bits(got.view(), want.view()));
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t j = 0; j < 90; ++j)
        EXPECT_NEAR(got.row(i)[j], w.row(ids[static_cast<std::size_t>(i)])[j],
                    precision == Precision::kInt4 ? 0.7 : 0.03);
  }
}

// Rows that were rounded one by one and stored give the same weight as those rounded at load.
TEST_P(IntegerProductsTest, StoredIntegersAreTheSameWeight) {
  for (const Precision precision : {Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}) {
    const IntegerFormat format = integer_format(precision);
    const std::int64_t k = pick(1, 300);
    const Matrix top = random(pick(1, 50), k), bottom = random(pick(1, 50), k), x = random(5, k);
    const std::int64_t n = top.rows() + bottom.rows();
    std::vector<QuantisedTensor> tensors;
    std::vector<std::vector<std::uint8_t>> values;
    std::vector<std::vector<std::uint16_t>> scales;
    for (const Matrix* part : {&top, &bottom}) {
      auto& v = values.emplace_back(static_cast<std::size_t>(part->rows() * format.row_bytes(k)));
      auto& s = scales.emplace_back(static_cast<std::size_t>(part->rows() * format.groups(k)));
      for (std::int64_t i = 0; i < part->rows(); ++i)
        quantise_row(part->row(i), k, format, v.data() + i * format.row_bytes(k), s.data() + i * format.groups(k));
      tensors.push_back({{DType::kU8, {part->rows(), format.row_bytes(k)}, std::as_bytes(std::span(v))},
                         {DType::kBF16, {part->rows(), format.groups(k)}, std::as_bytes(std::span(s))},
                         k});
    }
    const std::array<TensorView, 2> views{view_of(top), view_of(bottom)};
    Matrix now = poisoned(5, n), before = poisoned(5, n);
    cpu_->matmul(x.view(), *must(cpu_->quantise(views, {}, precision)), {}, now.view());
    cpu_->matmul(x.view(), *must(cpu_->prepare_quantised(tensors, {}, precision)), {}, before.view());
    EXPECT_TRUE(same_bits(now.view(), before.view()));
    tensors[0].depth = k + 200;
    EXPECT_FALSE(cpu_->prepare_quantised(tensors, {}, precision));
    tensors[0].depth = k;
    tensors[1].scales.dtype = DType::kF16;
    EXPECT_FALSE(cpu_->prepare_quantised(tensors, {}, precision));
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, IntegerProductsTest, testing::ValuesIn(ways()), [](const auto& way) {
  std::string name(way.param.kernel->name);
  std::replace(name.begin(), name.end(), '-', '_');
  return way.param.target == 0 ? name : name + "_" + hwy::TargetName(way.param.target);
});

}  // namespace
}  // namespace chiasm
