// Each reference op against its formula written out again, in double and on its own, at odd sizes and strides.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/ops.h"

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A matrix inside wider rows, so that a kernel which takes cols for stride is found out.
struct Strided {
  Strided(std::int64_t rows, std::int64_t cols, unsigned seed)
      : width(cols), data(static_cast<std::size_t>(rows * (cols + 3))) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    for (float& x : data) x = uniform(random);
    view = {data.data(), rows, cols, cols + 3};
  }
  double at(std::int64_t i, std::int64_t j) const {
    return static_cast<double>(data[static_cast<std::size_t>(i * (width + 3) + j)]);
  }
  std::int64_t width;
  std::vector<float> data;
  MatrixView view;
};

template <class T>
TensorView tensor_of(const std::vector<T>& values, Shape shape, DType dtype) {
  return {dtype, std::move(shape), std::as_bytes(std::span(values))};
}

std::vector<float> random_floats(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> out(count);
  for (float& x : out) x = uniform(random);
  return out;
}

class RefOpsTest : public testing::Test {
 protected:
  std::unique_ptr<Ops> ops_ = make_ref_ops();
};

TEST_F(RefOpsTest, ProductsInFp8AreThoseOfTheRoundedNumbers) {
  const std::int64_t m = 3, n = 21, k = 37;
  const std::vector<float> w = random_floats(static_cast<std::size_t>(n * k), 1), b = random_floats(21, 2);
  const TensorView weight = tensor_of(w, {n, k}, DType::kF32), bias = tensor_of(b, {n}, DType::kF32);
  const auto prepared = *ops_->quantise({&weight, 1}, {&bias, 1}, Precision::kFp8);
  EXPECT_EQ(prepared->precision(), Precision::kFp8);
  const Strided x(m, k, 3);
  Strided out(m, n, 4);
  ops_->matmul(x.view, *prepared, {}, out.view);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(k)), weights(codes.size());
  for (std::int64_t i = 0; i < m; ++i) {
    const float scale = round_row_to_fp8(x.view.row(i), k, codes.data());
    for (std::int64_t j = 0; j < n; ++j) {
      const float own = round_row_to_fp8(w.data() + j * k, k, weights.data());
      double sum = 0;
      for (std::size_t l = 0; l < codes.size(); ++l)
        sum += static_cast<double>(e4m3_to_f32(codes[l])) * static_cast<double>(e4m3_to_f32(weights[l]));
      sum = sum * static_cast<double>(scale) * static_cast<double>(own) +
            static_cast<double>(b[static_cast<std::size_t>(j)]);
      EXPECT_NEAR(out.at(i, j), sum, 1e-5);
      std::vector<float> row(static_cast<std::size_t>(k));
      const std::vector<std::int32_t> id{static_cast<std::int32_t>(j)};
      ops_->embed(id, *prepared, View(MatrixView{row.data(), 1, k, k}));
      for (std::size_t l = 0; l < row.size(); ++l) ASSERT_EQ(row[l], e4m3_to_f32(weights[l]) * own);
    }
  }
}

TEST_F(RefOpsTest, MatmulByHand) {
  const std::vector<float> w{1, 2, 3, -1, 0.5F, 4};  // [2, 3]
  auto weight = prepare(*ops_, tensor_of(w, {2, 3}, DType::kF32));
  ASSERT_TRUE(weight);
  std::vector<float> x{1, 1, 1, 2, 0, -1}, out(4), bias{10, 20};
  ops_->matmul({x.data(), 2, 3, 3}, **weight, {}, {out.data(), 2, 2, 2});
  EXPECT_THAT(out, ElementsAre(6, 3.5F, -1, -6));
  const TensorView matrix = tensor_of(w, {2, 3}, DType::kF32), values = tensor_of(bias, {2}, DType::kF32);
  auto biased = ops_->prepare({&matrix, 1}, {&values, 1});
  ASSERT_TRUE(biased);
  ops_->matmul({x.data(), 2, 3, 3}, **biased, {.add_to_out = true}, {out.data(), 2, 2, 2});
  EXPECT_THAT(out, ElementsAre(22, 27, 8, 8));
}

