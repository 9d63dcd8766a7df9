// The engine as a server sees it: requests that come, leave, fail and wait while others are answered.
#include <atomic>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "language/engine.h"
#include "language/test_engine.h"

namespace chiasm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class EngineServerTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> engine(const LanguageModel& model, const EngineOptions& options = {}) {
    return must(Engine::create(model, tokenizer_, *ops_, options));
  }
  static std::shared_ptr<Generation> submit(Engine& engine, const GenerationRequest& request, Listener& listener) {
    return must(engine.submit(request, listener.on_event()));
  }
  // A model whose steps wait at the gate.
  void hold_steps(FakeModel& model) {
    model.before = [this](const LanguageBatch&) -> Status {
      gate_.pass();
      return {};
    };
  }

  ThreadPool threads_{1};
  std::unique_ptr<Ops> ops_ = make_cpu_ops(threads_);
  Tokenizer tokenizer_ = must(Tokenizer::load(toytown_dir()));
  Gate gate_;
};

TEST_F(EngineServerTest, EventsComeWithTheirTokensAndAddUp) {
  const FakeModel model(200);
  const auto engine = this->engine(model);
  GenerationRequest request = numbered_request(40, 30);
  request.logprobs = 2;
  Listener listener;
  submit(*engine, request, listener);
  const Completion answer = must(listener.wait());
  EXPECT_EQ(answer.token_ids.size(), 30U);
  EXPECT_EQ(listener.token_ids(), answer.token_ids);
  EXPECT_EQ(listener.text(), answer.text);
  EXPECT_EQ(listener.events(), 30);  // the end comes with the last token
  ASSERT_EQ(listener.logprobs().size(), 30U);
  EXPECT_EQ(listener.logprobs()[4].chosen.id, answer.token_ids[4]);
  EXPECT_EQ(answer.logprobs.size(), 30U);
  EXPECT_GE(answer.queue_ms, 0);
  EXPECT_GE(answer.ttft_ms, answer.queue_ms);
  EXPECT_GT(answer.prefill_ms, 0);
  EXPECT_GT(answer.decode_ms, 0);
  const EngineStatus status = engine->status();
  EXPECT_EQ(status.finished, 1);
  EXPECT_EQ(status.prompt_tokens, 40);
  EXPECT_EQ(status.prefilled_tokens, 40);
  EXPECT_EQ(status.generated_tokens, 30);
  EXPECT_EQ(status.prefix_queried_tokens, 40);
  EXPECT_EQ(status.kv_used, 0);
  EXPECT_EQ(status.kv_cached, 3);
}

TEST_F(EngineServerTest, ANewcomerIsAnsweredWhileAnotherIsUnderWay) {
  const FakeModel model(100000);
  const auto engine = this->engine(model);
  Listener lengthy, brief;
  const auto handle = submit(*engine, numbered_request(10, 90000), lengthy);
  lengthy.await_tokens(3);
  submit(*engine, numbered_request(10, 3, 9), brief);
  EXPECT_EQ(must(brief.wait()).token_ids.size(), 3U);
  EXPECT_FALSE(lengthy.ended());
  handle->cancel();
  EXPECT_EQ(lengthy.wait().error().code, Code::kCancelled);
}

TEST_F(EngineServerTest, FiveQuestionsAtOncePrefillTheirBeginningOnce) {
  for (const std::int64_t step_tokens : {512, 64, 7}) {
    FakeModel model(1000);
    const auto engine = this->engine(model, {.step_tokens = step_tokens});
    std::vector<GenerationRequest> requests;
    for (std::int32_t last = 10; last < 15; ++last) requests.push_back(numbered_request(333, 1, last));
    const auto answers = must(engine->run(requests));
    EXPECT_EQ(model.computed, 333 + 4) << step_tokens;
    for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(answers[i].cached_tokens, i == 0 ? 0 : 332);
    EXPECT_EQ(engine->status().prefix_hit_tokens, 4 * 332);
    // And later ones find it too, to the token.
    EXPECT_EQ(must(engine->run(std::vector{numbered_request(333, 1, 20)})).front().cached_tokens, 332);
  }
}

