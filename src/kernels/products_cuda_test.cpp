// Products on the card against the reference, and what of the row contract they keep.
#include <array>
#include <cmath>
#include <cstring>
#include <iostream>

#include "kernels/test_cuda.h"
#include "tensor/precision.h"

namespace chiasm {
namespace {

class ProductsCudaTest : public CudaTest {
 protected:
  // A weight in integers, and the numbers they stand for.
  struct Integers {
    std::vector<std::uint8_t> values;
    std::vector<std::uint16_t> scales;
    Matrix numbers;
  };
  static Integers integers_of(const HostWeight& weight, Precision precision) {
    const std::int64_t n = weight.weights[0].shape[0], k = weight.weights[0].shape[1];
    const IntegerFormat format = integer_format(precision);
    Integers out{std::vector<std::uint8_t>(static_cast<std::size_t>(n * format.row_bytes(k))),
                 std::vector<std::uint16_t>(static_cast<std::size_t>(n * format.groups(k))), Matrix(n, k)};
    std::vector<float> row(static_cast<std::size_t>(k));
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < k; ++j)
        row[static_cast<std::size_t>(j)] = element_as_f32(weight.weights[0], i * k + j);
      std::uint8_t* const values = out.values.data() + i * format.row_bytes(k);
      std::uint16_t* const scales = out.scales.data() + i * format.groups(k);
      quantise_row(row.data(), k, format, values, scales);
      for (std::int64_t j = 0; j < k; ++j) out.numbers.row(i)[j] = dequantised(values, scales, format, j);
    }
    return out;
  }
  static TensorView view_of(const Matrix& m) {
    return {DType::kF32, {m.rows(), m.cols()}, std::as_bytes(values_of(m))};
  }
};

constexpr std::int64_t kTurned = 80;          // head size that products turn themselves
constexpr std::int64_t kFewIntegerRows = 16;  // that go to the kernel whose rows do not depend on their number

struct ProductSize {
  std::int64_t m, n, k;
};

// What a card's sums of e4m3 products may be off by, of operands as random_weight() makes them and x up to 1: 32
// products at a time and the sum before are cut off at 2^-13 of the largest of them and added, and the new sum is cut
// off likewise: 34 errors of up to 2^-13 of what is mostly below 1/2, a third of whose squares is left on average, and
// sums of k / 32 such. Four times that.
float fp8_sums(std::int64_t k) {
  const std::int64_t steps = k / 32 + 1;
  return 4 * std::sqrt(34.0F / 3 * static_cast<float>(steps)) * 0x1p-14F + 0x1p-20F;
}

TEST_F(ProductsCudaTest, MatmulMatchesReference) {
  std::vector<ProductSize> sizes{{1, 1, 1},       {1, 16, 8},      {3, 1088, 384}, {16, 96, 1176},
                                 {17, 1088, 384}, {5, 37, 61},     {130, 77, 45},  {40, 384, 768},
                                 {200, 720, 240}, {256, 960, 240}, {64, 256, 64},  {333, 240, 960}};
  for (int i = 0; i < 20; ++i) sizes.push_back({pick(1, 70), pick(1, 300), pick(1, 400)});
  for (int i = 0; i < 20; ++i) sizes.push_back({pick(1, 300), 8 * pick(1, 40), 8 * pick(1, 100)});
  int round = 0;
  for (const auto& [m, n, k] : sizes) {
    const auto weight_dtype = std::array{DType::kBF16, DType::kF32, DType::kF16}[static_cast<std::size_t>(round % 3)];
    const DType out_dtype = round / 3 % 2 == 0 ? DType::kF32 : DType::kBF16;
    ++round;
    const HostWeight weight = random_weight(n, k, weight_dtype, pick(0, 1) == 1);
    const Matrix x = rounded(random(m, k)), before = rounded(random(m, n));
    Epilogue epilogue;
    epilogue.activation = std::array{Activation::kNone, Activation::kQuickGelu, Activation::kGelu}[pick(0, 2)];
    epilogue.add_to_out = pick(0, 1) == 1;
    const std::int64_t extra = 8 * pick(0, 1);
    const OnCard on = on_card(x, DType::kBF16, extra);
    const OnCard out = epilogue.add_to_out ? on_card(before, out_dtype, extra) : poisoned(m, n, out_dtype, extra);
    cuda_->matmul(on.view, **cuda_->prepare(weight.weights, weight.biases), epilogue, out.view);
    Matrix want(m, n);
    std::copy_n(before.data(), before.size(), want.data());
    ref_->matmul(x.view(), **ref_->prepare(weight.weights, weight.biases), epilogue, want.view());
    // Exact products, f32 sums of k terms below 1.7 / sqrt(k) in other orders: sqrt(k) roundings of partial sums about
    // 1 in size, and the tensor cores cut sums off instead of rounding (2^-23 of the largest term each). A BF16 result
    // is rounded once; where a bias, an addition or an activation comes behind the sum, that may have been rounded
    // before, by up to 2^-8 of up to 4, and the slope there is below 1.2.
    const float sums = 4 * std::sqrt(static_cast<float>(k)) * 0x1p-22F + 0x1p-20F;
    const bool half = out_dtype == DType::kBF16;
    const bool twice =
        half && (epilogue.activation != Activation::kNone || epilogue.add_to_out || !weight.biases.empty());
    expect_near(back(out.view), want, sums + (twice ? 4 * 1.2F * kRounding : 0), half ? 1.01F * kRounding : 1e-5F);
    expect_untouched(out, extra);
    if (HasFailure())
      FAIL() << m << " x " << n << " x " << k << ", weight " << dtype_name(weight_dtype) << ", out "
             << dtype_name(out_dtype) << ", activation " << static_cast<int>(epilogue.activation);
  }
}