TEST_F(RefOpsTest, MatmulSumsWithFusedMultiplyAddInOrder) {
  constexpr std::int64_t kM = 5, kN = 37, kK = 61;
  const auto w = random_floats(kN * kK, 1), bias = random_floats(kN, 2);
  const TensorView matrix = tensor_of(w, {kN, kK}, DType::kF32), values = tensor_of(bias, {kN}, DType::kF32);
  auto weight = ops_->prepare({&matrix, 1}, {&values, 1});
  ASSERT_TRUE(weight);
  EXPECT_EQ((*weight)->out_features(), kN);
  EXPECT_EQ((*weight)->in_features(), kK);
  const Strided x(kM, kK, 3);
  Strided out(kM, kN, 4);
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization): the kernel writes through out.view
  const Strided before = out;
  ops_->matmul(x.view, **weight, {}, out.view);
  for (std::int64_t m = 0; m < kM; ++m) {
    for (std::int64_t n = 0; n < kN; ++n) {
      float sum = 0;
      for (std::int64_t k = 0; k < kK; ++k)
        sum = std::fma(x.view.row(m)[k], w[static_cast<std::size_t>(n * kK + k)], sum);
      ASSERT_EQ(out.view.row(m)[n], sum + bias[static_cast<std::size_t>(n)]) << m << ", " << n;
    }
    for (std::int64_t n = kN; n < kN + 3; ++n)
      ASSERT_EQ(out.view.data[m * (kN + 3) + n], before.data[static_cast<std::size_t>(m * (kN + 3) + n)]);
  }
}

TEST_F(RefOpsTest, ActivationsAgainstTheirDefinitions) {
  constexpr std::int64_t kN = 19, kK = 1;
  std::vector<float> w(kN);
  for (std::int64_t n = 0; n < kN; ++n) w[static_cast<std::size_t>(n)] = static_cast<float>(n - 9) * 1.25F;
  auto weight = prepare(*ops_, tensor_of(w, {kN, kK}, DType::kF32));
  ASSERT_TRUE(weight);
  const float one = 1;
  std::vector<float> quick(kN), exact(kN);
  ops_->matmul({&one, 1, 1, 1}, **weight, {.activation = Activation::kQuickGelu}, {quick.data(), 1, kN, kN});
  ops_->matmul({&one, 1, 1, 1}, **weight, {.activation = Activation::kGelu}, {exact.data(), 1, kN, kN});
  for (std::size_t n = 0; n < kN; ++n) {
    const double x = static_cast<double>(w[n]);
    EXPECT_FLOAT_EQ(quick[n], static_cast<float>(x * (0.5 + 0.5 * std::tanh(0.851 * x)))) << x;
    EXPECT_NEAR(exact[n], x * 0.5 * std::erfc(-x / std::sqrt(2.0)), 1e-6 * (1 + std::abs(x))) << x;
  }
  // Phi(1.25) and sigmoid(1.702 * 1.25) from tables.
  EXPECT_NEAR(exact[10], 1.25 * 0.894350, 2e-6);
  EXPECT_NEAR(quick[10], 1.25 * 0.893547, 2e-6);
}

TEST_F(RefOpsTest, WeightsOfEveryFloatTypeAndManyDimensions) {
  const std::vector<float> f32{1.5F, -2, 0.25F, 8};
  const std::vector<std::uint16_t> bf16{0x3FC0, 0xC000, 0x3E80, 0x4100}, f16{0x3E00, 0xC000, 0x3400, 0x4800};
  const std::array<TensorView, 3> tensors{tensor_of(f32, {2, 1, 2}, DType::kF32),
                                          tensor_of(bf16, {2, 1, 2}, DType::kBF16),
                                          tensor_of(f16, {2, 1, 2}, DType::kF16)};
  const std::vector<std::int32_t> ids{1, 0, 1};
  for (const TensorView& tensor : tensors) {
    auto weight = prepare(*ops_, tensor);
    ASSERT_TRUE(weight);
    EXPECT_EQ((*weight)->in_features(), 2);
    std::vector<float> out(6);
    ops_->embed(ids, **weight, {out.data(), 3, 2, 2});
    EXPECT_THAT(out, ElementsAre(0.25F, 8, 1.5F, -2, 0.25F, 8));
  }
  const std::vector<std::int32_t> integers{1, 2};
  auto bad = prepare(*ops_, tensor_of(integers, {1, 2}, DType::kI32));
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, HasSubstr("I32"));
}

