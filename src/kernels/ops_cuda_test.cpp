// The cuda kernels against the plain reference: fresh random inputs, odd sizes, strides and dtypes, poisoned outputs;
// and what of the row contract holds on the card, bit for bit. Skipped, with the reason, where there is no card.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/devices.h"

namespace chiasm {
namespace {

// BF16 has 8 bits of significand: rounding to nearest errs by up to 2^-8 of the value.
constexpr float kRounding = 1.0F / 256;

// Values as BF16 would hold them, so that what both sides compute with is the same.
Matrix rounded(Matrix m) {
  for (std::int64_t i = 0; i < m.size(); ++i) m.data()[i] = bf16_to_f32(f32_to_bf16(m.data()[i]));
  return m;
}

std::span<const float> values_of(const Matrix& m) { return {m.data(), static_cast<std::size_t>(m.size())}; }

class OpsCudaTest : public testing::Test {
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

TEST_F(OpsCudaTest, UploadAndDownloadInEveryDtype) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const std::int64_t extra : {0, 3}) {
      const Matrix values = rounded(random(pick(1, 40), pick(1, 70)));
      const OnCard there = on_card(values, dtype, extra);
      expect_near(back(there.view), values, 0, 0);
      expect_untouched(there, extra);
    }
  // More than one piece of what travels at once.
  const Matrix large = rounded(random(3000, 1500));
  for (const DType dtype : {DType::kF32, DType::kBF16}) expect_near(back(on_card(large, dtype).view), large, 0, 0);
  const auto brought = cuda_->bring(large.view());
  ASSERT_TRUE(brought);
  expect_near(back(brought->view), large, 0, 0);
}

struct ProductSize {
  std::int64_t m, n, k;
};

TEST_F(OpsCudaTest, MatmulMatchesReference) {
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

// Rows of a product, alone and among others: those of few rows, and those of steady products of any number.
TEST_F(OpsCudaTest, RowsOfProductsDoNotDependOnTheirCompany) {
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

TEST_F(OpsCudaTest, EmbedAndGatherGiveTheTablesRows) {
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

TEST_F(OpsCudaTest, NormsMatchReference) {
  for (const std::int64_t cols : {1, 5, 8, 240, 384, 1280, 1536, 3584, 8192, 9001}) {
    for (const DType in : {DType::kF32, DType::kBF16}) {
      for (const DType out_dtype : {DType::kF32, DType::kBF16}) {
        const std::int64_t rows = pick(1, 40), extra = 8 * pick(0, 1);
        const Matrix x = rounded(random(rows, cols, 3.0F)), weight = random(1, cols), bias = random(1, cols);
        const OnCard w = on_card(weight, DType::kF32), b = on_card(bias, DType::kF32), on = on_card(x, in, extra);
        Matrix want(rows, cols);
        const float relative = out_dtype == DType::kBF16 ? 1.01F * kRounding : 1e-5F;
        // The sums' roundings, times values of up to sqrt(cols) where few carry a row; rsqrt errs by 2 ulp.
        const float absolute = 64 * 0x1p-23F * std::sqrt(static_cast<float>(cols));
        const OnCard rms = poisoned(rows, cols, out_dtype, extra);
        cuda_->rms_norm(on.view, w.buffer.f32(), 1e-6F, rms.view);
        ref_->rms_norm(x.view(), weight.data(), 1e-6F, want.view());
        expect_near(back(rms.view), want, absolute, relative);
        expect_untouched(rms, extra);
        if (cols <= 8) continue;  // a variance that nearly vanishes magnifies the mean's rounding
        const OnCard layer = poisoned(rows, cols, out_dtype, extra);
        cuda_->layer_norm(on.view, w.buffer.f32(), b.buffer.f32(), 1e-6F, layer.view);
        ref_->layer_norm(x.view(), weight.data(), bias.data(), 1e-6F, want.view());
        expect_near(back(layer.view), want, absolute, relative);
        ASSERT_FALSE(HasFailure()) << cols;
      }
    }
  }
}

TEST_F(OpsCudaTest, SiluMulMatchesReference) {
  for (const std::int64_t cols : {1, 8, 13, 768, 8960}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::int64_t rows = pick(1, 30);
      const Matrix both = rounded(random(rows, 2 * cols, 20.0F));
      const OnCard on = on_card(both, dtype);
      const View gate = on.view.col_range(0, cols), up = on.view.col_range(cols, cols);
      cuda_->silu_mul(gate, up, gate);
      Matrix want(rows, cols);
      ref_->silu_mul(both.view().col_range(0, cols), both.view().col_range(cols, cols), want.view());
      expect_near(back(gate), want, 1e-5F, dtype == DType::kBF16 ? 1.01F * kRounding : 1e-5F);
      expect_near(
          back(up),
          [&] {
            Matrix m(rows, cols);
            ref_->upload(std::vector<float>(static_cast<std::size_t>(m.size())), m.view());
            for (std::int64_t i = 0; i < rows; ++i) std::copy_n(both.row(i) + cols, cols, m.row(i));
            return m;
          }(),
          0, 0);
    }
  }
}

TEST_F(OpsCudaTest, RopeTablesAndRotationMatchReference) {
  for (const std::int64_t half : {1, 5, 40, 64}) {
    const std::int64_t rows = pick(1, 50), heads = pick(1, 5);
    std::vector<std::int32_t> first(static_cast<std::size_t>(rows)), second = first, axis;
    for (auto& p : first) p = static_cast<std::int32_t>(pick(0, 32768));
    for (auto& p : second) p = static_cast<std::int32_t>(pick(0, 100));
    std::vector<float> frequency;
    for (std::int64_t i = 0; i < half; ++i) {
      axis.push_back(static_cast<std::int32_t>(pick(0, 1)));
      frequency.push_back(std::pow(10000.0F, -static_cast<float>(i) / static_cast<float>(half)));
    }
    const std::vector<std::span<const std::int32_t>> positions{first, second};
    const RopeAngles angles{positions, axis, frequency};
    const OnCard cos = poisoned(rows, half, DType::kF32), sin = poisoned(rows, half, DType::kF32);
    Matrix want_cos(rows, half), want_sin(rows, half);
    cuda_->rope_table(angles, cos.view, sin.view);
    ref_->rope_table(angles, want_cos.view(), want_sin.view());
    expect_near(back(cos.view), want_cos, 4 * 0x1p-24F, 0);  // the same f32 angle on both sides
    expect_near(back(sin.view), want_sin, 4 * 0x1p-24F, 0);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Matrix x = rounded(random(rows, heads * 2 * half));
      const OnCard on = on_card(x, dtype, 8);
      cuda_->rope(on.view, heads, {cos.view, sin.view});
      Matrix want(rows, heads * 2 * half);
      std::copy_n(x.data(), x.size(), want.data());
      ref_->rope(want.view(), heads, {want_cos.view(), want_sin.view()});
      expect_near(back(on.view), want, 1e-6F, dtype == DType::kBF16 ? 1.01F * kRounding : 1e-5F);
      expect_untouched(on, 8);
    }
  }
}

TEST_F(OpsCudaTest, ArgmaxMatchesReference) {
  for (const std::int64_t cols : {1, 3, 1088, 151936}) {
    Matrix x = random(5, cols);
    x.row(1)[cols / 2] = 2, x.row(1)[cols - 1] = 2;  // the lowest of equals
    x.row(2)[cols - 1] = std::numeric_limits<float>::infinity();
    x.row(3)[0] = std::numeric_limits<float>::quiet_NaN();
    std::vector<std::int32_t> got(5), want(5);
    ASSERT_TRUE(cuda_->argmax(on_card(x, DType::kF32).view, got));
    ASSERT_TRUE(ref_->argmax(x.view(), want));
    EXPECT_EQ(got, want) << cols;
  }
}

// Weights p of one row are rounded to BF16 before they meet the values, the result once more; values are below 1, the
// scores' own error (sums of exact products) is far below that.
constexpr float kAttention = 2 * kRounding;

TEST_F(OpsCudaTest, AttentionMatchesReferenceAndKeepsTheRowContract) {
  for (const std::int64_t head_dim : {80, 32, 20, 4, 64, 96, 128, 50}) {
    const std::int64_t heads = pick(1, 3), width = heads * head_dim;
    std::vector<std::int64_t> cu_seqlens{0};
    for (std::int64_t s = pick(1, 4); s > 0; --s) cu_seqlens.push_back(cu_seqlens.back() + pick(1, 400));
    cu_seqlens.push_back(cu_seqlens.back() + 1);
    const std::int64_t rows = cu_seqlens.back();
    const Matrix qkv = rounded(random(rows, 3 * width, 2.0F));
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    Matrix want(rows, width);
    ref_->attention(qkv.view().col_range(0, width), qkv.view().col_range(width, width),
                    qkv.view().col_range(2 * width, width), heads, scale, Segments(cu_seqlens), want.view());
    const OnCard on = on_card(qkv, DType::kBF16);
    const auto attend = [&](std::int64_t first, std::span<const std::int64_t> segments) {
      const OnCard out = poisoned(segments.back(), width, DType::kBF16, 8);
      const View part = on.view.row_range(first, segments.back());
      cuda_->attention(part.col_range(0, width), part.col_range(width, width), part.col_range(2 * width, width), heads,
                       scale, **cuda_->make_segments(segments), out.view);
      expect_untouched(out, 8);
      return back(out.view);
    };
    const Matrix got = attend(0, cu_seqlens);
    expect_near(got, want, 2 * kAttention, 0);  // values up to 2
    ASSERT_FALSE(HasFailure()) << "head size " << head_dim;
    for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
      const std::vector<std::int64_t> alone{0, cu_seqlens[s + 1] - cu_seqlens[s]};
      const Matrix own = attend(cu_seqlens[s], alone);
      ASSERT_EQ(std::memcmp(own.data(), got.row(cu_seqlens[s]), static_cast<std::size_t>(own.size()) * 4), 0) << s;
    }
  }
}

TEST_F(OpsCudaTest, PagedAttentionMatchesReferenceInChunksAndDecode) {
  for (const auto& [kv_heads, group, head_dim] :
       {std::array<std::int64_t, 3>{1, 3, 128}, {2, 6, 128}, {4, 7, 128}, {2, 2, 64}, {1, 1, 20}, {3, 2, 36}}) {
    const std::int64_t heads = kv_heads * group;
    const KvShape shape{2, kv_heads, head_dim, 48};
    const std::int64_t layer = pick(0, 1), length = pick(300, 700), other = pick(1, 90);
    std::vector<std::int32_t> blocks(48);
    for (std::int32_t i = 0; i < 48; ++i) blocks[static_cast<std::size_t>(i)] = i;
    std::shuffle(blocks.begin(), blocks.end(), random_);
    const std::span<const std::int32_t> table(blocks.data(), 24), other_table(blocks.data() + 24, 24);
    const std::int64_t rows = length + other;
    const Matrix q = rounded(random(rows, heads * head_dim, 2.0F)),
                 k = rounded(random(rows, kv_heads * head_dim, 2.0F)), v = rounded(random(rows, kv_heads * head_dim));
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    const std::vector<SequenceRows> together{{table, 0, length}, {other_table, 0, other}};
    const auto ref_pool = *ref_->make_kv_pool(shape);
    Matrix want(rows, q.cols());
    ref_->kv_write(k.view(), v.view(), StepRows(together), layer, *ref_pool);
    ref_->paged_attention(q.view(), heads, scale, StepRows(together), layer, *ref_pool, want.view());

    const OnCard on_q = on_card(q, DType::kBF16), on_k = on_card(k, DType::kBF16), on_v = on_card(v, DType::kBF16);
    const auto run = [&](KvPool& pool, std::int64_t first, std::span<const SequenceRows> sequences, View out) {
      std::int64_t count = 0;
      for (const SequenceRows& sequence : sequences) count += sequence.count;
      const auto step = *cuda_->make_step(sequences, heads, shape);
      cuda_->kv_write(on_k.view.row_range(first, count), on_v.view.row_range(first, count), *step, layer, pool);
      cuda_->paged_attention(on_q.view.row_range(first, count), heads, scale, *step, layer, pool,
                             out.row_range(first, count));
    };
    const auto pool = *cuda_->make_kv_pool(shape), cut_pool = *cuda_->make_kv_pool(shape);
    const OnCard out = poisoned(rows, q.cols(), DType::kBF16), cut = poisoned(rows, q.cols(), DType::kBF16);
    run(*pool, 0, together, out.view);
    const Matrix got = back(out.view);
    expect_near(got, want, kAttention, 0);
    ASSERT_FALSE(HasFailure()) << "whole, head size " << head_dim;
    // In chunks of several rows the bits are the same; a single row is another kernel's, within tolerance.
    std::vector<bool> alone(static_cast<std::size_t>(rows), false);
    for (std::int64_t past = 0; past < length;) {
      const std::int64_t count = std::min(length - past, pick(0, 2) == 0 ? 1 : pick(2, 90));
      const std::vector<SequenceRows> chunk{{table, past, count}};
      run(*cut_pool, past, chunk, cut.view);
      if (count == 1) alone[static_cast<std::size_t>(past)] = true;
      past += count;
    }
    const Matrix pieces = back(cut.view.row_range(0, length));
    for (std::int64_t row = 0; row < length; ++row) {
      if (alone[static_cast<std::size_t>(row)]) continue;
      ASSERT_EQ(std::memcmp(pieces.row(row), got.row(row), static_cast<std::size_t>(q.cols()) * 4), 0) << row;
    }
    for (std::int64_t i = 0; i < pieces.size(); ++i)
      ASSERT_NEAR(pieces.data()[i], want.data()[i], kAttention) << "decode, head size " << head_dim << ", at " << i;
    // Two sequences that decode: alone and together, the same bits.
    const OnCard pair = poisoned(2, q.cols(), DType::kBF16), single = poisoned(1, q.cols(), DType::kBF16);
    const std::vector<SequenceRows> both{{table, length - 1, 1}, {other_table, other - 1, 1}};
    const std::vector<SequenceRows> second{{other_table, other - 1, 1}};
    const OnCard queries = on_card(rounded(random(2, q.cols(), 2.0F)), DType::kBF16);
    cuda_->paged_attention(queries.view, heads, scale, **cuda_->make_step(both, heads, shape), layer, *pool, pair.view);
    cuda_->paged_attention(queries.view.row_range(1, 1), heads, scale, **cuda_->make_step(second, heads, shape), layer,
                           *pool, single.view);
    const Matrix a = back(pair.view), b = back(single.view);
    ASSERT_EQ(std::memcmp(a.row(1), b.row(0), static_cast<std::size_t>(q.cols()) * 4), 0);
    // A copied block serves as the one it was copied from.
    const std::int32_t spare = blocks.back();
    cuda_->copy_kv_block(table[0], spare, *pool);
    std::vector<std::int32_t> through(table.begin(), table.end());
    through[0] = spare;
    const std::vector<SequenceRows> by_copy{{through, length - 1, 1}};
    const OnCard copied = poisoned(1, q.cols(), DType::kBF16);
    cuda_->paged_attention(queries.view.row_range(0, 1), heads, scale, **cuda_->make_step(by_copy, heads, shape), layer,
                           *pool, copied.view);
    const Matrix c = back(copied.view);
    ASSERT_EQ(std::memcmp(a.row(0), c.row(0), static_cast<std::size_t>(q.cols()) * 4), 0);
  }
}

TEST_F(OpsCudaTest, MemoryThatIsNotThereIsAnErrorAndWorkGoesOn) {
  const auto huge = cuda_->allocate(std::int64_t{1} << 20, std::int64_t{1} << 22);  // 16 TiB
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code, Code::kResourceExhausted);
  EXPECT_FALSE(cuda_->allocate(std::int64_t{1} << 40, std::int64_t{1} << 40));
  EXPECT_FALSE(cuda_->make_kv_pool({80, 8, 128, std::int64_t{1} << 40}));
  EXPECT_FALSE(cuda_->make_kv_pool({1, 1, 256, 4}));
  const std::vector<std::byte> bytes(64);
  const TensorView integers{DType::kI32, {4, 4}, bytes};
  EXPECT_FALSE(prepare(*cuda_, integers));
  const Matrix values = rounded(random(3, 3));
  expect_near(back(on_card(values, DType::kF32).view), values, 0, 0);
}

TEST(Devices, NamesAreChecked) {
  for (const char* good : {"auto", "cpu", "cuda", "cuda:0", "cuda:7"}) EXPECT_TRUE(check_device(good)) << good;
  for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "CPU", "cuda:99999"})
    EXPECT_FALSE(check_device(bad)) << bad;
  ThreadPool threads(1);
  const auto cpu = make_ops("cpu", threads);
  ASSERT_TRUE(cpu);
  EXPECT_EQ((*cpu)->name(), "cpu");
  EXPECT_TRUE(make_ops("auto", threads));
  const auto absent = make_ops("cuda:1023", threads);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace chiasm
