// What rounding costs: the distance of features and logits from the exact ones on the demo model, held by bounds a
// little above what was measured (docs/adr/0012-precision.md); and that rows stay independent of their company.
// Integers on the CPU; fp8, which the CPU does not compute in, by the reference (on a card: device_test.cpp).

#include <iostream>

#include <gtest/gtest.h>

#include "models/qwen2_vl/golden.h"
#include "models/qwen2_vl/golden_prompt.h"
#include "models/qwen2_vl/language.h"
#include "models/qwen2_vl/layout.h"
#include "models/qwen2_vl/vision.h"
#include "models/weight_cache.h"

namespace chiasm {
namespace {

struct Bounds {
  Precision precision;
  double features, logits;
};

class PrecisionTest : public testing::TestWithParam<Bounds> {
 protected:
  void SetUp() override {
    std::string why;
    golden_ = find_golden_set("committed", why);
    if (golden_ == nullptr) GTEST_SKIP() << why;
  }

  std::unique_ptr<GoldenSet> golden_;
  TestOps ops_ = make_test_ops(GetParam().precision == Precision::kFp8 ? "ref" : "cpu");
};

TEST_P(PrecisionTest, FeaturesAreNearTheExactOnes) {
  const Checkpoint checkpoint = must(Checkpoint::open(golden_->model_dir, Role::kVision));
  const auto model = must(load_qwen2_vl_vision(checkpoint, *ops_.ops, vision_precision(GetParam().precision)));
  double worst = 0;
  for (const GoldenPicture& picture : golden_->pictures) {
    const Matrix pixels = golden_matrix(*golden_->tensors, picture.name, "pixel_values");
    const Matrix features = must(model->encode(pixels.view(), std::span(&picture.grid, 1)));
    worst = std::max(
        worst, relative_l2(features.view(), golden_matrix(*golden_->tensors, picture.name, "image_embeds").view()));
  }
  std::cout << precision_name(GetParam().precision) << " features: largest relative L2 " << worst << "\n";
  EXPECT_LE(worst, GetParam().features);
  EXPECT_GT(worst, 1e-4);  // rounded at all
}

// On the reference's own features, so that this is the language model's share.
TEST_P(PrecisionTest, LogitsAreNearTheExactOnesInAnyChunks) {
  const Checkpoint checkpoint = must(Checkpoint::open(golden_->model_dir, Role::kLanguage));
  const auto model = must(load_qwen2_vl_language(checkpoint, *ops_.ops, GetParam().precision));
  const auto layout = make_qwen2_vl_layout(checkpoint.config());
  double worst = 0;
  std::size_t same = 0;
  for (const GoldenPicture& picture : golden_->pictures) {
    std::vector<Matrix> features;
    features.push_back(golden_matrix(*golden_->tensors, picture.name, "image_embeds"));
    GoldenPrompt prompt =
        make_golden_prompt(*layout, checkpoint.config(), picture.input_ids, {picture.grid}, std::move(features));
    const auto pool =
        must(ops_.ops->make_kv_pool(model->kv_shape(static_cast<std::int64_t>(prompt.block_table.size()))));
    if (&picture == golden_->pictures.data()) {
      const Matrix whole = prefill(*model, prompt, prompt.size(), *pool);
      for (const std::int64_t chunk : {1, 7, 50})
        EXPECT_TRUE(same_bits(prefill(*model, prompt, chunk, *pool).view(), whole.view())) << "chunks of " << chunk;
    }
    Matrix last;
    same += greedy_answer(*model, prompt, picture.generated_ids.size(), *pool, last) == picture.generated_ids ? 1 : 0;
    worst = std::max(worst, relative_l2(last.view(), golden_matrix(*golden_->tensors, picture.name, "logits").view()));
  }
  std::cout << precision_name(GetParam().precision) << " logits: largest relative L2 " << worst << ", " << same
            << " of " << golden_->pictures.size() << " greedy answers the reference's\n";
  EXPECT_LE(worst, GetParam().logits);
}

class KeptPrecisionTest : public PrecisionTest {};

// The second start maps what the first one kept: the same bits, from memory of no one's but the file's.
TEST_P(KeptPrecisionTest, KeptWeightsGiveTheSameBits) {
  TemporaryFolder folder;
  std::string said;
  const WeightCache cache({.dir = folder.path(), .reserve = 0, .warn = [&](std::string_view text) { said += text; }},
                          *ops_.threads);
  const Checkpoint checkpoint = must(Checkpoint::open(golden_->model_dir, Role::kVision));
  const GoldenPicture& picture = golden_->pictures[0];
  const Matrix pixels = golden_matrix(*golden_->tensors, picture.name, "pixel_values");
  std::vector<Matrix> features;
  for (const WeightCache* used : {static_cast<const WeightCache*>(nullptr), &cache, &cache}) {
    const auto model = must(load_qwen2_vl_vision(checkpoint, *ops_.ops, vision_precision(GetParam().precision), used));
    features.push_back(must(model->encode(pixels.view(), std::span(&picture.grid, 1))));
    EXPECT_TRUE(same_bits(features.back().view(), features.front().view()));
  }
  const auto key =
      must(cache.key_of(checkpoint, Role::kVision, vision_precision(GetParam().precision), ops_.ops->packed_layout()));
  EXPECT_TRUE(cache.find(key));
  EXPECT_EQ(said, "");
}

std::string name_of(const testing::TestParamInfo<Bounds>& one) {
  return std::string(precision_name(one.param.precision));
}
constexpr Bounds kInt8{Precision::kInt8, 0.012, 0.09}, kInt4{Precision::kInt4, 0.012, 0.17},
    kFp8{Precision::kFp8, 0.06, 0.14};
INSTANTIATE_TEST_SUITE_P(Precisions, PrecisionTest, testing::Values(kInt8, kInt4, kFp8), name_of);
INSTANTIATE_TEST_SUITE_P(Precisions, KeptPrecisionTest, testing::Values(kInt8, kInt4), name_of);

}  // namespace
}  // namespace chiasm