TEST_F(EngineServerTest, TheNextTurnOfAChatBeginsBehindTheAnswer) {
  FakeModel model(1000);
  const auto engine = this->engine(model);
  const GenerationRequest first = numbered_request(75, 50);
  const Completion answer = must(engine->run({&first, 1})).front();
  GenerationRequest second = first;
  std::vector<std::int32_t> ids = first.prompt.token_ids;
  ids.insert(ids.end(), answer.token_ids.begin(), answer.token_ids.end());
  ids.insert(ids.end(), 20, 5);
  second.prompt = text_prompt(ids);
  // The last token of an answer was never computed.
  EXPECT_EQ(must(engine->run({&second, 1})).front().cached_tokens, 75 + 50 - 1);
}

TEST_F(EngineServerTest, SaltsAndPicturesKeepBeginningsApart) {
  FakeModel model(1000);
  const auto engine = this->engine(model);
  const auto with = [](std::uint8_t picture, const std::string& salt) {
    GenerationRequest out = numbered_request(100, 2);
    out.prompt.features.push_back({10, feature_of(picture, 60, 4)});
    out.cache_salt = salt;
    return out;
  };
  const auto cached = [&](const GenerationRequest& request) {
    return must(engine->run({&request, 1})).front().cached_tokens;
  };
  EXPECT_EQ(cached(with(1, "a")), 0);
  EXPECT_EQ(cached(with(1, "a")), 99);
  EXPECT_EQ(cached(with(2, "a")), 10);
  EXPECT_EQ(cached(with(1, "b")), 0);
  EXPECT_EQ(cached(with(1, "")), 0);
  EXPECT_EQ(cached(with(2, "a")), 99);
  // Side by side they do not wait for each other either.
  const std::vector together{with(3, "c"), with(3, "d"), with(4, "c")};
  const auto answers = must(engine->run(together));
  EXPECT_EQ(answers[1].cached_tokens, 0);
  EXPECT_EQ(answers[2].cached_tokens, 10);
}

TEST_F(EngineServerTest, AnotherTakesOverTheBeginningOfOneThatLeaves) {
  FakeModel model(1000);
  hold_steps(model);
  const auto engine = this->engine(model, {.step_tokens = 64});
  Listener first, second, third;
  const auto handle = submit(*engine, numbered_request(300, 4, 10), first);
  gate_.await_somebody();
  submit(*engine, numbered_request(300, 4, 11), second);
  submit(*engine, numbered_request(300, 4, 12), third);
  gate_.let_one();
  gate_.await_somebody();  // 64 tokens are computed, the next 64 are about to be
  EXPECT_EQ(engine->status().running, 1);
  EXPECT_EQ(engine->status().waiting, 2);
  handle->cancel();
  gate_.open();
  EXPECT_EQ(first.wait().error().code, Code::kCancelled);
  const Completion two = must(second.wait()), three = must(third.wait());
  EXPECT_EQ(two.cached_tokens, 128);
  EXPECT_EQ(three.cached_tokens, 299);
  EXPECT_EQ(model.computed, 300 + 1 + 2 * 3);
  EXPECT_EQ(engine->status().cancelled, 1);
  EXPECT_EQ(engine->status().kv_used, 0);
}

TEST_F(EngineServerTest, CancellingFreesBlocksAtTheNextStep) {
  FakeModel model(4096);
  const auto engine = this->engine(model);
  Listener listener;
  const auto handle = submit(*engine, numbered_request(1000, 3000), listener);
  listener.await_tokens(2);
  EXPECT_GT(engine->status().kv_used, 30);
  handle->cancel();
  EXPECT_EQ(listener.wait().error().code, Code::kCancelled);
  EXPECT_EQ(engine->status().kv_used, 0);
  EXPECT_EQ(engine->status().running, 0);
  handle->cancel();  // of no effect
  // One that is dropped does not cancel.
  Listener other;
  submit(*engine, numbered_request(10, 5), other);
  EXPECT_TRUE(other.wait());
}

