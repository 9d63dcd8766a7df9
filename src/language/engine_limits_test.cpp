// What ends an answer, or a run: the context, the KV pool, logits that mean nothing. Over a model of chosen shape and
// logits, so that long contexts cost no arithmetic.
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/test_support.h"
#include "language/engine.h"
#include "language/test_engine.h"
#include "language/test_small_device.h"

namespace chiasm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

constexpr KvShape k72B{80, 8, 128, 0};  // 655,360 bytes a token
constexpr std::int64_t k72BContext = 32768;

class EngineLimitsTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> engine(const LanguageModel& model, const EngineOptions& options = {}) {
    return must(Engine::create(model, tokenizer_, *ops_, options));
  }

  static GenerationRequest request(std::int64_t prompt, std::int64_t max_tokens, std::int32_t last = 7) {
    return numbered_request(prompt, max_tokens, last);
  }

  static double resident_mib() {
    std::ifstream file("/proc/self/statm");
    std::int64_t pages = 0, resident = 0;
    file >> pages >> resident;
    return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
  }

  ThreadPool threads_{1};
  std::unique_ptr<Ops> ops_ = make_cpu_ops(threads_);
  Tokenizer tokenizer_ = must(Tokenizer::load(toytown_dir()));
};

TEST_F(EngineLimitsTest, AnAnswerEndsWhereTheContextIsFull) {
  const FakeModel model(100);
  const std::vector<GenerationRequest> requests{request(60, 300000), request(60, 39, 8), request(60, 40, 9),
                                                request(99, std::numeric_limits<std::int64_t>::max())};
  const auto answers = must(engine(model)->run(requests));
  const std::vector<std::pair<std::size_t, bool>> expected = {{40, true}, {39, false}, {40, true}, {1, true}};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(answers[i].token_ids.size(), expected[i].first) << i;
    EXPECT_EQ(answers[i].context_full, expected[i].second) << i;
    EXPECT_EQ(answers[i].finish_reason, FinishReason::kLength) << i;
  }
}

TEST_F(EngineLimitsTest, AStopTokenAtTheContextsEndIsAStop) {
  const FakeModel model(64);
  GenerationRequest one = request(60, 1000);
  const Completion cut = must(engine(model)->run({&one, 1})).front();
  EXPECT_TRUE(cut.context_full);
  ASSERT_EQ(cut.token_ids.size(), 4U);
  one.stop_token_ids = {cut.token_ids.back()};
  const Completion stopped = must(engine(model)->run({&one, 1})).front();
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_FALSE(stopped.context_full);
}

// A pool of exactly what the context allows: max_tokens beyond it ask for nothing.
TEST_F(EngineLimitsTest, ThePoolNeedsNoMoreThanTheContextAllows) {
  const FakeModel model(128);
  const std::vector<GenerationRequest> requests{request(70, 300000), request(70, 300000, 8)};
  const auto answers = must(engine(model, {.kv_bytes = std::uint64_t{4} * 1024})->run(requests));
  for (const Completion& answer : answers) EXPECT_EQ(answer.token_ids.size(), 58U);
  // They answer in turn, so that there is room for a copy of the block in which they part.
  EXPECT_EQ(answers[1].cached_tokens, 69);
  EXPECT_EQ(must(engine(model, {.kv_bytes = std::uint64_t{5} * 1024})->run(requests))[1].cached_tokens, 69);
}

TEST_F(EngineLimitsTest, APoolThatIsTooSmallNamesTheRemedy) {
  const FakeModel model(1000);
  const std::vector<GenerationRequest> requests{request(10, 5), request(100, 29)};
  const auto refused = engine(model, {.kv_bytes = std::uint64_t{4} * 1024})->run(requests);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("question 2: "), HasSubstr("100 tokens"), HasSubstr("may have 29"),
                    HasSubstr("5120 bytes of KV pool, this one has 4096"), HasSubstr("kv_bytes")));
  const auto none = Engine::create(model, tokenizer_, *ops_, {.kv_bytes = 1023});
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, AllOf(HasSubstr("kv_bytes"), HasSubstr("1024"), HasSubstr("1023")));
}

// 20 GiB of address space, and next to nothing of memory.
TEST_F(EngineLimitsTest, TheUsualPoolHoldsOneSequenceOfTheLongestAndTakesNoMemory) {
  const FakeModel large(k72BContext, k72B);
  const double before = resident_mib();
  const auto one = engine(large);
  EXPECT_GE(one->capacity(), k72BContext);
  EXPECT_LT(one->capacity(), k72BContext + 2 * kKvBlock);
  EXPECT_LT(resident_mib() - before, 64);
  const std::vector<GenerationRequest> requests{request(5, 1 << 20), request(5, 2, 8)};
  EXPECT_EQ(must(one->run(requests))[0].token_ids.size(), static_cast<std::size_t>(k72BContext - 5));
  EXPECT_LT(resident_mib() - before, 512);  // sanitizers keep what was freed, up to 256 MiB

  EXPECT_EQ(engine(large, {.kv_bytes = 4ULL << 30})->capacity(), 6528);  // an explicit size keeps its meaning
  const FakeModel small(4096);
  EXPECT_EQ(engine(small)->capacity(), 4096 * 65);  // every sequence at its longest, far below 4 GiB
}

