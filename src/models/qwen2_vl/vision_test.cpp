// The vision encoder against the reference, and against itself: alone or beside others, still or moving.

#include "models/qwen2_vl/vision.h"

#include <cmath>
#include <cstring>
#include <iostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/qwen2_vl/golden.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

class VisionTest : public GoldenTest {
 protected:
  void SetUp() override {
    GoldenTest::SetUp();
    if (golden_ == nullptr) return;
    const Checkpoint checkpoint = must(Checkpoint::open(golden_->model_dir, Role::kVision));
    model_ = must(load_qwen2_vl_vision(checkpoint, *ops_.ops));
  }

  Matrix encode(const Matrix& pixels, const std::vector<Grid>& grids) {
    auto features = model_->encode(pixels.view(), grids);
    EXPECT_TRUE(features) << features.error().message;
    return features ? std::move(*features) : Matrix();
  }

  std::unique_ptr<const VisionModel> model_;
};

// Rows of several matrices, one after the other.
Matrix stack(const std::vector<ConstMatrixView>& parts) {
  std::int64_t rows = 0;
  for (const ConstMatrixView& part : parts) rows += part.rows;
  Matrix out(rows, parts.at(0).cols);
  std::int64_t row = 0;
  for (const ConstMatrixView& part : parts) {
    for (std::int64_t i = 0; i < part.rows; ++i) std::copy_n(part.row(i), part.cols, out.row(row++));
  }
  return out;
}

// The golden holds pixel_values in f16; the reference itself saw f32.
TEST_P(VisionTest, EqualsTheReference) {
  double worst = 0;
  for (const GoldenPicture& picture : golden_->pictures) {
    const Matrix features = encode(golden_matrix(*golden_->tensors, picture.name, "pixel_values"), {picture.grid});
    const Matrix expected = golden_matrix(*golden_->tensors, picture.name, "image_embeds");
    ASSERT_EQ(features.rows(), expected.rows());
    ASSERT_EQ(features.cols(), expected.cols());
    const double distance = relative_l2(features.view(), expected.view());
    EXPECT_LE(distance, golden_->features_limit) << picture.name;
    worst = std::max(worst, distance);
  }
  std::cout << "image_embeds: largest relative L2 " << worst << " over " << golden_->pictures.size() << " pictures\n";
}

TEST_P(VisionTest, APictureIsTheSameAloneAndBesideOthers) {
  ASSERT_GE(golden_->pictures.size(), 2U);
  // Two of different grids where there are.
  const GoldenPicture& a = golden_->pictures.front();
  const GoldenPicture* b = &golden_->pictures.back();
  for (const GoldenPicture& picture : golden_->pictures) {
    if (picture.grid != a.grid) b = &picture;
  }
  const Matrix pixels_a = golden_matrix(*golden_->tensors, a.name, "pixel_values"),
               pixels_b = golden_matrix(*golden_->tensors, b->name, "pixel_values");
  const Matrix alone_a = encode(pixels_a, {a.grid}), alone_b = encode(pixels_b, {b->grid});
  const Matrix both = encode(stack({pixels_a.view(), pixels_b.view()}), {a.grid, b->grid});
  EXPECT_TRUE(same_bits(both.view().row_range(0, alone_a.rows()), alone_a.view()));
  EXPECT_TRUE(same_bits(both.view().row_range(alone_a.rows(), alone_b.rows()), alone_b.view()));
}

// A video's frame pairs attend to themselves only and turn by row and column, not by time.
TEST_P(VisionTest, AVideoIsItsFrameGroups) {
  const Grid grid{1, 4, 6};
  const Matrix picture = golden_matrix(*golden_->tensors, golden_->pictures.front().name, "pixel_values");
  const Matrix first = stack({picture.view().row_range(0, 24)}), second = stack({picture.view().row_range(60, 24)});
  const Matrix video = encode(stack({first.view(), second.view()}), {{2, 4, 6}});
  const Matrix features_first = encode(first, {grid}), features_second = encode(second, {grid});
  EXPECT_TRUE(same_bits(video.view().row_range(0, 6), features_first.view()));
  EXPECT_TRUE(same_bits(video.view().row_range(6, 6), features_second.view()));
  EXPECT_FALSE(same_bits(features_first.view(), features_second.view()));
}

// The same patches in another grid are another picture.
TEST_P(VisionTest, TheGridMatters) {
  const Matrix picture = golden_matrix(*golden_->tensors, golden_->pictures.front().name, "pixel_values");
  const Matrix pixels = stack({picture.view().row_range(0, 24)});
  EXPECT_GT(relative_l2(encode(pixels, {{1, 4, 6}}).view(), encode(pixels, {{1, 6, 4}}).view()), 1e-3);
}

TEST_P(VisionTest, StagesAreShownInOrder) {
  const Matrix picture = golden_matrix(*golden_->tensors, golden_->pictures.front().name, "pixel_values");
  const Matrix pixels = stack({picture.view().row_range(0, 4)});
  std::vector<std::string> stages;
  const std::vector<Grid> grids{{1, 2, 2}};
  const auto features = model_->encode(pixels.view(), grids, [&](std::string_view stage, ConstMatrixView value) {
    stages.emplace_back(stage);
    EXPECT_EQ(value.rows, stage == "image_embeds" ? 1 : 4);
  });
  ASSERT_TRUE(features);
  ASSERT_EQ(stages.size(), static_cast<std::size_t>(model_->config().depth) + 2);
  EXPECT_EQ(stages.front(), "patch_embed");
  EXPECT_EQ(stages[1], "block.0");
  EXPECT_EQ(stages.back(), "image_embeds");
}

TEST_P(VisionTest, WrongInputIsAnError) {
  const std::int64_t width = model_->config().patch_width();
  const Matrix pixels(16, width);
  std::fill_n(const_cast<float*>(pixels.data()), pixels.size(), 0.0F);
  const auto error = [&](const Matrix& values, const std::vector<Grid>& grids) {
    const auto features = model_->encode(values.view(), grids);
    return features ? std::string("no error") : features.error().message;
  };
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  EXPECT_THAT(error(Matrix(16, width - 1), {{1, 4, 4}}), HasSubstr(std::to_string(width - 1)));
  EXPECT_THAT(error(pixels, {{1, 4, 2}}), HasSubstr("8 patches"));
  EXPECT_THAT(error(pixels, {{1, 4, 4}, {1, 2, 2}}), HasSubstr("more patches"));
  EXPECT_THAT(error(pixels, {{1, 1, 16}}), HasSubstr("multiples of 2"));
  EXPECT_THAT(error(pixels, {{-1, 4, -4}}), HasSubstr("positive"));
  EXPECT_THAT(error(pixels, {{0, 4, 4}, {1, 4, 4}}), HasSubstr("positive"));
  EXPECT_THAT(error(pixels, {{kHuge, 4, 4}}), HasSubstr("grid_thw"));
  EXPECT_THAT(error(pixels, {}), HasSubstr("0 patches"));
  EXPECT_THAT(error(Matrix(0, width), {}), HasSubstr("0 patches"));
}

INSTANTIATE_TEST_SUITE_P(Goldens, VisionTest, GoldenTest::everywhere(), GoldenTest::name_of);

}  // namespace
}  // namespace chiasm
