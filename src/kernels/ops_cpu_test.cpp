// The cpu kernels against the plain reference: fresh random inputs, odd sizes, poisoned outputs, every SIMD target of
// this machine; and the row contract of ops.h, bit for bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/ops.h"

// clang-format off
#include "kernels/targets_cpu.h"  // says what is built, so before Highway
#include <hwy/highway.h>
// clang-format on

#include "kernels/test_matrices.h"

namespace chiasm {
namespace {

constexpr float kEps = std::numeric_limits<float>::epsilon();

class OpsCpuTest : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override {
    choose_target(GetParam());
    random_.seed(std::random_device{}());
  }
  void TearDown() override { choose_target(0); }

  std::int64_t pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  Matrix random(std::int64_t rows, std::int64_t cols, float range = 1.0F) {
    Matrix out(rows, cols);
    std::uniform_real_distribution<float> value(-range, range);
    std::generate_n(out.data(), out.size(), [&] { return value(random_); });
    return out;
  }
  // A [n, k] weight of the dtype; the bytes live in bytes_.
  TensorView random_weight(std::int64_t n, std::int64_t k, DType dtype) {
    const Matrix values = random(n, k);
    bytes_.resize(static_cast<std::size_t>(n * k) * size_of(dtype));
    for (std::int64_t i = 0; i < n * k; ++i) {
      if (dtype == DType::kF32) {
        std::memcpy(&bytes_[static_cast<std::size_t>(i) * 4], values.data() + i, 4);
      } else {
        const std::uint16_t bits = dtype == DType::kBF16 ? f32_to_bf16(values.data()[i]) : f32_to_f16(values.data()[i]);
        std::memcpy(&bytes_[static_cast<std::size_t>(i) * 2], &bits, 2);
      }
    }
    return {dtype, {n, k}, bytes_};
  }

  static void expect_near(const Matrix& got, const Matrix& want, float tolerance) {
    ASSERT_EQ(got.size(), want.size());
    for (std::int64_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got.data()[i], want.data()[i], tolerance) << "at " << i / got.cols() << ", " << i % got.cols();
  }
  static bool same_bits(ConstMatrixView a, ConstMatrixView b) {
    if (a.rows != b.rows || a.cols != b.cols) return false;
    for (std::int64_t i = 0; i < a.rows; ++i)
      if (std::memcmp(a.row(i), b.row(i), static_cast<std::size_t>(a.cols) * sizeof(float)) != 0) return false;
    return true;
  }

