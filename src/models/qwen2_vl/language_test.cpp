// The language model against the reference, and against itself: however a prompt is cut, batched or paged, the logits
// are the same bits.

#include "models/qwen2_vl/language.h"

#include <algorithm>
#include <iostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/qwen2_vl/golden.h"
#include "models/qwen2_vl/golden_prompt.h"
#include "models/qwen2_vl/layout.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

class LanguageTest : public GoldenTest {
 protected:
  void SetUp() override {
    GoldenTest::SetUp();
    if (golden_ == nullptr) return;
    const Checkpoint checkpoint = must(Checkpoint::open(golden_->model_dir, Role::kLanguage));
    config_ = checkpoint.config();
    model_ = must(load_qwen2_vl_language(checkpoint, *ops_.ops));
    layout_ = make_qwen2_vl_layout(config_);
  }

  std::unique_ptr<KvPool> make_pool(std::int64_t blocks) {
    auto pool = ops_.ops->make_kv_pool(model_->kv_shape(blocks));
    EXPECT_TRUE(pool);
    return std::move(*pool);
  }

  GoldenPrompt prompt_of(const GoldenPicture& picture) {
    std::vector<Matrix> features;
    features.push_back(golden_matrix(*golden_->tensors, picture.name, "image_embeds"));
    return make_golden_prompt(*layout_, config_, picture.input_ids, {picture.grid}, std::move(features));
  }

  ModelConfig config_;
  std::unique_ptr<const LanguageModel> model_;
  std::unique_ptr<const ModelLayout> layout_;
};

TEST_P(LanguageTest, PositionsEqualTheReference) {
  for (const GoldenPicture& picture : golden_->pictures) {
    const GoldenPrompt prompt = prompt_of(picture);
    EXPECT_EQ(prompt.positions.rope_delta, picture.rope_delta) << picture.name;
    EXPECT_TRUE(golden_equals(*golden_->tensors, picture.name + "/position_ids", prompt.positions.position_ids))
        << picture.name;
  }
}

TEST_P(LanguageTest, LogitsAndGreedyAnswersEqualTheReference) {
  double worst = 0;
  for (const GoldenPicture& picture : golden_->pictures) {
    GoldenPrompt prompt = prompt_of(picture);
    const auto pool = make_pool(static_cast<std::int64_t>(prompt.block_table.size()));
    Matrix last;
    EXPECT_EQ(greedy_answer(*model_, prompt, picture.generated_ids.size(), *pool, last), picture.generated_ids)
        << picture.name;
    const double distance = relative_l2(last.view(), golden_matrix(*golden_->tensors, picture.name, "logits").view());
    EXPECT_LE(distance, golden_->logits_limit) << picture.name;
    worst = std::max(worst, distance);
  }
  std::cout << "logits: largest relative L2 " << worst << " over " << golden_->pictures.size() << " pictures\n";
}

TEST_P(LanguageTest, ChunksBatchesAndBlocksDoNotChangeABit) {
  GoldenPrompt prompt = prompt_of(golden_->pictures.front());
  const auto pool = make_pool(12);
  const Matrix whole = prefill(*model_, prompt, prompt.size(), *pool);
  for (const std::int64_t chunk : {1, 7, 64}) {
    EXPECT_TRUE(same_bits(prefill(*model_, prompt, chunk, *pool).view(), whole.view())) << "chunks of " << chunk;
    // In no order, and some of them written by an earlier run.
    prompt.block_table = {static_cast<std::int32_t>(chunk % 3 + 9), 2, 4, 0, 5};
  }
  // Beside another sequence: all of it with the other's first 40 tokens; then its second half with the other's rest.
  GoldenPrompt other = prompt_of(golden_->pictures.back());
  other.block_table = {1, 8, 6, 7, 3};
  const auto alone_pool = make_pool(12);
  const Matrix other_alone = prefill(*model_, other, other.size(), *alone_pool);
  auto mixed = step(*model_, {{&other, 0, 40}, {&prompt, 0, prompt.size()}}, *pool);
  ASSERT_TRUE(mixed) << mixed.error().message;
  EXPECT_TRUE(same_bits(mixed->view().row_range(0, 40), other_alone.view().row_range(0, 40)));
  EXPECT_TRUE(same_bits(mixed->view().row_range(40, prompt.size()), whole.view()));
  const std::int64_t half = prompt.size() / 2, rest = other.size() - 40;
  mixed = step(*model_, {{&prompt, half, prompt.size() - half}, {&other, 40, rest}}, *pool);
  ASSERT_TRUE(mixed);
  EXPECT_TRUE(
      same_bits(mixed->view().row_range(0, prompt.size() - half), whole.view().row_range(half, prompt.size() - half)));
  EXPECT_TRUE(same_bits(mixed->view().row_range(prompt.size() - half, rest), other_alone.view().row_range(40, rest)));
}