// Products that a card's pictures are made of: enough tiles that a block has several, in each of the ways out, and rows
// whose bits do not depend on their number.
TEST_F(ProductsCudaTest, SteadyProductsOfManyRowsMatchReference) {
  for (int round = 0; round < 12; ++round) {
    const std::int64_t m = round % 3 == 0 ? pick(3000, 4200) : pick(1, 1100),
                       n = 8 * (round % 2 == 0 ? 200 : pick(1, 340));
    const std::int64_t k = 8 * pick(1, 24);
    const bool add = round % 4 == 3;
    const DType dtype = add || pick(0, 3) == 0 ? DType::kF32 : DType::kBF16;
    Epilogue epilogue{.add_to_out = add, .steady = true};
    if (!add)
      epilogue.activation = std::array{Activation::kNone, Activation::kQuickGelu, Activation::kGelu}[pick(0, 2)];
    const HostWeight weight = random_weight(n, k, DType::kBF16, pick(0, 3) != 0);
    const Matrix x = rounded(random(m, k)), before = rounded(random(m, n));
    const std::int64_t extra = 8 * pick(0, 1);
    const OnCard on = on_card(x, DType::kBF16, extra);
    const OnCard out = add ? on_card(before, dtype, extra) : poisoned(m, n, dtype, extra);
    const auto prepared = *cuda_->prepare(weight.weights, weight.biases);
    cuda_->matmul(on.view, *prepared, epilogue, out.view);
    Matrix want(m, n);
    std::copy_n(before.data(), before.size(), want.data());
    ref_->matmul(x.view(), **ref_->prepare(weight.weights, weight.biases), epilogue, want.view());
    const float sums = 4 * std::sqrt(static_cast<float>(k)) * 0x1p-22F + 0x1p-20F;  // as in MatmulMatchesReference
    const bool half = dtype == DType::kBF16,
               twice = half && (epilogue.activation != Activation::kNone || !weight.biases.empty());
    const Matrix got = back(out.view);
    expect_near(got, want, sums + (twice ? 4 * 1.2F * kRounding : 0), half ? 1.01F * kRounding : 1e-5F);
    expect_untouched(out, extra);
    const std::int64_t first = pick(0, m - 1), count = pick(1, m - first);
    const OnCard some = add ? on_card(before, dtype, extra) : poisoned(m, n, dtype, extra);
    cuda_->matmul(on.view.row_range(first, count), *prepared, epilogue, some.view.row_range(first, count));
    const Matrix alone = back(some.view.row_range(first, count));
    ASSERT_EQ(std::memcmp(alone.data(), got.row(first), static_cast<std::size_t>(alone.size()) * 4), 0)
        << count << " of " << m << " x " << n << " x " << k;
    if (HasFailure())
      FAIL() << m << " x " << n << " x " << k << ", activation " << static_cast<int>(epilogue.activation);
  }
}