  ThreadPool threads_{3};
  std::unique_ptr<Ops> cpu_ = make_cpu_ops(threads_), ref_ = make_ref_ops();
  std::mt19937_64 random_;
  std::vector<std::byte> bytes_;
};

TEST_P(OpsCpuTest, MatmulMatchesReference) {
  for (int round = 0; round < 40; ++round) {
    const std::int64_t m = pick(1, round % 8 == 0 ? 200 : 20), n = pick(1, 330),
                       k = pick(1, round % 5 == 0 ? 1200 : 90);
    const auto dtype = std::array{DType::kF32, DType::kBF16, DType::kF16}[static_cast<std::size_t>(round % 3)];
    const TensorView weight = random_weight(n, k, dtype);
    const Matrix x = random(m, k), bias = random(1, n), before = random(m, n);
    const TensorView bias_view{DType::kF32, {n}, std::as_bytes(std::span(bias.data(), static_cast<std::size_t>(n)))};
    const std::span<const TensorView> biases(&bias_view, pick(0, 1) == 1 ? 1 : 0);
    Epilogue epilogue;
    epilogue.activation = std::array{Activation::kNone, Activation::kQuickGelu, Activation::kGelu}[pick(0, 2)];
    epilogue.add_to_out = pick(0, 1) == 1;
    Matrix got = epilogue.add_to_out ? copy_of(before) : poisoned(m, n);
    Matrix want = epilogue.add_to_out ? copy_of(before) : poisoned(m, n);
    cpu_->matmul(x.view(), **cpu_->prepare({&weight, 1}, biases), epilogue, got.view());
    ref_->matmul(x.view(), **ref_->prepare({&weight, 1}, biases), epilogue, want.view());
    // Two orders of k roundings of partial sums below sqrt(k) in size on average, below k at worst; activations have a
    // slope below 1.2; a few roundings of their own.
    const float kf = static_cast<float>(k);
    expect_near(got, want, kEps * (4.0F * kf * std::sqrt(kf) + 16.0F));
    if (HasFailure()) FAIL() << m << " x " << n << " x " << k << " " << dtype_name(dtype);
  }
}

// exp of what is far out: models have such values.
TEST_P(OpsCpuTest, QuickGeluOfLargeValues) {
  const Matrix w = random(70, 1, 400.0F);
  const TensorView weight{DType::kF32, {70, 1}, std::as_bytes(std::span(w.data(), 70))};
  Matrix x(1, 1), got = poisoned(1, 70), want = poisoned(1, 70);
  x.data()[0] = 1;
  const Epilogue epilogue{.activation = Activation::kQuickGelu};
  cpu_->matmul(x.view(), **prepare(*cpu_, weight), epilogue, got.view());
  ref_->matmul(x.view(), **prepare(*ref_, weight), epilogue, want.view());
  expect_near(got, want, 400 * 4 * kEps);
}

TEST_P(OpsCpuTest, MatmulRowsDoNotDependOnTheirCompany) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const std::int64_t m = 317, n = pick(1, 300), k = pick(500, 1100);
    const Matrix x = random(m, k), bias = random(1, n);
    const TensorView bias_view{DType::kF32, {n}, std::as_bytes(std::span(bias.data(), static_cast<std::size_t>(n)))};
    const TensorView matrix = random_weight(n, k, dtype);
    const auto weight = cpu_->prepare({&matrix, 1}, {&bias_view, 1});
    const Epilogue epilogue{Activation::kQuickGelu, false};
    Matrix all = poisoned(m, n);
    cpu_->matmul(x.view(), **weight, epilogue, all.view());
    for (std::int64_t first = 0; first < m;) {
      const std::int64_t count = std::min(m - first, pick(1, 40));
      Matrix some = poisoned(count, n);
      cpu_->matmul(x.view().row_range(first, count), **weight, epilogue, some.view());
      ASSERT_TRUE(same_bits(some.view(), all.view().row_range(first, count))) << first << " + " << count;
      first += count;
    }
  }
}

// Tensors under each other, some of them with an owner and so used where they lie, at any address; small ones and rows
// that are no whole blocks are copied.
TEST_P(OpsCpuTest, WeightsOfSeveralTensorsAreReadWhereTheyLie) {
  for (int round = 0; round < 30; ++round) {
    const auto dtype = std::array{DType::kF32, DType::kBF16, DType::kF16}[static_cast<std::size_t>(round % 3)];
    const std::int64_t k = round % 4 == 0 ? pick(1, 300) : 8 * pick(1, 80), m = pick(1, round % 2 == 0 ? 8 : 60);
    std::vector<TensorView> weights;
    std::vector<std::weak_ptr<const void>> owners;
    std::vector<Matrix> bias_values;
    std::vector<TensorView> biases;
    std::vector<std::vector<std::byte>> lent;  // of tensors without an owner
    std::int64_t outputs = 0;
    bool all_in_place = true, one_in_place = false;
    for (std::int64_t parts = pick(1, 3); parts > 0; --parts) {
      const std::int64_t n = pick(1, 150);
      TensorView view = random_weight(n, k, dtype);
      auto bytes = std::make_shared<std::vector<std::byte>>(bytes_.size() + 1);
      std::copy(bytes_.begin(), bytes_.end(), bytes->begin() + 1);  // at an odd address
      view.bytes = std::span(*bytes).subspan(1);
      if (pick(0, 2) > 0) {
        view.owner = bytes;
        owners.push_back(bytes);
        const bool in_place = n >= 32 && k * static_cast<std::int64_t>(size_of(dtype)) % 16 == 0;
        one_in_place = one_in_place || in_place;
        all_in_place = all_in_place && in_place;
      } else {
        lent.push_back(std::move(*bytes));
        all_in_place = false;
      }
      weights.push_back(view);
      bias_values.push_back(random(1, n));
      biases.push_back(
          {DType::kF32, {n}, std::as_bytes(std::span(bias_values.back().data(), static_cast<std::size_t>(n)))});
      outputs += n;
    }
    const auto want_weight = ref_->prepare(weights, biases);
    const auto weight = cpu_->prepare(weights, biases);
    ASSERT_TRUE(weight.has_value());
    EXPECT_EQ((*weight)->in_place(), one_in_place);
    weights.clear();
    for (auto& bytes : lent) std::fill(bytes.begin(), bytes.end(), std::byte{0xFF});
    for (const auto& owner : owners) {
      if (all_in_place) {
        EXPECT_FALSE(owner.expired());
      }
    }
    const Matrix x = random(m, k);
    Matrix got = poisoned(m, outputs), want = poisoned(m, outputs);
    cpu_->matmul(x.view(), **weight, {}, got.view());
    ref_->matmul(x.view(), **want_weight, {}, want.view());
    const float kf = static_cast<float>(k);
    expect_near(got, want, kEps * (4.0F * kf * std::sqrt(kf) + 16.0F));
    for (std::int64_t i = 0; i < m; ++i) {
      Matrix row = poisoned(1, outputs);
      cpu_->matmul(x.view().row_range(i, 1), **weight, {}, row.view());
      ASSERT_TRUE(same_bits(row.view(), got.view().row_range(i, 1))) << "row " << i << " of " << m;
    }
    if (HasFailure()) FAIL() << m << " x " << outputs << " x " << k << " " << dtype_name(dtype);
  }
}

