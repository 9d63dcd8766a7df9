#include "language/prompt_assembly.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chiasm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig config() {
  ModelConfig out;
  out.model_type = "qwen2_vl";
  out.vision.spatial_merge_size = 2;
  out.text.hidden_size = 4;
  out.image_token_id = 90;
  out.video_token_id = 91;
  return out;
}

Digest digest(std::uint8_t fill) {
  Digest out;
  out.bytes.fill(fill);
  return out;
}

std::shared_ptr<const Feature> feature(std::uint8_t id, std::array<std::int64_t, 3> grid, std::int64_t width = 4) {
  auto out = std::make_shared<Feature>();
  out->meta.id.digest = digest(id);
  out->meta.vision_digest = digest(7);
  out->meta.grid_thw = grid;
  out->rows = Matrix(grid[0] * grid[1] * grid[2] / 4, width);
  std::fill_n(out->rows.data(), out->rows.size(), 1.0F);
  return out;
}

PromptPiece tokens(std::vector<std::int32_t> ids) { return {PromptPiece::Kind::kTokens, std::move(ids), 0}; }
PromptPiece image(std::int64_t index) { return {PromptPiece::Kind::kImage, {}, index}; }
PromptPiece video(std::int64_t index) { return {PromptPiece::Kind::kVideo, {}, index}; }

class PromptAssemblyTest : public testing::Test {
 protected:
  Result<LanguagePrompt> assemble(const std::vector<PromptPiece>& pieces,
                                  const std::vector<std::shared_ptr<const Feature>>& images,
                                  const std::vector<std::shared_ptr<const Feature>>& videos = {},
                                  const std::vector<Digest>& accepted = {}) {
    return assemble_prompt(pieces, images, videos, config_, *layout_, digest(7), accepted);
  }
  ModelConfig config_ = config();
  std::unique_ptr<const ModelLayout> layout_ = *make_layout(config_);
};

TEST_F(PromptAssemblyTest, FeaturesStandWhereTheirTokensAre) {
  const auto picture = feature(1, {1, 4, 6}), clip = feature(2, {2, 2, 2});
  const LanguagePrompt out =
      *assemble({tokens({1, 2}), image(0), tokens({3}), video(0), tokens({4})}, {picture}, {clip});
  EXPECT_THAT(out.token_ids, ElementsAre(1, 2, 90, 90, 90, 90, 90, 90, 3, 91, 91, 4));
  ASSERT_EQ(out.features.size(), 2U);
  EXPECT_EQ(out.features[0].row, 2);
  EXPECT_EQ(out.features[1].row, 9);
  // 2 x 3 merged grid at 2; text goes on at the largest position plus one.
  EXPECT_THAT(out.positions.position_ids[0], ElementsAre(0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7, 8));
  EXPECT_THAT(out.positions.position_ids[1], ElementsAre(0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 6, 8));
  EXPECT_THAT(out.positions.position_ids[2], ElementsAre(0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 6, 8));
  EXPECT_EQ(out.positions.rope_delta, 9 - 12);
}

TEST_F(PromptAssemblyTest, RefusesWhatDoesNotFit) {
  EXPECT_THAT(assemble({image(1)}, {feature(1, {1, 2, 2})}).error().message, HasSubstr("picture 2"));
  EXPECT_FALSE(assemble({image(0)}, {feature(1, {1, 2, 2}, 5)}).has_value());
  EXPECT_FALSE(assemble({}, {}).has_value());
}

TEST_F(PromptAssemblyTest, AForeignVisionDigestIsRefusedNamingBoth) {
  auto foreign = std::make_shared<Feature>();
  foreign->meta.vision_digest = digest(8);
  foreign->meta.grid_thw = {1, 2, 2};
  foreign->rows = Matrix(1, 4);
  std::fill_n(foreign->rows.data(), 4, 0.0F);
  const auto refused = assemble({image(0)}, {foreign});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(refused.error().message, HasSubstr(digest(8).hex()));
  EXPECT_THAT(refused.error().message, HasSubstr(digest(7).hex()));
  EXPECT_TRUE(assemble({image(0)}, {foreign}, {}, {digest(8)}).has_value());
}

TEST_F(PromptAssemblyTest, CommonPrefixEndsWhereIdsOrFeaturesDiffer) {
  const auto a = feature(1, {1, 2, 4}), b = feature(2, {1, 2, 4}), a_again = feature(1, {1, 2, 4});
  const auto make = [&](std::vector<std::int32_t> before, const std::shared_ptr<const Feature>& picture,
                        std::vector<std::int32_t> after) {
    return *assemble({tokens(std::move(before)), image(0), tokens(std::move(after))}, {picture});
  };
  const LanguagePrompt one = make({1, 2}, a, {5, 6}), same_picture = make({1, 2}, a_again, {5, 7}),
                       other_picture = make({1, 2}, b, {5, 6}), other_text = make({1, 3}, a, {5, 6});
  const auto prefix = [](std::vector<const LanguagePrompt*> prompts) { return common_prefix(prompts); };
  EXPECT_EQ(prefix({&one}), 6);
  EXPECT_EQ(prefix({&one, &same_picture}), 5);
  EXPECT_EQ(prefix({&one, &other_picture}), 2);
  EXPECT_EQ(prefix({&one, &other_text}), 1);
  EXPECT_EQ(prefix({&one, &same_picture, &other_picture}), 2);
}

}  // namespace
}  // namespace chiasm