TEST_F(ProductsCudaTest, RopeMatmulMatchesReference) {
  for (int round = 0; round < 20; ++round) {
    const bool fp8 = round >= 10;
    const std::int64_t head_dim = std::array{80, 80, 32, 80, 64}[static_cast<std::size_t>(round % 5)];
    const std::int64_t heads = pick(1, round % 3 == 0 ? 16 : 4), half = head_dim / 2, width = heads * head_dim;
    const std::int64_t m = pick(1, 700), k = 8 * pick(1, 40);
    const HostWeight weight = random_weight(3 * width, k, DType::kBF16, pick(0, 3) != 0);
    const Matrix x = rounded(random(m, k)), angles = random(m, half, 3.0F);
    Matrix cos(m, half), sin(m, half);
    for (std::int64_t i = 0; i < angles.size(); ++i) {
      cos.data()[i] = std::cos(angles.data()[i]);
      sin.data()[i] = std::sin(angles.data()[i]);
    }
    const OnCard on = on_card(x, DType::kBF16), on_cos = on_card(cos, DType::kF32), on_sin = on_card(sin, DType::kF32);
    const OnCard out = poisoned(m, 3 * width, DType::kBF16, 8);
    const auto weight_of = [&](const Ops& ops) {
      return fp8 ? *ops.quantise(weight.weights, weight.biases, Precision::kFp8)
                 : *ops.prepare(weight.weights, weight.biases);
    };
    const auto prepared = weight_of(*cuda_);
    cuda_->rope_matmul(on.view, *prepared, {.steady = true}, heads, {on_cos.view, on_sin.view}, out.view);
    Matrix want(m, 3 * width);
    ref_->rope_matmul(x.view(), *weight_of(*ref_), {.steady = true}, heads, {cos.view(), sin.view()}, want.view());
    // As above; where rope is a kernel of its own, both of a pair are rounded before it.
    const float sums = fp8 ? fp8_sums(k) : 4 * std::sqrt(static_cast<float>(k)) * 0x1p-22F + 0x1p-20F;
    const Matrix got = back(out.view);
    expect_near(got, want, 2 * sums + 4 * 2 * kRounding, 1.01F * kRounding);
    expect_untouched(out, 8);
    if (head_dim != kTurned) continue;
    const std::int64_t first = pick(0, m - 1), count = pick(1, m - first);
    const OnCard some = poisoned(count, 3 * width, DType::kBF16);
    cuda_->rope_matmul(on.view.row_range(first, count), *prepared, {.steady = true}, heads,
                       {on_cos.view.row_range(first, count), on_sin.view.row_range(first, count)}, some.view);
    const Matrix alone = back(some.view);
    ASSERT_EQ(std::memcmp(alone.data(), got.row(first), static_cast<std::size_t>(alone.size()) * 4), 0);
  }
}

