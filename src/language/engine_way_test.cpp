// The engine in front of somebody who wants the same processors: steps that decode have them to themselves, the other
// moves between them, and whatever ends a step lets the other go on.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "base/right_of_way.h"
#include "language/engine.h"
#include "language/test_engine.h"
#include "language/test_small_device.h"

namespace chiasm {
namespace {

constexpr std::int64_t kEndless = 90'000;  // tokens

bool decodes(const LanguageBatch& batch) {
  return std::any_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const SequenceRows& rows) { return rows.count == 1; });
}

class EngineWayTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> engine(const LanguageModel& model, EngineOptions options = {}) {
    options.way = &way_;
    return must(Engine::create(model, tokenizer_, *ops_, options));
  }
  static std::shared_ptr<Generation> submit(Engine& engine, const GenerationRequest& request, Listener& listener) {
    return must(engine.submit(request, listener.on_event()));
  }
  // Stands for a picture's encode: many short loops.
  void look(int loops = 20) {
    for (int i = 0; i < loops; ++i)
      behind_.parallel_for(7, [&](std::int64_t, int) {
        ++inside_;
        ++tasks_;
        --inside_;
      });
  }

  RightOfWay way_;
  ThreadPool threads_{1}, behind_{2, &way_};
  std::unique_ptr<Ops> ops_ = make_cpu_ops(threads_);
  Tokenizer tokenizer_ = must(Tokenizer::load(toytown_dir()));
  std::atomic<int> inside_ = 0;
  std::atomic<std::int64_t> tasks_ = 0;
};

TEST_F(EngineWayTest, BothGetOnButNeverInAStepThatDecodes) {
  FakeModel model(100'000);
  std::atomic<int> together = 0;
  model.before = [&](const LanguageBatch& batch) -> Status {
    if (!decodes(batch)) return {};
    const std::int64_t before = tasks_;
    std::this_thread::yield();
    if (inside_ != 0 || tasks_ != before) ++together;
    return {};
  };
  std::atomic<bool> reported = false;
  const auto engine = this->engine(model, {.stall_ms = 1, .on_step = [&](const StepReport& step) {
                                             if (step.decode_tokens > 0 && step.pause_ms > 0) reported = true;
                                           }});
  Listener one, another, brief;
  const auto first = submit(*engine, numbered_request(10, kEndless), one);
  const auto second = submit(*engine, numbered_request(20, kEndless, 9), another);
  one.await_tokens(3);
  look();
  submit(*engine, numbered_request(300, 3, 11), brief);  // a prompt beside them all
  look();
  EXPECT_EQ(must(brief.wait()).token_ids.size(), 3U);
  first->cancel();
  EXPECT_FALSE(one.wait());
  look();
  EXPECT_FALSE(another.ended());
  EXPECT_EQ(tasks_, 3 * 20 * 7);
  EXPECT_EQ(together, 0);
  EXPECT_TRUE(reported);
  second->cancel();
  EXPECT_FALSE(another.wait());
  look();
}

TEST_F(EngineWayTest, PromptsAloneShareTheProcessors) {
  FakeModel model(1000);
  model.before = [&](const LanguageBatch&) -> Status {
    look(1);  // it would never come back
    return {};
  };
  EXPECT_EQ(must(engine(model, {.step_tokens = 50})->run(std::vector{numbered_request(200, 1)})).size(), 1U);
  EXPECT_EQ(tasks_, 4 * 7);
}

// What a device with memory of its own computes keeps nobody from the processors.
TEST_F(EngineWayTest, StepsOfACardTakeNothing) {
  FakeModel model(1000);
  model.before = [&](const LanguageBatch&) -> Status {
    look(1);
    return {};
  };
  const SmallDevice card(1 << 22, 1 << 22);
  EngineOptions options;
  options.way = &way_;
  const auto engine = must(Engine::create(model, tokenizer_, card, options));
  EXPECT_EQ(must(engine->run(std::vector{numbered_request(20, 5)})).front().token_ids.size(), 5U);
}

TEST_F(EngineWayTest, WhateverEndsAStepLetsTheOtherGoOn) {
  FakeModel model(100'000);
  std::atomic<bool> throws = false;
  model.before = [&](const LanguageBatch& batch) -> Status {
    if (throws && decodes(batch)) throw std::runtime_error("the model's fault");
    return {};
  };
  Listener broken, open;
  {
    const auto engine = this->engine(model);
    submit(*engine, numbered_request(10, kEndless), broken);
    broken.await_tokens(2);
    throws = true;
    EXPECT_EQ(broken.wait().error().code, Code::kInternal);
    look();
    throws = false;
    submit(*engine, numbered_request(10, kEndless), open);
    open.await_tokens(2);
    std::thread other([&] { look(200); });
    engine->shutdown();  // while both are at it
    other.join();
  }
  EXPECT_EQ(open.wait().error().code, Code::kUnavailable);
  look();
  EXPECT_EQ(tasks_, (20 + 200 + 20) * 7);
}

TEST_F(EngineWayTest, AnswersAreTheSameBesideAnother) {
  const TinyModel tiny(make_cpu_ops(threads_));
  const auto ask = [&](Engine& engine) {
    std::vector<GenerationRequest> requests;
    for (std::int32_t last = 3; last < 6; ++last) {
      requests.push_back(numbered_request(30, 40, last));
      for (std::int32_t& id : requests.back().prompt.token_ids) id %= 64;
      requests.back().logprobs = 2;
    }
    return must(engine.run(requests));
  };
  const auto alone = ask(*must(Engine::create(*tiny.model, tokenizer_, *tiny.ops)));
  std::atomic<bool> over = false;
  std::thread other([&] {
    while (!over) look(1);
  });
  EngineOptions options;
  options.way = &way_;
  options.stall_ms = 1;
  const auto beside = ask(*must(Engine::create(*tiny.model, tokenizer_, *tiny.ops, options)));
  over = true;
  other.join();
  for (std::size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(beside[i].token_ids, alone[i].token_ids);
    for (std::size_t t = 0; t < alone[i].logprobs.size(); ++t)
      EXPECT_EQ(beside[i].logprobs[t].chosen.logprob, alone[i].logprobs[t].chosen.logprob);
  }
}

}  // namespace
}  // namespace chiasm
