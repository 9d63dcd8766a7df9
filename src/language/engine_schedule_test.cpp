// No answer depends on company: random models, prompts, pools, steps, arrivals and departures against one at a time.
#include <algorithm>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "language/engine.h"
#include "language/test_engine.h"

namespace chiasm {
namespace {

constexpr std::int64_t kWidth = 24;  // hidden_size of the tiny model
constexpr std::int32_t kImage = 7;
#ifdef __SANITIZE_THREAD__
constexpr int kRounds = 12;
#else
constexpr int kRounds = 50;
#endif

class EngineScheduleTest : public testing::TestWithParam<std::string> {
 protected:
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(n)); }

  std::unique_ptr<Engine> engine(const EngineOptions& options) {
    return must(Engine::create(*tiny_.model, tokenizer_, *tiny_.ops, options));
  }

  // System text, pictures and words, of which there are few, so that prompts have much in common.
  GenerationRequest random_request() {
    GenerationRequest out;
    LanguagePrompt& prompt = out.prompt;
    std::int32_t position = 0;
    const auto text = [&](std::int64_t words) {
      for (; words > 0; --words, ++position) {
        prompt.token_ids.push_back(20 + static_cast<std::int32_t>(below(2)));
        for (auto& axis : prompt.positions.position_ids) axis.push_back(position);
      }
    };
    for (std::int32_t word = 0; word < 5; ++word, ++position) {
      prompt.token_ids.push_back(30 + word);
      for (auto& axis : prompt.positions.position_ids) axis.push_back(position);
    }
    for (std::int64_t pictures = below(3); pictures > 0; --pictures) {
      const auto name = static_cast<std::uint8_t>(1 + below(3));
      const std::int64_t rows = 20 + 15 * name;
      prompt.features.push_back({prompt.size(), features_[name]});
      for (std::int32_t row = 0; row < rows; ++row) {
        prompt.token_ids.push_back(kImage);
        prompt.positions.position_ids[0].push_back(position);
        prompt.positions.position_ids[1].push_back(position + row / 5);
        prompt.positions.position_ids[2].push_back(position + row % 5);
      }
      position += static_cast<std::int32_t>(std::max<std::int64_t>(5, (rows + 4) / 5));
    }
    text(below(3) == 0 ? below(60) : below(6));
    for (std::int32_t word = 0; word < 1 + below(2); ++word) text(1);
    prompt.positions.rope_delta = position - prompt.size();
    out.max_tokens = 1 + below(below(2) == 0 ? 20 : 150);
    out.logprobs = 2;
    if (below(2) == 0) out.sampling = {.temperature = 1.3, .seed = static_cast<std::uint64_t>(below(5))};
    if (below(4) == 0) out.sampling.presence_penalty = 0.5;
    if (below(4) == 0) out.sampling.top_k = 5;
    if (below(5) == 0) out.stop = {"ab", "c"};
    if (below(8) == 0) out.cache_salt = "other";
    out.end_token_ids = {2};
    return out;
  }

  static void expect_same(const Completion& a, const Completion& b) {
    EXPECT_EQ(a.token_ids, b.token_ids);
    EXPECT_EQ(a.text, b.text);
    EXPECT_EQ(a.finish_reason, b.finish_reason);
    ASSERT_EQ(a.logprobs.size(), b.logprobs.size());
    for (std::size_t t = 0; t < a.logprobs.size(); ++t) {
      EXPECT_EQ(a.logprobs[t].chosen.logprob, b.logprobs[t].chosen.logprob) << "token " << t;
      for (std::size_t k = 0; k < 2; ++k) EXPECT_EQ(a.logprobs[t].top[k].logprob, b.logprobs[t].top[k].logprob);
    }
  }

  std::mt19937_64 random_{11};
  ThreadPool threads_{2};
  TinyModel tiny_{GetParam() == "ref" ? make_ref_ops() : make_cpu_ops(threads_)};
  Tokenizer tokenizer_ = must(Tokenizer::load(toytown_dir()));
  std::map<std::uint8_t, std::shared_ptr<const Feature>> features_{
      {1, feature_of(1, 35, kWidth)}, {2, feature_of(2, 50, kWidth)}, {3, feature_of(3, 65, kWidth)}};
};

INSTANTIATE_TEST_SUITE_P(Ops, EngineScheduleTest, testing::Values("ref", "cpu"),
                         [](const auto& test) { return test.param; });

