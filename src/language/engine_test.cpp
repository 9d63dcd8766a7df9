// The engine over the demo language model and features of random rows: answers must not depend on how the work is cut.
#include "language/engine.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_support.h"
#include "text/detokenizer.h"

namespace chiasm {
namespace {

using testing::HasSubstr;

class EngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { shared = new Shared(); }
  static void TearDownTestSuite() { delete shared; }

  struct Shared {
    ThreadPool threads{2};
    std::unique_ptr<Ops> ops = make_cpu_ops(threads);
    Checkpoint checkpoint = *Checkpoint::open(toytown_dir(), Role::kLanguage);
    std::unique_ptr<const LanguageModel> model = *load_language_model(checkpoint, *ops);
    std::unique_ptr<const ModelLayout> layout = *make_layout(checkpoint.config());
    Tokenizer tokenizer = *Tokenizer::load(toytown_dir());
    ChatTemplate chat = *load_chat_template(toytown_dir(), tokenizer);
    std::vector<std::int64_t> stop = load_generation_config(toytown_dir(), checkpoint.config()).value().eos_token_id;
  };

  static std::shared_ptr<const Feature> random_feature(std::uint8_t name, std::array<std::int64_t, 3> grid) {
    auto out = std::make_shared<Feature>();
    out->meta.id.digest.bytes.fill(name);
    out->meta.grid_thw = grid;
    out->rows = Matrix(grid[0] * grid[1] * grid[2] / 4, shared->checkpoint.config().text.hidden_size);
    std::mt19937 random(name);
    std::normal_distribution<float> value;
    std::generate_n(out->rows.data(), out->rows.size(), [&] { return value(random); });
    return out;
  }

  static GenerationRequest request(const std::string& question, std::vector<std::shared_ptr<const Feature>> images) {
    ChatMessage user{"user", {}};
    for (std::size_t i = 0; i < images.size(); ++i) user.parts.push_back(ChatPart::image());
    user.parts.push_back(ChatPart::of_text(question));
    const Prompt prompt = *render_chat(shared->chat, {&user, 1});
    GenerationRequest out;
    out.prompt = *assemble_prompt(tokenize(shared->tokenizer, prompt), images, {}, shared->checkpoint.config(),
                                  *shared->layout, Digest{});
    out.max_tokens = 12;
    out.logprobs = 2;
    out.stop_token_ids = shared->stop;
    return out;
  }

  static std::unique_ptr<Engine> engine(const EngineOptions& options = {}) {
    return *Engine::create(*shared->model, shared->tokenizer, *shared->ops, options);
  }

  static std::vector<GenerationRequest> five_questions() {
    const auto picture = random_feature(1, {1, 16, 20});
    std::vector<GenerationRequest> out;
    for (const char* question :
         {"What is the weather?", "有几棵树?", "How many cars are there?", "Give tags.", "What is the time?"})
      out.push_back(request(question, {picture}));
    return out;
  }

  static void expect_same(const std::vector<Completion>& a, const std::vector<Completion>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].token_ids, b[i].token_ids) << i;
      EXPECT_EQ(a[i].text, b[i].text) << i;
      ASSERT_EQ(a[i].logprobs.size(), b[i].logprobs.size());
      for (std::size_t t = 0; t < a[i].logprobs.size(); ++t)  // bit-equal logits give equal logprobs
        EXPECT_EQ(a[i].logprobs[t].chosen.logprob, b[i].logprobs[t].chosen.logprob) << i << " token " << t;
    }
  }

  inline static Shared* shared = nullptr;
};

TEST_F(EngineTest, TogetherAloneAndWithoutSharingAreTheSame) {
  const auto requests = five_questions();
  const auto together = *engine()->run(requests);
  const auto unshared = *engine({.share_prefix = false})->run(requests);
  expect_same(together, unshared);
  std::vector<Completion> alone;
  for (const auto& one : requests) alone.push_back(engine()->run({&one, 1})->front());
  expect_same(together, alone);
}

TEST_F(EngineTest, TheSharedBeginningIsComputedOnce) {
  const auto requests = five_questions();
  std::vector<const LanguagePrompt*> prompts;
  for (const auto& one : requests) prompts.push_back(&one.prompt);
  const std::int64_t common = common_prefix(prompts);
  ASSERT_GT(common, 80);
  const auto out = *engine()->run(requests);
  EXPECT_EQ(out[0].cached_tokens, 0);
  for (std::size_t i = 1; i < out.size(); ++i) {
    EXPECT_GE(out[i].cached_tokens, common);  // two of them may have more in common than all
    EXPECT_LT(out[i].cached_tokens, common + 5);
    EXPECT_EQ(out[i].prompt_tokens, requests[i].prompt.size());
  }
  const auto unshared = *engine({.share_prefix = false})->run(requests);
  for (const auto& one : unshared) EXPECT_EQ(one.cached_tokens, 0);
}