TEST_F(RefOpsTest, Norms) {
  constexpr std::int64_t kRows = 3, kCols = 33;
  const Strided x(kRows, kCols, 5);
  const auto weight = random_floats(kCols, 6), bias = random_floats(kCols, 7);
  Strided layer(kRows, kCols, 8);
  Strided rms = x;  // in place
  rms.view.data = rms.data.data();
  ops_->layer_norm(x.view, weight.data(), bias.data(), 1e-6F, layer.view);
  ops_->rms_norm(rms.view, weight.data(), 1e-5F, rms.view);
  for (std::int64_t i = 0; i < kRows; ++i) {
    double sum = 0, squares = 0;
    for (std::int64_t j = 0; j < kCols; ++j) sum += x.at(i, j), squares += x.at(i, j) * x.at(i, j);
    const double mean = sum / kCols, variance = squares / kCols - mean * mean;
    for (std::int64_t j = 0; j < kCols; ++j) {
      const double w = weight[static_cast<std::size_t>(j)], b = bias[static_cast<std::size_t>(j)];
      EXPECT_NEAR(layer.at(i, j), (x.at(i, j) - mean) / std::sqrt(variance + 1e-6) * w + b, 1e-6);
      EXPECT_NEAR(rms.at(i, j), x.at(i, j) / std::sqrt(squares / kCols + 1e-5) * w, 1e-6);
    }
  }
  // By hand: mean 2, variance 1.
  const std::vector<float> two{1, 3}, ones{1, 1}, zeros{0, 0};
  std::vector<float> out(2);
  ops_->layer_norm({two.data(), 1, 2, 2}, ones.data(), zeros.data(), 0, {out.data(), 1, 2, 2});
  EXPECT_THAT(out, ElementsAre(-1, 1));
  ops_->rms_norm({two.data(), 1, 2, 2}, ones.data(), 0, {out.data(), 1, 2, 2});
  EXPECT_FLOAT_EQ(out[0], static_cast<float>(1 / std::sqrt(5.0)));
}

TEST_F(RefOpsTest, SiluMul) {
  const Strided gate(3, 7, 9), up(3, 7, 10);
  Strided out(3, 7, 11);
  ops_->silu_mul(gate.view, up.view, out.view);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 7; ++j) {
      EXPECT_NEAR(out.at(i, j), gate.at(i, j) * (0.5 + 0.5 * std::tanh(gate.at(i, j) / 2)) * up.at(i, j), 1e-7);
    }
  }
}

TEST_F(RefOpsTest, RopeIsAComplexProduct) {
  constexpr std::int64_t kRows = 3, kHeads = 2, kHalf = 5;
  Strided x(kRows, kHeads * 2 * kHalf, 12);
  const Strided before = x;
  Strided angle(kRows, kHalf, 13), cos = angle, sin = angle;
  cos.view.data = cos.data.data(), sin.view.data = sin.data.data();
  for (std::size_t i = 0; i < angle.data.size(); ++i) {
    cos.data[i] = std::cos(3 * angle.data[i]), sin.data[i] = std::sin(3 * angle.data[i]);
  }
  x.view.data = x.data.data();
  ops_->rope(x.view, kHeads, {cos.view, sin.view});
  for (std::int64_t i = 0; i < kRows; ++i) {
    for (std::int64_t h = 0; h < kHeads; ++h) {
      for (std::int64_t j = 0; j < kHalf; ++j) {
        const std::int64_t a = h * 2 * kHalf + j, b = a + kHalf;
        const double radius = std::hypot(before.at(i, a), before.at(i, b));
        const double turned = std::atan2(before.at(i, b), before.at(i, a)) + 3 * angle.at(i, j);
        EXPECT_NEAR(x.at(i, a), radius * std::cos(turned), 1e-6);
        EXPECT_NEAR(x.at(i, b), radius * std::sin(turned), 1e-6);
      }
    }
  }
}

TEST_F(RefOpsTest, GatherRows) {
  const Strided from(4, 3, 14);
  Strided rows(3, 3, 16);
  ops_->gather_rows(from.view, std::vector<std::int32_t>{1, 1, 2}, rows.view);
  for (std::int64_t j = 0; j < 3; ++j) {
    EXPECT_EQ(rows.at(0, j), from.at(1, j));
    EXPECT_EQ(rows.at(1, j), from.at(1, j));
    EXPECT_EQ(rows.at(2, j), from.at(2, j));
  }
}

TEST_F(RefOpsTest, ArgmaxTakesTheLowestOfEqualsAndNoRowThatIsNotFinite) {
  const float inf = INFINITY;
  const std::vector<float> x{1, 3, 3, -2, -1, -1, 0, inf, 5, 0, NAN, 5};
  std::vector<std::int32_t> out(4);
  ASSERT_TRUE(ops_->argmax({x.data(), 4, 3, 3}, out));
  EXPECT_THAT(out, ElementsAre(1, 1, -1, -1));
}

