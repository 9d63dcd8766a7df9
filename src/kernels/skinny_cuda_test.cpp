// Products of few rows on the card in every format a weight may have, called as the Ops calls them.
#ifdef CHIASM_CUDA
#include <array>
#include <cmath>
#include <cstring>

#include <cuda_runtime_api.h>

#include "kernels/kernels_cuda.h"
#include "kernels/test_cuda.h"
#include "tensor/precision.h"

namespace chiasm {
namespace {

// Memory of the card, filled from the host.
class OnDevice {
 public:
  template <class T>
  explicit OnDevice(const std::vector<T>& values) : bytes_(values.size() * sizeof(T)) {
    EXPECT_EQ(cudaMalloc(&data_, std::max<std::size_t>(bytes_, 1)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), bytes_, cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  void* get() const { return data_; }
  template <class T>
  std::vector<T> back() const {
    std::vector<T> out(bytes_ / sizeof(T));
    EXPECT_EQ(cudaMemcpy(out.data(), data_, bytes_, cudaMemcpyDeviceToHost), cudaSuccess);
    return out;
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

float e4m3(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(8.0F + static_cast<float>(mantissa), exponent - 10);
  return (bits & 128) != 0 ? -size : size;
}

// How a weight is kept, the numbers it is multiplied as, and what those are multiplied by behind the sum.
struct SmallWeight {
  CudaFormat format = CudaFormat::kBf16;
  int group = 0;
  std::int64_t row_bytes = 0;
  std::vector<std::uint8_t> data;
  std::vector<std::uint16_t> scales;
  std::vector<float> row_scales;
  Matrix numbers;
};

enum class Kind : std::uint8_t { kBf16, kInt8, kInt8Fine, kInt4, kFp8 };
constexpr std::array kKinds{Kind::kBf16, Kind::kInt8, Kind::kInt8Fine, Kind::kInt4, Kind::kFp8};

class SkinnyCudaTest : public CudaTest {
 protected:
  // Numbers below 1.7 / sqrt(k).
  SmallWeight weight_of(Kind kind, std::int64_t n, std::int64_t k) {
    SmallWeight out;
    const float most = 1.7F / std::sqrt(static_cast<float>(k));
    out.numbers = rounded(random(n, k, most));
    if (kind == Kind::kBf16) {
      out.row_bytes = 2 * k;
      out.data.resize(static_cast<std::size_t>(n * k) * 2);
      for (std::int64_t i = 0; i < n * k; ++i) {
        const std::uint16_t bits = f32_to_bf16(out.numbers.data()[i]);
        std::memcpy(&out.data[static_cast<std::size_t>(i) * 2], &bits, 2);
      }
      return out;
    }
    if (kind == Kind::kFp8) {
      out.format = CudaFormat::kFp8;
      out.row_bytes = (k + 15) / 16 * 16;
      out.data.resize(static_cast<std::size_t>(n * out.row_bytes));
      for (std::int64_t i = 0; i < n; ++i) {
        out.row_scales.push_back(most / 448 * (static_cast<float>(pick(1, 1000)) / 1000));
        for (std::int64_t j = 0; j < k; ++j) {
          auto bits = static_cast<std::uint8_t>(pick(0, 255));
          if ((bits & 127) == 127) bits ^= 1;  // not a number
          out.data[static_cast<std::size_t>(i * out.row_bytes + j)] = bits;
          out.numbers.row(i)[j] = e4m3(bits) * out.row_scales.back();
        }
      }
      return out;
    }
    const Precision precision = kind == Kind::kInt8   ? Precision::kInt8
                                : kind == Kind::kInt4 ? Precision::kInt4
                                                      : Precision::kInt8Fine;
    const IntegerFormat format = integer_format(precision);
    out.format = format.bits == 8 ? CudaFormat::kInt8 : CudaFormat::kInt4;
    out.group = static_cast<int>(format.group);
    out.row_bytes = format.row_bytes(k);
    out.data.resize(static_cast<std::size_t>(n * out.row_bytes));
    out.scales.resize(static_cast<std::size_t>(n * format.groups(k)));
    for (std::int64_t i = 0; i < n; ++i) {
      std::uint8_t* const values = out.data.data() + i * out.row_bytes;
      std::uint16_t* const scales = out.scales.data() + i * format.groups(k);
      quantise_row(out.numbers.row(i), k, format, values, scales);
      for (std::int64_t j = 0; j < k; ++j) out.numbers.row(i)[j] = dequantised(values, scales, format, j);
    }
    // In groups of 32 the weights are scaled and rounded, in those of 128 their sums are scaled.
    if (kind != Kind::kInt8) out.numbers = rounded(std::move(out.numbers));
    return out;
  }
};

TEST_F(SkinnyCudaTest, EveryFormatMatchesReferenceAndKeepsRowsApart) {
  for (int round = 0; round < 160; ++round) {
    const Kind kind = kKinds[static_cast<std::size_t>(round) % kKinds.size()];
    const std::int64_t m = round / 5 % 16 + 1, k = 8 * (round % 3 == 0 ? pick(100, 700) : pick(1, 200)),
                       extra = pick(0, 3);
    const bool gated = pick(0, 1) == 1, normed = m <= kNormedRows && k % 8 == 0 && pick(0, 1) == 1;
    const std::int64_t n = gated ? 2 * pick(1, 700) : pick(1, round % 4 == 0 ? 5000 : 300);
    const std::int64_t results = gated ? n / 2 : n, stride = n + extra;
    const bool add = !gated && pick(0, 1) == 1, has_bias = pick(0, 1) == 1, f32 = add || pick(0, 1) == 1;
    const SmallWeight weight = weight_of(kind, n, k);
    const Matrix x = normed ? random(m, k, 3.0F) : rounded(random(m, k)), norm = random(1, k), bias = random(1, n),
                 before = random(m, stride);
    // --- the reference: exact products of these numbers
    Matrix rows(m, k), want(m, n);
    if (normed) {
      ref_->rms_norm(x.view(), norm.data(), 1e-6F, rows.view());
      rows = rounded(std::move(rows));
    } else {
      std::copy_n(x.data(), x.size(), rows.data());
    }
    float most = 0;
    for (std::int64_t i = 0; i < rows.size(); ++i) most = std::max(most, std::abs(rows.data()[i]));
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = has_bias ? bias.data()[j] : 0;
        for (std::int64_t c = 0; c < k; ++c) sum += static_cast<double>(rows.row(i)[c]) * weight.numbers.row(j)[c];
        want.row(i)[j] = static_cast<float>(sum);
      }
    // --- the card
    const OnDevice data(weight.data), scales(weight.scales), row_scales(weight.row_scales);
    std::vector<std::uint16_t> halves(static_cast<std::size_t>(m * k));
    std::transform(rows.data(), rows.data() + rows.size(), halves.begin(), f32_to_bf16);
    const OnDevice x_bf16(halves), x_f32(std::vector<float>(x.data(), x.data() + x.size())),
        on_norm(std::vector<float>(norm.data(), norm.data() + k)),
        on_bias(std::vector<float>(bias.data(), bias.data() + n));
    SkinnyProduct product;
    product.weight = {.data = data.get(),
                      .scales = kind == Kind::kBf16  ? nullptr
                                : kind == Kind::kFp8 ? row_scales.get()
                                                     : scales.get(),
                      .k = k,
                      .row_bytes = weight.row_bytes,
                      .format = weight.format,
                      .group = weight.group};
    product.bias = has_bias ? static_cast<const float*>(on_bias.get()) : nullptr;
    product.add_to_out = add;
    product.gated = gated;
    product.norm_weight = normed ? static_cast<const float*>(on_norm.get()) : nullptr;
    product.eps = 1e-6F;
    const auto multiply = [&](std::int64_t first, std::int64_t count) {
      product.x = {.data = static_cast<char*>(normed ? x_f32.get() : x_bf16.get()) + first * k * (normed ? 4 : 2),
                   .rows = count,
                   .cols = k,
                   .stride = k,
                   .f32 = normed};
      const float nan = std::numeric_limits<float>::quiet_NaN();
      std::vector<float> start(static_cast<std::size_t>(count * stride), nan);
      if (add) std::copy_n(before.row(first), count * stride, start.begin());
      const OnDevice out32(start), out16(std::vector<std::uint16_t>(start.size(), f32_to_bf16(nan)));
      const CudaView out{f32 ? out32.get() : out16.get(), count, n, stride, f32};
      EXPECT_EQ(skinny_matmul_cuda(product, out, nullptr), cudaSuccess);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      if (f32) return out32.back<float>();
      std::vector<float> got;
      for (const std::uint16_t bits : out16.back<std::uint16_t>()) got.push_back(bf16_to_f32(bits));
      return got;
    };
    const std::vector<float> got = multiply(0, m);
    // As in MatmulMatchesReference (products_cuda_test.cpp), for inputs up to `most` in size; a scale behind a sum is
    // one rounding more. Of a norm a few inputs may be rounded to the other side.
    const float depth = std::sqrt(static_cast<float>(k)),
                sums = std::max(1.0F, most) * (4 * depth * 0x1p-22F + 0x1p-20F) +
                       (normed ? 8 * kRounding * 3 * 1.7F / depth : 0);
    const float last = f32 ? 1e-5F : 1.01F * kRounding;
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < stride; ++j) {
        const float value = got[static_cast<std::size_t>(i * stride + j)];
        const std::string where = "row " + std::to_string(i) + " of " + std::to_string(m) + ", output " +
                                  std::to_string(j) + " of " + std::to_string(n) + ", k " + std::to_string(k) +
                                  ", format " + std::to_string(static_cast<int>(kind)) + (gated ? ", gated" : "") +
                                  (normed ? ", normed" : "") + (add ? ", added" : "");
        if (j >= results) {
          if (add) {
            ASSERT_EQ(value, before.row(i)[j]) << where;
          } else {
            ASSERT_TRUE(std::isnan(value)) << where;
          }
          continue;
        }
        const float g = want.row(i)[j];
        if (!gated) {
          const float expected = add ? g + before.row(i)[j] : g;
          ASSERT_NEAR(value, expected, sums + last * std::abs(expected)) << where;
          continue;
        }
        // silu's slope is below 1.1.
        const float u = want.row(i)[results + j], s = g / (1 + std::exp(-g));
        ASSERT_NEAR(value, s * u,
                    1.1F * sums * (std::abs(u) + std::abs(s) + sums) + (last + 1e-5F) * std::abs(s * u) + 1e-6F)
            << where;
      }
    // A row's bits are its own.
    const std::int64_t first = pick(0, m - 1), count = pick(1, m - first);
    const std::vector<float> some = multiply(first, count);
    for (std::int64_t i = 0; i < count; ++i)
      ASSERT_EQ(
          std::memcmp(&some[static_cast<std::size_t>(i * stride)], &got[static_cast<std::size_t>((first + i) * stride)],
                      static_cast<std::size_t>(results) * sizeof(float)),
          0)
          << count << " rows from " << first << " of " << m << ", format " << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace chiasm
#endif