// A second question after the same picture starts from the blocks of the first, through a copy of the block where they
// part.
TEST_P(LanguageTest, ASharedPrefixServesAnotherQuestion) {
  const GoldenPrompt first = prompt_of(golden_->pictures.front());
  const std::int64_t shared = first.features[0].first + first.features[0].second.rows() + 1;
  GoldenPrompt second = prompt_of(golden_->pictures.front());
  for (std::int64_t i = shared; i < second.size(); ++i)
    second.ids[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(300 + i);
  second.block_table = {6, 7, 8, 9, 10};
  const auto pool = make_pool(12);
  const Matrix expected = prefill(*model_, second, second.size(), *pool);
  prefill(*model_, first, 50, *pool);
  const auto part = static_cast<std::size_t>(shared / kKvBlock);
  second.block_table = first.block_table;
  for (std::size_t i = part; i < second.block_table.size(); ++i)
    second.block_table[i] = static_cast<std::int32_t>(5 + i);
  ops_.ops->copy_kv_block(first.block_table[part], second.block_table[part], *pool);
  const auto logits = step(*model_, {{&second, shared, second.size() - shared}}, *pool);
  ASSERT_TRUE(logits) << logits.error().message;
  EXPECT_TRUE(same_bits(logits->view(), expected.view().row_range(shared, second.size() - shared)));
}

TEST_P(LanguageTest, StagesAreShownInOrder) {
  const auto pool = make_pool(1);
  const std::vector<std::int32_t> ids{5, 6, 7}, positions{0, 1, 2}, blocks{0}, wanted{2};
  const std::vector<SequenceRows> sequences{{blocks, 0, 3}};
  std::vector<std::string> stages;
  const LanguageBatch batch{.token_ids = ids,
                            .position_ids = {positions, positions, positions},
                            .splices = {},
                            .sequences = sequences,
                            .logits_rows = wanted};
  const auto logits =
      model_->forward(batch, *pool, [&](std::string_view stage, ConstMatrixView) { stages.emplace_back(stage); });
  ASSERT_TRUE(logits);
  EXPECT_EQ(logits->rows(), 1);
  ASSERT_EQ(stages.size(), static_cast<std::size_t>(model_->config().num_hidden_layers) + 3);
  EXPECT_EQ(stages.front(), "inputs_embeds");
  EXPECT_EQ(stages[1], "layer.0");
  EXPECT_EQ(stages.back(), "logits");
  // No logits wanted: a prefill step that is not the last.
  LanguageBatch silent = batch;
  silent.logits_rows = {};
  const auto none = model_->forward(silent, *pool);
  ASSERT_TRUE(none);
  EXPECT_EQ(none->rows(), 0);
}

TEST_P(LanguageTest, WrongInputIsAnError) {
  const auto pool = make_pool(1);
  const std::vector<std::int32_t> blocks{0};
  std::vector<std::int32_t> ids{5, 6, 7}, positions{0, 1, 2};
  const std::vector<SequenceRows> sequences{{blocks, 0, 3}};
  std::vector<Splice> splices;
  const auto error = [&] {
    const auto logits = model_->forward({.token_ids = ids,
                                         .position_ids = {positions, positions, positions},
                                         .splices = splices,
                                         .sequences = sequences,
                                         .logits_rows = {}},
                                        *pool);
    return logits ? std::string("no error") : logits.error().message;
  };
  EXPECT_EQ(error(), "no error");
  const auto vocab = static_cast<std::int32_t>(model_->config().vocab_size);
  ids[1] = vocab;
  EXPECT_THAT(error(), HasSubstr(std::to_string(vocab)));
  ids[1] = -1;
  EXPECT_THAT(error(), HasSubstr("-1"));
  ids[1] = 6;
  positions[2] = -4;
  EXPECT_THAT(error(), HasSubstr("-4"));
  positions = {0, 1};
  EXPECT_THAT(error(), HasSubstr("[3, 3]"));
  positions = {0, 1, 2};
  const Matrix two(2, model_->config().hidden_size), narrow(1, 8);
  std::fill_n(const_cast<float*>(two.data()), two.size(), 0.0F);
  splices = {{two.view(), 1}};
  EXPECT_EQ(error(), "no error");
  splices = {{two.view(), 2}};
  EXPECT_THAT(error(), HasSubstr("do not fit"));
  splices = {{two.view(), -1}};
  EXPECT_THAT(error(), HasSubstr("do not fit"));
  splices = {{narrow.view(), 0}};
  EXPECT_THAT(error(), HasSubstr("rows of"));
  ids.clear();
  EXPECT_THAT(error(), HasSubstr("1 or more"));
}

INSTANTIATE_TEST_SUITE_P(Goldens, LanguageTest, GoldenTest::everywhere(), GoldenTest::name_of);

}  // namespace
}  // namespace chiasm