TEST_P(OpsCpuTest, EmbedGivesTheTablesRows) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const std::int64_t n = pick(1, 100), k = pick(1, 50);
    const TensorView table = random_weight(n, k, dtype);
    const std::vector<std::int32_t> ids{static_cast<std::int32_t>(pick(0, n - 1)), 0, static_cast<std::int32_t>(n - 1)};
    Matrix got = poisoned(3, k);
    cpu_->embed(ids, **prepare(*cpu_, table), got.view());
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t j = 0; j < k; ++j) ASSERT_EQ(got.row(i)[j], element_as_f32(table, ids[i] * k + j));
  }
}

TEST_P(OpsCpuTest, NormsMatchReference) {
  for (int round = 0; round < 20; ++round) {
    const std::int64_t rows = pick(1, 70), cols = pick(1, 400);
    const Matrix x = random(rows, cols, 3.0F), weight = random(1, cols), bias = random(1, cols);
    Matrix got = poisoned(rows, cols), want = poisoned(rows, cols);
    // Values are at most sqrt(cols) in size after the norm; the sums add cols / lanes + log2(lanes) roundings.
    const float size = std::sqrt(static_cast<float>(cols));
    cpu_->layer_norm(x.view(), weight.data(), bias.data(), 1e-6F, got.view());
    ref_->layer_norm(x.view(), weight.data(), bias.data(), 1e-6F, want.view());
    // With few columns the variance may nearly vanish, and the mean's rounding is magnified by 1 / sqrt(eps).
    if (cols > 8) expect_near(got, want, 64 * kEps * size);
    cpu_->rms_norm(x.view(), weight.data(), 1e-6F, got.view());
    ref_->rms_norm(x.view(), weight.data(), 1e-6F, want.view());
    expect_near(got, want, 64 * kEps * size);
  }
}

TEST_P(OpsCpuTest, SiluMulMatchesReference) {
  for (int round = 0; round < 10; ++round) {
    const std::int64_t rows = pick(1, 50), cols = pick(1, 200);
    const Matrix gate = random(rows, cols, 300.0F), up = random(rows, cols);
    Matrix got = poisoned(rows, cols), want = poisoned(rows, cols);
    cpu_->silu_mul(gate.view(), up.view(), got.view());
    ref_->silu_mul(gate.view(), up.view(), want.view());
    expect_near(got, want, 300 * 8 * kEps);
  }
}

// What one call does is what the calls it stands for do, bit for bit.
TEST_P(OpsCpuTest, NormedAndGatedMatmulIsItsParts) {
  const std::int64_t m = pick(1, 20), half = pick(1, 50), k = pick(1, 90);
  const auto weight = *prepare(*cpu_, random_weight(2 * half, k, DType::kBF16));
  const Matrix x = random(m, k), norm = random(1, k);
  Matrix normed(m, k), got(m, 2 * half), want(m, 2 * half);
  cpu_->norm_matmul(x.view(), norm.data(), 1e-6F, normed.view(), *weight, {.gated = true}, got.view());
  cpu_->rms_norm(x.view(), norm.data(), 1e-6F, normed.view());
  cpu_->matmul(normed.view(), *weight, {}, want.view());
  const MatrixView gate = want.view().col_range(0, half);
  cpu_->silu_mul(gate, want.view().col_range(half, half), gate);
  for (std::int64_t i = 0; i < m; ++i)
    ASSERT_EQ(std::memcmp(got.row(i), want.row(i), static_cast<std::size_t>(half) * sizeof(float)), 0);
}

