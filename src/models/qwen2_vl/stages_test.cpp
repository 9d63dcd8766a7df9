// Every stage of both halves against the reference on one small picture, and prompts with several pictures, videos and
// turns.

#include <iostream>
#include <map>

#include <gtest/gtest.h>

#include "models/qwen2_vl/golden.h"
#include "models/qwen2_vl/golden_prompt.h"
#include "models/qwen2_vl/language.h"
#include "models/qwen2_vl/layout.h"
#include "models/qwen2_vl/vision.h"

namespace chiasm {
namespace {

Grid grid_of(const JsonValue& list) {
  const std::vector<std::int32_t> sides = integers<std::int32_t>(list);
  return {sides.at(0), sides.at(1), sides.at(2)};
}

class StagesTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (pointless_here(GetParam())) GTEST_SKIP() << "the plain loops have no threads";
    std::string why;
    golden_ = find_golden_set("committed", why);
    if (golden_ == nullptr) GTEST_SKIP() << why;
    ops_ = make_test_ops(GetParam());
    const Checkpoint checkpoint = must(Checkpoint::open(golden_->model_dir, Role::kWhole));
    config_ = checkpoint.config();
    layout_ = make_qwen2_vl_layout(config_);
    vision_ = must(load_qwen2_vl_vision(checkpoint, *ops_.ops));
    language_ = must(load_qwen2_vl_language(checkpoint, *ops_.ops));
  }

  Json json(const std::string& name) { return load_json(golden_->goldens_dir / name); }
  std::unique_ptr<KvPool> make_pool(const GoldenPrompt& prompt) {
    return must(ops_.ops->make_kv_pool(language_->kv_shape(static_cast<std::int64_t>(prompt.block_table.size()))));
  }

  std::unique_ptr<GoldenSet> golden_;
  TestOps ops_;
  ModelConfig config_;
  std::unique_ptr<const ModelLayout> layout_;
  std::unique_ptr<const VisionModel> vision_;
  std::unique_ptr<const LanguageModel> language_;
};

// f32 against f32 on the same input: what is left is the order of sums. Stage by stage, so that a wrong one is named.
TEST_P(StagesTest, EachEqualsTheReference) {
  constexpr double kLimit = 2e-5;
  const Json record = json("stages.json");
  const Grid grid = grid_of(must(record.root().at("grid_thw")));
  std::map<std::string, std::string> names{{"patch_embed", "patch_embed"},
                                           {"block.0", "vision_block_0"},
                                           {"image_embeds", "image_embeds"},
                                           {"inputs_embeds", "inputs_embeds"},
                                           {"layer.0", "language_layer_0"},
                                           {"norm", "final_norm"},
                                           {"logits", "logits"}};
  names["block." + std::to_string(config_.vision.depth - 1)] = "vision_block_last";
  names["layer." + std::to_string(config_.text.num_hidden_layers - 1)] = "language_layer_last";
  std::size_t compared = 0;
  const auto compare = [&](std::string_view stage, ConstMatrixView value) {
    const auto name = names.find(std::string(stage));
    if (name == names.end()) return;
    const Matrix expected = golden_matrix(*golden_->tensors, "stages", name->second);
    if (stage == "norm" || stage == "logits")
      value = value.row_range(value.rows - 1, 1);  // the golden has the last row
    ASSERT_EQ(value.rows, expected.rows()) << stage;
    ASSERT_EQ(value.cols, expected.cols()) << stage;
    const double distance = relative_l2(value, expected.view());
    EXPECT_LE(distance, kLimit) << stage;
    std::cout << stage << ": relative L2 " << distance << "\n";
    ++compared;
  };
  const Matrix pixels = golden_matrix(*golden_->tensors, "stages", "pixel_values");
  std::vector<Matrix> features;
  features.push_back(must(vision_->encode(pixels.view(), std::span(&grid, 1), compare)));
  const GoldenPrompt prompt = make_golden_prompt(
      *layout_, config_, integers<std::int32_t>(must(record.root().at("input_ids"))), {grid}, std::move(features));
  EXPECT_TRUE(golden_equals(*golden_->tensors, "stages/position_ids", prompt.positions.position_ids));
  const auto pool = make_pool(prompt);
  must(step(*language_, {{&prompt, 0, prompt.size()}}, *pool, compare));
  EXPECT_EQ(compared, names.size());
}

TEST_P(StagesTest, SeveralPicturesVideosAndTurns) {
  const auto path = golden_->goldens_dir / "multi.safetensors";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const SafetensorsFile tensors = must(SafetensorsFile::open(path));
  const Json json = this->json("multi.json");
  double worst_features = 0, worst_logits = 0;
  for (const JsonValue& record : must(json.root().elements())) {
    const std::string name(must(must(record.at("name")).string()));
    auto images = must(must(record.at("image_grid_thw")).elements()),
         videos = must(must(record.at("video_grid_thw")).elements());
    std::size_t image = 0, video = 0;
    std::vector<Grid> grids;
    std::vector<Matrix> features;
    for (const JsonValue& message : must(must(record.at("messages")).elements())) {
      for (const JsonValue& part : must(must(message.at("content")).elements())) {
        const std::string_view type = must(must(part.at("type")).string());
        if (type == "text") continue;
        const bool moving = type == "video";
        grids.push_back(grid_of(moving ? videos.at(video++) : images.at(image++)));
        const std::string key = moving ? "video" : std::string(must(must(part.at("image")).string()));
        // Pictures that stand alone in the other golden are not repeated here.
        const SafetensorsFile& file = tensors.view().contains(key + "/pixel_values") ? tensors : *golden_->tensors;
        const Matrix pixels = golden_matrix(file, key, "pixel_values");
        features.push_back(must(vision_->encode(pixels.view(), std::span(&grids.back(), 1))));
        const Matrix expected = golden_matrix(file, key, moving ? "video_embeds" : "image_embeds");
        worst_features = std::max(worst_features, relative_l2(features.back().view(), expected.view()));
      }
    }
    GoldenPrompt prompt = make_golden_prompt(*layout_, config_, integers<std::int32_t>(must(record.at("input_ids"))),
                                             grids, std::move(features));
    EXPECT_TRUE(golden_equals(tensors, name + "/position_ids", prompt.positions.position_ids)) << name;
    EXPECT_EQ(prompt.positions.rope_delta, must(must(record.at("rope_delta")).integer())) << name;
    const std::vector<std::int32_t> expected = integers<std::int32_t>(must(record.at("generated_ids")));
    const auto pool = make_pool(prompt);
    Matrix last;
    EXPECT_EQ(greedy_answer(*language_, prompt, expected.size(), *pool, last), expected) << name;
    worst_logits = std::max(worst_logits, relative_l2(last.view(), golden_matrix(tensors, name, "logits").view()));
  }
  EXPECT_LE(worst_features, golden_->features_limit);
  EXPECT_LE(worst_logits, golden_->logits_limit);
  std::cout << "several pictures: largest relative L2 of features " << worst_features << ", of logits " << worst_logits
            << "\n";
}

std::string name_of(const testing::TestParamInfo<std::string>& info) { return info.param; }
INSTANTIATE_TEST_SUITE_P(Goldens, StagesTest, testing::Values("ref", "cpu"), name_of);

}  // namespace
}  // namespace chiasm