// Integers are multiplied as the numbers they stand for, most of them rounded to BF16: as a product with those.
TEST_F(ProductsCudaTest, ProductsOfIntegersMatchReference) {
  for (int round = 0; round < 48; ++round) {
    const Precision precision = std::array{Precision::kInt8, Precision::kInt4, Precision::kInt8Fine}[round % 3];
    const std::int64_t m = round % 2 == 0 ? pick(1, 16) : pick(17, 90), n = pick(1, 400);
    const std::int64_t k = round % 7 == 0 ? pick(1, 300) : 8 * pick(1, 300), extra = 8 * pick(0, 1);
    const HostWeight weight = random_weight(n, k, DType::kBF16, pick(0, 1) == 1);
    const IntegerFormat format = integer_format(precision);
    auto [values, scales, numbers] = integers_of(weight, precision);
    const QuantisedTensor tensor{{DType::kU8, {n, format.row_bytes(k)}, std::as_bytes(std::span(values))},
                                 {DType::kBF16, {n, format.groups(k)}, std::as_bytes(std::span(scales))},
                                 k};
    const auto rounded_here = *cuda_->quantise(weight.weights, weight.biases, precision);
    const auto rounded_before = *cuda_->prepare_quantised({&tensor, 1}, weight.biases, precision);
    // Embedded rows are the numbers themselves.
    const std::vector<std::int32_t> ids{static_cast<std::int32_t>(n - 1), 0, static_cast<std::int32_t>(n / 2)};
    const OnCard embedded = poisoned(3, k, DType::kF32);
    cuda_->embed(ids, *rounded_here, embedded.view);
    const Matrix rows = back(embedded.view);
    for (std::int64_t i = 0; i < 3; ++i)
      ASSERT_EQ(
          std::memcmp(rows.row(i), numbers.row(ids[static_cast<std::size_t>(i)]), static_cast<std::size_t>(k) * 4), 0);
    const bool add = pick(0, 1) == 1;
    // Few rows in groups of 128: the sums are scaled. Else the weights are, and rounded.
    const bool few = m <= kFewIntegerRows && k % 8 == 0 && (n + extra) % 4 == 0;
    if (!few || precision != Precision::kInt8) numbers = rounded(std::move(numbers));
    const TensorView number_view = view_of(numbers);
    const Matrix x = rounded(random(m, k)), before = rounded(random(m, n));
    const OnCard on = on_card(x, DType::kBF16, extra), out = on_card(before, DType::kF32, extra),
                 other = on_card(before, DType::kF32, extra);
    cuda_->matmul(on.view, *rounded_here, {.add_to_out = add}, out.view);
    cuda_->matmul(on.view, *rounded_before, {.add_to_out = add}, other.view);
    Matrix want(m, n);
    std::copy_n(before.data(), before.size(), want.data());
    ref_->matmul(x.view(), **ref_->prepare({&number_view, 1}, weight.biases), {.add_to_out = add}, want.view());
    const float sums = 4 * std::sqrt(static_cast<float>(k)) * 0x1p-22F + 0x1p-20F;  // as in MatmulMatchesReference
    const Matrix got = back(out.view), again = back(other.view);
    expect_near(got, want, sums, 1e-5F);
    ASSERT_EQ(std::memcmp(got.data(), again.data(), static_cast<std::size_t>(got.size()) * 4), 0);
    if (HasFailure()) FAIL() << m << " x " << n << " x " << k << ", " << precision_name(precision);
    if (m > kFewIntegerRows) continue;
    const std::int64_t alone = pick(0, m - 1);
    const OnCard single = on_card(before, DType::kF32, extra);
    cuda_->matmul(on.view.row_range(alone, 1), *rounded_here, {.add_to_out = add}, single.view.row_range(alone, 1));
    const Matrix one = back(single.view.row_range(alone, 1));
    ASSERT_EQ(std::memcmp(one.data(), got.row(alone), static_cast<std::size_t>(n) * 4), 0);
  }
}

// What an int8 encoder of the 2B's shape asks for, its last product in more than one slice. The card's memory for the
// weight's copy held what is no number before, and there is work in front, so that a product which does not wait for
// its copy reads that.
TEST_F(ProductsCudaTest, SteadyProductsOfIntegersMatchReference) {
  enum class Kind { kPlain, kQkv, kQuickGelu, kGelu, kAdded };
  struct Case {
    std::int64_t m, n, k;
    Precision precision;
    Kind kind;
  };
  const OnCard work = poisoned(8192, 4096, DType::kF32);
  for (const auto& [m, n, k, precision, kind] : {Case{70, 1280, 1176, Precision::kInt8, Kind::kPlain},
                                                 {70, 3840, 1280, Precision::kInt8, Kind::kQkv},
                                                 {300, 1280, 1280, Precision::kInt8, Kind::kAdded},
                                                 {70, 5120, 1280, Precision::kInt8, Kind::kQuickGelu},
                                                 {70, 1280, 5120, Precision::kInt8Fine, Kind::kAdded},
                                                 {70, 1280, 5120, Precision::kInt4, Kind::kPlain},
                                                 {20, 6808, 5120, Precision::kInt8, Kind::kGelu}}) {
    const bool turned = kind == Kind::kQkv, add = kind == Kind::kAdded, half = !add && kind != Kind::kPlain;
    Epilogue epilogue{.add_to_out = add, .steady = true};
    if (kind == Kind::kQuickGelu) epilogue.activation = Activation::kQuickGelu;
    if (kind == Kind::kGelu) epilogue.activation = Activation::kGelu;
    const HostWeight weight = random_weight(n, k, DType::kBF16, true);
    const Matrix numbers = rounded(integers_of(weight, precision).numbers);
    const TensorView number_view = view_of(numbers);
    const auto prepared = *cuda_->quantise(weight.weights, weight.biases, precision);
    const auto expected = *ref_->prepare({&number_view, 1}, weight.biases);
    const Matrix x = rounded(random(m, k)), before = rounded(random(m, n)), angles = random(m, kTurned / 2, 3.0F);
    Matrix cos(m, kTurned / 2), sin(m, kTurned / 2), want(m, n);
    for (std::int64_t i = 0; i < angles.size(); ++i) {
      cos.data()[i] = std::cos(angles.data()[i]);
      sin.data()[i] = std::sin(angles.data()[i]);
    }
    std::copy_n(before.data(), before.size(), want.data());
    const OnCard on = on_card(x, DType::kBF16), on_cos = on_card(cos, DType::kF32), on_sin = on_card(sin, DType::kF32);
    const DType dtype = half ? DType::kBF16 : DType::kF32;
    const OnCard out = add ? on_card(before, dtype, 8) : poisoned(m, n, dtype, 8);
    {
      const OnCard gone = poisoned(n, k, DType::kBF16);
    }
    for (int i = 0; i < 4; ++i) cuda_->silu_mul(work.view, work.view, work.view);
    const std::int64_t heads = n / 3 / kTurned;
    if (turned) {
      cuda_->rope_matmul(on.view, *prepared, epilogue, heads, {on_cos.view, on_sin.view}, out.view);
      ref_->rope_matmul(x.view(), *expected, epilogue, heads, {cos.view(), sin.view()}, want.view());
    } else {
      cuda_->matmul(on.view, *prepared, epilogue, out.view);
      ref_->matmul(x.view(), *expected, epilogue, want.view());
    }
    // As in MatmulMatchesReference; both of a pair are rounded before they are turned.
    const float sums = 4 * std::sqrt(static_cast<float>(k)) * 0x1p-22F + 0x1p-20F;
    expect_near(back(out.view), want, 2 * sums + (half ? 4 * 2 * kRounding : 0), half ? 1.01F * kRounding : 1e-5F);
    expect_untouched(out, 8);
    if (HasFailure()) FAIL() << m << " x " << n << " x " << k << ", kind " << static_cast<int>(kind);
  }
}

