#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "models/language_model.h"
#include "models/layout.h"
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
