#include <algorithm>
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "models/language_model.h"
#include "models/layout.h"
#include "models/test_checkpoint.h"
#include "models/vision_model.h"

namespace chiasm {
namespace {

TEST(Registry, UnknownFamilyIsNamedBesideTheKnownOnes) {
  ModelConfig config;
  config.model_type = "llava";
  const auto layout = make_layout(config);
  ASSERT_FALSE(layout);
  EXPECT_EQ(layout.error().code, Code::kUnimplemented);
  EXPECT_THAT(layout.error().message, testing::AllOf(testing::HasSubstr("llava"), testing::HasSubstr("qwen2_vl")));
}

TEST(Registry, EveryFamilyHasALayout) {
  ModelConfig config;
  config.model_type = "qwen2_vl";
  EXPECT_TRUE(make_layout(config));
}

// Whoever asks first, file and field are named.
TEST(Registry, AFamilyThatDoesNotRunIsRefusedWithFileAndField) {
  ModelConfig config;
  config.model_type = "qwen2_5_vl";
  config.source = "m/config.json";
  const auto layout = make_layout(config);
  ASSERT_FALSE(layout);
  EXPECT_EQ(layout.error().code, Code::kUnimplemented);
  EXPECT_EQ(layout.error().message, check_runnable(config, "m/config.json").error().message);
  EXPECT_THAT(layout.error().message, testing::HasSubstr("m/config.json: field 'model_type': 'qwen2_5_vl'"));
  const ModelConfig parsed = parse_model_config(toy_config().dump(), "n/config.json").value();
  EXPECT_EQ(parsed.source, "n/config.json");
}

// The toy model with weights that stay finite, and an lm_head.weight beside the embedding although they are "tied".
Matrix logits_with_head(float changed) {
  const ModelConfig config = parse_model_config(toy_config().dump(), "config.json").value();
  auto tensors = toy_tensors(config);
  for (OwnedTensor& tensor : tensors)
    for (std::size_t i = 0; i < tensor.bytes.size(); i += 2) {
      const float value = static_cast<float>(std::to_integer<int>(tensor.bytes[i]) - 128) / 512;
      const std::uint16_t bits = f32_to_bf16(value);
      std::memcpy(&tensor.bytes[i], &bits, 2);
    }
  tensors.push_back(*std::ranges::find(tensors, "model.embed_tokens.weight", &OwnedTensor::name));
  tensors.back().name = "lm_head.weight";
  const std::uint16_t bits = f32_to_bf16(changed);
  if (changed != 0) std::memcpy(&tensors.back().bytes[2 * 24 * 5], &bits, 2);  // of token 5's row
  TemporaryFolder folder;
  folder.write("config.json", toy_config().dump());
  write_weights(folder.path() / "model.safetensors", tensors);

  const auto ops = make_ref_ops();
  const auto model = must(load_language_model(must(Checkpoint::open(folder.path(), Role::kLanguage)), *ops));
  const auto pool = must(ops->make_kv_pool(model->kv_shape(1)));
  const std::vector<std::int32_t> ids{9, 10, 11}, positions{0, 1, 2}, rows{2}, blocks{0};
  SequenceRows sequence;
  sequence.count = 3;
  sequence.block_table = blocks;
  LanguageBatch batch;
  batch.token_ids = ids;
  batch.position_ids = {positions, positions, positions};
  batch.sequences = {&sequence, 1};
  batch.logits_rows = rows;
  return must(model->forward(batch, *pool));
}

TEST(Registry, LogitsComeFromAHeadThatDiffersFromTheEmbedding) {
  const Matrix tied = logits_with_head(0), separate = logits_with_head(3);
  for (std::int64_t token = 0; token < tied.cols(); ++token) {
    ASSERT_TRUE(std::isfinite(tied.data()[token]));
    EXPECT_EQ(tied.data()[token] == separate.data()[token], token != 5) << token;
  }
}

TEST(Registry, LoadsBothPartsOfTheDemoModel) {
  const auto ops = make_ref_ops();
  const auto checkpoint = Checkpoint::open(toytown_dir(), Role::kWhole);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto vision = load_vision_model(*checkpoint, *ops);
  ASSERT_TRUE(vision) << vision.error().message;
  const auto language = load_language_model(*checkpoint, *ops);
  ASSERT_TRUE(language) << language.error().message;
  EXPECT_EQ((*vision)->config().hidden_size, (*language)->config().hidden_size);
  EXPECT_GT((*vision)->weight_bytes(), 0U);
  EXPECT_GT((*language)->weight_bytes(), 0U);
  // A part that the checkpoint was not opened for is an error, not a crash.
  const auto vision_only = Checkpoint::open(toytown_dir(), Role::kVision);
  ASSERT_TRUE(vision_only);
  const auto absent = load_language_model(*vision_only, *ops);
  ASSERT_FALSE(absent);
  EXPECT_THAT(absent.error().message, testing::HasSubstr("model.embed_tokens.weight"));
}

}  // namespace
}  // namespace chiasm