// A norm in front, a gate behind: each way a product of few rows can be asked for, and the ways of many.
TEST_F(ProductsCudaTest, NormedAndGatedProductsMatchReference) {
  for (int round = 0; round < 40; ++round) {
    const std::int64_t m = round % 2 == 0 ? pick(1, 3) : pick(4, 80),
                       half = round % 3 == 0 ? pick(1, 90) : 8 * pick(1, 40);
    const std::int64_t n = 2 * half, k = round % 5 == 0 ? pick(1, 300) : 8 * pick(1, 200), extra = 8 * pick(0, 1);
    const HostWeight weight = random_weight(n, k, DType::kBF16, pick(0, 1) == 1);
    const Matrix x = random(m, k, 3.0F), norm = random(1, k);
    const bool gated = pick(0, 1) == 1;
    const DType dtype = pick(0, 1) == 1 ? DType::kBF16 : DType::kF32;
    const OnCard on = on_card(x, DType::kF32, extra), on_norm = on_card(norm, DType::kF32);
    const OnCard normed = poisoned(m, k, DType::kBF16), out = poisoned(m, n, dtype, extra);
    const auto on_weight = *cuda_->prepare(weight.weights, weight.biases);
    const auto* const norm_weight = reinterpret_cast<const float*>(std::as_const(on_norm.buffer).view().data);
    cuda_->norm_matmul(on.view, norm_weight, 1e-6F, normed.view, *on_weight, {.gated = gated}, out.view);
    Matrix rows(m, k), want(m, n);
    ref_->rms_norm(x.view(), norm.data(), 1e-6F, rows.view());
    rows = rounded(std::move(rows));
    ref_->matmul(rows.view(), **ref_->prepare(weight.weights, weight.biases), {}, want.view());
    const Matrix got = back(out.view);
    expect_untouched(out, extra);
    // As in MatmulMatchesReference, inputs up to 3 in size; a few of them may be rounded to the other side.
    const float sums = 12 * std::sqrt(static_cast<float>(k)) * 0x1p-22F + 0x1p-20F +
                       8 * kRounding * 3 * 1.7F / std::sqrt(static_cast<float>(k));
    const float last = dtype == DType::kBF16 ? kRounding : 1e-5F;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < (gated ? half : n); ++j) {
        const float g = want.row(i)[j];
        if (!gated) {
          ASSERT_NEAR(got.row(i)[j], g, sums + 2 * last * (1 + std::abs(g))) << m << " x " << n << " x " << k;
          continue;
        }
        // Gate and other factor may be rounded before they meet; silu's slope is below 1.1.
        const float u = want.row(i)[half + j], s = g / (1 + std::exp(-g));
        const float g_error = sums + 2 * last * (1 + std::abs(g)), u_error = sums + 2 * last * (1 + std::abs(u));
        ASSERT_NEAR(got.row(i)[j], s * u,
                    1.1F * g_error * std::abs(u) + std::abs(s) * u_error + last * std::abs(s * u) +
                        1.1F * g_error * u_error + 1e-6F)
            << m << " x " << n << " x " << k << ", gated";
      }
    }
  }
}