TEST_F(EngineServerTest, DeadlinesHoldWhileComputingAndInTheQueue) {
  FakeModel model(1 << 20);
  hold_steps(model);
  const auto engine = this->engine(model, {.max_sequences = 1});
  Listener running, queued, late;
  GenerationRequest endless = numbered_request(5, 1 << 19);
  const auto handle = submit(*engine, endless, running);
  gate_.await_somebody();
  GenerationRequest brief = numbered_request(5, 5);
  brief.deadline = Deadline::clock::now() - std::chrono::seconds(1);
  submit(*engine, brief, queued);
  gate_.open();
  const auto expired = queued.wait();
  ASSERT_FALSE(expired);
  EXPECT_EQ(expired.error().code, Code::kDeadlineExceeded);
  EXPECT_THAT(expired.error().message, HasSubstr("in the queue"));
  EXPECT_FALSE(running.ended());
  handle->cancel();
  running.wait();
  endless.deadline = Deadline::clock::now() + std::chrono::milliseconds(50);
  submit(*engine, endless, late);
  EXPECT_EQ(late.wait().error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(engine->status().expired, 2);
}

TEST_F(EngineServerTest, TheQueueIsBounded) {
  FakeModel model(1000);
  hold_steps(model);
  const auto engine = this->engine(model, {.max_sequences = 2, .max_waiting = 2});
  std::vector<Listener> listeners(3);
  submit(*engine, numbered_request(5, 3), listeners[0]);
  gate_.await_somebody();
  // What belongs together takes one place, however much it is.
  std::atomic<int> ends = 0;
  const auto together = engine->submit_all(std::vector(5, numbered_request(5, 2)),
                                           [&](std::size_t, GenerationEvent&& event) { ends += event.end ? 1 : 0; });
  ASSERT_TRUE(together);
  EXPECT_EQ(together->size(), 5U);
  submit(*engine, numbered_request(5, 3), listeners[1]);
  const auto refused = engine->submit(numbered_request(5, 3), listeners[2].on_event());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("queue full"));
  EXPECT_EQ(engine->status().waiting, 6);
  EXPECT_EQ(engine->status().refused, 1);
  gate_.open();
  EXPECT_TRUE(listeners[1].wait());
  EXPECT_EQ(ends, 5);  // first come, first served
  submit(*engine, numbered_request(5, 3), listeners[2]);
  EXPECT_TRUE(listeners[2].wait());
  EXPECT_EQ(engine->status().waiting, 0);
}

TEST_F(EngineServerTest, AllOrNoneAreSubmitted) {
  const FakeModel model(100);
  const auto engine = this->engine(model);
  std::vector requests(3, numbered_request(5, 2));
  requests[1].stop = {""};
  const auto refused = engine->submit_all(requests, nullptr);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("question 2: "), HasSubstr("stop")));
  EXPECT_EQ(engine->status().submitted, 0);
  // Alone nothing is numbered.
  EXPECT_THAT(engine->submit(requests[1], nullptr).error().message, testing::StartsWith("stop: "));
  for (const auto& [change, message] : std::vector<std::pair<std::function<void(GenerationRequest&)>, std::string>>{
           {[](auto& r) { r.prompt.token_ids[2] = 300; }, "token_ids: expected 0 to 299, got 300"},
           {[](auto& r) { r.prompt.positions.position_ids[1].pop_back(); }, "position_ids"},
           {[](auto& r) { r.prompt.positions.rope_delta = 1 << 30; }, "rope_delta"},
           {[](auto& r) { r.prompt.features.push_back({0, nullptr}); }, "image_embeds"},
           {[](auto& r) { r.prompt.features.push_back({3, feature_of(1, 3, 4)}); }, "do not fit"},
           {[](auto& r) { r.prompt.features.push_back({0, feature_of(1, 3, 5)}); }, "rows of 4 values, got 5"},
           {[](auto& r) { r.min_tokens = 3; }, "min_tokens"},
           {[](auto& r) { r.sampling.logit_bias = {{300, 1.0}}; }, "logit_bias"}}) {
    GenerationRequest bad = numbered_request(5, 2);
    change(bad);
    EXPECT_THAT(engine->submit(bad, nullptr).error().message, HasSubstr(message));
  }
}

TEST_F(EngineServerTest, ShutdownEndsWhatIsOpenAndRefusesWhatComes) {
  const FakeModel model(1 << 20);
  auto engine = this->engine(model, {.max_sequences = 1});
  Listener running, waiting;
  submit(*engine, numbered_request(5, 1 << 19), running);
  submit(*engine, numbered_request(5, 5), waiting);
  running.await_tokens(1);
  engine->shutdown();
  EXPECT_EQ(running.wait().error().code, Code::kUnavailable);
  EXPECT_EQ(waiting.wait().error().code, Code::kUnavailable);
  EXPECT_EQ(engine->submit(numbered_request(5, 5), nullptr).error().code, Code::kUnavailable);
  engine->shutdown();

  engine = this->engine(model);
  Listener other;
  submit(*engine, numbered_request(5, 1 << 19), other);
  engine.reset();
  EXPECT_EQ(other.wait().error().code, Code::kUnavailable);
}