TEST_F(EngineLimitsTest, APoolThatIsTakenAtOnceFollowsWhatIsFree) {
  const FakeModel model(4096);  // blocks of 1024 bytes and 32 tokens
  const auto capacity = [&](std::uint64_t says, std::uint64_t gives, const EngineOptions& options = {}) {
    const SmallDevice device(says, gives);
    return must(Engine::create(model, tokenizer_, device, options))->capacity();
  };
  constexpr std::uint64_t kMiB = 1 << 20;
  EXPECT_EQ(capacity(4 * kMiB, 4 * kMiB), 3 * 1024 * 32);                  // three quarters
  EXPECT_EQ(capacity(4 * kMiB, 2 * kMiB), 3 * 512 * 32);                   // half of that, where the whole is refused
  EXPECT_EQ(capacity(100 * kMiB, 100 * kMiB), 4096 * 65);                  // no more than all sequences can use
  EXPECT_EQ(capacity(4 * kMiB, 4 * kMiB, {.kv_bytes = kMiB}), 1024 * 32);  // a flag keeps its meaning
  EXPECT_EQ(capacity(0, 1024), 32);
  const auto refused = Engine::create(model, tokenizer_, SmallDevice(4 * kMiB, 0));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
}

// With the real Ops over real weights: memory follows the tokens, and not the pool's size.
TEST_F(EngineLimitsTest, MemoryIsTakenAsTokensCome) {
  const Checkpoint checkpoint = must(Checkpoint::open(toytown_dir(), Role::kLanguage));
  const auto model = must(load_language_model(checkpoint, *ops_));
  const auto engine = must(Engine::create(*model, tokenizer_, *ops_));
  const double pool = static_cast<double>(engine->capacity()) * 4096 / (1 << 20);  // 4096 bytes a token
  GenerationRequest warm = request(600, 1);
  must(engine->run({&warm, 1}));
  const double before = resident_mib();
  GenerationRequest one = request(3000, 1);
  must(engine->run({&one, 1}));
  const double grown = resident_mib() - before;
  std::printf("pool of %.0f MiB: %.1f MiB for 2400 more tokens\n", pool, grown);
  EXPECT_GT(pool, 1000);
  EXPECT_GT(grown, 0.9 * 2400 * 4096 / (1 << 20));
  EXPECT_LT(grown, 100);
}

TEST_F(EngineLimitsTest, LogitsThatAreNotFiniteEndTheRun) {
  for (const float value : {kNan, -kNan, kInf, -kInf}) {
    for (const SamplingParams& sampling :
         {SamplingParams{}, SamplingParams{.temperature = 1}, SamplingParams{.temperature = 1, .top_k = 5}}) {
      FakeModel model(100);
      model.harm[8] = value;
      std::vector<GenerationRequest> requests{request(10, 5), request(10, 5, 8)};
      for (GenerationRequest& one : requests) {
        one.sampling = sampling;
        one.logprobs = 3;
      }
      const auto engine = this->engine(model);
      const auto out = engine->run(requests);
      ASSERT_FALSE(out) << value;
      EXPECT_EQ(out.error().code, Code::kDataLoss);
      EXPECT_THAT(out.error().message, AllOf(HasSubstr("question 2: "), HasSubstr("not finite"), HasSubstr("damaged")));
      EXPECT_TRUE(engine->run({requests.data(), 1}));  // the engine goes on
    }
  }
  FakeModel later(100);
  later.harm[FakeModel::next(7)] = kNan;  // behind the first token of the answer
  const GenerationRequest one = request(10, 5);
  EXPECT_EQ(must(engine(later)->run(std::vector{request(10, 1)})).front().token_ids,
            (std::vector<std::int32_t>{FakeModel::next(7)}));
  EXPECT_FALSE(engine(later)->run({&one, 1}));
}

TEST_F(EngineLimitsTest, RequestsAreCheckedWithoutAnEngine) {
  const TextConfig config = FakeModel(100).config();
  std::vector<GenerationRequest> requests{request(99, 1), request(100, 1)};
  EXPECT_THAT(check_requests(requests, config).error().message,
              AllOf(HasSubstr("question 2: "), HasSubstr("100 tokens"), HasSubstr("max_position_embeddings")));
  requests[1] = request(5, 0);
  EXPECT_THAT(check_requests(requests, config).error().message, HasSubstr("question 2: max_tokens"));
  requests[1].max_tokens = 1;
  EXPECT_TRUE(check_requests(requests, config));
  requests[0].prompt = {};
  EXPECT_THAT(check_requests(requests, config).error().message, HasSubstr("question 1: the prompt is empty"));
}

}  // namespace
}  // namespace chiasm