TEST_F(EngineTest, TheCutOfTheStepsChangesNothing) {
  const auto requests = five_questions();
  const auto whole = *engine()->run(requests);
  for (const std::int64_t step_tokens : {1, 7, 33, 64}) {
    SCOPED_TRACE(step_tokens);
    expect_same(whole, *engine({.step_tokens = step_tokens})->run(requests));
  }
  for (const std::int64_t sequences : {1, 2, 4}) {
    SCOPED_TRACE(sequences);
    expect_same(whole, *engine({.max_sequences = sequences})->run(requests));
  }
}

TEST_F(EngineTest, ASmallPoolAnswersInTurns) {
  const auto requests = five_questions();
  const auto whole = *engine()->run(requests);
  const KvShape one = shared->model->kv_shape(1);
  const std::uint64_t block = static_cast<std::uint64_t>(one.layers * one.kv_heads * one.head_dim * 2 * kKvBlock) * 4;
  // The shared beginning takes 4 blocks; each question 1 or 2 of its own.
  expect_same(whole, *engine({.kv_bytes = 7 * block})->run(requests));
  const auto refused = engine({.kv_bytes = 2 * block})->run(requests);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("kv_bytes"));
}

TEST_F(EngineTest, DifferentPicturesInOneBatchStayApart) {
  std::vector<GenerationRequest> requests;
  for (std::uint8_t name = 1; name < 5; ++name)
    requests.push_back(
        request("Describe the picture.", {random_feature(name, {1, 8, 2 * name}), random_feature(9, {1, 4, 4})}));
  const auto together = *engine()->run(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) expect_same({together[i]}, *engine()->run({&requests[i], 1}));
}

TEST_F(EngineTest, EqualPromptsAreSharedButForTheirLastToken) {
  const GenerationRequest one = request("What is the weather?", {random_feature(1, {1, 8, 8})});
  const auto out = *engine()->run(std::vector{one, one, one});
  EXPECT_EQ(out[1].cached_tokens, one.prompt.size() - 1);
  EXPECT_EQ(out[0].token_ids, out[2].token_ids);
}

TEST_F(EngineTest, TextComesInWholeCharactersAndAddsUp) {
  const auto requests = five_questions();
  std::vector<std::string> streamed(requests.size());
  const auto out = *engine()->run(requests, [&](std::size_t i, std::string_view text) { streamed[i] += text; });
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(streamed[i], out[i].text);
    EXPECT_EQ(decode(shared->tokenizer, out[i].token_ids), out[i].text);
  }
}

TEST_F(EngineTest, StopsAtStopTokensAndAtLimits) {
  GenerationRequest one = request("What is the weather?", {random_feature(1, {1, 8, 8})});
  one.stop_token_ids = {};
  one.max_tokens = 5;
  const Completion cut = engine()->run({&one, 1})->front();
  EXPECT_EQ(cut.finish_reason, FinishReason::kLength);
  EXPECT_EQ(cut.token_ids.size(), 5U);
  one.stop_token_ids = {cut.token_ids[2]};
  const Completion stopped = engine()->run({&one, 1})->front();
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.token_ids.back(), cut.token_ids[2]);
  EXPECT_LE(stopped.token_ids.size(), 3U);
}

TEST_F(EngineTest, SampledAnswersDependOnTheSeedAlone) {
  auto requests = five_questions();
  for (auto& one : requests) one.sampling = {.temperature = 1.5, .seed = 42};
  const auto once = *engine()->run(requests), again = *engine({.step_tokens = 9})->run(requests);
  expect_same(once, again);
  for (auto& one : requests) one.sampling.seed = 43;
  const auto other = *engine()->run(requests);
  bool differs = false;
  for (std::size_t i = 0; i < other.size(); ++i) differs |= other[i].token_ids != once[i].token_ids;
  EXPECT_TRUE(differs);
}

TEST_F(EngineTest, BadRequestsAreNamed) {
  auto requests = five_questions();
  requests[2].max_tokens = 0;
  EXPECT_THAT(engine()->run(requests).error().message, HasSubstr("question 3: max_tokens"));
  requests[2].max_tokens = 5;
  requests[3].sampling.top_p = 7;
  EXPECT_THAT(engine()->run(requests).error().message, HasSubstr("question 4: top_p"));
  GenerationRequest longest = request(std::string(30000, 'x'), {});
  EXPECT_THAT(engine()->run({&longest, 1}).error().message, HasSubstr("max_position_embeddings"));
  EXPECT_TRUE(engine()->run({}).value().empty());
}

}  // namespace
}  // namespace chiasm