TEST_F(ProductsCudaTest, RowsOfNormedProductsDoNotDependOnTheirCompany) {
  for (const bool gated : {false, true}) {
    const std::int64_t n = 2048, k = 1536, most = 16;
    const HostWeight host = random_weight(n, k, DType::kBF16, true);
    const auto weight = *cuda_->prepare(host.weights, host.biases);
    const OnCard x = on_card(random(most, k), DType::kF32), norm = on_card(random(1, k), DType::kF32);
    const auto* const norm_weight = reinterpret_cast<const float*>(std::as_const(norm.buffer).view().data);
    const std::int64_t results = gated ? n / 2 : n;
    const auto product = [&](std::int64_t first, std::int64_t count) {
      const OnCard normed = poisoned(count, k, DType::kBF16), out = poisoned(count, n, DType::kBF16);
      cuda_->norm_matmul(x.view.row_range(first, count), norm_weight, 1e-6F, normed.view, *weight, {.gated = gated},
                         out.view);
      return back(out.view.col_range(0, results));
    };
    const Matrix all = product(0, most);
    for (const std::int64_t count : {1, 2, 3, 8, 9})
      for (const std::int64_t first : {std::int64_t{0}, most - count}) {
        const Matrix some = product(first, count);
        ASSERT_EQ(std::memcmp(some.data(), all.row(first), static_cast<std::size_t>(count * results) * 4), 0)
            << count << " rows from " << first << (gated ? ", gated" : "");
      }
  }
}

// Rows of a product, alone and among others: those of few rows, and those of steady products of any number.
TEST_F(ProductsCudaTest, RowsOfProductsDoNotDependOnTheirCompany) {
  for (const auto& [n, k] :
       {std::pair<std::int64_t, std::int64_t>{3840, 1280}, {1280, 5120}, {1280, 1176}, {2048, 1536}}) {
    const HostWeight host = random_weight(n, k, DType::kBF16, false);
    const auto weight = cuda_->prepare(host.weights, host.biases);
    constexpr std::int64_t kAll = 2048;
    const Matrix x = random(kAll, k);
    const OnCard on = on_card(x, DType::kBF16);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const auto product = [&](std::int64_t first, std::int64_t count, bool steady) {
        const OnCard out = poisoned(count, n, dtype);
        cuda_->matmul(on.view.row_range(first, count), **weight, {.steady = steady}, out.view);
        return back(out.view);
      };
      const auto differ = [&](const Matrix& some, std::int64_t first, const Matrix& whole) {
        std::int64_t count = 0;
        for (std::int64_t i = 0; i < some.size(); ++i)
          count += std::memcmp(some.data() + i, whole.data() + first * n + i, sizeof(float)) != 0 ? 1 : 0;
        return count;
      };
      const Matrix few = product(0, 16, false), all = product(0, kAll, true);
      for (const std::int64_t m : {1, 2, 7, 8, 9, 15})
        EXPECT_EQ(differ(product(0, m, false), 0, few), 0) << m << " rows";
      EXPECT_EQ(differ(product(5, 3, false), 5, few), 0);
      for (const std::int64_t m : {1, 4, 16, 17, 24, 64, 65, 100, 128, 256, 257, 512, 1000, 1024, 1369})
        EXPECT_EQ(differ(product(7, m, true), 7, all), 0) << m << " rows of " << n << " x " << k;
      std::cout << n << " x " << k << " " << dtype_name(dtype) << ": between few rows and many " << differ(few, 0, all)
                << " of " << few.size() << " values differ\n";
    }
  }
}

