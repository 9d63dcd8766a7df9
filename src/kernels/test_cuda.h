// For tests of the cuda kernels beside the plain reference: fresh random inputs, strides and dtypes, poisoned outputs.
// Skipped, with the reason, where there is no card.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/devices.h"

namespace chiasm {

// BF16 has 8 bits of significand: rounding to nearest errs by up to 2^-8 of the value.
inline constexpr float kRounding = 1.0F / 256;

// Values as BF16 would hold them, so that what both sides compute with is the same.
inline Matrix rounded(Matrix m) {
  for (std::int64_t i = 0; i < m.size(); ++i) m.data()[i] = bf16_to_f32(f32_to_bf16(m.data()[i]));
  return m;
}

inline std::span<const float> values_of(const Matrix& m) { return {m.data(), static_cast<std::size_t>(m.size())}; }

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    auto ops = make_ops("cuda:0", threads_);
    if (!ops) GTEST_SKIP() << ops.error().message;
    cuda_ = std::move(*ops);
    const auto seed = std::random_device{}();
    random_.seed(seed);
    RecordProperty("seed", static_cast<int>(seed));
  }

  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  Matrix random(std::int64_t rows, std::int64_t cols, float range = 1.0F) {
    Matrix out(rows, cols);
    std::uniform_real_distribution<float> value(-range, range);
    std::generate_n(out.data(), out.size(), [&] { return value(random_); });
    return out;
  }

  // On the card, with `extra` columns of NaN behind each row.
  struct OnCard {
    Buffer buffer;
    View view;
  };
  OnCard on_card(const Matrix& values, DType dtype, std::int64_t extra = 0) {
    OnCard out = poisoned(values.rows(), values.cols(), dtype, extra);
    cuda_->upload(values_of(values), out.view);
    return out;
  }
  OnCard poisoned(std::int64_t rows, std::int64_t cols, DType dtype, std::int64_t extra = 0) {
    OnCard out{*cuda_->allocate(rows, cols + extra, dtype), {}};
    const std::vector<float> nan(static_cast<std::size_t>(out.buffer.size()), std::numeric_limits<float>::quiet_NaN());
    cuda_->upload(nan, out.buffer.view());
    out.view = out.buffer.view().col_range(0, cols);
    return out;
  }
  Matrix back(ConstView view) {
    Matrix out(view.rows, view.cols);
    const Status status = cuda_->download(view, {out.data(), static_cast<std::size_t>(out.size())});
    EXPECT_TRUE(status) << status.error().message;
    return out;
  }
  // Nothing was written behind the rows.
  void expect_untouched(const OnCard& m, std::int64_t extra) {
    if (extra == 0) return;
    const Matrix behind = back(std::as_const(m.buffer).view().col_range(m.view.cols, extra));
    for (std::int64_t i = 0; i < behind.size(); ++i) ASSERT_TRUE(std::isnan(behind.data()[i]));
  }

  struct HostWeight {
    std::vector<std::byte> bytes;
    std::vector<float> bias;
    std::vector<TensorView> weights, biases;
  };
  // A [n, k] weight whose values BF16 can hold, in any dtype, scaled so that sums stay near 1.
  HostWeight random_weight(std::int64_t n, std::int64_t k, DType dtype, bool bias) {
    HostWeight out;
    const Matrix values = rounded(random(n, k, 1.7F / std::sqrt(static_cast<float>(k))));
    out.bytes.resize(static_cast<std::size_t>(n * k) * size_of(dtype));
    for (std::int64_t i = 0; i < n * k; ++i) {
      const float value =
          dtype == DType::kF16 ? std::ldexp(std::round(std::ldexp(values.data()[i], 7)), -7) : values.data()[i];
      const std::uint16_t bits = dtype == DType::kBF16 ? f32_to_bf16(value) : f32_to_f16(value);
      if (dtype == DType::kF32) {
        std::memcpy(&out.bytes[static_cast<std::size_t>(i) * 4], &value, 4);
      } else {
        std::memcpy(&out.bytes[static_cast<std::size_t>(i) * 2], &bits, 2);
      }
    }
    out.weights.push_back({dtype, {n, k}, out.bytes});
    if (bias) {
      const Matrix b = rounded(random(1, n));
      out.bias.assign(b.data(), b.data() + n);
      out.biases.push_back({DType::kF32, {n}, std::as_bytes(std::span(out.bias))});
    }
    return out;
  }

  static void expect_near(const Matrix& got, const Matrix& want, float absolute, float relative) {
    ASSERT_EQ(got.rows(), want.rows());
    ASSERT_EQ(got.cols(), want.cols());
    for (std::int64_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got.data()[i], want.data()[i], absolute + relative * std::abs(want.data()[i]))
          << "at " << i / got.cols() << ", " << i % got.cols();
  }

  ThreadPool threads_{4};
  std::unique_ptr<Ops> cuda_, ref_ = make_ref_ops();
  std::mt19937_64 random_;
};

}  // namespace chiasm