TEST_F(EngineServerTest, DamagedLogitsEndOneSequenceAndAreNotRemembered) {
  FakeModel model(1000);
  model.harm[8] = kNan;
  const auto engine = this->engine(model);
  Listener good, bad;
  submit(*engine, numbered_request(100, 20, 7), good);
  good.await_tokens(1);
  GenerationRequest damaged = numbered_request(200, 20, 8);  // shares 99 tokens with the other
  submit(*engine, damaged, bad);
  const auto failed = bad.wait();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::kDataLoss);
  EXPECT_THAT(failed.error().message, AllOf(HasSubstr("not finite"), HasSubstr("damaged")));
  EXPECT_EQ(must(good.wait()).token_ids.size(), 20U);
  EXPECT_EQ(engine->status().failed, 1);
  EXPECT_EQ(engine->status().kv_used, 0);
  damaged.prompt.token_ids.back() = 9;
  EXPECT_EQ(must(engine->run({&damaged, 1})).front().cached_tokens, 99);  // the other one's, and no more
}

TEST_F(EngineServerTest, AStepThatFailsIsTriedAloneToFindWhoseFaultItIs) {
  for (const bool throws : {false, true}) {
    FakeModel model(1000);
    model.before = [throws](const LanguageBatch& batch) -> Status {
      if (std::find(batch.token_ids.begin(), batch.token_ids.end(), 266) == batch.token_ids.end()) return {};
      if (throws) throw std::bad_alloc();
      return fail(Code::kInvalidArgument, "no 266");
    };
    const auto engine = this->engine(model, {.share_prefix = false});
    std::vector<Listener> listeners(3);
    for (std::int32_t i = 0; i < 3; ++i)
      submit(*engine, numbered_request(50, 8, i == 1 ? 266 : 7 + i), listeners[static_cast<std::size_t>(i)]);
    EXPECT_EQ(must(listeners[0].wait()).token_ids.size(), 8U);
    const auto failed = listeners[1].wait();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, throws ? Code::kResourceExhausted : Code::kInvalidArgument);
    EXPECT_EQ(must(listeners[2].wait()).token_ids.size(), 8U);
    EXPECT_EQ(engine->status().kv_used, 0);
  }
}

TEST_F(EngineServerTest, AListenerThatThrowsHurtsNobodyElse) {
  const FakeModel model(1000);
  const auto engine = this->engine(model);
  std::atomic<int> events = 0;
  must(engine->submit(numbered_request(20, 500), [&](GenerationEvent&&) {
    ++events;
    throw std::runtime_error("a broken listener");
  }));
  Listener good;
  submit(*engine, numbered_request(20, 50, 8), good);
  EXPECT_EQ(must(good.wait()).token_ids.size(), 50U);
  EXPECT_EQ(events, 1);
  // So it is with the caller of run().
  const std::vector<GenerationRequest> one{numbered_request(20, 500)};
  EXPECT_THROW((void)engine->run(one, [](std::size_t, std::string_view) { throw std::runtime_error("x"); }),
               std::runtime_error);
  EXPECT_EQ(must(engine->run(one)).front().token_ids.size(), 500U);
}

TEST_F(EngineServerTest, StepsAreReported) {
  const FakeModel model(1000);
  std::atomic<std::int64_t> prefill = 0, decode = 0, steps = 0;
  const auto engine = this->engine(model, {.step_tokens = 50, .on_step = [&](const StepReport& report) {
                                             prefill += report.prefill_tokens;
                                             decode += report.decode_tokens;
                                             ++steps;
                                             EXPECT_GE(report.ms, 0);
                                             EXPECT_LE(report.prefill_tokens, 50);
                                             throw std::runtime_error("an observer's fault");
                                           }});
  must(engine->run(std::vector{numbered_request(120, 10)}));
  engine->shutdown();  // the last report is out
  EXPECT_EQ(prefill, 120);
  EXPECT_EQ(decode, 9);
  EXPECT_EQ(steps, 3 + 9);
  EXPECT_EQ(engine->status().steps, 12);
}