TEST_P(OpsCpuTest, RopeMatchesReference) {
  for (int round = 0; round < 10; ++round) {
    const std::int64_t rows = pick(1, 70), heads = pick(1, 5), half = pick(1, 64);
    const Matrix cos = random(rows, half), sin = random(rows, half);
    Matrix got = random(rows, heads * 2 * half), want = copy_of(got);
    cpu_->rope(got.view(), heads, {cos.view(), sin.view()});
    ref_->rope(want.view(), heads, {cos.view(), sin.view()});
    expect_near(got, want, 4 * kEps);
  }
}

TEST_P(OpsCpuTest, GatherMovesRows) {
  const Matrix from = random(5, 7);
  const std::vector<std::int32_t> rows{4, 0, 4};
  Matrix to = poisoned(3, 7);
  cpu_->gather_rows(from.view(), rows, to.view());
  for (std::int64_t i = 0; i < 3; ++i)
    EXPECT_TRUE(same_bits(to.view().row_range(i, 1), from.view().row_range(rows[static_cast<std::size_t>(i)], 1)));
}

// Scores up to 4 in size: exp magnifies their rounding by at most that; weights sum to 1, values are at most 1.
constexpr float kAttentionTolerance = 256 * kEps;

TEST_P(OpsCpuTest, AttentionMatchesReference) {
  for (int round = 0; round < 12; ++round) {
    const std::int64_t heads = pick(1, 4), head_dim = pick(1, 6) * pick(1, 24);
    std::vector<std::int64_t> cu_seqlens{0};
    for (std::int64_t s = pick(1, 4); s > 0; --s) cu_seqlens.push_back(cu_seqlens.back() + pick(1, 300));
    const std::int64_t rows = cu_seqlens.back(), width = heads * head_dim;
    const Matrix qkv = random(rows, 3 * width, 2.0F);
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    Matrix got = poisoned(rows, width), want = poisoned(rows, width);
    for (auto [ops, out] : {std::pair(cpu_.get(), &got), std::pair(ref_.get(), &want)})
      ops->attention(qkv.view().col_range(0, width), qkv.view().col_range(width, width),
                     qkv.view().col_range(2 * width, width), heads, scale, Segments(cu_seqlens), out->view());
    expect_near(got, want, 2 * kAttentionTolerance);
  }
}

TEST_P(OpsCpuTest, AttentionSegmentsDoNotDependOnTheirCompany) {
  const std::int64_t heads = 3, head_dim = 80, width = heads * head_dim;
  const std::vector<std::int64_t> cu_seqlens{0, 137, 138, 402, 530};
  const Matrix q = random(530, width, 2.0F), k = random(530, width, 2.0F), v = random(530, width);
  Matrix all = poisoned(530, width);
  cpu_->attention(q.view(), k.view(), v.view(), heads, 0.1F, Segments(cu_seqlens), all.view());
  for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    const std::int64_t first = cu_seqlens[s], count = cu_seqlens[s + 1] - first;
    const std::vector<std::int64_t> alone{0, count};
    Matrix out = poisoned(count, width);
    cpu_->attention(q.view().row_range(first, count), k.view().row_range(first, count),
                    v.view().row_range(first, count), heads, 0.1F, Segments(alone), out.view());
    ASSERT_TRUE(same_bits(out.view(), all.view().row_range(first, count))) << s;
  }
}