TEST_P(EngineScheduleTest, AnyScheduleGivesTheAnswersOfOneAtATime) {
  std::vector<GenerationRequest> requests;
  std::vector<Completion> expected;
  std::int64_t longest = 0;
  const auto plain = engine({.share_prefix = false});
  for (int i = 0; i < 24; ++i) {
    requests.push_back(random_request());
    expected.push_back(must(plain->run({&requests.back(), 1})).front());
    longest = std::max(longest, requests.back().prompt.size() + requests.back().max_tokens);
  }
  EngineStatus sum;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    EngineOptions options;
    options.step_tokens = 1 + below(below(2) == 0 ? 20 : 200);
    options.stall_ms = below(2) == 0 ? 0 : 1e-3;  // so little that prompts go in the smallest pieces
    options.max_sequences = 1 + below(8);
    options.share_prefix = round % 8 != 7;
    // From what the longest needs, so that blocks are evicted and sequences preempted, to plenty.
    const std::int64_t blocks = (longest + kKvBlock - 1) / kKvBlock + below(3) * below(10);
    options.kv_bytes = static_cast<std::uint64_t>(blocks) * tiny_.block_bytes();
    const auto engine = this->engine(options);

    struct Open {
      std::size_t request;
      Listener listener;
      std::shared_ptr<Generation> handle;
      bool unwanted = false;
    };
    std::vector<Open> open;
    for (int i = 0; i < 30; ++i) {
      Open& one = open.emplace_back();
      one.request = static_cast<std::size_t>(below(static_cast<std::int64_t>(requests.size())));
      one.handle = must(engine->submit(requests[one.request], one.listener.on_event()));
      if (below(3) == 0)  // some come later, when others are under way
        open[static_cast<std::size_t>(below(static_cast<std::int64_t>(open.size())))].listener.await_tokens(
            static_cast<std::size_t>(below(10)));
      if (below(4) == 0) {
        Open& other = open[static_cast<std::size_t>(below(static_cast<std::int64_t>(open.size())))];
        other.handle->cancel();
        other.unwanted = true;
      }
    }
    for (Open& one : open) {
      const auto end = one.listener.wait();
      if (end) {
        expect_same(expected[one.request], *end);
        EXPECT_EQ(one.listener.token_ids(), end->token_ids);
        EXPECT_EQ(one.listener.text(), end->text);
      } else {
        EXPECT_TRUE(one.unwanted) << end.error().message;
        EXPECT_EQ(end.error().code, Code::kCancelled);
      }
      if (end && !options.share_prefix) {
        EXPECT_EQ(end->cached_tokens, 0);
      }
    }
    const EngineStatus status = engine->status();
    EXPECT_EQ(status.kv_used, 0);
    EXPECT_EQ(status.running + status.waiting, 0);
    EXPECT_EQ(status.finished + status.cancelled, 30);
    sum.preemptions += status.preemptions;
    sum.prefix_hit_tokens += status.prefix_hit_tokens;
    sum.cancelled += status.cancelled;
    if (HasFailure()) return;
  }
  std::printf("%lld preemptions, %lld tokens reused, %lld cancelled\n", static_cast<long long>(sum.preemptions),
              static_cast<long long>(sum.prefix_hit_tokens), static_cast<long long>(sum.cancelled));
  EXPECT_GT(sum.preemptions, 0);
  EXPECT_GT(sum.prefix_hit_tokens, kRounds * 100);
}

// Values beyond what a float holds get into the pool; who comes to those blocks next must not notice.
TEST_P(EngineScheduleTest, DamageStaysWithTheSequenceThatBroughtIt) {
  GenerationRequest good = random_request();
  good.prompt = {};
  for (int t = 0; t < 45; ++t) good.prompt.token_ids.push_back(20 + t % 3);
  good.prompt = text_prompt(good.prompt.token_ids);
  good.sampling = {};
  good.max_tokens = 12;
  GenerationRequest bad = good;
  bad.prompt.features.push_back({8, feature_of(9, 30, kWidth, std::numeric_limits<float>::infinity())});
  const Completion expected = must(engine({.share_prefix = false})->run({&good, 1})).front();
  const std::uint64_t pool = 2 * tiny_.block_bytes();  // both use the same blocks
  for (const bool share : {false, true}) {
    const auto engine = this->engine({.kv_bytes = pool, .step_tokens = 16, .share_prefix = share});
    for (int round = 0; round < 3; ++round) {
      ASSERT_FALSE(engine->run({&bad, 1}));
      expect_same(must(engine->run({&good, 1})).front(), expected);
      // One that leaves before anybody could see what it brought.
      std::shared_ptr<Generation> handle = must(engine->submit(bad, nullptr));
      handle->cancel();
      expect_same(must(engine->run({&good, 1})).front(), expected);
    }
  }
}

}  // namespace
}  // namespace chiasm