TEST_F(EngineServerTest, ALongPromptLeavesStreamsEven) {
  FakeModel model(1000);
  model.before = [](const LanguageBatch& batch) -> Status {  // 2 ms a token
    std::this_thread::sleep_for(std::chrono::milliseconds(2) * batch.token_ids.size());
    return {};
  };
  std::atomic<std::int64_t> beside = 0;
  const auto engine = this->engine(model, {.stall_ms = 10, .on_step = [&](const StepReport& report) {
                                             if (report.prefill_tokens > 0 && report.decode_tokens > 0) ++beside;
                                           }});
  Listener stream, other;
  const auto handle = submit(*engine, numbered_request(40, 900), stream);
  stream.await_tokens(3);
  submit(*engine, numbered_request(200, 2, 11), other);
  must(other.wait());
  handle->cancel();
  EXPECT_FALSE(stream.wait());
  EXPECT_GT(beside, 10) << "of about 40; in one, if nothing held it back";
}

// Sequences outgrow the pool together; each would fit alone.
TEST_F(EngineServerTest, SequencesArePreemptedRatherThanFailed) {
  const FakeModel model(1000);
  const auto engine = this->engine(model, {.kv_bytes = std::uint64_t{12} * 1024});
  std::vector<GenerationRequest> requests;
  for (std::int32_t last = 7; last < 12; ++last) {
    requests.push_back(numbered_request(30, 200, last));
    requests.back().prompt.token_ids.front() = last;  // nothing shared
  }
  const auto answers = must(engine->run(requests));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].token_ids.size(), 200U);
    EXPECT_EQ(answers[i].token_ids.front(), FakeModel::next(static_cast<std::int32_t>(i) + 7));
    EXPECT_EQ(answers[i].cached_tokens, 0);
  }
  const EngineStatus status = engine->status();
  EXPECT_GT(status.preemptions, 0);
  EXPECT_EQ(status.generated_tokens, 1000);
  EXPECT_EQ(status.kv_blocks, 12);
  EXPECT_EQ(status.kv_used, 0);
}

TEST_F(EngineServerTest, ManyThreadsSubmitCancelAndLook) {
  const FakeModel model(1000);
  const auto engine = this->engine(model, {.kv_bytes = std::uint64_t{40} * 1024, .max_sequences = 8});
  std::atomic<int> answered = 0, cancelled = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        Listener listener;
        const auto handle = submit(*engine, numbered_request(20 + 3 * t, 60, 7 + i % 3), listener);
        if (i % 4 == 0) handle->cancel();
        const auto end = listener.wait();
        if (end) {
          ++answered;
          EXPECT_EQ(end->token_ids.size(), 60U);
          EXPECT_EQ(listener.text(), end->text);
        } else {
          ++cancelled;
          EXPECT_EQ(end.error().code, Code::kCancelled);
        }
        EXPECT_LE(engine->status().running, 8);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered + cancelled, 100);
  EXPECT_GE(answered, 72);
  EXPECT_EQ(engine->status().submitted, 100);
  EXPECT_EQ(engine->status().kv_used, 0);
}

// --- how an answer ends

// Allows the tokens of a list in turn and then the end.
class ListConstraint final : public TokenConstraint {
 public:
  explicit ListConstraint(std::vector<std::int32_t> ids, bool throws = false) : ids_(std::move(ids)), throws_(throws) {}
  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<State>(*this); }

 private:
  struct State final : ConstraintState {
    explicit State(const ListConstraint& list_in) : list(list_in) {}
    void mask(std::int64_t remaining, TokenMask& mask) override {
      EXPECT_GE(remaining, 1);
      if (list.throws_ && at == 1) throw std::runtime_error("a constraint's fault");
      mask.clear();
      if (at < list.ids_.size()) mask.set(list.ids_[at]);
    }
    bool may_end() const override { return at == list.ids_.size(); }
    void accept(std::int32_t id) override {
      EXPECT_EQ(id, list.ids_[at]);
      ++at;
    }
    const ListConstraint& list;
    std::size_t at = 0;
  };
  std::vector<std::int32_t> ids_;
  bool throws_;
};