TEST_F(ProductsCudaTest, ProductsInFp8MatchReference) {
  std::vector<ProductSize> sizes{{1, 8, 8},        {1, 16, 1},       {3, 5, 7},        {17, 1088, 384}, {16, 96, 1176},
                                 {130, 77, 45},    {40, 384, 768},   {200, 720, 240},  {256, 960, 240}, {33, 80, 129},
                                 {3300, 1600, 96}, {128, 160, 1280}, {4100, 1280, 130}};
  for (int i = 0; i < 14; ++i) sizes.push_back({pick(1, 300), 8 * pick(1, 60), pick(1, 700)});
  for (int i = 0; i < 6; ++i) sizes.push_back({pick(1, 60), pick(1, 300), pick(1, 400)});
  int round = 0;
  for (const auto& [m, n, k] : sizes) {
    const DType dtype = round++ % 2 == 0 ? DType::kBF16 : DType::kF32;
    const HostWeight weight = random_weight(n, k, DType::kBF16, pick(0, 2) != 0);
    const Matrix x = rounded(random(m, k)), before = rounded(random(m, n));
    Epilogue epilogue{.steady = m <= 16 || pick(0, 1) == 1};  // fewer may keep their activations
    epilogue.activation = std::array{Activation::kNone, Activation::kQuickGelu, Activation::kGelu}[pick(0, 2)];
    epilogue.add_to_out = pick(0, 1) == 1;
    const std::int64_t extra = 8 * pick(0, 1);
    const OnCard on = on_card(x, DType::kBF16, extra);
    const OnCard out = epilogue.add_to_out ? on_card(before, dtype, extra) : poisoned(m, n, dtype, extra);
    const auto prepared = *cuda_->quantise(weight.weights, weight.biases, Precision::kFp8);
    const auto expected = *ref_->quantise(weight.weights, weight.biases, Precision::kFp8);
    cuda_->matmul(on.view, *prepared, epilogue, out.view);
    Matrix want(m, n);
    std::copy_n(before.data(), before.size(), want.data());
    ref_->matmul(x.view(), *expected, epilogue, want.view());
    const Matrix got = back(out.view);
    // The slope of the activations is below 1.2; a BF16 result is rounded once.
    expect_near(got, want, 1.2F * fp8_sums(k), dtype == DType::kBF16 ? 1.01F * kRounding : 1e-5F);
    expect_untouched(out, extra);
    // Any of the rows alone.
    const std::int64_t first = pick(0, m - 1), count = epilogue.steady ? pick(1, m - first) : m - first;
    if (count > 16 || epilogue.steady) {
      const OnCard some = epilogue.add_to_out ? on_card(before, dtype, extra) : poisoned(m, n, dtype, extra);
      cuda_->matmul(on.view.row_range(first, count), *prepared, epilogue, some.view.row_range(first, count));
      const Matrix alone = back(some.view.row_range(first, count));
      ASSERT_EQ(std::memcmp(alone.data(), got.row(first), static_cast<std::size_t>(alone.size()) * 4), 0)
          << count << " of " << m << " x " << n << " x " << k;
    }
    // Embedded rows are the numbers themselves.
    const std::vector<std::int32_t> ids{static_cast<std::int32_t>(n - 1), 0, static_cast<std::int32_t>(n / 2)};
    const OnCard embedded = poisoned(3, k, DType::kF32);
    Matrix rows(3, k);
    cuda_->embed(ids, *prepared, embedded.view);
    ref_->embed(ids, *expected, rows.view());
    ASSERT_EQ(std::memcmp(back(embedded.view).data(), rows.data(), static_cast<std::size_t>(rows.size()) * 4), 0);
    if (HasFailure())
      FAIL() << m << " x " << n << " x " << k << ", out " << dtype_name(dtype) << ", activation "
             << static_cast<int>(epilogue.activation) << (epilogue.add_to_out ? ", added" : "");
  }
}

