// Norms, activations, rotations and the choice of the likeliest on the card against the reference.
#include <array>
#include <numeric>
#include <vector>

#include "kernels/test_cuda.h"

namespace chiasm {
namespace {

class RowwiseCudaTest : public CudaTest {};

TEST_F(RowwiseCudaTest, NormsMatchReference) {
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

TEST_F(RowwiseCudaTest, SiluMulMatchesReference) {
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

TEST_F(RowwiseCudaTest, RopeTablesAndRotationMatchReference) {
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

TEST_F(RowwiseCudaTest, ArgmaxMatchesReference) {
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

// A recorded step begins with embed and rope_table of what its tokens are at each replay, and ends with argmax.
TEST_F(RowwiseCudaTest, RecordedStepBeginsAndEndsAsItsParts) {
  for (const Precision precision : {Precision::kExact, Precision::kInt8}) {
    const std::int64_t count = pick(1, 9), pairs = 8 * pick(1, 8), width = 128, vocabulary = 300;
    const KvShape shape{1, 1, 2 * pairs, 64};
    const HostWeight host = random_weight(vocabulary, width, DType::kBF16, false);
    const auto table = precision == Precision::kExact ? *cuda_->prepare(host.weights, {})
                                                      : *cuda_->quantise(host.weights, {}, precision);
    std::vector<std::int32_t> blocks(64), axis;
    std::iota(blocks.begin(), blocks.end(), 0);
    std::vector<float> frequency;
    for (std::int64_t i = 0; i < pairs; ++i) {
      axis.push_back(static_cast<std::int32_t>(pick(0, 2)));
      frequency.push_back(1.0F / static_cast<float>(pick(1, 1000)));
    }
    const OnCard x = poisoned(count, width, DType::kF32), cos = poisoned(count, pairs, DType::kF32),
                 sin = poisoned(count, pairs, DType::kF32), logits = poisoned(count, vocabulary, DType::kF32);
    std::unique_ptr<const StepRows> step;
    std::unique_ptr<const Recording> recording;
    for (int replay = 0; replay < 3; ++replay) {
      std::vector<std::int32_t> ids;
      std::array<std::vector<std::int32_t>, 3> positions;
      std::vector<SequenceRows> sequences;
      for (std::int64_t i = 0; i < count; ++i) {
        ids.push_back(static_cast<std::int32_t>(pick(0, vocabulary - 1)));
        for (auto& axis_positions : positions) axis_positions.push_back(static_cast<std::int32_t>(pick(0, 5000)));
        sequences.push_back({blocks, pick(0, 200), 1});
      }
      const std::array<std::span<const std::int32_t>, 3> all{positions[0], positions[1], positions[2]};
      const RopeAngles angles{all, axis, frequency};
      const auto holds = cuda_->renew_step(sequences, {ids, angles}, 1, shape, step);
      ASSERT_TRUE(holds) << holds.error().message;
      if (!*holds || recording == nullptr) {
        recording = *cuda_->record([&] {
          cuda_->begin_step(*step, *table, x.view, cos.view, sin.view);
          cuda_->end_step(logits.view, *step);
        });
      }
      const Matrix chosen = random(count, vocabulary);
      cuda_->upload(values_of(chosen), logits.view);
      cuda_->replay(*recording);
      std::vector<std::int32_t> got(static_cast<std::size_t>(count)), want(got.size());
      ASSERT_TRUE(cuda_->likeliest(*step, got));
      ASSERT_TRUE(ref_->argmax(chosen.view(), want));
      EXPECT_EQ(got, want);
      const OnCard x_want = poisoned(count, width, DType::kF32), cos_want = poisoned(count, pairs, DType::kF32),
                   sin_want = poisoned(count, pairs, DType::kF32);
      cuda_->embed(ids, *table, x_want.view);
      cuda_->rope_table(angles, cos_want.view, sin_want.view);
      expect_near(back(x.view), back(x_want.view), 0, 0);
      expect_near(back(cos.view), back(cos_want.view), 0, 0);
      expect_near(back(sin.view), back(sin_want.view), 0, 0);
    }
  }
}

}  // namespace
}  // namespace chiasm