TEST_F(RefOpsTest, WeightsUnderEachOtherAreOne) {
  const std::vector<float> top{1, 2}, top_bias{10};
  const std::vector<std::uint16_t> bottom{0x3FC0, 0xC000, 0x3E80, 0x4100}, bottom_bias{0x3F80, 0x4000};
  const std::array<TensorView, 2> weights{tensor_of(top, {1, 2}, DType::kF32), tensor_of(bottom, {2, 2}, DType::kBF16)};
  const std::array<TensorView, 2> biases{tensor_of(top_bias, {1}, DType::kF32),
                                         tensor_of(bottom_bias, {2}, DType::kBF16)};
  auto weight = ops_->prepare(weights, biases);
  ASSERT_TRUE(weight);
  const std::vector<float> x{1, 1};
  std::vector<float> out(3);
  ops_->matmul({x.data(), 1, 2, 2}, **weight, {}, {out.data(), 1, 3, 3});
  EXPECT_THAT(out, ElementsAre(13, 0.5F, 10.25F));
  EXPECT_FALSE(ops_->prepare(weights, std::span(biases).first(1)));
  const TensorView narrow = tensor_of(top, {2, 1}, DType::kF32);
  const std::array<TensorView, 2> uneven{weights[0], narrow};
  EXPECT_FALSE(ops_->prepare(uneven, {}));
}

TEST_F(RefOpsTest, AttentionByHand) {
  // One head of width 1. q = 0 takes the mean; a large score takes its value; a segment of one row gives v itself.
  std::vector<float> q{0, 1000, 5}, k{1, 2, 7}, v{10, 20, 30}, out(3);
  const std::vector<std::int64_t> cu{0, 2, 2, 3};
  ops_->attention({q.data(), 3, 1, 1}, {k.data(), 3, 1, 1}, {v.data(), 3, 1, 1}, 1, 1.0F, Segments(cu),
                  {out.data(), 3, 1, 1});
  EXPECT_THAT(out, ElementsAre(15, 20, 30));
}

// softmax without the usual shift, in long double: the scores here are small.
double attention_by_definition(const Strided& q, std::int64_t row, std::int64_t q_column, std::int64_t head_dim,
                               const std::vector<std::pair<const float*, const float*>>& tokens, double scale,
                               std::int64_t i) {
  long double total = 0, sum = 0;
  for (const auto& [k, v] : tokens) {
    long double dot = 0;
    for (std::int64_t d = 0; d < head_dim; ++d)
      dot += static_cast<long double>(q.at(row, q_column + d)) * static_cast<long double>(k[d]);
    const long double e = std::exp(dot * static_cast<long double>(scale));
    total += e, sum += e * static_cast<long double>(v[i]);
  }
  return static_cast<double>(sum / total);
}

TEST_F(RefOpsTest, AttentionStaysInsideItsSegment) {
  constexpr std::int64_t kHeads = 2, kHeadDim = 5, kRows = 9;
  const Strided q(kRows, kHeads * kHeadDim, 17), k(kRows, kHeads * kHeadDim, 18), v(kRows, kHeads * kHeadDim, 19);
  Strided out(kRows, kHeads * kHeadDim, 20);
  const std::vector<std::int64_t> cu{0, 4, 9};
  ops_->attention(q.view, k.view, v.view, kHeads, 0.5F, Segments(cu), out.view);
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (std::int64_t h = 0; h < kHeads; ++h) {
      std::vector<std::pair<const float*, const float*>> tokens;
      for (std::int64_t t = row < 4 ? 0 : 4; t < (row < 4 ? 4 : 9); ++t) {
        tokens.emplace_back(k.view.row(t) + h * kHeadDim, v.view.row(t) + h * kHeadDim);
      }
      for (std::int64_t i = 0; i < kHeadDim; ++i) {
        EXPECT_NEAR(out.at(row, h * kHeadDim + i),
                    attention_by_definition(q, row, h * kHeadDim, kHeadDim, tokens, 0.5, i), 1e-7);
      }
    }
  }
}