// Times one: what comes out is what the rows were rounded to.
TEST_F(ProductsCudaTest, RowsBecomeFp8AsOnTheHost) {
  for (const std::int64_t k : {8, 9, 61, 128, 376, 1176, 2600}) {
    Matrix one(k, k), x = random(24, k, 8.0F);
    std::fill_n(one.data(), one.size(), 0.0F);
    for (std::int64_t i = 0; i < k; ++i) one.row(i)[i] = 1;
    for (std::int64_t i = 0; i < x.size(); ++i)  // of many sizes
      x.data()[i] = std::copysign(std::exp2(-std::abs(x.data()[i] * 2)), x.data()[i]) * (i / k % 3 == 0 ? 1e20F : 1.0F);
    std::fill_n(x.row(1), k, 0.0F);
    std::fill_n(x.row(2), k, 1e-32F);
    x.row(3)[k / 2] = std::numeric_limits<float>::infinity();
    x.row(4)[k - 1] = std::numeric_limits<float>::quiet_NaN();
    x = rounded(std::move(x));
    const TensorView view{DType::kF32, {k, k}, std::as_bytes(values_of(one))};
    const auto weight = *cuda_->quantise({&view, 1}, {}, Precision::kFp8);
    for (const std::int64_t extra : {0, 1}) {
      const OnCard on = on_card(x, DType::kBF16, extra), out = poisoned(24, k, DType::kF32);
      cuda_->matmul(on.view, *weight, {.steady = true}, out.view);
      const Matrix got = back(out.view);
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(k));
      for (std::int64_t i = 0; i < 24; ++i) {
        const float scale = round_row_to_fp8(x.row(i), k, codes.data());
        for (std::int64_t j = 0; j < k; ++j) {
          const float number = e4m3_to_f32(codes[static_cast<std::size_t>(j)]) * scale;
          if (std::isnan(scale)) {
            ASSERT_TRUE(std::isnan(got.row(i)[j])) << i << ", " << j << " of " << k;
          } else {
            ASSERT_NEAR(got.row(i)[j], number, 1e-6F * std::abs(number)) << i << ", " << j << " of " << k;
          }
        }
      }
    }
  }
}

// Deep products, as behind gates: by how much sums of 13 bits err, of the result's size.
TEST_F(ProductsCudaTest, DeepProductsInFp8ErrByLittle) {
  for (const std::int64_t k : {1280, 5120, 8960, 18944}) {
    const std::int64_t m = 48, n = 256;
    std::normal_distribution<float> value;
    Matrix x(m, k), w(n, k);
    for (Matrix* const matrix : {&x, &w}) {
      std::generate_n(matrix->data(), matrix->size(), [&] { return value(random_); });
      *matrix = rounded(std::move(*matrix));
    }
    const TensorView view{DType::kF32, {n, k}, std::as_bytes(values_of(w))};
    const OnCard on = on_card(x, DType::kBF16), out = poisoned(m, n, DType::kF32);
    cuda_->matmul(on.view, **cuda_->quantise({&view, 1}, {}, Precision::kFp8), {.steady = true}, out.view);
    Matrix want(m, n), exact(m, n);
    ref_->matmul(x.view(), **ref_->quantise({&view, 1}, {}, Precision::kFp8), {}, want.view());
    ref_->matmul(x.view(), **ref_->prepare({&view, 1}, {}), {}, exact.view());
    const Matrix got = back(out.view);
    double sums = 0, rounding = 0, size = 0;
    for (std::int64_t i = 0; i < got.size(); ++i) {
      const double g = got.data()[i], r = want.data()[i], e = exact.data()[i];
      sums += (g - r) * (g - r), rounding += (r - e) * (r - e), size += e * e;
    }
    sums = std::sqrt(sums / size), rounding = std::sqrt(rounding / size);
    std::cout << "fp8, k " << k << ": sums err by " << 100 * sums << " %, the operands' rounding by " << 100 * rounding
              << " % of the results' size\n";
    EXPECT_LE(sums, 0.008);
    EXPECT_LE(rounding, 0.05);
  }
}

TEST_F(ProductsCudaTest, EmbedAndGatherGiveTheTablesRows) {
  for (const std::int64_t k : {7, 64, 384}) {
    const HostWeight table = random_weight(50, k, DType::kBF16, false);
    const std::vector<std::int32_t> ids{49, 0, 17, 17, 3};
    const auto weight = cuda_->prepare(table.weights, {});
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const OnCard out = poisoned(5, k, dtype, 8);
      cuda_->embed(ids, **weight, out.view);
      const Matrix got = back(out.view);
      for (std::int64_t i = 0; i < 5; ++i)
        for (std::int64_t j = 0; j < k; ++j)
          ASSERT_EQ(got.row(i)[j], element_as_f32(table.weights[0], ids[static_cast<std::size_t>(i)] * k + j));
      const std::vector<std::int32_t> rows{4, 1};
      const OnCard picked = poisoned(2, k, DType::kF32);
      cuda_->gather_rows(out.view, rows, picked.view);
      const Matrix some = back(picked.view);
      for (std::int64_t j = 0; j < k; ++j) {
        ASSERT_EQ(some.row(0)[j], got.row(4)[j]);
        ASSERT_EQ(some.row(1)[j], got.row(1)[j]);
      }
    }
  }
}

}  // namespace
}  // namespace chiasm