TEST_F(EngineServerTest, AConstraintSaysWhatMayComeAndWhenItIsWhole) {
  const FakeModel model(1000);
  const auto engine = this->engine(model);
  GenerationRequest request = numbered_request(10, 50);
  request.end_token_ids = {2};
  request.logprobs = 0;
  request.constraint = std::make_shared<ListConstraint>(std::vector<std::int32_t>{40, 41, 42});
  for (const double temperature : {0.0, 1.0}) {
    request.sampling.temperature = temperature;
    const Completion answer = must(engine->run({&request, 1})).front();
    EXPECT_THAT(answer.token_ids, ElementsAre(40, 41, 42));
    EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
    EXPECT_LT(answer.logprobs.front().chosen.logprob, -1);  // of the raw logits
  }
  request.max_tokens = 2;
  EXPECT_EQ(must(engine->run({&request, 1})).front().finish_reason, FinishReason::kLength);
  request.max_tokens = 3;
  EXPECT_EQ(must(engine->run({&request, 1})).front().finish_reason, FinishReason::kStop);
  request.constraint = std::make_shared<ListConstraint>(std::vector<std::int32_t>{});
  const Completion empty = must(engine->run({&request, 1})).front();
  EXPECT_TRUE(empty.token_ids.empty());
  EXPECT_EQ(empty.finish_reason, FinishReason::kStop);
  // Its exceptions end the one that asked for it.
  request.constraint = std::make_shared<ListConstraint>(std::vector<std::int32_t>{40, 41, 42}, true);
  EXPECT_THAT(engine->run({&request, 1}).error().message, HasSubstr("a constraint's fault"));
  request.constraint = nullptr;
  EXPECT_TRUE(engine->run({&request, 1}));
}

TEST_F(EngineServerTest, EndTokensWaitForMinTokensAndMayBeIgnored) {
  const FakeModel model(1000);
  const auto engine = this->engine(model);
  GenerationRequest request = numbered_request(10, 20);
  const std::vector<std::int32_t> free = must(engine->run({&request, 1})).front().token_ids;
  request.end_token_ids = {free[2]};
  request.stop_token_ids = {free[5]};
  Completion answer = must(engine->run({&request, 1})).front();
  EXPECT_EQ(answer.token_ids.size(), 3U);
  EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
  request.ignore_eos = true;
  EXPECT_EQ(must(engine->run({&request, 1})).front().token_ids.size(), 6U);
  request.ignore_eos = false;
  request.min_tokens = 10;
  answer = must(engine->run({&request, 1})).front();
  EXPECT_GE(answer.token_ids.size(), 11U);
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_NE(answer.token_ids[i], free[2]);
    EXPECT_NE(answer.token_ids[i], free[5]);
  }
}

TEST_F(EngineServerTest, TheTextEndsBeforeAStopString) {
  const FakeModel model(1000);
  const auto engine = this->engine(model);
  GenerationRequest request = numbered_request(10, 20);
  const Completion free = must(engine->run({&request, 1})).front();
  ASSERT_GT(free.text.size(), 15U);
  const std::string stop = free.text.substr(6, 4);
  request.stop = {"never", stop};
  Listener listener;
  submit(*engine, request, listener);
  Completion answer = must(listener.wait());
  EXPECT_EQ(answer.text, free.text.substr(0, free.text.find(stop)));
  EXPECT_EQ(listener.text(), answer.text);
  EXPECT_EQ(answer.stopped_by, stop);
  EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
  EXPECT_EQ(listener.token_ids(), answer.token_ids);
  EXPECT_LT(answer.token_ids.size(), free.token_ids.size());
  // Held back to the end, and then given out.
  request.stop = {free.text.substr(free.text.size() - 3) + "x"};
  Listener held;
  submit(*engine, request, held);
  answer = must(held.wait());
  EXPECT_EQ(answer.text, free.text);
  EXPECT_EQ(held.text(), free.text);
  EXPECT_EQ(answer.finish_reason, FinishReason::kLength);
  EXPECT_FALSE(answer.stopped_by);
  // Not before min_tokens.
  request.stop = {free.text.substr(0, 1)};
  request.min_tokens = 3;
  EXPECT_GE(must(engine->run({&request, 1})).front().token_ids.size(), 4U);
}

}  // namespace
}  // namespace chiasm