// Two sequences over a pool with scattered blocks; every cut of the second one into steps gives the same bits.
TEST_P(OpsCpuTest, PagedAttentionMatchesReferenceInAnyChunks) {
  for (int round = 0; round < 6; ++round) {
    const std::int64_t kv_heads = pick(1, 3), group = pick(1, 4), heads = kv_heads * group, head_dim = 2 * pick(1, 64);
    const KvShape shape{2, kv_heads, head_dim, 24};
    const std::int64_t layer = pick(0, 1), length = pick(1, 300), other = pick(1, 90);
    std::vector<std::int32_t> blocks(24);
    for (std::int32_t i = 0; i < 24; ++i) blocks[static_cast<std::size_t>(i)] = i;
    std::shuffle(blocks.begin(), blocks.end(), random_);
    const std::span<const std::int32_t> table(blocks.data(), 12), other_table(blocks.data() + 12, 12);
    const Matrix q = random(length + other, heads * head_dim, 2.0F),
                 k = random(length + other, kv_heads * head_dim, 2.0F), v = random(length + other, kv_heads * head_dim);
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    const auto step = [&](const Ops& ops, KvPool& pool, std::int64_t first, std::span<const SequenceRows> sequences,
                          Matrix& out) {
      std::int64_t count = 0;
      for (const auto& sequence : sequences) count += sequence.count;
      ops.kv_write(k.view().row_range(first, count), v.view().row_range(first, count), StepRows(sequences), layer,
                   pool);
      ops.paged_attention(q.view().row_range(first, count), heads, scale, StepRows(sequences), layer, pool,
                          out.view().row_range(first, count));
    };
    const std::vector<SequenceRows> together{{table, 0, length}, {other_table, 0, other}};
    Matrix want = poisoned(q.rows(), q.cols()), got = poisoned(q.rows(), q.cols()), cut = poisoned(q.rows(), q.cols());
    auto ref_pool = *ref_->make_kv_pool(shape), pool = *cpu_->make_kv_pool(shape),
         cut_pool = *cpu_->make_kv_pool(shape);
    step(*ref_, *ref_pool, 0, together, want);
    step(*cpu_, *pool, 0, together, got);
    expect_near(got, want, 2 * kAttentionTolerance);
    for (std::int64_t past = 0; past < length;) {
      const std::int64_t count = std::min(length - past, pick(1, 70));
      const std::vector<SequenceRows> chunk{{table, past, count}};
      step(*cpu_, *cut_pool, past, chunk, cut);
      past += count;
    }
    ASSERT_TRUE(same_bits(cut.view().row_range(0, length), got.view().row_range(0, length)));
  }
}

TEST_P(OpsCpuTest, CopiedBlocksHoldTheSameKeysAndValues) {
  const KvShape shape{3, 2, 20, 4};
  auto pool = *cpu_->make_kv_pool(shape);
  const std::vector<std::int32_t> original{2}, twin{0};
  const Matrix k = random(9, 40), v = random(9, 40), q = random(1, 80);
  const std::vector<SequenceRows> writes{{original, 0, 9}};
  for (std::int64_t layer = 0; layer < 3; ++layer) cpu_->kv_write(k.view(), v.view(), StepRows(writes), layer, *pool);
  cpu_->copy_kv_block(2, 0, *pool);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    Matrix a = poisoned(1, 80), b = poisoned(1, 80);
    const std::vector<SequenceRows> from{{original, 8, 1}}, to{{twin, 8, 1}};
    cpu_->paged_attention(q.view(), 4, 0.3F, StepRows(from), layer, *pool, a.view());
    cpu_->paged_attention(q.view(), 4, 0.3F, StepRows(to), layer, *pool, b.view());
    EXPECT_TRUE(same_bits(a.view(), b.view()));
    EXPECT_TRUE(std::isfinite(a.row(0)[0]));
  }
}

TEST_P(OpsCpuTest, RefusesWeightsItCannotHold) {
  const std::vector<std::byte> bytes(64);
  EXPECT_FALSE(prepare(*cpu_, {DType::kI32, {4, 4}, bytes}).has_value());
  EXPECT_FALSE(prepare(*cpu_, {DType::kF32, {}, bytes}).has_value());
  const TensorView sound{DType::kF32, {4, 4}, bytes};
  const auto fp8 = cpu_->quantise({&sound, 1}, {}, Precision::kFp8);
  ASSERT_FALSE(fp8.has_value());
  EXPECT_THAT(fp8.error().message, testing::HasSubstr("--precision int8 on the CPU"));
  EXPECT_FALSE(cpu_->make_kv_pool({1 << 20, 1 << 20, 1 << 20, 1 << 20}).has_value());
  EXPECT_FALSE(cpu_->allocate(std::int64_t{1} << 40, std::int64_t{1} << 40).has_value());
}

INSTANTIATE_TEST_SUITE_P(Targets, OpsCpuTest, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& target) { return std::string(hwy::TargetName(target.param)); });

}  // namespace
}  // namespace chiasm