TEST_F(RefOpsTest, PagedAttentionIsCausalOverBlocksInAnyOrder) {
  constexpr std::int64_t kHeads = 6, kKvHeads = 2, kHeadDim = 3, kLayers = 2;
  auto pool = ops_->make_kv_pool({.layers = kLayers, .kv_heads = kKvHeads, .head_dim = kHeadDim, .blocks = 7});
  ASSERT_TRUE(pool);
  EXPECT_EQ((*pool)->bytes(), 2U * kLayers * 7 * kKvBlock * kKvHeads * kHeadDim * sizeof(float));
  // Sequence A has 40 tokens in blocks 5, 2; B has 33 in blocks 0, 6. Written in two steps: A's first 37, then the
  // rest.
  const std::vector<std::int32_t> blocks_a{5, 2}, blocks_b{0, 6};
  const Strided k(73, kKvHeads * kHeadDim, 21), v(73, kKvHeads * kHeadDim, 22), q(73, kHeads * kHeadDim, 23);
  const std::vector<SequenceRows> first{{blocks_a, 0, 37}}, second{{blocks_a, 37, 3}, {blocks_b, 0, 33}};
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    Strided scaled_v = v;  // each layer its own values
    scaled_v.view.data = scaled_v.data.data();
    for (float& x : scaled_v.data) x *= static_cast<float>(layer + 1);
    ops_->kv_write(ConstMatrixView(k.view).row_range(0, 37), ConstMatrixView(scaled_v.view).row_range(0, 37),
                   StepRows(first), layer, **pool);
    ops_->kv_write(ConstMatrixView(k.view).row_range(37, 36), ConstMatrixView(scaled_v.view).row_range(37, 36),
                   StepRows(second), layer, **pool);
  }
  const auto expect_step = [&](std::int64_t begin, std::span<const SequenceRows> step, std::int64_t layer) {
    std::int64_t rows = 0;
    for (const SequenceRows& s : step) rows += s.count;
    Strided out(rows, kHeads * kHeadDim, 24);
    ops_->paged_attention(ConstMatrixView(q.view).row_range(begin, rows), kHeads, 0.7F, StepRows(step), layer, **pool,
                          out.view);
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t index = begin + row, start = index < 40 ? 0 : 40;
      for (std::int64_t h = 0; h < kHeads; ++h) {
        std::vector<std::pair<const float*, const float*>> tokens;
        for (std::int64_t t = start; t <= index; ++t) {
          tokens.emplace_back(k.view.row(t) + h / 3 * kHeadDim, v.view.row(t) + h / 3 * kHeadDim);
        }
        for (std::int64_t i = 0; i < kHeadDim; ++i) {
          ASSERT_NEAR(out.at(row, h * kHeadDim + i),
                      static_cast<double>(layer + 1) *
                          attention_by_definition(q, index, h * kHeadDim, kHeadDim, tokens, 0.7F, i),
                      1e-6);
        }
      }
    }
  };
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    expect_step(0, first, layer);
    expect_step(37, second, layer);
  }
  // A copied block serves in every layer.
  ops_->copy_kv_block(2, 4, **pool);
  const std::vector<std::int32_t> copied{5, 4};
  const std::vector<SequenceRows> through_copy{{copied, 37, 3}};
  for (std::int64_t layer = 0; layer < kLayers; ++layer) expect_step(37, through_copy, layer);
}

TEST_F(RefOpsTest, MemoryThatIsNotThereIsAnError) {
  auto matrix = ops_->allocate(std::int64_t{1} << 40, 1 << 16);
  ASSERT_FALSE(matrix);
  EXPECT_EQ(matrix.error().code, Code::kResourceExhausted);
  EXPECT_FALSE(ops_->allocate(std::int64_t{1} << 62, 4));  // overflows
  EXPECT_FALSE(ops_->allocate(std::int64_t{1} << 61, 1));
  EXPECT_FALSE(ops_->allocate(-1, 4));
  auto pool = ops_->make_kv_pool({.layers = 80, .kv_heads = 8, .head_dim = 128, .blocks = std::int64_t{1} << 40});
  ASSERT_FALSE(pool);
}

TEST_F(RefOpsTest, UploadAndDownload) {
  auto matrix = ops_->allocate(2, 3);
  ASSERT_TRUE(matrix);
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  ops_->upload(values, matrix->view());
  std::vector<float> back(4);
  ASSERT_TRUE(ops_->download(matrix->view().col_range(1, 2), back));
  EXPECT_THAT(back, ElementsAre(2, 3, 5, 6));
}

}  // namespace
}  // namespace chiasm
